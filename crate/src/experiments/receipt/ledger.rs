//! The numbers of a receipt.

use ndarray::{Array1, Array2, ArrayView1, s};

use super::contributor::Contributor;
use super::lines::{Receipt, ReceiptCell, ReceiptLine};
use crate::attention_tokens::tokens_of_row;
use crate::decode::Reading;
use crate::error::{Result, check_index, check_position, check_setting};
use crate::experiments::check_answers;
use crate::model::{Activation, ActivationCache, FREEZE_LAYER_NORM, Gpt2, Prompts, RunOptions};

pub(super) const FUNCTION: &str = "receipt";

/// Options of [`receipt`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiptOptions {
    /// The index of the prompt, if several are given.
    pub prompt: usize,
    /// The position whose prediction is taken apart; negative ones count from the end.
    pub position: isize,
    /// The reading of what a pair says. What it writes is always that of `Reading::WRITTEN.unembed_bias(false)`.
    pub said: Reading,
    /// The lines that are shown have this share of the sum of all lines' sizes, above 0 and at most 1; the others are shown as
    /// one line. Files have all lines.
    pub share: f64,
}

impl Default for ReceiptOptions {
    /// The first prompt, its last position, the notebook's reading, a share of 0.9.
    fn default() -> Self {
        Self { prompt: 0, position: -1, said: Reading::default(), share: 0.9 }
    }
}

/// A prediction as a receipt: the difference of the logits of two tokens as a sum of what each part of the model writes.
///
/// ```text
/// logit(right) − logit(wrong)
///     = Σ_cells A_ij v_j W_O · u / σ      each layer, head and key j ≤ i, for the position i
///     + Σ_layers (b_O + MLP) · u / σ
///     + (embedding of the token + of the position) · u / σ
///     + b · (W_U[:, right] − W_U[:, wrong])                where the final layer norm's bias b is not folded into b_U
///     + b_U[right] − b_U[wrong]
/// ```
///
/// with `u = w ⊙ (W_U[:, right] − W_U[:, wrong])`, centred, `w` the weights of the final layer norm where they are not folded
/// into `W_U`, and `σ` the scale of the final layer norm in this run. The lines are computed in `f64` from the activations of
/// the run; [`Receipt::remainder`] is the difference between their sum and the model's own logits, a rounding error.
///
/// `answers` are the right and the wrong token. Interventions of a [hooked](Gpt2::hooked) model are part of the run; what they
/// add to the residual stream has a line for each layer.
///
/// **What it cannot show.** A line is what a part writes to this output by itself. What later layers read from it is in their
/// lines, not in its own; [`Receipt::strike`] runs the model without it. The scale `σ` depends on all lines together.
///
/// ```
/// use attention_tokens::experiments::{ReceiptOptions, receipt};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let prompt = "When Mary and John went to the store, John gave a drink to";
/// let answers = [model.to_single_token(" Mary")?, model.to_single_token(" John")?];
/// let receipt = receipt(&model, prompt, answers, ReceiptOptions::default())?;
/// assert!(receipt.remainder().abs() < 1e-4);
/// receipt // as the last expression of a cell, a table
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) for two equal answers or a share that is not above 0 and at most 1;
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that the vocabulary does not have, or a prompt that is not
/// there; [`Error::Position`](crate::Error::Position) for a position that the prompt does not have; those of
/// [`Gpt2::run_with_cache`] and [`head_data`](crate::head_data).
pub fn receipt(
    model: &Gpt2,
    prompts: impl Into<Prompts>,
    answers: [u32; 2],
    options: ReceiptOptions,
) -> Result<Receipt> {
    of_prompts(model, prompts.into(), answers, options)
}

/// [`receipt`] without the generic parameter.
fn of_prompts(model: &Gpt2, prompts: Prompts, answers: [u32; 2], options: ReceiptOptions) -> Result<Receipt> {
    let share = options.share;
    let expected = "a share above 0 and at most 1";
    check_setting(FUNCTION, "share", share > 0.0 && share <= 1.0, expected, share)?;
    check_answers(model, FUNCTION, answers)?;
    let [right, wrong] = answers;
    let mut prompts = model.checked_prompts(prompts)?;
    check_index("prompt", options.prompt, "the batch", prompts.len())?;
    let input = prompts.swap_remove(options.prompt);
    let position = check_position(options.position, options.prompt, input.len())?;
    use Activation::{K, MlpOut, Pattern, Q, ResidPost, V};
    let run = RunOptions::default().activations([Q, K, V, Pattern, MlpOut, ResidPost]);
    let run = run.logits_at([position as isize]);
    let (logits, cache) = model.run_with_cache_options(input.clone(), run)?;
    let logits = logits.expect("these options compute logits").remove(0); // [1, d_vocab]
    let logit = |token: u32| f64::from(logits[[0, token as usize]]);
    let ledger = Ledger::new(model, &cache, answers, position)?;
    let mut lines = ledger.lines(options.said)?;
    lines.sort_by(|a, b| b.logits.abs().total_cmp(&a.logits.abs()));
    Ok(Receipt {
        logit_diff: logit(right) - logit(wrong),
        answers,
        input,
        position,
        lines,
        options,
        model: model.clone(),
    })
}

/// A run, and the direction that its residual stream is read along.
struct Ledger<'a> {
    model: &'a Gpt2,
    cache: &'a ActivationCache,
    position: usize,
    answers: [u32; 2],
    /// `u / σ`. Shape: `[d_model]`.
    direction: Array1<f64>,
}

