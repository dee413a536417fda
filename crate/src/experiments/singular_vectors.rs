//! Reading weights: the singular vectors of a matrix that writes to the residual stream or reads it, as tokens.
//!
//! For a matrix `M` with singular value decomposition `M = U diag(s) Vᵀ`, whose right singular vectors lie in the residual stream,
//! the scores of the `i`-th are `V[:, i] W_U`: TransformerLens' `SVDInterpreter`. No layer norm, and no bias of the unembedding.
//!
//! | matrix | `M` |
//! |---|---|
//! | [`WeightMatrix::Ov`] | `W_V W_O [d_model, d_model]` of a head |
//! | [`WeightMatrix::WIn`] | `W_inᵀ [d_mlp, d_model]`, times the scale of the layer norm before it where that is not folded |
//! | [`WeightMatrix::WOut`] | `W_out [d_mlp, d_model]` |
//!
//! A singular vector is free up to its sign, so both of its ends are shown. Where two singular values are almost equal, their
//! vectors are free to turn into each other, and mean nothing one by one.

use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, Axis, s};

use crate::decode::{TopTokens, TopTokensBuilder};
use crate::error::{Error, Result, check_count, check_index};
use crate::model::Gpt2;
use crate::plot::{ChartAxis, Figure, MatrixChart, Table};
use crate::tokenizer::TokenLabels;
use crate::weights::svd_of_product;

/// A matrix of a model whose right singular vectors lie in the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightMatrix {
    /// `W_V W_O`, the OV circuit of a head: what it writes, by what it reads.
    Ov {
        /// The layer, from 0.
        layer: usize,
        /// The head of the layer, from 0.
        head: usize,
    },
    /// `W_in`: what the neurons of a layer read.
    WIn {
        /// The layer, from 0.
        layer: usize,
    },
    /// `W_out`: what the neurons of a layer write.
    WOut {
        /// The layer, from 0.
        layer: usize,
    },
}

impl WeightMatrix {
    fn name(self) -> String {
        match self {
            Self::Ov { layer, head } => format!("OV of head {layer}.{head}"),
            Self::WIn { layer } => format!("W_in of layer {layer}"),
            Self::WOut { layer } => format!("W_out of layer {layer}"),
        }
    }
}

/// The largest singular values of a matrix, and their right singular vectors as tokens.
#[derive(Clone, Debug)]
pub struct SingularVectors {
    /// Of which matrix.
    pub of: WeightMatrix,
    /// All singular values, largest first. Shape: `[rank]`, where `rank` is at most `d_head` for OV, and `d_model` otherwise.
    pub singular_values: Array1<f32>,
    /// The vectors of the largest of them, of length 1. Shape: `[num_vectors, d_model]`.
    pub vectors: Array2<f32>,
    /// The tokens with the highest scores `V[:, i] W_U`, and these scores. Shape: `[num_vectors, top_k]`.
    pub highest: TopTokens,
    /// The tokens with the lowest scores, and these scores with the other sign: the highest of `−V[:, i]`.
    /// Shape: `[num_vectors, top_k]`.
    pub lowest: TopTokens,
    labels: TokenLabels,
}

