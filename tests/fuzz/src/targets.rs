//! What is done with a changed file of each kind: it is loaded, and if it loads, used. Errors are the expected outcome; their
//! messages are checked. Panics, hangs and memory out of proportion are finds.

use std::fs;
use std::path::PathBuf;

use attention_tokens::Gpt2Config;
use attention_tokens::experiments::{Component, VocabularyCounts};
use attention_tokens::notebook::plot_head;
use attention_tokens::prelude::*;
use ring::digest::{Context, SHA256};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::model;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    /// The JSON of a `.safetensors` file; its length and the numbers fit it.
    Header,
    /// A whole `.safetensors` file.
    Weights,
    Index,
    TokenizerJson,
    /// `vocab.json`, a zero byte, `merges.txt`.
    VocabAndMerges,
    /// `tokenizer_config.json`, a zero byte, `special_tokens_map.json`, a zero byte, `added_tokens.json`. Empty: no such file.
    AddedTokens,
    /// A whole `processed.safetensors`.
    Processed,
    /// A state of a sweep. Its checksum is made right.
    State,
    /// Activations in a file.
    Cache,
}

/// Name, kind, and the size of the model's vocabulary.
pub(crate) const KINDS: [(&str, Kind, usize); 10] = [
    ("config", Kind::Config, 7),
    ("header", Kind::Header, 7),
    ("weights", Kind::Weights, 7),
    ("index", Kind::Index, 7),
    ("tokenizer", Kind::TokenizerJson, 400),
    ("vocab", Kind::VocabAndMerges, 400),
    ("added", Kind::AddedTokens, 400),
    ("processed", Kind::Processed, 7),
    ("state", Kind::State, 7),
    ("cache", Kind::Cache, 7),
];

const TEXTS: [&str; 4] =
    ["The cat sat on the mat.", "<s> đem  \n\tcafé 12.5 %", "Ω🦀日本e\u{301}\u{0}", "aaaaaaaaaaaaaaaa▁x  "];

pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) d_vocab: usize,
    folder: tempfile::TempDir,
    /// For kinds that need one.
    model: Gpt2,
}

impl Target {
    /// # Errors
    /// A name that no target has, with those that there are.
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let known = || KINDS.map(|(name, ..)| name).join(", ");
        let Some(&(_, kind, d_vocab)) = KINDS.iter().find(|(known, ..)| *known == name) else {
            return Err(format!("ATTENTION_TOKENS_FUZZ_TARGET is {name:?}, expected one of {}", known()));
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let weights = model::safetensors(&model::tensors(d_vocab), Dtype::F32);
        fs::write(folder.path().join("config.json"), model::config(d_vocab).to_string()).expect("written");
        fs::write(folder.path().join("model.safetensors"), &weights).expect("written");
        let model = Gpt2::from_pretrained(folder.path().to_str().expect("UTF-8"), LoadOptions::default());
        let model = model.expect("the model loads");
        use_model(&model);
        let target = Self { kind, d_vocab, folder, model };
        target.write_neighbours();
        Ok(target)
    }

    pub(crate) fn model(&self) -> &Gpt2 {
        &self.model
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes the files beside which the changed one is read.
    fn write_neighbours(&self) {
        let remove = |file: &str| fs::remove_file(self.path(file)).expect("removed");
        match self.kind {
            Kind::Index => {
                remove("model.safetensors");
                let tensors = model::tensors(self.d_vocab);
                for (shard, tensors) in ["a", "b"].into_iter().zip(tensors.chunks(8)) {
                    self.write(&format!("{shard}.safetensors"), &model::safetensors(tensors, Dtype::F32));
                }
            }
            Kind::AddedTokens => {
                self.write("vocab.json", model::VOCAB.as_bytes());
                self.write("merges.txt", model::MERGES.as_bytes());
            }
            Kind::Processed => {
                // Not into the folder itself, which holds the model that is saved.
                self.model.save_processed(self.path("saved")).expect("saved");
                remove("model.safetensors");
                for file in ["config.json", "processed.safetensors"] {
                    fs::rename(self.path("saved").join(file), self.path(file)).expect("renamed");
                }
            }
            _ => (),
        }
    }

    fn write(&self, file: &str, data: &[u8]) {
        fs::write(self.path(file), data).expect("written");
    }

    pub(crate) fn run(&self, data: &[u8]) {
        let write = |file: &str, data: &[u8]| self.write(file, data);
        match self.kind {
            Kind::Config => {
                write("config.json", data);
                check(Gpt2Config::from_file(&self.path("config.json")).map(drop));
                self.load();
            }
            Kind::Header => {
                let whole = model::safetensors(&model::tensors(self.d_vocab), Dtype::F32);
                write("model.safetensors", &model::joined(data, model::split(&whole).1));
                self.load();
            }
            Kind::Weights => {
                write("model.safetensors", data);
                self.load();
            }
            Kind::Index => {
                write("model.safetensors.index.json", data);
                self.load();
            }
            Kind::TokenizerJson => {
                write("tokenizer.json", data);
                self.load();
            }
            Kind::VocabAndMerges => {
                let mut parts = data.splitn(2, |&byte| byte == 0);
                write("vocab.json", parts.next().unwrap_or_default());
                write("merges.txt", parts.next().unwrap_or_default());
                self.load();
            }
            Kind::AddedTokens => {
                let mut parts = data.splitn(3, |&byte| byte == 0);
                for file in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
                    match parts.next() {
                        Some(part) if !part.is_empty() => write(file, part),
                        _ => drop(fs::remove_file(self.path(file))), // of the run before
                    }
                }
                self.load();
            }
            Kind::Processed => {
                write("processed.safetensors", data);
                self.load();
            }
            Kind::State => self.state(data),
            Kind::Cache => {
                write("cache.safetensors", data);
                match ActivationCache::read_safetensors(&self.model, self.path("cache.safetensors")) {
                    Ok(cache) => {
                        let _ = format!("{cache:?}");
                        match head_data(&self.model, &cache, 0, 1, DecodeOptions::default()) {
                            Ok(data) => use_data(&data),
                            Err(error) => check(Err(error)),
                        }
                    }
                    Err(error) => check(Err(error)),
                }
            }
        }
    }

