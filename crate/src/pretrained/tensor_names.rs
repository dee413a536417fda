//! The names of a checkpoint's tensors → the keys of Hugging Face's `GPT2Model`, without what programs put in front of
//! them or into them, and what some names say about a checkpoint that is not a plain GPT-2.

use std::collections::{BTreeSet, HashSet};

use crate::error::shown;

/// Modules that wrap any part of a model: `torch.compile`, fully sharded data parallel, activation checkpointing,
/// Lightning Fabric, `DataParallel`. GPT-2 has no module of these names.
const WRAPPERS: [&str; 5] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module"];

/// Modules that contain a GPT-2, taken off the beginning of a name as often as they are there: Hugging Face's own, which
/// is not reported, and that of training libraries.
const TRANSFORMER: &str = "transformer";
const OUTER: [&str; 2] = [TRANSFORMER, "model"];

/// The tensor by which a GPT-2 is found under another prefix.
const W_POS: &str = "wpe.weight";
/// The unembedding, which Hugging Face has beside the transformer.
pub(super) const LM_HEAD: &str = "lm_head.weight";

/// A name without modules that are taken off.
struct Name<'a> {
    parts: Vec<&'a str>,
    /// The indices of the parts that are kept, and of those that are taken off.
    kept: Vec<usize>,
    taken: Vec<usize>,
}

impl<'a> Name<'a> {
    /// Takes wrappers off a name, and outer modules off its beginning.
    fn new(name: &'a str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let last = parts.len() - 1;
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        for (index, part) in parts.iter().enumerate() {
            let is_module = WRAPPERS.contains(part) || (kept.is_empty() && OUTER.contains(part));
            if is_module && index != last { &mut taken } else { &mut kept }.push(index);
        }
        Self { parts, kept, taken }
    }

    /// The name without its first `n` kept parts.
    fn key(&self, n: usize) -> String {
        self.kept[n..].iter().map(|&index| self.parts[index]).collect::<Vec<_>>().join(".")
    }

    /// The modules before the key without the first `n` kept parts, and those that were taken out of it.
    fn modules(&self, n: usize) -> [String; 2] {
        let first = self.kept[n];
        let before = self.parts[..first].iter().filter(|&&part| part != TRANSFORMER);
        let within = self.taken.iter().filter(|&&index| index > first).map(|&index| &self.parts[index]);
        [before.map(|part| format!("{part}.")).collect(), within.map(|part| format!("{part}.")).collect()]
    }
}

/// The keys of all tensors, in the order of their names, and what was taken off.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) keys: Vec<String>,
    /// The modules before the keys of the model, without `transformer`.
    prefixes: BTreeSet<String>,
    /// The modules that were taken out of the keys.
    within: BTreeSet<String>,
}

/// Several models in one checkpoint: their prefixes, and whether each is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SeveralModels {
    pub(super) prefixes: Vec<String>,
    pub(super) complete: bool,
}

/// The keys of tensors. `required` are those that every such model has.
///
/// Where the position embedding is not found under its own name or the known modules, the prefix is the one in front of
/// it under which all required tensors are found. If there are several such prefixes, nothing tells which of the models is
/// meant. Beside that prefix, only heads are taken for parts of the model; anything else keeps its whole name, which no
/// GPT-2 has.
pub(super) fn keys<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    required: impl Iterator<Item = String> + Clone,
) -> Result<Keys, SeveralModels> {
    // The parts of a name take more memory than the name, so those of one at a time are kept.
    let plain: Vec<String> = names.clone().map(|name| Name::new(name).key(0)).collect();
    let prefix = prefix(&plain, required)?;
    let n_parts = prefix.matches('.').count();
    let mut found = Keys { keys: Vec::new(), prefixes: BTreeSet::new(), within: BTreeSet::new() };
    for (name, plain) in names.map(Name::new).zip(plain) {
        let n = if plain.starts_with(&prefix) { n_parts } else { outside(&plain, &prefix) };
        let [before, within] = name.modules(n);
        found.prefixes.insert(before);
        found.within.insert(within);
        found.keys.push(name.key(n));
    }
    Ok(found)
}

