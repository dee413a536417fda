//! Files of vocabulary counts: CSV and Parquet for dataframes, safetensors to resume a sweep.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};

use super::counts::{Component, Source, VocabularyCounts};
use crate::error::{Error, Result};

/// One count: layer, head, component, token id, count.
type Row = (usize, usize, Component, u32, u64);

impl VocabularyCounts {
    /// All counts, head by head. Shape: → `[count]`.
    fn rows(&self) -> impl Iterator<Item = Row> {
        let n_heads = self.source.n_heads;
        let n = Component::ALL.len();
        self.counts.iter().enumerate().flat_map(move |(index, counts)| {
            let (layer, head) = (index / n / n_heads, index / n % n_heads);
            counts.iter().map(move |(&token, &count)| (layer, head, Component::ALL[index % n], token, count))
        })
    }

    /// Writes a CSV file with a row for each count, and the columns `layer`, `head`, `component`, `token_id`, `token`,
    /// `count`.
    ///
    /// In pandas: `pandas.read_csv(path, keep_default_na=False)`, because a token may be `NA` or `null`.
    ///
    /// # Errors
    /// [`Error::Write`], naming the file.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.csv(path).map_err(|error| Error::write(path, error))
    }

    /// [`write_csv`](Self::write_csv) with the errors of `csv`.
    fn csv(&self, path: &Path) -> Result<(), csv::Error> {
        let mut csv = csv::Writer::from_path(path)?;
        csv.write_record(["layer", "head", "component", "token_id", "token", "count"])?;
        for (layer, head, component, token, count) in self.rows() {
            let text = self.labels.text(token);
            csv.serialize((layer, head, component.name(), token, text, count))?;
        }
        Ok(csv.flush()?)
    }

    /// Writes the columns of [`write_csv`](Self::write_csv) as a Parquet file. In pandas: `pandas.read_parquet(path)`;
    /// in polars: `polars.read_parquet(path)`. Needs the feature `parquet`, which the prebuilt library of notebooks
    /// has.
    ///
    /// # Errors
    /// [`Error::Write`], naming the file.
    #[cfg(feature = "parquet")]
    pub fn write_parquet(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.parquet(path).map_err(|error| Error::write(path, error))
    }

    /// [`write_parquet`](Self::write_parquet) with the errors of `parquet`.
    #[cfg(feature = "parquet")]
    fn parquet(&self, path: &Path) -> Result<(), parquet::errors::ParquetError> {
        use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
        use parquet::file::writer::SerializedFileWriter;
        const SCHEMA: &str =
            "message counts { REQUIRED INT32 layer; REQUIRED INT32 head; REQUIRED BINARY component (UTF8);
            REQUIRED INT32 token_id; REQUIRED BINARY token (UTF8); REQUIRED INT64 count; }";
        /// Rows of a row group, whose columns are in memory at once.
        const GROUP: usize = 1 << 20;
        let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(SCHEMA)?);
        let mut file = SerializedFileWriter::new(std::fs::File::create(path)?, schema, Default::default())?;
        let rows: Vec<Row> = self.rows().collect();
        for rows in rows.chunks(GROUP) {
            let mut group = file.next_row_group()?;
            let integers = |of: fn(&Row) -> usize| rows.iter().map(|row| of(row) as i32).collect::<Vec<_>>();
            let texts = |of: &dyn Fn(&Row) -> String| {
                rows.iter().map(|row| ByteArray::from(of(row).as_str())).collect::<Vec<_>>()
            };
            let text = |row: &Row| self.labels.text(row.3);
            let mut index = 0;
            while let Some(mut column) = group.next_column()? {
                match index {
                    0 => column.typed::<Int32Type>().write_batch(&integers(|row| row.0), None, None)?,
                    1 => column.typed::<Int32Type>().write_batch(&integers(|row| row.1), None, None)?,
                    2 => column.typed::<ByteArrayType>().write_batch(&texts(&|row| row.2.name().into()), None, None)?,
                    3 => column.typed::<Int32Type>().write_batch(&integers(|row| row.3 as usize), None, None)?,
                    4 => column.typed::<ByteArrayType>().write_batch(&texts(&text), None, None)?,
                    _ => {
                        let counts: Vec<i64> = rows.iter().map(|row| row.4 as i64).collect();
                        column.typed::<Int64Type>().write_batch(&counts, None, None)?
                    }
                };
                column.close()?;
                index += 1;
            }
            group.close()?;
        }
        file.close().map(drop)
    }

    /// Writes the counts to a file that [`load`](Self::load) reads back exactly.
    ///
    /// # Errors
    /// [`Error::Write`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_state(path.as_ref(), "", 0, 0)
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

    /// Writes the counts, and the position of a sweep in its prompts. The file is replaced atomically: if the process
    /// is killed, the old or the new file is complete.
    pub(super) fn save_state(&self, path: &Path, key: &str, offset: u64, n_read: u64) -> Result<()> {
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
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("n_layers", source.n_layers.to_string()),
            ("n_heads", source.n_heads.to_string()),
            ("d_vocab", source.d_vocab.to_string()),
            ("reading", source.reading.to_string()),
            ("fingerprint", source.fingerprint.to_string()),
            ("n_prompts", self.n_prompts.to_string()),
            ("key", key.to_owned()),
            ("offset", offset.to_string()),
            ("n_read", n_read.to_string()),
        ];
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::write(path, error))?;
        let temporary = path.with_extension("writing");
        std::fs::write(&temporary, bytes).map_err(|error| Error::write(&temporary, error))?;
        std::fs::rename(&temporary, path).map_err(|error| Error::write(path, error))
    }

    /// Reads the state of a sweep with the same key: the counts, the byte offset in the file of prompts, and the number
    /// of prompts before it.
    pub(super) fn load_state(path: &Path, like: &Self, key: &str) -> Result<(Self, u64, u64)> {
        let read = Self::read(path, like)?;
        if read.key != key {
            let expected = format!("the state of a sweep over a file of {key}; remove it to begin anew");
            return Err(Error::Format { path: path.into(), expected, found: read.key, source: None });
        }
        Ok((read.counts, read.offset, read.n_read))
    }

    /// Reads and checks a file of counts.
    fn read(path: &Path, like: &Self) -> Result<SavedCounts> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let format_error =
            |found: String| Error::Format { path: path.into(), expected: FORMAT.into(), found, source: None };
        let unreadable = |error: SafeTensorError| Error::format(path, FORMAT, error);
        let tensors = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        let text = |name: &str| metadata.get(name).ok_or_else(|| format_error(format!("no {name}")));
        if text("format")? != FORMAT {
            return Err(format_error(text("format")?.clone()));
        }
        let number = |name: &str| {
            let text = text(name)?;
            text.parse::<u64>().map_err(|_| format_error(format!("{name} {text:?}")))
        };
        let reading = match metadata.get("reading") {
            Some(reading) => reading.clone(),
            // Files from before readings hold a projection, and the newer ones of these whether `b_U` was added.
            None => match metadata.get("unembed_bias").map(String::as_str) {
                Some("false") => format!("{}, without b_U", text("projection")?),
                None | Some("true") => text("projection")?.clone(),
                Some(other) => return Err(format_error(format!("unembed_bias {other:?}"))),
            },
        };
        let source = Source {
            n_layers: number("n_layers")? as usize,
            n_heads: number("n_heads")? as usize,
            d_vocab: number("d_vocab")? as usize,
            reading: reading.parse().map_err(|_| format_error(format!("reading {reading:?}")))?,
            fingerprint: number("fingerprint")?,
        };
        // Checked before an allocation of these sizes: from here on they are those of `like`.
        like.check_same_source(&source)?;
        let column = |name: &str, dtype: Dtype| {
            let tensor = tensors.tensor(name).map_err(unreadable)?;
            match tensor.shape() {
                &[n] if tensor.dtype() == dtype => Ok((n, tensor.data().to_vec())),
                shape => Err(format_error(format!("{name} of {:?} {shape:?}", tensor.dtype()))),
            }
        };
        let ((n, index), (n_tokens, token), (n_counts, count)) =
            (column("index", Dtype::U32)?, column("token", Dtype::U32)?, column("count", Dtype::U64)?);
        if n != n_tokens || n != n_counts {
            return Err(format_error(format!("{n} heads, {n_tokens} tokens and {n_counts} counts")));
        }
        let u32_at = |bytes: &[u8], row: usize| u32::from_le_bytes(*bytes.as_chunks().0.get(row).expect("n rows"));
        let mut counts = Self::empty(source, like.labels.clone());
        counts.n_prompts = number("n_prompts")?;
        let d_vocab = counts.source.d_vocab;
        for row in 0..n {
            let (head_and_component, token) = (u32_at(&index, row) as usize, u32_at(&token, row));
            let value = u64::from_le_bytes(*count.as_chunks().0.get(row).expect("n rows"));
            let known = (token as usize) < d_vocab;
            let Some(own) = counts.counts.get_mut(head_and_component).filter(|_| known) else {
                return Err(format_error(format!(
                    "token {token} of head and component {head_and_component} in row {row}"
                )));
            };
            own.insert(token, value);
        }
        Ok(SavedCounts { counts, key: text("key")?.clone(), offset: number("offset")?, n_read: number("n_read")? })
    }
}

/// The contents of a file of counts.
struct SavedCounts {
    counts: VocabularyCounts,
    /// The properties of the sweep that must not change, as text; empty if the file is not the state of a sweep.
    key: String,
    /// Byte offset of the next prompt.
    offset: u64,
    /// Number of prompts before the offset, of all shards.
    n_read: u64,
}

/// Format name and version, in the file's metadata and in error messages.
const FORMAT: &str = "counts of attention tokens, version 1";