/// The vectors of the `num_vectors` largest singular values of a matrix (or of as many as it has), each with the `top_k` tokens at
/// either end. Computed in `f64` from the weights of the model as it was loaded.
///
/// Of the two directions of a vector, the one is given whose entry of largest magnitude is positive; for [`WeightMatrix::Ov`], that
/// of the left singular vector decides, as in weight processing.
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
    const WHAT: &str = "singular_vectors";
    check_count(WHAT, "num_vectors", num_vectors, 1, None)?;
    check_count(WHAT, "top_k", top_k, 1, None)?;
    let (singular_values, vectors) = match of {
        WeightMatrix::Ov { layer, head } => {
            let (w_v, w_o) = (model.w_v(layer, head)?.mapv(f64::from), model.w_o(layer, head)?.mapv(f64::from));
            let svd = svd_of_product(w_v.view(), w_o.t()).ok_or(Error::Svd {
                function: WHAT,
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
            of_gram(w_in.dot(&w_in.t()))
        }
        WeightMatrix::WOut { layer } => {
            check_index("layer", layer, "the model", model.config().n_layers)?;
            let w_out = model.block_weights(layer)?.w_out.mapv(f64::from); // [d_mlp, d_model]
            of_gram(w_out.t().dot(&w_out))
        }
    };
    let vectors = vectors.slice(s![.., ..num_vectors.min(vectors.ncols())]).t().mapv(|x| x as f32); // [num_vectors, d_model]
    let scores = vectors.dot(&model.w_u()?); // [num_vectors, d_vocab]
    Ok(SingularVectors {
        of,
        singular_values: singular_values.mapv(|x| x as f32),
        highest: best(&scores, top_k),
        lowest: best(&-scores, top_k),
        vectors,
        labels: model.token_labels(),
    })
}

/// The square roots of the eigenvalues of a Gram matrix `Mᵀ M`, and its eigenvectors in columns: singular values and right singular
/// vectors of `M`.
pub(super) fn of_gram(gram: Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    let n = gram.nrows();
    let eigen = SymmetricEigen::new(DMatrix::from_fn(n, n, |row, column| gram[[row, column]]));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let largest = |column: usize| {
        let entries = eigen.eigenvectors.column(column);
        entries.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() { x } else { largest })
    };
    let sign: Vec<f64> = order.iter().map(|&column| largest(column).signum()).collect();
    let vectors = Array2::from_shape_fn((n, n), |(row, at)| sign[at] * eigen.eigenvectors[(row, order[at])]);
    (order.iter().map(|&at| eigen.eigenvalues[at].max(0.0).sqrt()).collect(), vectors)
}

/// The tokens with the highest scores, a row each.
fn best(scores: &Array2<f32>, top_k: usize) -> TopTokens {
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

    /// The tokens at either end of each vector.
    pub fn table(&self) -> Table {
        let tokens = |top: &TopTokens, row: usize| {
            top.tokens.row(row).iter().map(|&token| self.label(token)).collect::<Vec<_>>().join(" ¦ ")
        };
        let row = |at: usize| {
            let value = format!("{:.3}", self.singular_values[at]);
            vec![at.to_string(), value, tokens(&self.highest, at), tokens(&self.lowest, at)]
        };
        let rows = (0..self.vectors.nrows()).map(row).collect();
        let header = ["vector", "singular value", "highest scores", "lowest scores"];
        Table::new(format!("Singular vectors of the {}", self.of.name()), &header, rows)
    }

    /// The tokens with the highest scores of each vector, in cells coloured by their scores.
    pub fn plot(&self) -> Figure {
        let (vectors, top_k) = self.highest.tokens.dim();
        let name = |at: usize| format!("{at} ({:.3})", self.singular_values[at]);
        let labels: Vec<String> = self.highest.tokens.iter().map(|&token| self.label(token)).collect();
        let scores = self.highest.logits.iter();
        let (low, high) = scores
            .clone()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &score| (low.min(score), high.max(score)));
        let texts = labels.iter().zip(scores).map(|(label, score)| format!("“{label}”, score {score:.3}"));
        MatrixChart {
            title: format!("Singular vectors of the {}, read as tokens", self.of.name()),
            rows: ChartAxis::names("vector (singular value)", (0..vectors).map(name)),
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
    fn a_gram_matrix_gives_singular_values_and_vectors() {
        // M = diag(2, 3) turned by a quarter, with a row of zeros below.
        let m = arr2(&[[0.0, -3.0], [2.0, 0.0], [0.0, 0.0]]);
        let (values, vectors) = of_gram(m.t().dot(&m));
        assert!((&values - &ndarray::arr1(&[3.0, 2.0])).iter().all(|x| x.abs() < 1e-12));
        assert!((&vectors - &arr2(&[[0.0, 1.0], [1.0, 0.0]])).iter().all(|x| x.abs() < 1e-12));
    }

    #[test]
    fn the_best_tokens_are_those_with_the_highest_scores() {
        let top = best(&arr2(&[[0.5, -1.0, 2.0], [3.0, 3.0, 1.0]]), 2);
        assert_eq!((top.tokens, top.logits), (arr2(&[[2, 0], [0, 1]]), arr2(&[[2.0, 0.5], [3.0, 3.0]])));
    }
}
