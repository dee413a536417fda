//! The files that a target begins with: those of the fixtures, and files of the small model in each form.

use std::fs;

use attention_tokens::experiments::VocabularyCounts;
use attention_tokens::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::corpus::root;
use super::model;
use super::targets::{Kind, Target};

pub(crate) fn of(target: &Target) -> Vec<Vec<u8>> {
    let read = |path: &str| fs::read(root().join(path)).expect("a fixture");
    let tensors = model::tensors(target.d_vocab);
    let weights = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64].map(|dtype| model::safetensors(&tensors, dtype));
    let with_prefix: Vec<_> =
        tensors.iter().map(|(name, shape)| (format!("transformer.{name}"), shape.clone())).collect();
    let tokenizer = |name: &str| read(&format!("tests/fixtures/tokenizers/{name}.json"));
    match target.kind {
        Kind::Config => {
            let mut seeds = vec![model::config(target.d_vocab).to_string().into_bytes()];
            let folders = ["tests/fixtures/tiny", "tests/fixtures/odd", "crate/demo-model", "crate/letters-model"];
            seeds.extend(folders.map(|folder| read(&format!("{folder}/config.json"))));
            seeds
        }
        Kind::Header => {
            let mut seeds: Vec<Vec<u8>> = weights.iter().map(|file| model::split(file).0.to_vec()).collect();
            seeds.push(model::split(&read("tests/fixtures/tiny/model.safetensors")).0.to_vec());
            seeds.push(model::split(&model::safetensors(&with_prefix, Dtype::F32)).0.to_vec());
            seeds
        }
        Kind::Weights => {
            let mut seeds = weights.to_vec();
            seeds.push(model::safetensors(&with_prefix, Dtype::F32));
            seeds
        }
        Kind::Index => {
            let shards = tensors.iter().enumerate().map(|(place, (name, _))| {
                (name.clone(), json!(if place < 8 { "a.safetensors" } else { "b.safetensors" }))
            });
            let map: serde_json::Map<_, _> = shards.collect();
            vec![json!({"metadata": {"total_size": 1000}, "weight_map": map}).to_string().into_bytes()]
        }
        Kind::TokenizerJson => {
            let names = ["byte_fallback", "byte_level", "unigram", "word_level", "word_piece"];
            let mut seeds = names.map(tokenizer).to_vec();
            seeds.push(read("crate/letters-model/tokenizer.json"));
            seeds
        }
        Kind::VocabAndMerges => {
            let seed = [model::VOCAB, "\0", model::MERGES].concat();
            vec![seed.into_bytes(), b"{\"a\":0}\0".to_vec()]
        }
        Kind::AddedTokens => {
            let decoder = json!({"5": {"content": "<|endoftext|>", "special": true, "normalized": false, "lstrip": false,
                "rstrip": false, "single_word": false}, "9": {"content": "<pad>", "lstrip": true}});
            let config = json!({"add_bos_token": true, "bos_token": "<|endoftext|>", "added_tokens_decoder": decoder});
            let special = json!({"bos_token": {"content": "<|endoftext|>"}, "pad_token": "<pad>", "unk_token": "a"});
            let added = json!({"<pad>": 9, "<x y>": 10});
            let seed = |files: [String; 3]| files.join("\0").into_bytes();
            let none = String::new;
            vec![
                seed([config.to_string(), special.to_string(), added.to_string()]),
                seed([none(), special.to_string(), added.to_string()]),
                seed([json!({"bos_token": "a", "model_max_length": 12}).to_string(), none(), added.to_string()]),
            ]
        }
        Kind::Processed => vec![read_back(|path| target.model().save_processed(path), "processed.safetensors")],
        Kind::State => {
            let mut counts = VocabularyCounts::new(target.model(), Projection::Output).expect("counts of the model");
            let mut seeds = vec![saved(&counts)];
            counts.add(target.model(), vec![1_u32, 2, 3]).expect("counted");
            seeds.push(saved(&counts));
            seeds
        }
        Kind::Cache => {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            let prompts = [vec![vec![1_u32, 2, 3]], vec![vec![1, 2], vec![3]]];
            let written = prompts.map(|prompts| {
                let (_, cache) = target.model().run_with_cache(prompts).expect("a run");
                cache.write_safetensors(target.model(), file.path()).expect("written");
                fs::read(file.path()).expect("read")
            });
            written.to_vec()
        }
    }
}

/// A file of a folder that `save` has filled.
fn read_back(save: impl Fn(&std::path::Path) -> Result<(), Error>, file: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("saved");
    save(&folder).expect("saved");
    fs::read(folder.join(file)).expect("read")
}

fn saved(counts: &VocabularyCounts) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    counts.save(file.path()).expect("written");
    fs::read(file.path()).expect("read")
}
