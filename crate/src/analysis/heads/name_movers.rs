//! Name movers: heads that attend to a name and copy it to the answer.

use std::collections::BTreeSet;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::head_scores::HeadScores;
use super::scores_of_patterns;
use crate::analysis::layer_norm::{center_and_divide, scale};
use crate::analysis::unembedding::{map_logits, rank};
use crate::error::{Result, check_count};
use crate::model::{Activation, ActivationCache, Gpt2, Prompts, RunOptions};
use crate::plot::{Table, decimals};
use crate::weights::BlockWeights;

/// Scores of name mover heads. See [`Gpt2::name_mover_scores`].
#[derive(Clone, Debug, PartialEq)]
pub struct NameMoverScores {
    /// The share of names that the head's OV circuit copies. Shape: `[n_layers, n_heads]`.
    pub copy: HeadScores,
    /// The same for the negated OV circuit: the share of names that the head suppresses.
    pub negative_copy: HeadScores,
    /// Mean attention of the last position to the answer.
    pub answer_attention: HeadScores,
    /// The correlation of the attention to a name with the logit that the head writes for it, over the names of all
    /// prompts; NaN where one of them does not vary.
    pub correlation: HeadScores,
    /// The number of names in all prompts, repeated ones included.
    pub n_names: usize,
}

impl Gpt2 {
    /// How well every head copies names, and whether it attends to the answer: the scores by which Wang et al. 2022
    /// (Interpretability in the Wild, §3.1) tell name movers and negative name movers.
    ///
    /// - **Copy score.** The residual stream after the first block, at each position of a name, goes through the layer
    ///   norm and the OV circuit of the head, as if the head attended to that position alone, and through the final
    ///   layer norm and the unembedding. The score is the share of names that are then among the `top_k` most likely
    ///   tokens. The **negative copy score** is the same with the output negated. In GPT-2 small, with `top_k = 5`, name
    ///   movers copy more than 95 % and an average head less than 20 %.
    /// - **Prediction.** The attention of the last position to the answer; and the correlation of the attention to each
    ///   name with the logit that the head writes for it there ([`head_logit_attrs`](ActivationCache::head_logit_attrs)).
    ///
    /// `names` are the tokens of all names that may occur; `answers` has the token that is the answer to each prompt, and
    /// must occur in it. Shape: → each `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache); [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that
    /// the vocabulary does not have; [`Error::Count`](crate::Error::Count) if `top_k` is 0, if there are not as many
    /// answers as prompts, if an answer does not occur in its prompt, or if no name occurs in any.
    pub fn name_mover_scores(
        &self,
        prompts: impl Into<Prompts>,
        names: &[u32],
        answers: &[u32],
        top_k: usize,
    ) -> Result<NameMoverScores> {
        self.scores_of_names(prompts.into(), names, answers, top_k)
    }

    /// [`name_mover_scores`](Self::name_mover_scores) without the generic parameter.
    fn scores_of_names(
        &self,
        prompts: Prompts,
        names: &[u32],
        answers: &[u32],
        top_k: usize,
    ) -> Result<NameMoverScores> {
        const FUNCTION: &str = "name_mover_scores";
        check_count(FUNCTION, "top_k", top_k, 1, Some(self.config().d_vocab))?;
        self.check_tokens(names)?;
        self.check_tokens(answers)?;
        let prompts = self.checked_prompts(prompts)?;
        check_count(FUNCTION, "answers", answers.len(), prompts.len(), Some(prompts.len()))?;
        for (index, (prompt, &answer)) in prompts.iter().zip(answers).enumerate() {
            let found = prompt.iter().filter(|&&token| token == answer).count();
            let what = format!("positions of the answer, token {answer}, in prompt {index}");
            check_count(FUNCTION, what, found, 1, None)?;
        }
        let names: BTreeSet<u32> = names.iter().copied().collect();
        let n_names = prompts.iter().flatten().filter(|token| names.contains(token)).count();
        check_count(FUNCTION, "names in the prompts", n_names, 1, None)?;

        let zeros = || Array2::<f32>::zeros((self.config().n_layers, self.config().n_heads));
        let n_prompts = prompts.len() as f32;
        let (mut answer_attention, mut points) = (zeros(), Points::new(zeros().len()));
        let (mut resid, mut targets) = (Vec::new(), Vec::new());
        for (tokens, &answer) in prompts.iter().zip(answers) {
            use Activation::{Pattern, ResidPost, Z};
            let options = RunOptions::default().activations([Pattern, Z, ResidPost]).no_logits();
            let (_, cache) = self.run_with_cache_options(Prompts::from(tokens.clone()), options)?;
            answer_attention.scaled_add(1.0 / n_prompts, &attention_to(&cache, answer)?);
            for &name in names.iter().filter(|name| tokens.contains(name)) {
                let written = cache.head_logit_attrs(self, name, None)?; // [layer, head, pos]
                points.add(&attention_to(&cache, name)?, written.slice(s![.., .., -1]));
            }
            let first = cache.matrix(ResidPost, 0)?;
            for (pos, token) in tokens.iter().enumerate().filter(|(_, token)| names.contains(token)) {
                resid.extend(first.row(pos).iter().copied());
                targets.push(*token);
            }
        }
        let resid = Array2::from_shape_vec((n_names, self.config().d_model), resid).expect("a row for each name");
        let (copy, negative_copy) = self.copied_names(resid, &targets, top_k)?;
        let chance = Some((top_k as f32 / self.config().d_vocab as f32).min(1.0));
        let scores = |name: &str, values, chance| HeadScores { name: name.into(), values, chance };
        Ok(NameMoverScores {
            copy: scores("copy score", copy, chance),
            negative_copy: scores("negative copy score", negative_copy, chance),
            answer_attention: scores("attention to the answer", answer_attention, None),
            correlation: scores("correlation of attention and written logit", points.correlations(zeros()), Some(0.0)),
            n_names,
        })
    }