impl<'a> Ledger<'a> {
    fn new(model: &'a Gpt2, cache: &'a ActivationCache, answers: [u32; 2], position: usize) -> Result<Self> {
        let directions = model.tokens_to_residual_directions(&answers)?.mapv(f64::from);
        let direction = &directions.row(0) - &directions.row(1);
        let scale = f64::from(cache.ln_final_scale(model)?[position]);
        let direction = (&direction - direction.mean().unwrap_or_default()) / scale;
        Ok(Self { model, cache, position, answers, direction })
    }

    /// What a vector in the residual stream writes. Shape: `[d_model]`.
    fn written(&self, vector: ArrayView1<f32>) -> f64 {
        vector.iter().zip(&self.direction).map(|(&x, u)| f64::from(x) * u).sum()
    }

    fn lines(&self, said: Reading) -> Result<Vec<ReceiptLine>> {
        let Self { model, cache, position, .. } = *self;
        let mut lines = Vec::new();
        let (embed, pos_embed) = cache.embeddings(model)?; // each [pos, d_model]
        let mut before = [&embed, &pos_embed].map(|x| self.written(x.row(position)));
        lines.extend([line(Contributor::Embed, before[0]), line(Contributor::PosEmbed, before[1])]);
        for layer in 0..model.config().n_layers {
            let cells = self.cells(layer, said)?;
            let bias = self.written(model.on_device().b_o(layer)?.view());
            let mlp = self.written(cache.matrix(Activation::MlpOut, layer)?.row(position));
            let after = self.written(cache.matrix(Activation::ResidPost, layer)?.row(position));
            if self.has_interventions(layer) {
                let known = cells.iter().map(|cell| cell.logits).sum::<f64>() + bias + mlp;
                let added = after - before.iter().sum::<f64>() - known;
                lines.push(line(Contributor::Interventions { layer }, added));
            }
            before = [after, 0.0];
            lines.extend(cells);
            lines.extend([line(Contributor::AttnBias { layer }, bias), line(Contributor::Mlp { layer }, mlp)]);
        }
        lines.extend(self.constants()?);
        Ok(lines)
    }

    /// Whether an intervention of the model changes the residual stream in a layer, other than through what the lines are
    /// computed from.
    fn has_interventions(&self, layer: usize) -> bool {
        use Activation::{AttnOut, ResidMid, ResidPost, ResidPre, Result, Z};
        self.model.interventions().iter().any(|intervention| {
            let point = intervention.point();
            point.layer == layer
                && [Z, Result, AttnOut, ResidPre, ResidMid, ResidPost].contains(&point.activation)
                && !intervention.to_string().starts_with(FREEZE_LAYER_NORM)
        })
    }

    /// The cells of a layer's heads, head by head and key by key.
    fn cells(&self, layer: usize, said: Reading) -> Result<Vec<ReceiptLine>> {
        let Self { model, cache, position, .. } = *self;
        let w_o = model.on_device().w_o(layer)?.mapv(f64::from); // [n_heads, d_head, d_model]
        let (v, pattern) = (cache.cube(Activation::V, layer)?, cache.cube(Activation::Pattern, layer)?);
        let said = tokens_of_row(model, cache, layer, position, said)?;
        let written = tokens_of_row(model, cache, layer, position, Reading::WRITTEN.unembed_bias(false))?;
        let input = cache.one_prompt()?;
        let mut lines = Vec::with_capacity(w_o.dim().0 * (position + 1));
        for (head, w_o) in w_o.outer_iter().enumerate() {
            let through_w_o: Array1<f64> = w_o.dot(&self.direction); // [d_head]
            let values: Array2<f64> = v.slice(s![..=position, head, ..]).mapv(f64::from); // [key_pos, d_head]
            let by_key = values.dot(&through_w_o);
            let lowest = written[head].lowest.as_ref().expect("of this projection");
            for (key, by_key) in by_key.into_iter().enumerate() {
                let attention = pattern[[head, position, key]];
                let cell = ReceiptCell {
                    key_token: input[key],
                    attention,
                    said: said[head].highest[key],
                    written: written[head].highest[key],
                    lowest: lowest[key],
                };
                let contributor = Contributor::Cell { layer, head, key };
                lines.push(ReceiptLine { contributor, logits: f64::from(attention) * by_key, cell: Some(cell) });
            }
        }
        Ok(lines)
    }

    /// The biases that no residual stream has a part in.
    fn constants(&self) -> Result<Vec<ReceiptLine>> {
        let model = self.model;
        let (_, b_u) = model.on_device().unembed_columns(&self.answers)?;
        let unembed = line(Contributor::UnembedBias, f64::from(b_u[0]) - f64::from(b_u[1]));
        if model.processing().fold_ln {
            return Ok(vec![unembed]);
        }
        // The final layer norm of zeros is its bias.
        let constant = model.on_device().unembed(Array2::zeros((1, model.config().d_model)))?; // [1, d_vocab]
        let of_token = |token: u32| f64::from(constant[[0, token as usize]]);
        let bias = of_token(self.answers[0]) - of_token(self.answers[1]) - unembed.logits;
        Ok(vec![line(Contributor::FinalLayerNormBias, bias), unembed])
    }
}

/// A line that is not one of a cell.
fn line(contributor: Contributor, logits: f64) -> ReceiptLine {
    ReceiptLine { contributor, logits, cell: None }
}
