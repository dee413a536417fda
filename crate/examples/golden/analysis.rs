//! Compares the analysis of a run with `analysis.safetensors`. `parity.rs` documents the names.

use attention_tokens::ResidualStack;
use attention_tokens::prelude::*;
use ndarray::{Array0, Array1, Array2, Array3, ArrayD, Axis, s};

use super::edits;
use super::expected::Expected;
use super::heads;
use super::report::Report;
use super::{LIMIT, Result};

/// The beginnings of names whose tools the library does not have.
const NOT_YET: [&str; 1] = ["grad."];

/// The beginning of the names of attention tokens without the bias of the unembedding.
pub(super) const WITHOUT_B_U: &str = "without_b_u.";

/// The inputs of the file, and the run of the clean prompt.
struct Clean<'a> {
    model: Gpt2,
    expected: &'a Expected<'a>,
    logits: Array2<f32>,
    cache: ActivationCache,
    right: u32,
    wrong: u32,
}

/// Checks every tensor that the library can compute, at the level `notebook`.
pub(super) fn check(model: Gpt2, expected: &Expected, report: &mut Report) -> Result<()> {
    let (mut logits, cache) = model.run_with_cache(expected.tokens("clean")?)?;
    let answers = expected.integers("answers")?;
    let [right, wrong] = answers.iter().map(|&answer| answer as u32).collect::<Vec<_>>()[..] else {
        return Err("answers must be two tokens".into());
    };
    let clean = Clean { model, expected, logits: logits.remove(0), cache, right, wrong };
    for name in expected.0.keys().filter(|name| is_analysis(name)) {
        if NOT_YET.iter().any(|beginning| name.starts_with(beginning)) {
            report.not_yet(name);
            continue;
        }
        if name == "clean.logit_lens_tokens" {
            let want = expected.integers(name)?;
            let tokens = clean.cache.logit_lens(&clean.model, &[])?.tokens;
            let wrong = tokens.iter().zip(&want).filter(|&(&got, &want)| i64::from(got) != want).count();
            let passed = wrong == 0 && tokens.shape() == want.shape();
            report.line(name, passed, &format!("{} tokens compared, {wrong} wrong", tokens.len()));
            continue;
        }
        if name == "generate.greedy" {
            let want = expected.integers(name)?;
            let n_new = want.len().saturating_sub(clean.cache.tokens()[0].len());
            let greedy = GenerateOptions::default().do_sample(false).stop_at_eos(false).max_new_tokens(n_new);
            let tokens = clean.model.generate(clean.cache.tokens()[0].clone(), greedy)?.tokens.remove(0);
            let equal = tokens.iter().map(|&token| i64::from(token)).eq(want.iter().copied());
            report.line(name, equal, &format!("{n_new} tokens generated: {tokens:?}"));
            continue;
        }
        let want = expected.numbers(name)?;
        match clean.compute(name)? {
            Some(got) => report.numbers(name, &got, &want, LIMIT),
            None => report.unknown(name),
        }
    }
    Ok(())
}

/// Whether a tensor is neither an input nor attention tokens.
fn is_analysis(name: &str) -> bool {
    name != "answers" && !name.ends_with(".tokens") && !name.starts_with(WITHOUT_B_U)
}

