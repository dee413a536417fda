//! Checkpoints in the forms that people have: settings of other GPT-2s, prefixes of wrappers, further heads, dtypes.

use std::fs;
use std::path::Path;

use attention_tokens::ndarray::{Array2, Array3, Axis};
use attention_tokens::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::support::{Folder, Tensors, assert_close, bytes, example, fixture, floats, load, read, root, write};

const TOKENS: [u32; 5] = [1, 5, 9, 2, 40];

/// The logits of a folder's model. Shape: → `[pos, d_vocab]`.
fn logits(folder: &Path) -> Array2<f32> {
    load(folder).unwrap().forward(TOKENS.to_vec()).unwrap().remove(0)
}

/// The lines about files that loading a folder writes to stderr, by a program.
fn lines(folder: &Path) -> String {
    let stderr = String::from_utf8(example("checksums").arg(folder).output().unwrap().stderr).unwrap();
    let about_files = stderr.lines().filter(|line| line.contains("model.safetensors: "));
    about_files.map(|line| format!("{line}\n")).collect()
}

/// Renames every tensor.
fn rename(folder: &Folder, name: impl Fn(&str) -> String) {
    folder.edit(|tensors| *tensors = std::mem::take(tensors).into_iter().map(|(key, t)| (name(&key), t)).collect());
}

/// `tests/fixtures/variants.py` says what is in the file.
#[test]
fn settings_of_other_gpt2s_are_those_of_transformers() {
    let path = root().join("tests/fixtures/variants.safetensors");
    let file = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    let all = read(&root().join("tests/fixtures/variants.safetensors"));
    let configs = header.metadata().clone().unwrap();
    assert_eq!(configs.len(), 4);
    for (variant, config) in configs {
        let tensor = |name: &str| &all[&format!("{variant}/{name}")];
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        let prefix = format!("{variant}/weights/");
        let weights: Tensors = all
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone())))
            .collect();
        write(&folder.path().join("model.safetensors"), &weights);
        let tokens: Vec<u32> =
            tensor("tokens").2.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token)).collect();
        for device in [Device::cpu(), Device::dfdx_cpu()] {
            // Without processing, logits are those of transformers up to rounding; processing must not change them either,
            // up to a constant for each position.
            for processing in [Processing::none(), Processing::default()] {
                let options = LoadOptions::default().device(device).processing(processing);
                let model = Gpt2::from_pretrained(folder.path().to_string_lossy(), options).unwrap();
                let (logits, cache) = model.run_with_cache(tokens.clone()).unwrap();
                let want = Array2::from_shape_vec(logits[0].dim(), floats(&tensor("logits").2)).unwrap();
                let center = |x: &Array2<f32>| x - &x.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                assert_close(&center(&logits[0]), &center(&want), 1e-5);
                let pattern = floats(&tensor("pattern").2);
                for (layer, want) in pattern.chunks(3 * 8 * 8).enumerate() {
                    let got = cache.get(Activation::Pattern, layer).unwrap();
                    assert_close(&got, &Array3::from_shape_vec((3, 8, 8), want.to_vec()).unwrap().into_dyn(), 1e-5);
                    // The scores follow the settings too: their softmax is the pattern.
                    let mut scores = cache.get(Activation::AttnScores, layer).unwrap().mapv(f32::exp);
                    for mut row in scores.rows_mut() {
                        let sum = row.sum();
                        row /= sum;
                    }
                    assert_close(&scores, &got, 1e-5);
                }
                let check = attention_tokens::experiments::AttentionScoreCheck::new(&cache).unwrap();
                assert!(check.largest_difference <= 1e-5 * check.largest_score.max(1.0));
            }
        }
    }
}

#[test]
fn prefixes_of_wrappers_are_taken_off_and_reported() {
    let plain = logits(&fixture("tiny"));
    for prefix in
        ["transformer.", "_orig_mod.", "module.", "model.", "module._orig_mod.transformer.", "model.transformer."]
    {
        let folder = Folder::copy_of("tiny");
        rename(&folder, |key| format!("{prefix}{key}"));
        assert_eq!(logits(folder.path()), plain, "{prefix}");
        let reported = prefix.replace("transformer.", "");
        let lines = lines(folder.path());
        let line = format!("model.safetensors: the names of its tensors were read without the prefix {reported}\n");
        assert_eq!(lines.contains(&line), !reported.is_empty(), "{prefix}: {lines}");
    }
    // Any prefix of all tensors, and modules around single blocks.
    for (prefix, within, reported) in [
        ("gpt.", "", "without the prefix gpt."),
        ("lightning.gpt.transformer.", "", "without the prefix lightning.gpt."),
        ("base_model.model.transformer.", "", "without the prefix base_model.model."),
        ("transformer.", "_orig_mod.", "without _orig_mod. within them"),
        ("net.", "module._orig_mod.", "without the prefix net., and without module._orig_mod. within them"),
    ] {
        let folder = Folder::copy_of("tiny");
        rename(&folder, |key| format!("{prefix}{}", key.replace("h.1.", &format!("h.1.{within}"))));
        assert_eq!(logits(folder.path()), plain, "{prefix}");
        let line = format!("model.safetensors: the names of its tensors were read {reported}\n");
        assert!(lines(folder.path()).contains(&line), "{prefix}: {}", lines(folder.path()));
    }
    // A head around the model, tied and alone.
    let folder = Folder::copy_of("tiny");
    rename(&folder, |key| match key {
        "wte.weight" => "lightning.gpt.lm_head.weight".into(),
        key => format!("lightning.gpt.transformer.{key}"),
    });
    assert_eq!(logits(folder.path()), plain);

    let folder = Folder::copy_of("tiny");
    rename(&folder, |key| if key == "ln_f.bias" { "wrapped.ln_f.bias".into() } else { key.into() });
    assert!(folder.error().contains("tensor ln_f.bias: expected F32"), "{}", folder.error());
}

