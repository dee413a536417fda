//! The file of a sweep's counts, from which it resumes: safetensors with a checksum.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ring::digest::{Context, SHA256};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};

use super::counts::{Source, VocabularyCounts};
use crate::error::{Error, Result};
use crate::files::{hexadecimal, replace};

/// The place of a sweep in its file of prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::experiments) struct Place {
    /// The byte offset of the next prompt.
    pub(super) offset: u64,
    /// The number of prompts before the offset, of all shards.
    pub(in crate::experiments) n_read: u64,
    /// The SHA-256 of the bytes before the offset, in hexadecimal digits.
    pub(super) digest: String,
}

impl VocabularyCounts {
    /// Writes the counts to a file that [`load`](Self::load) reads back exactly.
    ///
    /// # Errors
    /// [`Error::Write`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_state(path.as_ref(), "", &Place::default())
    }

    /// Reads counts that [`save`](Self::save) has written, or [`count_file`](super::count_file) as its state. They must
    /// be of the same model and decoding as `like`, for instance `VocabularyCounts::new(&model, projection)?`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it holds no counts, [`Error::Shape`] or
    /// [`Error::OtherCounts`] if they are of another model or decoding.
    pub fn load(path: impl AsRef<Path>, like: &Self) -> Result<Self> {
        Ok(Self::read(path.as_ref(), like)?.counts)
    }

    /// Writes the counts, and the place of a sweep in its prompts. `key` are the properties of the sweep that must not
    /// change, as text.
    pub(super) fn save_state(&self, path: &Path, key: &str, place: &Place) -> Result<()> {
        let (mut index, mut token, mut count) = (Vec::new(), Vec::new(), Vec::new());
        for (head_and_component, counts) in self.counts.iter().enumerate() {
            for (&own_token, &own_count) in counts {
                index.extend_from_slice(&(head_and_component as u32).to_le_bytes());
                token.extend_from_slice(&own_token.to_le_bytes());
                count.extend_from_slice(&own_count.to_le_bytes());
            }
        }
        let n = index.len() / 4;
        let view = |dtype, bytes| TensorView::new(dtype, vec![n], bytes).expect("a number for each count");
        let tensors = [
            ("index", view(Dtype::U32, &index)),
            ("token", view(Dtype::U32, &token)),
            ("count", view(Dtype::U64, &count)),
        ];
        let source = &self.source;
        let mut metadata: Vec<(&str, String)> = vec![
            ("format", FORMAT.to_owned()),
            ("n_layers", source.n_layers.to_string()),
            ("n_heads", source.n_heads.to_string()),
            ("d_vocab", source.d_vocab.to_string()),
            ("reading", source.reading.to_string()),
            ("fingerprint", source.fingerprint.to_string()),
            ("n_prompts", self.n_prompts.to_string()),
            ("key", key.to_owned()),
            ("offset", place.offset.to_string()),
            ("n_read", place.n_read.to_string()),
            ("prompts_digest", place.digest.clone()),
        ];
        let named = metadata.iter().map(|(name, value)| (*name, value.as_str()));
        metadata.push((CHECKSUM, checksum(named, [&index, &token, &count])));
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::write(path, error))?;
        let bytes = with_sorted_header(bytes).map_err(|error| Error::write(path, error))?;
        replace(path, |path| std::fs::write(path, bytes))
    }

    /// Reads the state of a sweep with the same key: the counts, and the place in the file of prompts.
    pub(super) fn load_state(path: &Path, like: &Self, key: &str) -> Result<(Self, Place)> {
        let read = Self::read(path, like)?;
        if read.key != key {
            let expected = format!("the state of a sweep with {key}; remove it to begin anew");
            let found = if read.key.is_empty() { "counts of no sweep".into() } else { read.key };
            return Err(Error::Format { path: path.into(), expected, found, source: None });
        }
        Ok((read.counts, read.place))
    }

    /// Reads and checks a file of counts.
    fn read(path: &Path, like: &Self) -> Result<SavedCounts> {
        let format_error =
            |found: String| Error::Format { path: path.into(), expected: FORMAT.into(), found, source: None };
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut bytes = Vec::new();
        file.by_ref().take(8 + MAX_HEADER_BYTES).read_to_end(&mut bytes).map_err(Error::io(path))?;
        // Reading a header takes many times its size. That of a state has some texts and three tensors.
        let header_len = bytes.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        if header_len > MAX_HEADER_BYTES {
            return Err(format_error(format!("a header of {header_len} bytes")));
        }
        // The rest of a file of another kind may be larger than the memory.
        let kind = FORMAT.split(',').next().unwrap_or_default().as_bytes();
        if !bytes.windows(kind.len()).any(|text| text == kind) {
            return Err(format_error("a file whose header does not say so".into()));
        }
        file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        let unreadable = |error: SafeTensorError| Error::format(path, FORMAT, error);
        let tensors = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        let text = |name: &str| metadata.get(name).ok_or_else(|| format_error(format!("no {name}")));
        if text("format")? != FORMAT {
            return Err(format_error(text("format")?.clone()));
        }
        let [index, token, count] = ["index", "token", "count"].map(|name| tensors.tensor(name).map_err(unreadable));
        let (index, token, count) = (index?, token?, count?);
        let named = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let named = named.filter(|&(name, _)| name != CHECKSUM);
        if *text(CHECKSUM)? != checksum(named, [index.data(), token.data(), count.data()]) {
            return Err(format_error(
                "other bytes than its checksum says: the file is damaged; remove it to begin anew".into(),
            ));
        }
        let too_many = || format_error(format!("more than {MOST} prompts or tokens"));
        let number = |name: &str| {
            let text = text(name)?;
            text.parse::<u64>().map_err(|_| format_error(format!("{name} {text:?}")))
        };
        let reading = text("reading")?;
        let source = Source {
            n_layers: number("n_layers")? as usize,
            n_heads: number("n_heads")? as usize,
            d_vocab: number("d_vocab")? as usize,
            reading: reading.parse().map_err(|_| format_error(format!("reading {reading:?}")))?,
            fingerprint: number("fingerprint")?,
        };
        // Checked before an allocation of these sizes: from here on they are those of `like`.
        like.check_same_source(&source)?;
        let rows = |name: &str, tensor: &TensorView, dtype: Dtype| match tensor.shape() {
            &[n] if tensor.dtype() == dtype => Ok(n),
            shape => Err(format_error(format!("{name} of {:?} {shape:?}", tensor.dtype()))),
        };
        let n = rows("index", &index, Dtype::U32)?;
        let (n_tokens, n_counts) = (rows("token", &token, Dtype::U32)?, rows("count", &count, Dtype::U64)?);
        if n != n_tokens || n != n_counts {
            return Err(format_error(format!("{n} heads, {n_tokens} tokens and {n_counts} counts")));
        }
        let u32_at = |bytes: &[u8], row: usize| u32::from_le_bytes(*bytes.as_chunks().0.get(row).expect("n rows"));
        let mut counts = Self::empty(source, like.labels.clone());
        counts.n_prompts = Some(number("n_prompts")?).filter(|&n| n <= MOST).ok_or_else(too_many)?;
        let (d_vocab, mut total) = (counts.source.d_vocab, 0_u64);
        for row in 0..n {
            let (head_and_component, token) = (u32_at(index.data(), row) as usize, u32_at(token.data(), row));
            let value = u64::from_le_bytes(*count.data().as_chunks().0.get(row).expect("n rows"));
            let known = (token as usize) < d_vocab;
            let Some(own) = counts.counts.get_mut(head_and_component).filter(|_| known) else {
                return Err(format_error(format!(
                    "token {token} of head and component {head_and_component} in row {row}"
                )));
            };
            // As `save` writes them. A table divides by the sum, and sums must not overflow.
            if value == 0 || own.insert(token, value).is_some() {
                let found = format!("token {token} of head and component {head_and_component} counted as 0, or twice");
                return Err(format_error(found));
            }
            total = total.checked_add(value).filter(|&total| total <= MOST).ok_or_else(too_many)?;
        }
        let digest = text("prompts_digest")?.clone();
        let place = Place { offset: number("offset")?, n_read: number("n_read")?, digest };
        // A prompt has a byte at least. Sums with these numbers must not overflow.
        if place.n_read > place.offset || place.offset > MOST {
            return Err(format_error(format!("{} prompts in {} bytes", place.n_read, place.offset)));
        }
        Ok(SavedCounts { counts, key: text("key")?.clone(), place })
    }
}

