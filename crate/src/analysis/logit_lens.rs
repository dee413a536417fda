//! The logit lens: what the model would predict if its remaining layers were skipped.

use ndarray::{Array2, Array3, ArrayView1, Axis, stack};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{Exp, MaxNum, Sum};

use super::layer_norm::scale as scale_of_rows;
use super::unembedding::{map_logits, rank};
use crate::error::Result;
use crate::model::{ActivationCache, Gpt2};

/// The scale of the final layer norm in a lens: what the centered residual stream is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LensScale {
    /// That of each vector itself: the logits are those of the model without its remaining layers.
    #[default]
    Own,
    /// That of the residual stream after the last layer, as in direct logit attribution: the difference between two rows
    /// is then what the layers between them write. TransformerLens' `apply_ln_to_stack` with `layer=-1`.
    Final,
    /// That of the residual stream before the block that wrote to it last: `apply_ln_to_stack(resid_post, layer)`, as the
    /// original author's notebook has it. The residual stream grows with each block, so the numbers are larger than the
    /// logits of a model that ends there, and the bias of the unembedding counts less.
    Block,
}

impl LensScale {
    /// The words of captions.
    pub(super) fn name(self) -> &'static str {
        match self {
            LensScale::Own => "own scale",
            LensScale::Final => "scale of the final layer norm",
            LensScale::Block => "scale before the block",
        }
    }
}

/// The predictions of the residual stream before, inside and after each layer. See [`ActivationCache::logit_lens`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogitLens {
    /// The scale of the layer norm.
    pub scale: LensScale,
    /// The place in the model of each row: `"0_pre"`, `"0_mid"`, …, `"final_post"`.
    pub labels: Vec<String>,
    /// The tokens of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The answers. Shape: `[answer]`.
    pub answers: Vec<u32>,
    /// The most likely token. Shape: `[component, pos]`.
    pub tokens: Array2<u32>,
    /// The probability of the most likely token. Shape: `[component, pos]`.
    pub top_probabilities: Array2<f32>,
    /// The logit of each answer. Shape: `[component, pos, answer]`.
    pub logits: Array3<f32>,
    /// The probability of each answer. Shape: `[component, pos, answer]`.
    pub probabilities: Array3<f32>,
    /// The number of tokens with a larger logit than the answer: 0 for the most likely one.
    /// Shape: `[component, pos, answer]`.
    pub ranks: Array3<usize>,
}

impl ActivationCache {
    /// The logit lens (nostalgebraist, 2020) over [`accumulated_resid`](Self::accumulated_resid): each vector goes
    /// through the final layer norm, with a scale of its own, and the unembedding with its bias.
    /// Shape: `answers [answer]` → as [`LogitLens`] lists.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let lens = cache.logit_lens(&model, &[model.to_single_token(" Mary")?])?;
    /// let last_pos = cache.tokens()[0].len() - 1;
    /// assert_eq!(lens.labels[8], "final_post");
    /// assert_eq!(lens.ranks[[8, last_pos, 0]], 0); // " Mary" is the most likely next token
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for an answer that the vocabulary does not have, and those of
    /// [`get`](Self::get).
    pub fn logit_lens(&self, model: &Gpt2, answers: &[u32]) -> Result<LogitLens> {
        self.logit_lens_options(model, answers, LensScale::Own)
    }

    /// [`logit_lens`](Self::logit_lens) with a choice of the scale of the layer norm.
    /// Shape: `answers [answer]` → as [`LogitLens`] lists.
    ///
    /// # Errors
    /// As for [`logit_lens`](Self::logit_lens).
    pub fn logit_lens_options(&self, model: &Gpt2, answers: &[u32], scale: LensScale) -> Result<LogitLens> {
        self.check_model(model, "logit_lens")?;
        model.check_tokens(answers)?;
        let stack = self.accumulated_resid(None, true)?;
        let (components, pos, d_model) = stack.values.dim();
        let (shape, n) = ((components, pos, answers.len()), components * pos);
        let mut lens = LogitLens {
            scale,
            labels: stack.labels,
            input: self.one_prompt()?.to_vec(),
            answers: answers.to_vec(),
            tokens: Array2::zeros((components, pos)),
            top_probabilities: Array2::zeros((components, pos)),
            logits: Array3::zeros(shape),
            probabilities: Array3::zeros(shape),
            ranks: Array3::zeros(shape),
        };
        let rows = stack.values.into_shape_with_order((n, d_model)).expect("the stack has this many rows");
        // Without the constant, which a vector of zeros gives, logits are inversely proportional to the scale.
        let rescaling = match scale {
            LensScale::Own => None,
            _ => {
                let own = self.lens_scales(model, LensScale::Own)?;
                let constant = model.on_device().unembed(Array2::zeros((1, d_model)))?; // [1, d_vocab]
                Some(((own / self.lens_scales(model, scale)?).into_raw_vec_and_offset().0, constant))
            }
        };
        let predict = |row: usize, logits: ArrayView1<f32>| match &rescaling {
            None => Prediction::new(logits.as_slice().expect("a row of logits is contiguous"), answers),
            Some((ratios, constant)) => {
                let rescaled = logits.iter().zip(constant).map(|(x, constant)| (x - constant) * ratios[row] + constant);
                Prediction::new(&rescaled.collect::<Vec<f32>>(), answers)
            }
        };
        let predictions = map_logits(model, rows.view(), predict)?;
        for (index, prediction) in predictions.into_iter().enumerate() {
            let at = (index / pos, index % pos);
            lens.tokens[at] = prediction.token;
            lens.top_probabilities[at] = prediction.probability;
            for (answer, (logit, probability, rank)) in prediction.answers.into_iter().enumerate() {
                let at = (at.0, at.1, answer);
                (lens.logits[at], lens.probabilities[at], lens.ranks[at]) = (logit, probability, rank);
            }
        }
        Ok(lens)
    }
}

