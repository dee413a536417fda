//! Singular vectors of weight matrices, read as tokens: TransformerLens' `SVDInterpreter`.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, Axis, s};

use crate::decode::{TopTokens, TopTokensBuilder};
use crate::error::{Error, Result, check_count, check_index};
use crate::model::Gpt2;
use crate::plot::{ChartAxis, Figure, MatrixChart, Table};
use crate::random::seeded_rng;
use crate::tokenizer::TokenLabels;
use crate::weights::{normal, svd_of_product};

/// Number of random directions whose scores are computed at once.
const SAMPLES_AT_ONCE: usize = 64;

/// A weight matrix whose right singular vectors are directions of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightMatrix {
    /// `W_V W_O`, the OV circuit of a head: its map from the residual stream to its output.
    /// `M = W_V W_O [d_model, d_model]`.
    Ov {
        /// The layer, from 0.
        layer: usize,
        /// The head of the layer, from 0.
        head: usize,
    },
    /// `W_in`: the directions that the neurons of a layer read. `M = W_inᵀ [d_mlp, d_model]`, times the scale of the
    /// layer norm before it, unless that is folded in.
    WIn {
        /// The layer, from 0.
        layer: usize,
    },
    /// `W_out`: the directions that the neurons of a layer write. `M = W_out [d_mlp, d_model]`.
    WOut {
        /// The layer, from 0.
        layer: usize,
    },
}

impl WeightMatrix {
    /// The matrix and its place in the model, for captions and messages.
    fn name(self) -> String {
        match self {
            Self::Ov { layer, head } => format!("OV of head {layer}.{head}"),
            Self::WIn { layer } => format!("W_in of layer {layer}"),
            Self::WOut { layer } => format!("W_out of layer {layer}"),
        }
    }
}

/// The result of [`singular_vectors()`].
#[derive(Clone, Debug)]
pub struct SingularVectors {
    /// The decomposed matrix.
    pub of: WeightMatrix,
    /// All singular values, largest first. Shape: `[rank]`, where `rank` is at most `d_head` for OV and `d_model`
    /// otherwise.
    pub singular_values: Array1<f32>,
    /// The right singular vectors of the largest singular values, of length 1. Shape: `[num_vectors, d_model]`.
    pub vectors: Array2<f32>,
    /// The tokens with the highest scores `V[:, i] W_U`, with these scores as logits. Shape: `[num_vectors, top_k]`.
    pub highest: TopTokens,
    /// The tokens with the lowest scores, with the negated scores as logits: the highest scores of `−V[:, i]`.
    /// Shape: `[num_vectors, top_k]`.
    pub lowest: TopTokens,
    labels: TokenLabels,
}

