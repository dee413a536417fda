//! The library's values of the tensors about heads and their circuits in `analysis.safetensors`.

use attention_tokens::prelude::*;
use attention_tokens::{FactoredMatrix, HeadScores};
use ndarray::{Array3, ArrayD};

use super::Result;
use super::expected::Expected;

/// Whether a tensor is about heads.
pub(super) fn knows(name: &str) -> bool {
    ["composition.", "detect.", "ov.", "qk.", "scores."].iter().any(|beginning| name.starts_with(beginning))
}

/// The library's value of a tensor. `None` for an unknown name. Shape: → as in the file.
pub(super) fn compute(name: &str, model: &Gpt2, expected: &Expected) -> Result<Option<ArrayD<f32>>> {
    let scores = |scores: HeadScores| Ok(Some(scores.values.into_dyn()));
    // The tokens come twice, after the beginning-of-sequence token.
    let run = || -> Result<(ActivationCache, usize)> {
        let tokens = expected.tokens("repeated")?;
        let period = (tokens.len() - 1) / 2;
        Ok((model.run_with_cache(tokens)?.1, period))
    };
    let detect = |pattern| scores(run()?.0.detect_head(&pattern, DetectOptions::default())?);
    let diagonal = |offset: fn(usize) -> usize| {
        let (cache, period) = run()?;
        scores(cache.diagonal_scores(offset(period))?)
    };
    let composition = |mode| Ok(Some(model.all_composition_scores(mode)?.scores.into_dyn()));
    match name {
        "composition.q" => composition(Composition::Q),
        "composition.k" => composition(Composition::K),
        "composition.v" => composition(Composition::V),
        "detect.previous" => detect(DetectionPattern::PreviousTokenHead),
        "detect.duplicate" => detect(DetectionPattern::DuplicateTokenHead),
        "detect.induction" => detect(DetectionPattern::InductionHead),
        "scores.previous" => diagonal(|_| 1),
        "scores.duplicate" => diagonal(|period| period),
        "scores.induction" => diagonal(|period| period - 1),
        "qk.singular_values" => singular_values(model, Gpt2::qk),
        "ov.singular_values" => singular_values(model, Gpt2::ov),
        "ov.copying_score" => scores(copying_scores(model)?),
        _ => Ok(None),
    }
}

/// Shape: → `[n_layers, n_heads, d_head]`.
fn singular_values(
    model: &Gpt2,
    circuit: fn(&Gpt2, usize, usize) -> attention_tokens::Result<FactoredMatrix>,
) -> Result<Option<ArrayD<f32>>> {
    let config = model.config();
    let mut values = Array3::zeros((config.n_layers, config.n_heads, config.d_head));
    for (layer, mut values) in values.outer_iter_mut().enumerate() {
        for (head, mut values) in values.outer_iter_mut().enumerate() {
            values.assign(&circuit(model, layer, head)?.svd()?.s);
        }
    }
    Ok(Some(values.into_dyn()))
}

/// The scores of all heads together, after a comparison with that of the full circuit of the last head.
fn copying_scores(model: &Gpt2) -> Result<HeadScores> {
    let scores = model.copying_scores()?;
    let (n_layers, n_heads) = scores.values.dim();
    let (layer, head) = (n_layers - 1, n_heads - 1);
    let alone = model.full_ov(layer, head)?.matrix.eigenvalues()?.copying_score();
    let difference = (scores.values[[layer, head]] - alone).abs();
    match difference {
        difference if difference < 1e-5 => Ok(scores),
        difference => Err(format!("copying scores differ by {difference} from that of the full circuit").into()),
    }
}
