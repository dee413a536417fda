//! Kinds of files, recognized by their first bytes: what a download often leaves in the place of a model's file.

use std::fmt;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// How to have safetensors of a pickle.
pub(crate) const CONVERT_PICKLE: &str = "convert it in Python: transformers.GPT2LMHeadModel.from_pretrained(FOLDER).save_pretrained(FOLDER, \
     safe_serialization=True)";

/// The number of bytes that tell a file's kind. A Git LFS pointer is shorter; the name of the first file in a zip
/// archive comes early.
const FIRST_BYTES: usize = 512;

/// The content that a file of a model should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Weights in safetensors.
    Safetensors,
    /// JSON: a configuration, an index, a tokenizer.
    Json,
    /// Lines of text: a tokenizer's merges.
    Text,
}

/// [`Error::Format`] if the first bytes of a file are those of another kind of file. The error names that kind and says
/// what to do; `expected` describes the right file. A file of no known kind passes: its reader reports what is wrong.
///
/// # Errors
/// [`Error::Format`]; [`Error::Io`] if the file cannot be read.
pub(crate) fn check_kind(path: &Path, content: Content, expected: &str) -> Result<()> {
    let mut first_bytes = Vec::with_capacity(FIRST_BYTES);
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(FIRST_BYTES as u64).read_to_end(&mut first_bytes).map_err(Error::io(path))?;
    match Kind::of(&first_bytes) {
        Some(kind) if !kind.is(content) => {
            Err(Error::Format { path: path.into(), expected: expected.into(), found: kind.to_string(), source: None })
        }
        _ => Ok(()),
    }
}

/// The largest size of a file that is read whole. The client of the Hub has the same limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    what: &'static str,
    pub(crate) bytes: u64,
}

impl Limit {
    /// A `config.json`, or an index of shards: published ones have less than 1 MB.
    pub(crate) const CONFIG: Self = Self { what: "a file", bytes: 16_000_000 };
    /// A vocabulary with its merges, or all of a tokenizer: the largest published ones have about 35 MB.
    pub(crate) const TOKENIZER: Self = Self { what: "a tokenizer's file", bytes: 200_000_000 };
    /// The files beside a tokenizer, which name its added and special tokens: published ones have less than 1 MB.
    pub(crate) const BESIDE_TOKENIZER: Self = Self { what: "a file", bytes: 16_000_000 };
}