impl ActivationCache {
    /// The scale of the layer norm for each row of `accumulated_resid(None, true)`. Shape: → `[component, pos]`.
    pub(super) fn lens_scales(&self, model: &Gpt2, scale: LensScale) -> Result<Array2<f32>> {
        let stack_of_rows = self.accumulated_resid(None, true)?;
        let rows = stack_of_rows.values.outer_iter().enumerate().map(|(component, rows)| match scale {
            LensScale::Final => self.ln_final_scale(model),
            LensScale::Block if component > 0 => self.ln1_scale(model, (component - 1) / 2),
            _ => Ok(scale_of_rows(rows, model)), // before the first block, also its own
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = rows.iter().map(|row| row.view()).collect();
        Ok(stack(Axis(0), &views).expect("a scale for each position"))
    }
}

/// The prediction of one row of the residual stream.
struct Prediction {
    /// The most likely token, the lowest id on a tie, and its probability.
    token: u32,
    probability: f32,
    /// Logit, probability and rank of each answer.
    answers: Vec<(f32, f32, usize)>,
}

impl Prediction {
    /// Shape: `logits [d_vocab]`.
    fn new(logits: &[f32], answers: &[u32]) -> Self {
        let largest = MaxNum::new(logits).dispatch();
        let sum = sum_exp(logits, largest);
        let probability = |logit: f32| (f64::from(logit - largest).exp() / sum) as f32;
        let token = logits.iter().position(|&logit| logit == largest).unwrap_or_default() as u32;
        let answer = |&token: &u32| {
            let logit = logits[token as usize];
            (logit, probability(logit), rank(logits.into(), token))
        };
        Self { token, probability: probability(largest), answers: answers.iter().map(answer).collect() }
    }
}

/// `Σ exp(x − largest)`, relatively exact to 2e-6: the terms are in `f32`, for which there are vector instructions, and
/// so are the sums of pieces, which are then added in `f64`. Shape: `[n]`.
fn sum_exp(x: &[f32], largest: f32) -> f64 {
    const PIECE: usize = 512;
    let mut terms = [0.0; PIECE];
    let mut sum_of_piece = |x: &[f32]| {
        let terms = &mut terms[..x.len()];
        terms.iter_mut().zip(x).for_each(|(term, x)| *term = x - largest);
        Exp::default().map_mut(terms);
        f64::from(Sum::new(terms).dispatch())
    };
    x.chunks(PIECE).map(&mut sum_of_piece).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::loss::log_sum_exp;

    #[test]
    fn predictions_are_those_of_the_softmax_in_f64() {
        let mut random = fastrand::Rng::with_seed(1);
        for (n, scale) in [(1, 1.0), (7, 3.0), (513, 1.0), (50_257, 12.0), (50_257, 0.01)] {
            let logits: Vec<f32> = (0..n).map(|_| scale * (random.f32() - 0.5)).collect();
            let answer = random.usize(..n);
            let Prediction { token, probability, answers } = Prediction::new(&logits, &[answer as u32]);
            let order = |a: &usize, b: &usize| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a));
            let best = (0..n).max_by(order).unwrap();
            let log_sum = log_sum_exp(logits.as_slice().into());
            let near = |got: f32, logit: f32| (f64::from(got).ln() - (f64::from(logit) - log_sum)).abs() < 2e-6;
            assert!(token as usize == best && near(probability, logits[best]), "{n} {scale}");
            let (logit, probability, rank) = answers[0];
            assert!(logit == logits[answer] && near(probability, logit), "{n} {scale}");
            assert_eq!(rank, logits.iter().filter(|&&other| other > logit).count());
        }
    }

    #[test]
    fn the_lowest_id_wins_a_tie_and_impossible_tokens_count_nothing() {
        let logits = [f32::NEG_INFINITY, 2.0, 2.0, f32::NEG_INFINITY];
        let Prediction { token, probability, answers } = Prediction::new(&logits, &[3, 2]);
        assert_eq!((token, probability, answers), (1, 0.5, vec![(f32::NEG_INFINITY, 0.0, 2), (2.0, 0.5, 0)]));
    }
}
