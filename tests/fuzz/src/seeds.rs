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
            let vocab = json!({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "<|endoftext|>": 5, "t": 6, "h": 7, "th": 8});
            let merges = "#version: 0.2\na b\nĠ a\nt h\n";
            vec![[vocab.to_string().as_bytes(), &[0], merges.as_bytes()].concat(), b"{\"a\":0}\0".to_vec()]
        }
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

fn saved(counts: &VocabularyCounts) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    counts.save(file.path()).expect("written");
    fs::read(file.path()).expect("read")
}
