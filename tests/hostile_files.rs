use std::fs;

use attention_tokens::prelude::*;
use safetensors::tensor::Dtype;

use crate::support::{Folder, Tensors, bytes, fixture, floats, load, write};

fn change(tensors: &mut Tensors, name: &str, change: impl FnOnce(&mut (Dtype, Vec<usize>, Vec<u8>))) {
    change(tensors.get_mut(name).unwrap());
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::copy_of("tiny");
    fs::remove_file(folder.weights()).unwrap();
    assert!(folder.error().contains("model.safetensors: no such file; a model folder holds"), "{}", folder.error());
    fs::write(folder.path().join("pytorch_model.bin"), "pickle").unwrap();
    assert!(folder.error().contains("save_pretrained(FOLDER, safe_serialization=True)"), "{}", folder.error());
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(folder.error().contains("config.json: no such file"), "{}", folder.error());
    let message = Gpt2::from_pretrained("no/such/folder", LoadOptions::default()).unwrap_err().to_string();
    assert!(message.starts_with("no/such/folder/config.json: no such file"), "{message}");
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    for name in ["gpt3", "", "."] {
        let message = Gpt2::from_pretrained(name, LoadOptions::default()).unwrap_err().to_string();
        assert!(message.contains("gpt2-small") || message.contains("config.json: no such file"), "{name}: {message}");
    }
}

#[test]
fn a_truncated_file() {
    let folder = Folder::copy_of("tiny");
    let whole = fs::read(folder.weights()).unwrap();
    for len in [whole.len() - 1, whole.len() / 2, 100, 8, 7, 0] {
        fs::write(folder.weights(), &whole[..len]).unwrap();
        let message = folder.error();
        assert!(message.contains("model.safetensors: expected ") && message.contains(", found "), "{len}: {message}");
    }
    let mut longer = whole;
    longer.push(0);
    fs::write(folder.weights(), longer).unwrap();
    assert!(folder.error().contains("something was appended"), "{}", folder.error());
}

#[test]
fn a_header_larger_than_the_file_allocates_nothing() {
    let folder = Folder::copy_of("tiny");
    for len in [u64::MAX, 1 << 40, 100_000_001, 50_000_000] {
        let mut file = len.to_le_bytes().to_vec();
        file.extend(b"{}");
        fs::write(folder.weights(), file).unwrap();
        assert!(
            folder.error().contains(&format!("found a header of {len} bytes in a file of 10")),
            "{}",
            folder.error()
        );
    }
}

#[test]
fn an_inconsistent_header() {
    let folder = Folder::copy_of("tiny");
    let huge = r#"{"wte.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#;
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    for header in [huge, overlap, "{", "[]", "null", r#"{"a":1}"#] {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 12]);
        fs::write(folder.weights(), file).unwrap();
        assert!(folder.error().contains("expected a safetensors header, found "), "{header}: {}", folder.error());
    }
}

#[test]
fn a_missing_tensor() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| drop(tensors.remove("h.1.mlp.c_fc.bias")));
    let expected = "tensor h.1.mlp.c_fc.bias: expected F32, F16, BF16 or F64 of shape [192], found no such tensor";
    assert!(folder.error().contains(expected), "{}", folder.error());
}

#[test]
fn an_extra_tensor() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| drop(tensors.insert("h.0.attn.q_norm.weight".into(), tensors["ln_f.weight"].clone())));
    let message = folder.error();
    assert!(message.contains("tensor h.0.attn.q_norm.weight: expected only tensors of a GPT-2"), "{message}");
}

#[test]
fn the_same_tensor_twice() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| drop(tensors.insert("transformer.ln_f.weight".into(), tensors["ln_f.weight"].clone())));
    assert!(folder.error().contains("ln_f.weight: expected each tensor once"), "{}", folder.error());
}

#[test]
fn a_misshapen_tensor() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| change(tensors, "h.0.attn.c_attn.weight", |tensor| tensor.1.reverse()));
    let expected = "h.0.attn.c_attn.weight: expected shape [48, 144], as config.json says, found shape [144, 48]";
    assert!(folder.error().contains(expected), "{}", folder.error());
}

#[test]
fn a_wrong_dtype() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| change(tensors, "wpe.weight", |tensor| tensor.0 = Dtype::I32));
    assert!(
        folder.error().contains("tensor wpe.weight: expected dtype F32, F16, BF16 or F64, found I32; quantized checkpoints must be converted first"),
        "{}",
        folder.error()
    );
}

