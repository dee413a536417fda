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
    for len in [u64::MAX, 1 << 40, 16_000_001, 5_000_000] {
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
        folder.error().contains(
            "tensor wpe.weight: expected dtype F32, F16, BF16 or F64, found I32: save the weights in one of these"
        ),
        "{}",
        folder.error()
    );
    for (dtype, width) in [(Dtype::I64, 8), (Dtype::U8, 1), (Dtype::BOOL, 1), (Dtype::F8_E4M3, 1)] {
        folder.edit(|tensors| {
            change(tensors, "wpe.weight", |tensor| {
                let n: usize = tensor.1.iter().product();
                (tensor.0, tensor.2) = (dtype, vec![0; n * width]);
            });
        });
        let expected = format!("tensor wpe.weight: expected dtype F32, F16, BF16 or F64, found {dtype:?}: save");
        assert!(folder.error().contains(&expected) && !folder.error().contains("quantized"), "{}", folder.error());
    }
}

/// 8 bits as bitsandbytes, 4 bits as GPTQ and bitsandbytes store them.
#[test]
fn a_quantized_checkpoint() {
    for scale in ["h.0.attn.c_attn.SCB", "h.0.attn.c_attn.scales", "h.0.attn.c_attn.weight.absmax"] {
        let folder = Folder::copy_of("tiny");
        folder.edit(|tensors| {
            change(tensors, "h.0.attn.c_attn.weight", |tensor| (tensor.0, tensor.2) = (Dtype::I8, vec![0; 48 * 144]));
            tensors.insert(scale.into(), (Dtype::F32, vec![1], vec![0; 4]));
        });
        let expected =
            format!("tensor {scale}: expected only tensors of a GPT-2, found a tensor of quantized weights, ");
        assert!(folder.error().contains(&expected), "{}", folder.error());
    }
}

#[test]
fn names_in_messages_are_short_and_in_one_line() {
    let folder = Folder::copy_of("tiny");
    let name = format!("h.0.\u{1b}[2J\n{}", "x".repeat(10_000));
    folder.edit(|tensors| drop(tensors.insert(name, tensors["ln_f.weight"].clone())));
    let message = folder.error();
    assert!(message.contains("tensor h.0.\\u{1b}[2J\\nxxx") && message.len() < 500, "{message}");
    assert!(!message.contains(char::is_control), "{message}");
}

/// A layer beyond those of `config.json`, and one that it has and the file has not.
#[test]
fn a_checkpoint_of_another_depth() {
    for (n_layer, expected) in [
        (
            1,
            "tensor h.1.attn.c_attn.bias: expected only tensors of a GPT-2 with the layers that config.json says, found one \
             of layer 1, and config.json has n_layer = 1: take both files from the same model",
        ),
        (
            3,
            "tensor h.2.ln_1.weight: expected F32, F16, BF16 or F64 of shape [48], found no tensor of layer 2, and \
             config.json has n_layer = 3: take both files from the same model",
        ),
    ] {
        let folder = Folder::copy_of("tiny");
        folder.configure("\"n_layer\": 2", &format!("\"n_layer\": {n_layer}"));
        assert!(folder.error().contains(expected), "{}", folder.error());
    }
}

#[test]
fn weights_in_the_layout_of_linear_layers() {
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        for (name, tensor) in tensors.iter_mut() {
            if ["c_attn", "c_proj", "c_fc"].iter().any(|module| name.ends_with(&format!("{module}.weight"))) {
                tensor.1.reverse();
            }
        }
    });
    let expected = "tensor h.0.attn.c_attn.weight: expected shape [48, 144], as config.json says, found shape [144, 48]: its \
                    transpose, as torch.nn.Linear stores it (nanoGPT does); transpose the weights of attn.c_attn, ";
    assert!(folder.error().contains(expected), "{}", folder.error());
    // An embedding is not a linear layer.
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| change(tensors, "wte.weight", |tensor| tensor.1.reverse()));
    assert!(folder.error().ends_with("found shape [48, 97]"), "{}", folder.error());
}