impl Clean<'_> {
    /// The library's value of a tensor. `None` for an unknown name. Shape: → as in the file.
    fn compute(&self, name: &str) -> Result<Option<ArrayD<f32>>> {
        let Self { model, cache, right, wrong, .. } = self;
        let (n_layers, answers) = (model.config().n_layers, &[*right, *wrong]);
        let by_layer = |scale: &dyn Fn(usize) -> attention_tokens::Result<Array1<f32>>| -> Result<ArrayD<f32>> {
            let scales = (0..n_layers).map(scale).collect::<attention_tokens::Result<Vec<_>>>()?;
            let views: Vec<_> = scales.iter().map(|scale| scale.view()).collect();
            Ok(ndarray::stack(Axis(0), &views)?.into_dyn())
        };
        let neurons = |activation| -> Result<ArrayD<f32>> {
            let layers = (0..n_layers).map(|layer| cache.get(activation, layer));
            let layers = layers.collect::<attention_tokens::Result<Vec<_>>>()?;
            Ok(ndarray::stack(Axis(0), &layers.iter().map(|layer| layer.view()).collect::<Vec<_>>())?)
        };
        let last = |attrs: Array2<f32>| attrs.index_axis_move(Axis(1), cache.tokens()[0].len() - 1);
        Ok(Some(match name {
            "clean.logits_last" => self.logits.row(self.logits.nrows() - 1).to_owned().into_dyn(),
            "clean.logit_diff" => self.logit_diff(&self.logits),
            "corrupted.logit_diff" => self.logit_diff(&model.forward(self.expected.tokens("corrupted")?)?[0]),
            "clean.loss" => number(model.loss(self.expected.tokens("clean")?)?[0]),
            "clean.loss_per_token" => model.loss_per_token(self.expected.tokens("clean")?)?.remove(0).into_dyn(),
            "clean.embed" => cache.embeddings(model)?.0.into_dyn(),
            "clean.pos_embed" => cache.embeddings(model)?.1.into_dyn(),
            "clean.ln1_scale" => by_layer(&|layer| cache.ln1_scale(model, layer))?,
            "clean.ln2_scale" => by_layer(&|layer| cache.ln2_scale(model, layer))?,
            "clean.ln_final_scale" => cache.ln_final_scale(model)?.into_dyn(),
            "clean.mlp_pre" => neurons(Activation::MlpPre)?,
            "clean.mlp_post" => neurons(Activation::MlpPost)?,
            "clean.accumulated_resid" => cache.accumulated_resid(None, true)?.values.into_dyn(),
            "clean.accumulated_resid_ln" => {
                cache.apply_ln_to_stack(model, &cache.accumulated_resid(None, true)?, None, false)?.values.into_dyn()
            }
            "clean.decompose_resid" => cache.decompose_resid(model, None)?.values.into_dyn(),
            "clean.stack_head_results" => cache.stack_head_results(model, None, false)?.values.into_dyn(),
            "clean.component_logit_attrs" => {
                let stack: ResidualStack = cache.decompose_resid(model, None)?;
                last(cache.logit_attrs(model, &stack, *right, Some(*wrong))?).into_dyn()
            }
            "clean.head_logit_attrs" => {
                let attrs: Array3<f32> = cache.head_logit_attrs(model, *right, Some(*wrong))?;
                attrs.slice_move(s![.., .., -1]).into_dyn()
            }
            "clean.cell_logit_attrs" => {
                let mut attrs = Array3::zeros((n_layers, model.config().n_heads, cache.tokens()[0].len()));
                for (layer, mut attrs) in attrs.outer_iter_mut().enumerate() {
                    for (head, mut attrs) in attrs.outer_iter_mut().enumerate() {
                        let cells = cache.cell_logit_attrs(model, layer, head, *right, Some(*wrong))?;
                        attrs.assign(&cells.row(cells.nrows() - 1));
                    }
                }
                attrs.into_dyn()
            }
            _ if edits::knows(name) => return edits::compute(name, model, self.expected, *answers),
            _ if heads::knows(name) => return heads::compute(name, model, self.expected),
            "clean.logit_lens_logits" => cache.logit_lens(model, answers)?.logits.into_dyn(),
            _ => return Ok(None),
        }))
    }

    /// The logit difference at the last position. Shape: `[pos, d_vocab]` → `[]`.
    fn logit_diff(&self, logits: &Array2<f32>) -> ArrayD<f32> {
        let last = logits.row(logits.nrows() - 1);
        number(last[self.right as usize] - last[self.wrong as usize])
    }
}

/// Shape: → `[]`.
fn number(x: f32) -> ArrayD<f32> {
    Array0::from_elem((), x).into_dyn()
}