/// The prefix under which the model is found; empty if there is none.
fn prefix(keys: &[String], required: impl Iterator<Item = String> + Clone) -> Result<String, SeveralModels> {
    let all: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let candidates: BTreeSet<&str> = keys
        .iter()
        .filter_map(|key| key.strip_suffix(W_POS))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .collect();
    let is_complete = |prefix: &str| required.clone().all(|key| all.contains(format!("{prefix}{key}").as_str()));
    let complete: Vec<&str> = candidates.iter().copied().filter(|prefix| is_complete(prefix)).collect();
    let several = |prefixes: &[&str], complete| {
        Err(SeveralModels { prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(), complete })
    };
    match (&complete[..], &candidates.iter().copied().collect::<Vec<_>>()[..]) {
        // One that lacks a tensor is taken as well: the error names that tensor.
        ([one], _) | ([], [one]) => Ok((*one).to_owned()),
        ([], []) => Ok(String::new()),
        ([], ["", ..]) => Ok(String::new()),
        ([], candidates) => several(candidates, false),
        (complete, _) => several(complete, true),
    }
}

/// The number of parts to take off a key that is not under the prefix: those of a module around the model, where the rest
/// is a head, and else none.
fn outside(key: &str, prefix: &str) -> usize {
    let modules = prefix.split_inclusive('.');
    let common: Vec<&str> =
        key.split_inclusive('.').zip(modules).take_while(|(one, other)| one == other).map(|(part, _)| part).collect();
    let rest = &key[common.iter().map(|part| part.len()).sum::<usize>()..];
    if rest == LM_HEAD || is_further_head(rest) { common.len() } else { 0 }
}

impl Keys {
    /// What was taken off the names, for a line.
    pub(super) fn note(&self) -> Option<String> {
        let modules = |modules: &BTreeSet<String>| {
            let text = list(modules.iter().map(String::as_str).filter(|text| !text.is_empty()), " and ");
            (!text.is_empty()).then_some(text)
        };
        let prefix = modules(&self.prefixes).map(|modules| format!("without the prefix {modules}"));
        let within = modules(&self.within).map(|modules| format!("without {modules} within them"));
        let parts: Vec<String> = prefix.into_iter().chain(within).collect();
        (!parts.is_empty()).then(|| format!("the names of its tensors were read {}", parts.join(", and ")))
    }
}

/// What a tensor is that no plain GPT-2 has, whatever its `config.json` says, and what to do.
pub(super) fn contradiction(key: &str) -> Option<&'static str> {
    let parts = || key.split('.');
    let has = |names: &[&str]| parts().any(|part| names.contains(&part));
    let begins = |starts: &[&str]| parts().any(|part| starts.iter().any(|start| part.starts_with(start)));
    if begins(&["lora_", "ia3_"]) || has(&["base_layer", "modules_to_save"]) {
        return Some(
            "a tensor of an adapter (LoRA, PEFT), which is not merged into its model: merge it, in Python with \
             model.merge_and_unload().save_pretrained(FOLDER)",
        );
    }
    if has(&["crossattention", "ln_cross_attn", "q_attn"]) {
        return Some(
            "a tensor of cross-attention: this is the decoder of an encoder-decoder model, and only GPT-2s that stand \
             alone are supported",
        );
    }
    let quantized = [
        "SCB",
        "absmax",
        "quant_map",
        "nested_absmax",
        "nested_quant_map",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "weight_format",
        "weight_scale",
        "weight_scale_inv",
        "input_scale",
        "weight_zero_point",
    ];
    if has(&["h"]) && (has(&quantized) || begins(&["quant_state"])) {
        return Some("a tensor of quantized weights, their scales or indices: load the model that was quantized");
    }
    None
}

/// Whether a tensor is a causal mask or a list of positions, which old versions of transformers stored.
pub(super) fn is_buffer(key: &str) -> bool {
    let is_mask = layer_and_part(key).is_some_and(|(_, part)| matches!(part, "attn.bias" | "attn.masked_bias"));
    is_mask || key == "position_ids"
}