#[test]
fn adapters_and_cross_attention() {
    for (name, found) in [
        ("h.0.attn.c_attn.lora_A.default.weight", "a tensor of an adapter (LoRA, PEFT), which is not merged"),
        ("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight", "a tensor of an adapter (LoRA, PEFT), which"),
        ("h.1.crossattention.c_attn.weight", "a tensor of cross-attention: this is the decoder of an encoder-decoder"),
        ("h.1.ln_cross_attn.weight", "a tensor of cross-attention: this is the decoder of an encoder-decoder"),
    ] {
        let folder = Folder::copy_of("tiny");
        folder.edit(|tensors| drop(tensors.insert(name.into(), (Dtype::F32, vec![1], vec![0; 4]))));
        let expected = format!("tensor {name}: expected only tensors of a GPT-2, found {found}");
        assert!(folder.error().contains(&expected), "{}", folder.error());
    }
    // As PEFT names a layer that it wraps.
    let folder = Folder::copy_of("tiny");
    folder.edit(|tensors| {
        let weight = tensors.remove("h.0.attn.c_attn.weight").unwrap();
        tensors.insert("h.0.attn.c_attn.base_layer.weight".into(), weight);
    });
    assert!(folder.error().contains("model.merge_and_unload().save_pretrained(FOLDER)"), "{}", folder.error());
    let folder = Folder::copy_of("tiny");
    folder.configure("{", "{\"add_cross_attention\": true,");
    assert!(folder.error().ends_with("add_cross_attention: expected false, found true: the decoder of another model"));
}

#[test]
fn weights_in_another_form() {
    let folder = Folder::copy_of("tiny");
    fs::remove_file(folder.weights()).unwrap();
    let forms = [
        ("gpt2.Q4_K_M.gguf", "only a GGUF file of llama.cpp, whose weights are quantized"),
        ("pytorch_model-00001-of-00002.bin", "only this pickle, which can run any code when it is read; convert it"),
        ("tf_model.h5", "only an HDF5 file (weights of TensorFlow or Keras): convert it in Python"),
        ("flax_model.msgpack", "only weights of Flax: convert them in Python"),
        (
            "ckpt.pt",
            "only a checkpoint of PyTorch or Lightning, a pickle, which can run any code when it is read: load",
        ),
    ];
    for (name, found) in forms {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        let expected = format!("{name}: expected model.safetensors beside it, found {found}");
        assert!(folder.error().contains(&expected), "{}", folder.error());
        fs::remove_file(path).unwrap();
    }
    // Without config.json too; where the file is of use only with one, it is what is missing.
    fs::remove_file(folder.path().join("config.json")).unwrap();
    for (name, found) in forms {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        let message = folder.error();
        if ["gpt2.Q4_K_M.gguf", "ckpt.pt"].contains(&name) {
            assert!(
                message.contains(&format!("{name}: expected model.safetensors beside it, found {found}")),
                "{message}"
            );
        } else {
            let found = found.strip_prefix("only ").unwrap();
            let expected = format!("config.json and model.safetensors; this one has {name}, {found}");
            assert!(message.contains(&expected), "{message}");
        }
        // The file given for its folder.
        let message = load(&path).unwrap_err().to_string();
        let expected = format!("{name}: expected a folder with config.json and model.safetensors, found ");
        assert!(message.contains(&expected), "{message}");
        fs::remove_file(path).unwrap();
    }
    let message = load(&fixture("tiny").join("model.safetensors")).unwrap_err().to_string();
    assert!(message.ends_with("found a file: give the folder that it is in"), "{message}");
}

#[test]
fn a_config_that_is_not_one() {
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_embd\": 48", "\"n_embd\": 48, \"hidden_size\": 64");
    let expected =
        "config.json: n_embd: expected 64, because hidden_size is 64, or one of the two keys, found n_embd = 48";
    assert!(folder.error().ends_with(expected), "{}", folder.error());
    let folder = Folder::copy_of("tiny");
    folder.configure("\"n_embd\": 48", "\"n_embd\": 3, \"hidden_size\": 48, \"n_embd\": 48");
    load(folder.path()).unwrap();
    for text in ["[]", "null", "3", "\"gpt2\"", "{\"n_layer\": NaN}", "{\"n_embd\": \"768\"}", "{\"n_embd\": 1e3}"] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        let message = folder.error();
        assert!(message.contains("config.json: ") && message.contains("expected "), "{text}: {message}");
    }
    fs::File::create(folder.path().join("config.json")).unwrap().set_len(1 << 40).unwrap();
    assert!(folder.error().contains("config.json: expected a file of at most 16 MB, found 1099511627776 bytes"));
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