/// The bytes of a file that is read whole. `content` and `expected` describe the right file.
///
/// # Errors
/// [`Error::Format`] for a file of another kind or a longer one; [`Error::Io`].
pub(crate) fn read(path: &Path, content: Content, expected: &str, limit: Limit) -> Result<Vec<u8>> {
    check_kind(path, content, expected)?;
    let file = File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    if size > limit.bytes {
        let expected = format!("{} of at most {} MB", limit.what, limit.bytes / 1_000_000);
        return Err(Error::Format { path: path.into(), expected, found: format!("{size} bytes"), source: None });
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // A file that grows meanwhile is not read to its new end.
    file.take(limit.bytes).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// Fills `bytes` from an open file of a known length.
///
/// # Errors
/// [`Error::Io`], which says of a file that ends before that it has become shorter.
pub(crate) fn read_exact(file: &mut File, bytes: &mut [u8], path: &Path) -> Result<()> {
    file.read_exact(bytes).map_err(|error| {
        Error::io(path)(match error.kind() {
            ErrorKind::UnexpectedEof => {
                IoError::new(error.kind(), "it has become shorter while it was read; try again once it is whole")
            }
            _ => error,
        })
    })
}

/// [`read`] for text in UTF-8.
pub(crate) fn read_text(path: &Path, content: Content, expected: &str, limit: Limit) -> Result<String> {
    let invalid = |error| IoError::new(ErrorKind::InvalidData, error);
    String::from_utf8(read(path, content, expected, limit)?).map_err(|error| Error::io(path)(invalid(error)))
}

/// A kind of file. `Display` names it and says what to do if it is in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    /// The text that Git has in the place of a large file, with the file's size in bytes.
    LfsPointer {
        size: Option<u64>,
    },
    Html,
    Xml,
    /// A zip archive, which is PyTorch's format since version 1.6 if it has a `data.pkl`.
    Zip {
        of_torch: bool,
    },
    Pickle,
    Gguf,
    Hdf5,
    Gzip,
    Utf16,
    Safetensors,
    Json {
        start: String,
    },
}

impl Kind {
    /// The kind of a file that begins with these bytes, if it is a known one.
    fn of(bytes: &[u8]) -> Option<Self> {
        let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let begins = |start: &str| text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
        Some(match bytes {
            [] => Self::Empty,
            // Before the pickle: the first bytes of a safetensors file are the length of its header, and can be any.
            [_, _, _, _, 0, 0, 0, 0, b'{', ..] => Self::Safetensors,
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Self::Zip { of_torch: contains(b"/data.pkl") },
            // Protocol 2 to 5, then a first instruction that a pickle can have: a frame, an integer, a dictionary, a
            // list, a tuple, a global, a text.
            [0x80, 2..=5, 0x95 | 0x8a | b'}' | b']' | b'(' | b'c' | b'X', ..] => Self::Pickle,
            [b'G', b'G', b'U', b'F', ..] => Self::Gguf,
            [0x89, b'H', b'D', b'F', ..] => Self::Hdf5,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Self::Utf16,
            _ if begins("version https://git-lfs") => {
                let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
                Self::LfsPointer { size }
            }
            _ if ["<!doctype", "<html", "<head", "<body"].into_iter().any(begins) => Self::Html,
            _ if begins("<?xml") => Self::Xml,
            _ if begins("{") || begins("[") => Self::Json { start: text.chars().take(60).collect() },
            _ => return None,
        })
    }

    /// Whether a file of this kind can have this content.
    fn is(&self, content: Content) -> bool {
        match self {
            Self::Safetensors => content == Content::Safetensors,
            Self::Json { .. } => content != Content::Safetensors,
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NOT_READ: &str = "which can run any code when it is read";
        const AGAIN: &str = "download the file again (on the Hub, from an address with /resolve/ in it, not /blob/)";
        match self {
            Self::Empty => write!(f, "an empty file: its download was interrupted, or the disk was full; {AGAIN}"),
            Self::LfsPointer { size } => {
                write!(f, "a Git LFS pointer, the text that Git has in the place of a file")?;
                if let Some(size) = size {
                    write!(f, " of {size} bytes")?;
                }
                write!(f, ": run `git lfs pull` in its folder, or {AGAIN}")
            }
            Self::Html => write!(f, "a web page (HTML), which a server sends for a login, an error or a view: {AGAIN}"),
            Self::Xml => write!(f, "an XML document, which a server sends for an error: {AGAIN}"),
            Self::Zip { of_torch: true } => {
                write!(
                    f,
                    "a pickle of PyTorch (torch.save), {NOT_READ}: name it pytorch_model.bin and {CONVERT_PICKLE}"
                )
            }
            Self::Zip { of_torch: false } => write!(f, "a zip archive: unpack it, and give the folder with its files"),
            Self::Pickle => {
                write!(
                    f,
                    "a pickle of Python, {NOT_READ}: if it has weights, name it pytorch_model.bin and {CONVERT_PICKLE}"
                )
            }
            Self::Gguf => write!(f, "a GGUF file of llama.cpp, {NO_GGUF}"),
            Self::Hdf5 => write!(f, "an HDF5 file (weights of TensorFlow or Keras): {FROM_TENSORFLOW}"),
            Self::Gzip => write!(f, "a gzip archive: unpack it"),
            Self::Utf16 => {
                write!(f, "text in UTF-16, as some editors and shells of Windows write it: save it in UTF-8")
            }
            Self::Safetensors => write!(f, "a safetensors file: give it its own name, model.safetensors, and {AGAIN}"),
            Self::Json { start } => write!(f, "JSON that begins with {start:?}: {AGAIN}"),
        }
    }
}

/// Why a GGUF file is refused, and what to do.
pub(crate) const NO_GGUF: &str =
    "whose weights are quantized or laid out for llama.cpp: load the model that it was made from, in safetensors";

/// What to do with weights of TensorFlow, and with those of Flax. Version 5 of transformers reads neither.
pub(crate) const FROM_TENSORFLOW: &str = "convert it in Python with transformers 4: \
     transformers.GPT2LMHeadModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(FOLDER)";
pub(crate) const FROM_FLAX: &str = "convert them in Python with transformers 4: \
     transformers.GPT2LMHeadModel.from_pretrained(FOLDER, from_flax=True).save_pretrained(FOLDER)";

#[cfg(test)]
mod tests {
    use super::*;

    /// The message for a file of these bytes in the place of `content`, if it is refused.
    fn refused(bytes: &[u8], content: Content) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check_kind(file.path(), content, "the right file").err().map(|error| error.to_string())
    }

    /// The first bytes of files that git-lfs, the Hub, torch, pickle, numpy, llama.cpp, Keras and gzip wrote.
    #[test]
    fn other_files_are_named_with_a_remedy() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:\
                        248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707\nsize 548105171\n";
        let torch_zip = b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
                          \x00\x00\x11\x00\x2b\x00pytorch_model/data.pklFB";
        let other_zip = b"PK\x03\x04\x2d\x00\x00\x00\x00\x00\x00\x00\x21\x00config.json";
        let torch_legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
        let cases: [(&[u8], &str, &str); 14] = [
            (b"", "an empty file", "download the file again"),
            (
                pointer,
                "a Git LFS pointer, the text that Git has in the place of a file of 548105171 bytes",
                "git lfs pull",
            ),
            (b"\n <!DOCTYPE html>\n<html class=\"\">", "a web page (HTML)", "/resolve/"),
            (b"<html><body>Sign in", "a web page (HTML)", "/resolve/"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied", "an XML document", "download the file again"),
            (torch_zip, "a pickle of PyTorch", "save_pretrained"),
            (other_zip, "a zip archive", "unpack it"),
            (torch_legacy, "a pickle of Python", "save_pretrained"),
            (b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00}", "a pickle of Python", "save_pretrained"),
            (b"\x80\x02}q\x00X\x03\x00\x00\x00", "a pickle of Python", "save_pretrained"),
            (b"GGUF\x03\x00\x00\x00", "a GGUF file of llama.cpp", "in safetensors"),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "from_tf=True"),
            (b"\x1f\x8b\x08\x00", "a gzip archive", "unpack it"),
            (b"\xff\xfe{\x00", "text in UTF-16", "UTF-8"),
        ];
        for (bytes, kind, remedy) in cases {
            for content in [Content::Safetensors, Content::Json, Content::Text] {
                let message = refused(bytes, content).unwrap_or_else(|| panic!("{kind} passed for {content:?}"));
                assert!(message.contains(&format!(": expected the right file, found {kind}")), "{message}");
                assert!(message.contains(remedy), "{message}");
                assert_eq!(message.lines().count(), 1, "{message}");
            }
        }
    }

    #[test]
    fn the_right_kind_and_unknown_kinds_pass() {
        // A header of 640 bytes begins like a pickle, one of 5261648 bytes like a zip archive.
        let safetensors: [&[u8]; 3] =
            [b"\x40\0\0\0\0\0\0\0{\"wte", b"\x80\x02\0\0\0\0\0\0{\"a\"", b"PK\x03\x04\0\0\0\0{\""];
        for bytes in safetensors {
            assert_eq!(refused(bytes, Content::Safetensors), None);
            assert!(refused(bytes, Content::Json).unwrap().contains("found a safetensors file"));
        }
        for json in [b" {\"model_type\": \"gpt2\"}".as_slice(), b"[]", b"\xef\xbb\xbf{}"] {
            assert_eq!(refused(json, Content::Json), None);
            assert!(refused(json, Content::Safetensors).unwrap().contains("found JSON that begins with "));
        }
        for text in [b"#version: 0.2\nh e\n".as_slice(), b"{ {\n", b"<| endoftext\n", b"\xc4\x91 e", b"\x80\x02\0\0"] {
            assert_eq!(refused(text, Content::Text), None);
        }
    }
}