/// The right singular vectors of the `num_vectors` largest singular values of a matrix (all, if there are fewer), with
/// the `top_k` tokens at both ends of each.
///
/// **Question.** Which tokens do the strongest directions of a head or an MLP point at, without any prompt?
///
/// **Statistic.** The scores over the vocabulary of each right singular vector, without layer norm and without the bias
/// of the unembedding, as TransformerLens' `SVDInterpreter` computes them:
///
/// ```text
/// M = U diag(s) Vᵀ      scores_i = V[:, i] W_U      [d_model] [d_model, d_vocab] → [d_vocab]
/// ```
///
/// [`WeightMatrix`] defines `M`. The decomposition is computed in `f64` from the weights of the model as it was loaded.
/// A singular vector is free up to its sign, so both ends are returned; the sign is the one that makes the entry of
/// largest magnitude positive, in the left singular vector for [`WeightMatrix::Ov`], as in weight processing, and in
/// the right one otherwise.
///
/// **Control.** [`SingularVectors::highest_scores_by_chance`]: any direction has highest tokens.
///
/// **Limits.** A direction of the weights need not be used on any text. Where two singular values are almost equal,
/// their vectors are determined only up to a rotation into each other, and mean nothing one by one.
///
/// ```
/// use attention_tokens::experiments::{WeightMatrix, singular_vectors};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let vectors = singular_vectors(&model, WeightMatrix::Ov { layer: 3, head: 0 }, 4, 10)?;
/// assert_eq!((vectors.vectors.dim(), vectors.highest.tokens.dim()), ((4, 128), (4, 10)));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`] for a layer or head that the model does not have, [`Error::Count`] if `num_vectors` or `top_k`
/// is 0, [`Error::Svd`] if the decomposition does not converge (it does for finite weights), [`Error::Device`] if the
/// device fails.
pub fn singular_vectors(model: &Gpt2, of: WeightMatrix, num_vectors: usize, top_k: usize) -> Result<SingularVectors> {
    const FUNCTION: &str = "singular_vectors";
    check_count(FUNCTION, "num_vectors", num_vectors, 1, None)?;
    check_count(FUNCTION, "top_k", top_k, 1, None)?;
    let (singular_values, vectors) = match of {
        WeightMatrix::Ov { layer, head } => {
            let (w_v, w_o) = (model.w_v(layer, head)?.mapv(f64::from), model.w_o(layer, head)?.mapv(f64::from));
            let svd = svd_of_product(w_v.view(), w_o.t()).ok_or(Error::Svd {
                function: FUNCTION,
                layer,
                head,
                hint: "are its weights finite?",
            })?;
            (svd.s, svd.v)
        }
        WeightMatrix::WIn { layer } => {
            check_index("layer", layer, "the model", model.config().n_layers)?;
            let block = model.block_weights(layer)?;
            let mut w_in = block.w_in.mapv(f64::from); // [d_model, d_mlp]
            if let Some(ln) = block.ln2 {
                w_in *= &ln.w.mapv(f64::from).insert_axis(Axis(1));
            }
            svd_of_gram(w_in.dot(&w_in.t()))
        }
        WeightMatrix::WOut { layer } => {
            check_index("layer", layer, "the model", model.config().n_layers)?;
            let w_out = model.block_weights(layer)?.w_out.mapv(f64::from); // [d_mlp, d_model]
            svd_of_gram(w_out.t().dot(&w_out))
        }
    };
    // [num_vectors, d_model]
    let vectors = vectors.slice(s![.., ..num_vectors.min(vectors.ncols())]).t().mapv(|x| x as f32);
    let scores = vectors.dot(&model.w_u()?); // [num_vectors, d_vocab]
    Ok(SingularVectors {
        of,
        singular_values: singular_values.mapv(|x| x as f32),
        highest: top_tokens(&scores, top_k),
        lowest: top_tokens(&-scores, top_k),
        vectors,
        labels: model.token_labels(),
    })
}

/// The singular values and the right singular vectors of `M`, in columns, from the Gram matrix `Mᵀ M`: square roots of
/// its eigenvalues, and its eigenvectors. The entry of largest magnitude of each vector is positive.
///
/// Shape: `[n, n]` → `[n]`, `[n, n]`.
pub(super) fn svd_of_gram(gram: Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    let n = gram.nrows();
    let eigen = SymmetricEigen::new(DMatrix::from_fn(n, n, |row, column| gram[[row, column]]));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let largest = |column: usize| {
        let entries = eigen.eigenvectors.column(column);
        entries.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest })
    };
    let sign: Vec<f64> = order.iter().map(|&column| largest(column).signum()).collect();
    let vectors = Array2::from_shape_fn((n, n), |(row, rank)| sign[rank] * eigen.eigenvectors[(row, order[rank])]);
    (order.iter().map(|&index| eigen.eigenvalues[index].max(0.0).sqrt()).collect(), vectors)
}

/// The tokens with the highest scores of each row. Shape: `[n, d_vocab]` → `[n, top_k]`.
fn top_tokens(scores: &Array2<f32>, top_k: usize) -> TopTokens {
    let (n, d_vocab) = scores.dim();
    let mut builder = TopTokensBuilder::new(n, top_k, d_vocab);
    let no_bias = vec![0.0; d_vocab];
    for (row, scores) in scores.outer_iter().enumerate() {
        builder.push(row, 0, &scores.to_vec(), &no_bias);
    }
    builder.finish()
}

impl SingularVectors {
    fn label(&self, token: u32) -> String {
        self.labels.label(token)
    }