/// The contents of a file of counts.
struct SavedCounts {
    counts: VocabularyCounts,
    /// The properties of the sweep that must not change, as text; empty if the file is not the state of a sweep.
    key: String,
    /// Where the sweep goes on.
    place: Place,
}

/// Format name and version, in the file's metadata and in error messages.
pub(super) const FORMAT: &str = "counts of attention tokens, version 2";

/// The largest header of a file of counts, in bytes: several times that of any.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// The largest sum of counts in a file: every number up to it is exact as `f64`, and thousands of such files add up
/// without an overflow.
const MOST: u64 = 1 << 53;

/// The name of the checksum in the file's metadata.
const CHECKSUM: &str = "sha256";

/// The SHA-256 of the file's metadata, in the order of their names, and of its tensors, in hexadecimal digits.
fn checksum<'a>(metadata: impl Iterator<Item = (&'a str, &'a str)>, tensors: [&[u8]; 3]) -> String {
    let mut metadata: Vec<_> = metadata.collect();
    metadata.sort_unstable();
    let mut context = Context::new(&SHA256);
    let texts = metadata.into_iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    // With their lengths, so that no byte can change from one to the next.
    for part in texts.chain(tensors) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    hexadecimal(context.finish())
}

/// A safetensors file with its header in the order of names, so that the same counts are the same bytes: safetensors writes
/// metadata in the random order of a hash map.
fn with_sorted_header(mut file: Vec<u8>) -> Result<Vec<u8>, serde_json::Error> {
    let (length, rest) = file.split_first_chunk_mut::<8>().expect("the length of the header");
    let header = &mut rest[..u64::from_le_bytes(*length) as usize];
    // A map of serde_json would keep the order of the file if any crate enabled that feature.
    let fields: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_slice(header)?;
    // The same text in another order; spaces at its end align the tensors.
    let sorted = serde_json::to_vec(&fields)?;
    header.fill(b' ');
    header[..sorted.len()].copy_from_slice(&sorted);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::counts::tests::counts;
    use super::*;

    #[test]
    fn the_same_counts_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let counts = counts([&[(5, 2), (7, 1)], &[(7, 8)]]);
        let place = Place { offset: 7, n_read: 1, digest: "ä \"quoted\"".into() };
        let bytes: Vec<Vec<u8>> = (0..8)
            .map(|n| {
                let path = folder.path().join(n.to_string());
                counts.save_state(&path, "key", &place).unwrap();
                let (read, at) = VocabularyCounts::load_state(&path, &counts, "key").unwrap();
                assert_eq!((read.counts, at), (counts.counts.clone(), place.clone()));
                std::fs::read(path).unwrap()
            })
            .collect();
        assert!(bytes.iter().all(|other| *other == bytes[0]));
    }

    /// Files with a right checksum and with numbers that no sweep writes, whose sums would overflow.
    #[test]
    fn counts_that_no_sweep_writes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let load = |written: &VocabularyCounts| {
            written.save(&path).unwrap();
            VocabularyCounts::load(&path, &counts([&[], &[]]))
        };
        let error = |written: &VocabularyCounts| load(written).unwrap_err().to_string();
        let mut most = counts([&[(5, MOST - 1)], &[(7, 1)]]);
        most.n_prompts = MOST;
        let mut read = load(&most).unwrap();
        for _ in 0..1000 {
            read.merge(&most).unwrap();
        }
        assert_eq!(read.n_prompts, 1001 * MOST);
        most.n_prompts += 1;
        assert!(error(&most).contains("more than 9007199254740992 prompts or tokens"), "{}", error(&most));
        for heads in [[&[(5, MOST)][..], &[(7, 1)]], [&[(5, u64::MAX), (6, u64::MAX)], &[]]] {
            assert!(error(&counts(heads)).contains("more than 9007199254740992 prompts or tokens"));
        }
        assert!(error(&counts([&[(5, 0)], &[]])).contains("token 5 of head and component 0 counted as 0, or twice"));
        // A place in a file that no file has.
        for (offset, n_read) in [(3, 4), (MOST + 1, 5), (u64::MAX, u64::MAX)] {
            let place = Place { offset, n_read, digest: String::new() };
            counts([&[], &[]]).save_state(&path, "key", &place).unwrap();
            let message = VocabularyCounts::load(&path, &counts([&[], &[]])).unwrap_err().to_string();
            assert!(message.contains(&format!("{n_read} prompts in {offset} bytes")), "{message}");
        }
        // Two rows of one token.
        counts([&[(5, 1), (6, 1)], &[]]).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let rows: Vec<usize> = (0..=bytes.len() - 4).filter(|&at| bytes[at..at + 4] == 6_u32.to_le_bytes()).collect();
        assert_eq!(rows.len(), 1, "the token 6");
        bytes[rows[0]] = 5;
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = ["index", "token", "count"].map(|name| tensors.tensor(name).unwrap().data());
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let named = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let right = checksum(named.filter(|&(name, _)| name != CHECKSUM), data);
        let at = bytes.windows(64).position(|window| window == metadata[CHECKSUM].as_bytes()).unwrap();
        bytes[at..at + 64].copy_from_slice(right.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let message = VocabularyCounts::load(&path, &counts([&[], &[]])).unwrap_err().to_string();
        assert!(message.contains("token 5 of head and component 0 counted as 0, or twice"), "{message}");
    }
}