    /// The share of names that the OV circuit of each head copies, and that the negated one does. `resid` has the
    /// residual stream after the first block. Shape: `resid [name, d_model]`, `names [name]` → each `[n_layers, n_heads]`.
    fn copied_names(&self, mut resid: Array2<f32>, names: &[u32], top_k: usize) -> Result<(Array2<f32>, Array2<f32>)> {
        let scale = scale(resid.view(), self);
        center_and_divide(resid.view_mut(), &scale);
        let (n_layers, n_heads) = (self.config().n_layers, self.config().n_heads);
        let (mut copy, mut negative) = (Array2::zeros((n_layers, n_heads)), Array2::zeros((n_layers, n_heads)));
        for layer in 0..n_layers {
            let block = self.block_weights(layer)?;
            let x = match &block.ln1 {
                Some(ln) => &resid * &ln.w + &ln.b,
                None => resid.clone(),
            };
            for head in 0..n_heads {
                let output = through_ov(x.view(), &block, head); // [name, d_model]
                let both = concatenate![Axis(0), output, -&output];
                let copied = self.copied(&both, names, top_k)?;
                let share =
                    |copied: &[bool]| copied.iter().filter(|&&copied| copied).count() as f32 / names.len() as f32;
                let (positive, negated) = copied.split_at(names.len());
                (copy[[layer, head]], negative[[layer, head]]) = (share(positive), share(negated));
            }
        }
        Ok((copy, negative))
    }

    /// Whether each name is among the most likely tokens. `outputs` has rows for all names, once or several times.
    /// Shape: `outputs [rows, d_model]`, `names [name]` → `[rows]`.
    fn copied(&self, outputs: &Array2<f32>, names: &[u32], top_k: usize) -> Result<Vec<bool>> {
        map_logits(self, outputs.view(), |row, logits| rank(logits, names[row % names.len()]) < top_k)
    }
}

/// `(x W_V + b_V) W_O` of a head. Shape: `[rows, d_model]` → the same.
fn through_ov(x: ArrayView2<f32>, block: &BlockWeights, head: usize) -> Array2<f32> {
    let v = x.dot(&block.w_v.index_axis(Axis(0), head)) + block.b_v.row(head); // [rows, d_head]
    v.dot(&block.w_o.index_axis(Axis(0), head))
}

/// The attention of the last position to all positions of a token. Shape: → `[n_layers, n_heads]`.
fn attention_to(cache: &ActivationCache, token: u32) -> Result<Array2<f32>> {
    let tokens = cache.one_prompt()?;
    scores_of_patterns(cache, |_, _, pattern| {
        let last = pattern.row(tokens.len() - 1);
        last.iter().zip(tokens).filter(|&(_, &key)| key == token).map(|(attention, _)| attention).sum()
    })
}

/// Pairs of attention and logit for each head, for their correlation.
struct Points(Vec<Vec<[f64; 2]>>);

impl Points {
    fn new(n_heads: usize) -> Self {
        Self(vec![Vec::new(); n_heads])
    }

    /// Shape: both `[n_layers, n_heads]`.
    fn add(&mut self, attention: &Array2<f32>, logit: ArrayView2<f32>) {
        for (points, (&attention, &logit)) in self.0.iter_mut().zip(attention.iter().zip(logit)) {
            points.push([attention.into(), logit.into()]);
        }
    }

    /// Pearson's correlation for each head. Shape: `into [n_layers, n_heads]` → the same.
    fn correlations(&self, mut into: Array2<f32>) -> Array2<f32> {
        for (correlation, points) in into.iter_mut().zip(&self.0) {
            let mean = [0, 1].map(|i| points.iter().map(|point| point[i]).sum::<f64>() / points.len() as f64);
            let covariance = |i: usize, j: usize| {
                points.iter().map(|point| (point[i] - mean[i]) * (point[j] - mean[j])).sum::<f64>()
            };
            // 0 / 0 is NaN: a correlation of constants is not defined.
            *correlation = (covariance(0, 1) / (covariance(0, 0) * covariance(1, 1)).sqrt()) as f32;
        }
        into
    }
}

impl NameMoverScores {
    /// A table of the `n` heads that attend most to the answer, with all scores.
    pub fn table(&self, n: usize) -> Table {
        let row = |head: super::HeadScore| {
            let number = |scores: &HeadScores| decimals(scores.values[[head.layer, head.head]], 3);
            let scores = [&self.answer_attention, &self.copy, &self.negative_copy, &self.correlation];
            std::iter::once(format!("{}.{}", head.layer, head.head)).chain(scores.map(number)).collect()
        };
        let rows = self.answer_attention.top(n).into_iter().map(row).collect();
        let header = ["head", "attention to the answer", "copy score", "negative copy score", "correlation"];
        Table::new(format!("Name mover scores, {} names", self.n_names), &header, rows)
    }

    /// Shows the table of the ten heads that attend most to the answer in a notebook; evcxr calls this for a cell's last
    /// expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table(10).evcxr_display();
    }
}