    /// A control: the highest score of random directions of length 1, in ascending order. A singular vector points at
    /// tokens more than chance does if its highest score is above nearly all of these. Shape: → `[n_samples]`.
    ///
    /// ```
    /// use attention_tokens::experiments::{WeightMatrix, singular_vectors};
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    /// let vectors = singular_vectors(&model, WeightMatrix::Ov { layer: 1, head: 0 }, 4, 3)?;
    /// let chance = vectors.highest_scores_by_chance(&model, 100, 1)?;
    /// assert!(chance.len() == 100 && chance[0] <= chance[99]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`] if `n_samples` is 0, [`Error::Shape`] for a model of another width than the vectors',
    /// [`Error::Device`] if the device fails.
    pub fn highest_scores_by_chance(&self, model: &Gpt2, n_samples: usize, seed: u64) -> Result<Array1<f32>> {
        const FUNCTION: &str = "highest_scores_by_chance";
        check_count(FUNCTION, "n_samples", n_samples, 1, None)?;
        let d_model = self.vectors.ncols();
        let w_u = model.w_u()?; // [d_model, d_vocab]
        if w_u.nrows() != d_model {
            return Err(Error::Shape {
                what: FUNCTION.into(),
                axes: "[d_model]",
                expected: vec![d_model],
                found: vec![w_u.nrows()],
                hint: "pass the model that the singular vectors are of",
            });
        }
        let mut rng = seeded_rng(seed);
        let mut highest = Vec::with_capacity(n_samples);
        // In pieces: all scores of a thousand directions of GPT-2 would take 200 MB.
        for start in (0..n_samples).step_by(SAMPLES_AT_ONCE) {
            let mut directions = normal(&mut rng, ((n_samples - start).min(SAMPLES_AT_ONCE), d_model), 1.0);
            for mut direction in directions.outer_iter_mut() {
                direction /= direction.dot(&direction).sqrt();
            }
            let scores = directions.dot(&w_u); // [samples, d_vocab]
            highest
                .extend(scores.outer_iter().map(|scores| scores.fold(f32::MIN, |highest, &score| highest.max(score))));
        }
        highest.sort_by(f32::total_cmp);
        Ok(highest.into())
    }

    /// A table with the tokens at both ends of each vector.
    pub fn table(&self) -> Table {
        let tokens = |top: &TopTokens, row: usize| {
            top.tokens.row(row).iter().map(|&token| self.label(token)).collect::<Vec<_>>().join(" ¦ ")
        };
        let row = |index: usize| {
            let value = format!("{:.3}", self.singular_values[index]);
            vec![index.to_string(), value, tokens(&self.highest, index), tokens(&self.lowest, index)]
        };
        let rows = (0..self.vectors.nrows()).map(row).collect();
        let header = ["vector", "singular value", "highest scores", "lowest scores"];
        Table::new(format!("Singular vectors of the {}", self.of.name()), &header, rows)
    }

    /// The tokens with the highest scores of each vector, as a matrix coloured by score.
    pub fn plot(&self) -> Figure {
        let (n_vectors, top_k) = self.highest.tokens.dim();
        let name = |index: usize| format!("{index} ({:.3})", self.singular_values[index]);
        let labels: Vec<String> = self.highest.tokens.iter().map(|&token| self.label(token)).collect();
        let scores = self.highest.logits.iter();
        let (low, high) = scores
            .clone()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &score| (low.min(score), high.max(score)));
        let texts = labels.iter().zip(scores).map(|(label, score)| format!("{label}\nscore {score:.3}"));
        MatrixChart {
            title: format!("Singular vectors of the {}, read as tokens", self.of.name()),
            rows: ChartAxis::names("vector (singular value)", (0..n_vectors).map(name)),
            columns: ChartAxis::names("rank of the token", (1..=top_k).map(|rank| rank.to_string())),
            values: self.highest.logits.clone(),
            scale: ("score".into(), [low, high]),
            texts: texts.collect(),
            labels,
        }
        .figure()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn svd_of_gram_gives_singular_values_and_vectors() {
        // M = diag(2, 3) after a quarter turn, with a row of zeros below.
        let m = arr2(&[[0.0, -3.0], [2.0, 0.0], [0.0, 0.0]]);
        let (values, vectors) = svd_of_gram(m.t().dot(&m));
        assert!((&values - &ndarray::arr1(&[3.0, 2.0])).iter().all(|x| x.abs() < 1e-12));
        assert!((&vectors - &arr2(&[[0.0, 1.0], [1.0, 0.0]])).iter().all(|x| x.abs() < 1e-12));
    }

    #[test]
    fn top_tokens_have_the_highest_scores() {
        let top = top_tokens(&arr2(&[[0.5, -1.0, 2.0], [3.0, 3.0, 1.0]]), 2);
        assert_eq!((top.tokens, top.logits), (arr2(&[[2, 0], [0, 1]]), arr2(&[[2.0, 0.5], [3.0, 3.0]])));
    }
}
