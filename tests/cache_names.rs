//! The activations of a cache by their own names and by TransformerLens' names, and what a cache shows of itself.

use attention_tokens::notebook::run_prompts;
use attention_tokens::prelude::*;

use crate::support::demo;

const PROMPT: &str = "The bus is late.";

#[test]
fn each_activation_has_an_accessor_and_a_name() {
    let (_, cache) = demo().run_with_cache(PROMPT).unwrap();
    let layer = 2;
    let arrays = [
        (Activation::ResidPre, cache.resid_pre(layer).map(|x| x.into_dyn())),
        (Activation::Q, cache.q(layer).map(|x| x.into_dyn())),
        (Activation::K, cache.k(layer).map(|x| x.into_dyn())),
        (Activation::V, cache.v(layer).map(|x| x.into_dyn())),
        (Activation::AttnScores, cache.attn_scores(layer).map(|x| x.into_dyn())),
        (Activation::Pattern, cache.pattern(layer).map(|x| x.into_dyn())),
        (Activation::Z, cache.z(layer).map(|x| x.into_dyn())),
        (Activation::Result, cache.result(layer).map(|x| x.into_dyn())),
        (Activation::AttnOut, cache.attn_out(layer).map(|x| x.into_dyn())),
        (Activation::ResidMid, cache.resid_mid(layer).map(|x| x.into_dyn())),
        (Activation::MlpPre, cache.mlp_pre(layer).map(|x| x.into_dyn())),
        (Activation::MlpPost, cache.mlp_post(layer).map(|x| x.into_dyn())),
        (Activation::MlpOut, cache.mlp_out(layer).map(|x| x.into_dyn())),
        (Activation::ResidPost, cache.resid_post(layer).map(|x| x.into_dyn())),
    ];
    assert_eq!(arrays.each_ref().map(|(activation, _)| *activation), Activation::ALL);
    for (activation, array) in arrays {
        let expected = cache.get(activation, layer).unwrap();
        assert_eq!(array.unwrap(), expected, "{activation:?}");
        assert_eq!(cache.get_by_name(&activation.hook_name(layer)).unwrap(), expected, "{activation:?}");
    }
    assert_eq!(cache.names().len(), 4 * 14);
    assert_eq!(cache.names()[..2], ["blocks.0.hook_resid_pre", "blocks.0.attn.hook_q"]);
    let some = RunOptions::default().activations([Activation::Z]).layers([1, 3]);
    let (_, some) = demo().run_with_cache_options(PROMPT, some).unwrap();
    assert_eq!(some.names(), ["blocks.1.attn.hook_z", "blocks.3.attn.hook_z"]);
}

#[test]
fn accessors_have_the_errors_of_get() {
    let model = demo();
    let (_, two) = model.run_with_cache([PROMPT, "a"]).unwrap();
    let several = "expected a cache of one prompt: choose one with cache.prompt(i), found a cache of 2 prompts";
    for message in [two.pattern(0).unwrap_err().to_string(), two.resid_pre(0).unwrap_err().to_string()] {
        assert!(message.ends_with(several), "{message}");
    }
    let one = two.prompt(1).unwrap();
    let beyond = "layer 4 out of range: the model has 4, 0 to 3";
    assert_eq!(one.mlp_out(4).unwrap_err().to_string(), beyond);
    assert_eq!(one.get_by_name("blocks.4.hook_mlp_out").unwrap_err().to_string(), beyond);
    let missing = one.prompt(3).unwrap_err().to_string();
    assert_eq!(missing, "prompt 3 out of range: the cache has 1, number 0");
    let some = RunOptions::default().activations([Activation::Z]);
    let (_, some) = model.run_with_cache_options(PROMPT, some).unwrap();
    for message in [some.q(0), some.get_by_name("blocks.0.attn.hook_q").map(|q| q.into_dimensionality().unwrap())]
        .map(|error| error.unwrap_err().to_string())
    {
        assert!(message.starts_with("q of layer 0 is not in the cache: it holds only z of layers 0 to 3"), "{message}");
    }
}

#[test]
fn other_names_of_transformer_lens_say_which_call_computes_them() {
    let (_, cache) = demo().run_with_cache(PROMPT).unwrap();
    for (name, call) in [
        ("hook_embed", "cache.embeddings(&model)?"),
        ("hook_pos_embed", "cache.embeddings(&model)?"),
        ("blocks.0.ln1.hook_scale", "cache.ln1_scale(&model, layer)?"),
        ("blocks.3.ln2.hook_scale", "cache.ln2_scale(&model, layer)?"),
        ("ln_final.hook_scale", "cache.ln_final_scale(&model)?"),
        ("blocks.3.ln2.hook_normalized", "cache.apply_ln_to_stack(..)"),
        ("pattern", "blocks.LAYER.attn.hook_pattern"),
        ("blocks.0.hook_pattern", "blocks.LAYER.attn.hook_pattern"),
        ("blocks.-1.attn.hook_pattern", "blocks.LAYER.attn.hook_pattern"),
        ("", "blocks.LAYER.hook_resid_pre"),
    ] {
        let message = cache.get_by_name(name).unwrap_err().to_string();
        assert!(message.contains(call) && message.ends_with(&format!("found {name:?}")), "{message}");
    }
}

#[test]
fn a_cache_and_a_run_show_names_and_shapes() {
    let model = demo();
    let options = RunOptions::default().activations([Activation::Pattern, Activation::ResidPre]).layers([0, 1, 3]);
    let (_, cache) = model.run_with_cache_options(PROMPT, options).unwrap();
    let expected = "ActivationCache of 1 prompt: length 6; layers 0, 1, 3 of 4\n\
                    \x20 resid_pre    [6, 128]         [pos, d_model]\n\
                    \x20 pattern      [8, 6, 6]        [n_heads, query_pos, key_pos]";
    assert_eq!(format!("{cache:?}"), expected);
    let hooks = [Intervention::zero(Activation::Z.at(1)).head(2)];
    let (_, cache) = model.run_with_cache_options([PROMPT, "a"], RunOptions::default().hooks(&hooks)).unwrap();
    let shown = format!("{cache:?}");
    assert!(shown.starts_with("ActivationCache of 2 prompts: lengths 6, 2; layers 0 to 3 of 4\n"), "{shown}");
    for line in
        ["  q            [pos, 8, 16]     [pos, n_heads, d_head]", "  mlp_post     [pos, 512]       [pos, d_mlp]"]
    {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert!(shown.ends_with("\n  changed by: zero blocks.1.attn.hook_z, head 2"), "{shown}");

    let run = run_prompts(&model, vec!["a"; 20]).unwrap();
    let shown = format!("{run:?}");
    assert!(shown.starts_with("PromptRun of demo: logits [2, 50257], [2, 50257], [2, 50257], …\n"), "{shown}");
    assert!(shown.contains("20 prompts: lengths 2, 2, 2, 2, 2, 2, 2, 2, …; layers 0 to 3"), "{shown}");
    assert_eq!(shown.lines().count(), 2 + 14);
}