    /// Loads the folder as a model.
    fn load(&self) {
        match Gpt2::from_pretrained(self.folder.path().to_str().expect("UTF-8"), LoadOptions::default()) {
            Ok(model) => use_model(&model),
            Err(error) => check(Err(error)),
        }
    }

    fn state(&self, data: &[u8]) {
        let like = VocabularyCounts::new(&self.model, Projection::Output).expect("counts of the model");
        let path = self.path("state");
        fs::write(&path, with_checksum(data).unwrap_or_else(|| data.to_vec())).expect("written");
        match VocabularyCounts::load(&path, &like) {
            Ok(mut counts) => {
                let other = counts.clone();
                check(counts.merge(&other));
                for component in Component::ALL {
                    let _ = counts.table(component).to_text();
                    let _ = counts.plot_rank_frequency(component).to_json();
                    let _ = counts.shared_tokens(component).clustered().plot().to_json();
                }
                check(counts.save(&path));
            }
            Err(error) => check(Err(error)),
        }
    }
}

/// A state with the checksum that it should have, if it can be read at all.
fn with_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let tensors = SafeTensors::deserialize(data).ok()?;
    let (_, metadata) = SafeTensors::read_metadata(data).ok()?;
    let metadata = metadata.metadata().clone()?;
    let mut named: Vec<_> = metadata.iter().filter(|(name, _)| *name != "sha256").collect();
    named.sort_unstable();
    let mut context = Context::new(&SHA256);
    let views = ["index", "token", "count"].map(|name| tensors.tensor(name).ok());
    let [Some(index), Some(token), Some(count)] = &views else { return None };
    let texts = named.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    for part in texts.chain([index.data(), token.data(), count.data()]) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let digits: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let (header, body) = model::split(data);
    let mut header: serde_json::Value = serde_json::from_slice(header).ok()?;
    header["__metadata__"]["sha256"] = digits.into();
    Some(model::joined(header.to_string().as_bytes(), body))
}

/// An error's message is one line of a size that can be read, and no control character reaches the terminal.
fn check(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        let message = error.to_string();
        assert!(message.chars().count() < 3000, "a message of {} bytes: {message:.200}", message.len());
        assert!(!message.chars().any(char::is_control), "{message:?}");
        assert!(!message.is_empty());
    }
}

fn use_model(model: &Gpt2) {
    let _ = format!("{model:?}");
    match model.run_with_cache(vec![1_u32, 2, 0, 1]) {
        Ok((_, cache)) => match head_data(model, &cache, 0, 0, DecodeOptions::default()) {
            Ok(data) => use_data(&data),
            Err(error) => check(Err(error)),
        },
        Err(error) => check(Err(error)),
    }
    let Ok(tokenizer) = model.tokenizer() else { return };
    for text in TEXTS {
        match tokenizer.to_tokens(text) {
            Ok(tokens) => {
                check(tokenizer.to_string(&tokens).map(drop));
                for &token in tokens.iter().take(20) {
                    check(tokenizer.to_single_str_token(token).map(drop));
                }
            }
            Err(error) => check(Err(error)),
        }
    }
    for token in [0, 5, 399, 400, u32::MAX] {
        check(tokenizer.to_single_str_token(token).map(drop));
    }
    check(tokenizer.to_single_token(" the").map(drop));
}

fn use_data(data: &HeadData) {
    match data.prompt(0) {
        Ok(data) => {
            let figure = plot_head(&data);
            let _ = (figure.to_json(), figure.to_svg());
        }
        Err(error) => check(Err(error)),
    }
}
