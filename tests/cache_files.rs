//! Caches in safetensors files: TransformerLens' names and shapes, and files that are broken or meant to do harm.

use std::path::{Path, PathBuf};

use attention_tokens::{prelude::*, write_npz};
use ndarray::{ArrayD, Axis, IxDyn, Slice};
use safetensors::tensor::Dtype;

use crate::support::{Tensors, bytes, fixture, floats, load, read, write};

const PROMPTS: [&[u32]; 2] = [&[1, 50, 7, 9, 9], &[3, 2]];

/// A model, its cache of two prompts of different lengths, and the cache in a file.
fn written() -> (Gpt2, ActivationCache, tempfile::TempDir, PathBuf) {
    let model = load(&fixture("tiny")).unwrap();
    let (_, cache) = model.run_with_cache(PROMPTS.map(<[u32]>::to_vec).to_vec()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    cache.write_safetensors(&model, &path).unwrap();
    (model, cache, folder, path)
}

#[test]
fn a_cache_is_read_back_bit_for_bit() {
    let (model, cache, _folder, path) = written();
    let back = ActivationCache::read_safetensors(&model, &path).unwrap();
    assert_eq!(back.tokens(), cache.tokens());
    for prompt in 0..2 {
        let (cache, back) = (cache.prompt(prompt).unwrap(), back.prompt(prompt).unwrap());
        for layer in 0..model.config().n_layers {
            for activation in Activation::ALL {
                let bits = |cache: &ActivationCache| cache.get(activation, layer).unwrap().mapv(f32::to_bits);
                assert_eq!(bits(&back), bits(&cache), "{} of layer {layer}", activation.name());
            }
        }
        // The analysis takes it like any other cache.
        assert_eq!(back.logit_lens(&model, &[3]).unwrap(), cache.logit_lens(&model, &[3]).unwrap());
    }
}

#[test]
fn names_and_shapes_are_those_of_transformer_lens() {
    let (model, cache, _folder, path) = written();
    let tensors = read(&path);
    let (n_heads, d_model, d_mlp) = (model.config().n_heads, model.config().d_model, model.config().d_mlp);
    let shapes = [
        ("tokens", vec![2, 5]),
        ("hook_embed", vec![2, 5, d_model]),
        ("hook_pos_embed", vec![2, 5, d_model]),
        ("blocks.0.hook_resid_pre", vec![2, 5, d_model]),
        ("blocks.0.ln1.hook_scale", vec![2, 5, 1]),
        ("blocks.0.attn.hook_q", vec![2, 5, n_heads, d_model / n_heads]),
        ("blocks.0.attn.hook_z", vec![2, 5, n_heads, d_model / n_heads]),
        ("blocks.0.attn.hook_attn_scores", vec![2, n_heads, 5, 5]),
        ("blocks.0.attn.hook_pattern", vec![2, n_heads, 5, 5]),
        ("blocks.0.attn.hook_result", vec![2, 5, n_heads, d_model]),
        ("blocks.0.hook_attn_out", vec![2, 5, d_model]),
        ("blocks.0.hook_resid_mid", vec![2, 5, d_model]),
        ("blocks.0.ln2.hook_scale", vec![2, 5, 1]),
        ("blocks.0.mlp.hook_pre", vec![2, 5, d_mlp]),
        ("blocks.0.mlp.hook_post", vec![2, 5, d_mlp]),
        ("blocks.0.hook_mlp_out", vec![2, 5, d_model]),
        ("blocks.0.hook_resid_post", vec![2, 5, d_model]),
        ("ln_final.hook_scale", vec![2, 5, 1]),
    ];
    for (name, shape) in shapes {
        assert_eq!(tensors[name].1, shape, "{name}");
    }
    assert_eq!(tensors.len(), 4 + model.config().n_layers * (Activation::ALL.len() + 2));
    let tokens: Vec<i64> = tensors["tokens"].2.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(tokens, [1, 50, 7, 9, 9, 3, 2, -1, -1, -1]);
    // Behind the shorter prompt there are zeros.
    let pattern = ArrayD::from_shape_vec(IxDyn(&[2, n_heads, 5, 5]), floats(&tensors["blocks.0.attn.hook_pattern"].2));
    let mut padded = pattern.unwrap().index_axis_move(Axis(0), 1);
    padded.slice_axis_inplace(Axis(2), Slice::from(2..));
    assert!(padded.iter().all(|&x| x == 0.0));
    let scale = floats(&tensors["ln_final.hook_scale"].2);
    assert_eq!(scale[..5], cache.prompt(0).unwrap().ln_final_scale(&model).unwrap().to_vec());
}

/// A cache of a part of the activations writes these.
#[test]
fn a_part_of_a_cache_is_a_part_of_the_file() {
    let model = load(&fixture("tiny")).unwrap();
    let options = RunOptions::default().activations([Activation::Z]).layers([1]);
    let (_, cache) = model.run_with_cache_options(vec![4_u32, 5], options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.safetensors");
    cache.write_safetensors(&model, &path).unwrap();
    let names: Vec<String> = read(&path).into_keys().collect();
    assert_eq!(names, ["blocks.1.attn.hook_z", "hook_embed", "hook_pos_embed", "tokens"]);
    let back = ActivationCache::read_safetensors(&model, &path).unwrap();
    assert_eq!(back.get(Activation::Z, 1).unwrap(), cache.get(Activation::Z, 1).unwrap());
    let error = back.get(Activation::Z, 0).unwrap_err().to_string();
    assert!(error.contains("z of layer 0") && error.contains("it holds only z of layer 1"), "{error}");
    assert!(matches!(cache.write_safetensors(&model, folder.path()), Err(Error::Write { .. })));
}

#[test]
fn wrong_files_are_errors() {
    let (model, _, folder, path) = written();
    let original = read(&path);
    let changed = folder.path().join("changed.safetensors");
    let error_of = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = original.clone();
        change(&mut tensors);
        write(&changed, &tensors);
        ActivationCache::read_safetensors(&model, &changed).map(drop).unwrap_err().to_string()
    };
    let tokens = |tokens: [i64; 10]| tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>();
    let set_tokens = |values: [i64; 10]| {
        let bytes = tokens(values);
        error_of(&move |tensors: &mut Tensors| tensors.get_mut("tokens").unwrap().2 = bytes.clone())
    };
    let q = "blocks.0.attn.hook_q";
    for (error, parts) in [
        (error_of(&|tensors| drop(tensors.remove("tokens"))), ["tokens", "no such tensor"]),
        (error_of(&|tensors| tensors.get_mut("tokens").unwrap().1 = vec![10]), ["[batch, pos]", "[10]"]),
        (error_of(&|tensors| tensors.get_mut("tokens").unwrap().0 = Dtype::U64), ["I64", "U64"]),
        (
            error_of(&|tensors| *tensors.get_mut("tokens").unwrap() = (Dtype::I64, vec![0, 5], vec![])),
            ["at least one prompt", "[0, 5]"],
        ),
        (set_tokens([1, 50, 7, 9, 9, -1, -1, -1, -1, -1]), ["row 1", "none"]),
        (set_tokens([1, 50, 7, 9, 1 << 40, 3, 2, -1, -1, -1]), ["row 0", "1099511627776"]),
        (set_tokens([1, 50, 7, 9, 9, 3, -2, -1, -1, -1]), ["row 1", "-2"]),
        (set_tokens([1, 50, 7, 9, 9, 3, 2, -1, 5, -1]), ["row 1", "5"]),
        (error_of(&|tensors| tensors.get_mut(q).unwrap().1.swap(1, 2)), [q, "expected shape"]),
        (error_of(&|tensors| tensors.get_mut(q).unwrap().0 = Dtype::I32), [q, "I32"]),
        (error_of(&|tensors| tensors.get_mut(q).unwrap().2[..4].copy_from_slice(&bytes(&[f32::NAN]))), [q, "NaN"]),
        (
            error_of(&|tensors| tensors.get_mut(q).unwrap().2[..4].copy_from_slice(&bytes(&[f32::NEG_INFINITY]))),
            [q, "-inf"],
        ),
        (error_of(&|tensors| rename(tensors, q, "blocks.9.attn.hook_q")), ["blocks.9", "another name"]),
        (error_of(&|tensors| rename(tensors, q, "h.0.attn.weight")), ["h.0.attn.weight", "another name"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // A hook that this crate has no activation for is ignored.
    let mut tensors = original.clone();
    rename(&mut tensors, q, "blocks.0.attn.hook_rot_q");
    write(&changed, &tensors);
    let cache = ActivationCache::read_safetensors(&model, &changed).unwrap().prompt(0).unwrap();
    assert!(matches!(cache.get(Activation::Q, 0), Err(Error::NotCached { .. })));

    let whole = std::fs::read(&path).unwrap();
    for broken in [&whole[..whole.len() - 1], &whole[..40], &whole[..3], b"", b"<!DOCTYPE html>"] {
        std::fs::write(&changed, broken).unwrap();
        assert!(matches!(ActivationCache::read_safetensors(&model, &changed), Err(Error::Format { .. })));
    }
    assert!(matches!(ActivationCache::read_safetensors(&model, Path::new("/no/such/file")), Err(Error::Io { .. })));
    // A file of another model.
    let other = load(&fixture("odd")).unwrap();
    assert!(matches!(ActivationCache::read_safetensors(&other, &path), Err(Error::Tensor { .. })));
}

fn rename(tensors: &mut Tensors, from: &str, to: &str) {
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.into(), tensor);
}

#[test]
fn arrays_are_written_as_npz() {
    let (_, cache, folder, _) = written();
    let path = folder.path().join("arrays.npz");
    let pattern = cache.prompt(0).unwrap().get(Activation::Pattern, 1).unwrap();
    write_npz(&path, &[("pattern", pattern.clone()), ("one", ArrayD::ones(IxDyn(&[])))]).unwrap();
    let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let back: ArrayD<f32> = npz.by_name("pattern").unwrap();
    assert_eq!(back, pattern);
    assert!(matches!(write_npz(folder.path(), &[]), Err(Error::Write { .. })));
}

/// Every activation, and what the analysis makes of them.
fn everything(model: &Gpt2, cache: &ActivationCache) -> Vec<ArrayD<f32>> {
    let mut all = Vec::new();
    for prompt in 0..cache.n_prompts() {
        let cache = cache.prompt(prompt).unwrap();
        for layer in 0..model.config().n_layers {
            all.extend(Activation::ALL.map(|activation| cache.get(activation, layer).unwrap()));
        }
        all.push(cache.head_logit_attrs(model, 3, Some(5)).unwrap().into_dyn());
        all.push(cache.stack_head_results(model, None, true).unwrap().values.into_dyn());
        all.push(cache.stack_neuron_results(model, None, None, true).unwrap().values.into_dyn());
        all.push(cache.neuron_logit_attrs(model, 3, Some(5)).unwrap().into_dyn());
    }
    all
}

/// A file has the interventions, so that the analysis of a cache that is read back takes the results of heads, which no
/// longer follow from `z`; and the neurons, scores and everything else that a run computes later are as they were changed.
#[test]
fn a_cache_that_is_read_back_knows_what_was_edited() {
    let (model, plain, folder, plain_path) = written();
    let prompts = || PROMPTS.map(<[u32]>::to_vec).to_vec();
    let edits = [
        Intervention::scale(Activation::Result.at(1), 3.0).head(0),
        Intervention::set(Activation::Result.at(0), 0.5).head(1).pos(-1),
        Intervention::scale(Activation::MlpPre.at(0), -2.0).neurons([0, 3]),
        Intervention::zero(Activation::MlpPost.at(1)).neuron(1),
        Intervention::knock_out(1, [(-1, 0)]).head(0),
        Intervention::scale(Activation::Pattern.at(0), 0.5).key(0),
        Intervention::patch(Activation::ResidPre.at(1), &plain).pos(0),
        Intervention::hook(Activation::Z.at(0), |values, _| values * 2.0).prompt(0),
        Intervention::mean_by(Activation::AttnOut.at(0), &plain, [0, 1]),
    ];
    let path = folder.path().join("edited.safetensors");
    let compare = |cache: &ActivationCache, words: &[String]| {
        cache.write_safetensors(&model, &path).unwrap();
        let back = ActivationCache::read_safetensors(&model, &path).unwrap();
        assert_eq!((back.interventions(), cache.interventions()), (words.to_vec(), words.to_vec()));
        for (got, want) in everything(&model, &back).iter().zip(everything(&model, cache)) {
            assert_eq!(got.mapv(f32::to_bits), want.mapv(f32::to_bits), "{words:?}");
        }
        back
    };
    for edit in &edits {
        let (_, cache) = model.hooked(std::slice::from_ref(edit)).unwrap().run_with_cache(prompts()).unwrap();
        compare(&cache, &[edit.to_string()]);
    }
    // Interventions of the model, then those of the run.
    let options = RunOptions::default().hooks(&edits[4..]);
    let (_, cache) = model.hooked(&edits[..4]).unwrap().run_with_cache_options(prompts(), options).unwrap();
    let back = compare(&cache, &edits.each_ref().map(ToString::to_string));
    // It serves as the source of interventions like the cache that was written.
    let patched = |cache: &ActivationCache| {
        model.run_with_hooks(prompts(), &[Intervention::patch(Activation::Result.at(1), cache)]).unwrap()
    };
    assert_eq!(patched(&back), patched(&cache));

    // Without interventions there is nothing about them in the file, as in files of other programs.
    assert!(ActivationCache::read_safetensors(&model, &plain_path).unwrap().interventions().is_empty());
    let older = folder.path().join("older.safetensors");
    write(&older, &read(&path));
    let older = ActivationCache::read_safetensors(&model, &older).unwrap();
    assert!(older.interventions().is_empty());
    let result = |cache: &ActivationCache| cache.prompt(0).unwrap().get(Activation::Result, 1).unwrap();
    assert_eq!(result(&older), result(&cache));
    // The metadata decides: results that are not known to be edited are computed from z.
    let heads = |cache: &ActivationCache| cache.prompt(0).unwrap().head_logit_attrs(&model, 3, None).unwrap();
    assert_ne!(heads(&older), heads(&back));
    assert_eq!(heads(&back), heads(&cache));
}

#[test]
fn interventions_of_a_file_are_plain_text() {
    let (model, _, folder, path) = written();
    let changed = folder.path().join("changed.safetensors");
    let tensors = read(&path);
    let views = || {
        tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
        })
    };
    let long = "x".repeat(5_000);
    let texts = [
        ("", Some(vec![])),
        ("zero something", Some(vec!["zero something"])),
        ("a\u{1b}[2J", None),
        (long.as_str(), None),
    ];
    for (text, read) in texts {
        let metadata = [("interventions".to_owned(), text.to_owned()), ("format".to_owned(), "pt".to_owned())];
        let bytes = safetensors::serialize(views(), Some(metadata.into_iter().collect())).unwrap();
        std::fs::write(&changed, bytes).unwrap();
        match (ActivationCache::read_safetensors(&model, &changed), read) {
            (Ok(cache), Some(expected)) => assert_eq!(cache.interventions(), expected),
            (Err(error @ Error::Format { .. }), None) => {
                let message = error.to_string();
                assert!(message.contains("interventions") && !message.contains('\u{1b}'), "{message}");
            }
            (other, _) => panic!("{text:?}: {:?}", other.map(|cache| cache.interventions())),
        }
    }
}