/// The layer of a tensor of a block, and the rest of its key.
pub(super) fn layer_and_part(key: &str) -> Option<(usize, &str)> {
    let (layer, part) = key.strip_prefix("h.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// Whether a tensor belongs to a head beside or in place of the language model's, which reads the last residual stream:
/// a value head of reinforcement learning, a classifier, the bias of a head.
pub(super) fn is_further_head(key: &str) -> bool {
    let module = key.split('.').next().unwrap_or_default();
    module.ends_with("_head") || matches!(module, "score" | "classifier" | "qa_outputs" | "summary" | "head" | "heads")
}

/// Texts for a message: the first four, each shortened.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>, separator: &str) -> String {
    const SHOWN: usize = 4;
    let mut texts = texts.into_iter();
    let first: Vec<String> = texts.by_ref().take(SHOWN).map(shown).collect();
    match texts.count() {
        0 => first.join(separator),
        more => format!("{} and {more} more", first.join(separator)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tensors that a model must have in these tests.
    fn required() -> impl Iterator<Item = String> + Clone {
        ["wpe.weight", "h.0.ln_1.bias", "ln_f.bias"].into_iter().map(str::to_owned)
    }

    fn with_prefix(prefix: &str) -> Vec<String> {
        required().map(|key| format!("{prefix}{key}")).collect()
    }

    fn found(names: &[String]) -> Result<Keys, SeveralModels> {
        keys(names.iter().map(String::as_str), required())
    }

    #[test]
    fn prefixes_are_those_of_all_tensors() {
        for (prefix, reported) in [
            ("", None),
            ("transformer.", None),
            ("_orig_mod.transformer.", Some("_orig_mod.")),
            ("module.model.", Some("module.model.")),
            ("gpt.", Some("gpt.")),
            ("lightning.gpt.transformer.", Some("lightning.gpt.")),
            ("model.gpt.", Some("model.gpt.")),
            ("net._orig_mod.", Some("net._orig_mod.")),
            ("base_model.model.transformer.", Some("base_model.model.")),
            ("0.", Some("0.")),
            (".", Some(".")),
        ] {
            let keys = found(&with_prefix(prefix)).unwrap();
            assert_eq!(keys.keys, with_prefix(""), "{prefix}");
            let note = reported.map(|found| format!("the names of its tensors were read without the prefix {found}"));
            assert_eq!(keys.note(), note, "{prefix}");
        }
    }

    #[test]
    fn wrappers_of_single_blocks_are_taken_out() {
        let mut names = with_prefix("transformer.");
        names[1] = "transformer.h._orig_mod.0._fsdp_wrapped_module.module.ln_1.bias".into();
        let keys = found(&names).unwrap();
        assert_eq!(keys.keys, with_prefix(""));
        let note = "the names of its tensors were read without _orig_mod._fsdp_wrapped_module.module. within them";
        assert_eq!(keys.note().unwrap(), note);
    }

    #[test]
    fn heads_are_found_around_the_model() {
        for (head, key) in [
            ("lightning.gpt.lm_head.weight", "lm_head.weight"),
            ("lightning.lm_head.weight", "lm_head.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("lightning.v_head.bias", "v_head.bias"),
            // Not those of the model.
            ("lightning.gpt.wte.weight", "lightning.gpt.wte.weight"),
            ("other.lm_head.weight", "other.lm_head.weight"),
            ("wte.weight", "wte.weight"),
        ] {
            let mut names = with_prefix("lightning.gpt.transformer.");
            names.push(head.into());
            assert_eq!(found(&names).unwrap().keys[3], key, "{head}");
        }
    }

    #[test]
    fn one_of_several_models_is_not_guessed() {
        let two = |one: &str, other: &str| [with_prefix(one), with_prefix(other)].concat();
        let several =
            |prefixes: [&str; 2], complete| SeveralModels { prefixes: prefixes.map(str::to_owned).into(), complete };
        assert_eq!(found(&two("policy.", "reference.")).unwrap_err(), several(["policy.", "reference."], true));
        assert_eq!(found(&two("transformer.", "reference.")).unwrap_err(), several(["", "reference."], true));
        // The complete one of two is the model; the tensors of the other keep their names.
        let mut names = two("policy.", "reference.");
        names.pop();
        let keys = found(&names).unwrap().keys;
        assert_eq!(keys[2..4], ["ln_f.bias", "reference.wpe.weight"]);
        names.remove(2);
        assert_eq!(found(&names).unwrap_err(), several(["policy.", "reference."], false));
    }

    #[test]
    fn contradictions_are_told_apart() {
        for (key, kind) in [
            ("base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight", "an adapter"),
            ("h.0.attn.c_attn.base_layer.weight", "an adapter"),
            ("h.1.crossattention.c_attn.weight", "cross-attention"),
            ("h.0.attn.c_attn.SCB", "quantized"),
            ("transformer.h.0.mlp.c_fc.qweight", "quantized"),
            ("h.0.mlp.c_fc.weight.quant_state.bitsandbytes__nf4", "quantized"),
        ] {
            assert!(contradiction(key).unwrap().contains(kind), "{key}");
        }
        for key in ["h.0.attn.c_attn.weight", "v_head.scales", "lm_head.bias", "h.0.attn.q_norm.weight"] {
            assert_eq!(contradiction(key), None, "{key}");
        }
    }
}