#[test]
fn numbers_that_are_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = Folder::copy_of("tiny");
        folder.edit(|tensors| {
            change(tensors, "h.1.ln_2.weight", |tensor| {
                let mut values = floats(&tensor.2);
                values[3] = bad;
                tensor.2 = bytes(&values);
            });
        });
        let expected = format!("tensor h.1.ln_2.weight: expected finite numbers, found {bad} at index 3");
        assert!(folder.error().contains(&expected), "{}", folder.error());
    }
}

#[test]
fn a_config_that_contradicts_the_weights() {
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_layer\": 2", "\"n_layer\": 1");
    assert!(folder.error().contains("expected only tensors of a GPT-2 with the layers that config.json says"));
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_layer\": 2", "\"n_layer\": 3");
    assert!(folder.error().contains("tensor h.2.ln_1.weight") || folder.error().contains("tensor h.2."));
    let folder = Folder::copy_of("tiny");
    folder.configure("\"vocab_size\": 97", "\"vocab_size\": 16777216");
    assert!(folder.error().contains("wte.weight: expected shape [16777216, 48]"), "{}", folder.error());
    let folder = Folder::copy_of("tiny");
    folder.configure("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert!(folder.error().contains("tensor lm_head.weight: expected F32"), "{}", folder.error());
    let folder = Folder::copy_of("tiny");
    folder.configure("{", "");
    assert!(folder.error().contains("config.json: expected a GPT-2 configuration in JSON"), "{}", folder.error());
}

#[test]
fn mask_buffers_and_a_tied_lm_head_are_ignored() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        tensors.insert("h.0.attn.bias".into(), (Dtype::BOOL, vec![1, 1, 2, 2], vec![1, 0, 1, 1]));
        tensors.insert("h.1.attn.masked_bias".into(), (Dtype::F64, vec![], f64::NAN.to_le_bytes().to_vec()));
        tensors.insert("lm_head.weight".into(), (Dtype::I8, vec![1], vec![0]));
    });
    load(folder.path()).unwrap();
}

#[test]
fn half_precision_and_shards_give_the_same_model() {
    let prompt = vec![1_u32, 5, 9];
    let bf16 = Folder::copy_of("tiny");
    bf16.edit(|tensors| {
        for (dtype, _, data) in tensors.values_mut() {
            *data = floats(data).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
            *dtype = Dtype::BF16;
        }
    });
    // The same numbers in float32.
    let rounded = Folder::copy_of("tiny");
    rounded.edit(|tensors| {
        for (_, _, data) in tensors.values_mut() {
            *data = bytes(&floats(data).iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect::<Vec<_>>());
        }
    });
    let sharded = Folder::copy_of("tiny");
    let mut map = Vec::new();
    let tensors = crate::support::read(&rounded.weights());
    for (index, name) in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate() {
        let part: Tensors = tensors.clone().into_iter().skip(index).step_by(2).collect();
        map.extend(part.keys().map(|tensor| format!("\"{tensor}\": \"{name}\"")));
        write(&sharded.path().join(name), &part);
    }
    fs::remove_file(sharded.weights()).unwrap();
    let index = sharded.path().join("model.safetensors.index.json");
    fs::write(&index, format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", map.join(","))).unwrap();

    let logits = |folder: &Folder| load(folder.path()).unwrap().forward(prompt.clone()).unwrap();
    assert_eq!(logits(&bf16), logits(&rounded));
    assert_eq!(logits(&sharded), logits(&rounded));

    // A shard that is missing, and names of files outside the folder.
    fs::remove_file(sharded.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(sharded.error().contains("model-00002-of-00002.safetensors: no such file; model.safetensors.index.json"));
    for name in ["../model.safetensors", "/etc/passwd", "..", "a\\\\b"] {
        fs::write(&index, format!("{{\"weight_map\": {{\"x\": \"{name}\"}}}}")).unwrap();
        assert!(sharded.error().contains("files of the same folder"), "{name}: {}", sharded.error());
    }
}

#[test]
fn names_with_and_without_the_prefix_are_the_same_model() {
    let with = Folder::copy_of("tiny");
    with.edit(|tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (format!("transformer.{name}"), t)).collect();
    });
    let logits = |folder: &std::path::Path| load(folder).unwrap().forward(vec![1_u32, 2]).unwrap();
    assert_eq!(logits(with.path()), logits(&fixture("tiny")));
}

#[test]
fn a_broken_tokenizer() {
    let folder = Folder::copy_of("tiny");
    fs::write(folder.path().join("tokenizer.json"), "{\"model\": ").unwrap();
    assert!(folder.error().contains("tokenizer.json: expected a tokenizer, found "), "{}", folder.error());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("vocab.json"), "{}").unwrap();
    assert!(folder.error().contains("merges.txt: no such file; vocab.json and merges.txt only work together"));
}