/// Two models in a file, or a model beside something else: nothing tells which is meant.
#[test]
fn several_models_in_a_file_are_refused() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        let copies = tensors.iter().flat_map(|(key, tensor)| {
            ["policy.transformer.", "reference."].map(|prefix| (format!("{prefix}{key}"), tensor.clone()))
        });
        *tensors = copies.collect();
    });
    let expected = "model.safetensors: expected the tensors of one GPT-2, found those of several, under \
                    policy.transformer. and reference.: save one of them alone";
    assert!(folder.error().ends_with(expected), "{}", folder.error());
    folder.edit(|tensors| tensors.retain(|name, _| name.starts_with("policy") || name == "reference.wpe.weight"));
    let message = folder.error();
    assert!(
        message.contains("tensor reference.wpe.weight: ") && message.contains("another kind of model?"),
        "{message}"
    );
    folder.edit(|tensors| tensors.retain(|name, _| name.ends_with("wpe.weight")));
    let expected = "found parts of several, under policy.transformer. and reference., and none with the n_layer = 2 of \
                    config.json";
    assert!(folder.error().ends_with(expected), "{}", folder.error());
}

#[test]
fn a_tied_model_with_its_head_alone_loads() {
    let folder = Folder::copy_of("tiny");
    rename(&folder, |key| if key == "wte.weight" { "lm_head.weight".into() } else { format!("transformer.{key}") });
    assert_eq!(logits(folder.path()), logits(&fixture("tiny")));
    assert_eq!(lines(folder.path()), "");
    folder.edit(|tensors| drop(tensors.remove("lm_head.weight")));
    assert!(folder.error().contains("tensor wte.weight: expected F32"), "{}", folder.error());
}

#[test]
fn a_head_with_other_numbers_than_the_embedding_is_ignored_and_reported() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| drop(tensors.insert("lm_head.weight".into(), tensors["wte.weight"].clone())));
    assert_eq!(lines(folder.path()), "");
    folder.edit(|tensors| {
        let head = tensors.get_mut("lm_head.weight").unwrap();
        head.2 = bytes(&floats(&head.2).iter().map(|x| x + 1.0).collect::<Vec<_>>());
    });
    assert_eq!(logits(folder.path()), logits(&fixture("tiny")));
    let lines = lines(folder.path());
    assert!(lines.contains("lm_head.weight has other numbers than wte.weight, and is ignored"), "{lines}");
}

#[test]
fn further_heads_are_ignored_and_reported() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        for name in ["v_head.summary.weight", "score.weight", "lm_head.bias", "classifier.bias", "qa_outputs.weight"] {
            tensors.insert(name.into(), (Dtype::F32, vec![1], vec![0; 4]));
        }
        tensors.insert("position_ids".into(), (Dtype::I64, vec![1], vec![0; 8]));
    });
    assert_eq!(logits(folder.path()), logits(&fixture("tiny")));
    let lines = lines(folder.path());
    let expected = "ignored classifier.bias, lm_head.bias, qa_outputs.weight, score.weight and 1 more: no part of the \
                    language model\n";
    assert!(lines.contains(expected), "{lines}");

    folder.edit(|tensors| drop(tensors.insert("embed_norm.weight".into(), tensors["ln_f.weight"].clone())));
    let message = folder.error();
    assert!(message.contains("tensor embed_norm.weight: ") && message.contains("another kind of model?"), "{message}");
}

#[test]
fn every_float_dtype_and_mixtures_of_them() {
    let prompt = TOKENS.to_vec();
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        for (dtype, _, data) in tensors.values_mut() {
            *data = floats(data).iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
            *dtype = Dtype::F64;
        }
    });
    assert_eq!(logits(folder.path()), logits(&fixture("tiny")));

    // One shard in F16, one in BF16; the same numbers in float32.
    let (mixed, plain) = (Folder::copy_of("tiny"), Folder::copy_of("tiny"));
    let mut tensors = read(&mixed.weights());
    let mut rounded = tensors.clone();
    for (index, (name, (dtype, _, data))) in tensors.iter_mut().enumerate() {
        let values = floats(data);
        let (of_dtype, encoded, values): (Dtype, Vec<u8>, Vec<f32>) = if index % 2 == 0 {
            let halves: Vec<half::f16> = values.iter().map(|&x| half::f16::from_f32(x)).collect();
            let encoded = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
            (Dtype::F16, encoded, halves.iter().map(|x| x.to_f32()).collect())
        } else {
            let halves: Vec<half::bf16> = values.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let encoded = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
            (Dtype::BF16, encoded, halves.iter().map(|x| x.to_f32()).collect())
        };
        (*dtype, *data) = (of_dtype, encoded);
        rounded.get_mut(name).unwrap().2 = bytes(&values);
    }
    write(&plain.weights(), &rounded);
    let (one, two): (Tensors, Tensors) = tensors.into_iter().partition(|(_, tensor)| tensor.0 == Dtype::F16);
    let mut index = serde_json::Map::new();
    for (shard, tensors) in [("a.safetensors", &one), ("b.safetensors", &two)] {
        write(&mixed.path().join(shard), tensors);
        index.extend(tensors.keys().map(|name| (name.clone(), shard.into())));
    }
    fs::remove_file(mixed.weights()).unwrap();
    let index = serde_json::json!({ "weight_map": index }).to_string();
    fs::write(mixed.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(load(mixed.path()).unwrap().forward(prompt).unwrap()[0], logits(plain.path()));
}
