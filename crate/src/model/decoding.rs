//! Decoding a head's vectors on the device of a model, and the matrices that decoding takes.

use std::sync::Arc;

use ndarray::{Array2, Axis};

use super::gpt2::Gpt2;
use super::on_device::OnDevice;
use crate::backend::Backend;
use crate::decode::{
    Map, MatchedBasis, MatchedCoordinates, MatchedDirections, MatrixId, Ranking, Reading, TopTokens, Vectors,
};
use crate::error::{Error, Result};

/// The part of [`ModelOnDevice`](super::on_device::ModelOnDevice) that decodes heads. Callers check layers and heads.
pub(crate) trait HeadDecoding {
    /// The `k` most likely tokens of vectors through matrices of heads of one layer. `vectors` yields those of each
    /// matrix, in the order of `ids`, and may compute them lazily. Shape: each `[n, d_head]` → each `[n, k]`.
    fn decode_heads(
        &self,
        ids: &[MatrixId],
        ranking: Ranking,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
    ) -> Result<Vec<TopTokens>>;

    /// The `k` most likely tokens of vectors through a matrix `p` in place of a head's; nothing is cached.
    /// Shape: `p [d_head, d_model]`, `vectors [n, d_head]` → `[n, k]`.
    fn decode_through(&self, p: Array2<f32>, vectors: &Vectors, ranking: Ranking) -> Result<TopTokens>;

    /// Matrices of heads of one layer. Shape: → each `[d_head, d_model]`.
    fn head_matrices(&self, ids: &[MatrixId]) -> Result<Vec<Array2<f32>>>;

    /// The coordinates of some heads of a layer for [`Map::Matched`], in the order of `heads`.
    fn matched_coordinates(&self, layer: usize, heads: &[usize]) -> Result<Vec<Arc<MatchedCoordinates>>>;

    /// The singular vectors of the QK circuits of some heads of a layer, in the order of `heads`.
    fn matched_bases(&self, layer: usize, heads: &[usize]) -> Result<Vec<MatchedBasis>>;
}

impl<B: Backend> HeadDecoding for OnDevice<B> {
    fn decode_heads(
        &self,
        ids: &[MatrixId],
        ranking: Ranking,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
    ) -> Result<Vec<TopTokens>> {
        let matrices = |ids: &[MatrixId]| self.head_matrices(ids);
        self.decoder.decode(&self.backend, &self.transformer.unembed, ids, ranking, vectors, matrices)
    }

    fn decode_through(&self, p: Array2<f32>, vectors: &Vectors, ranking: Ranking) -> Result<TopTokens> {
        let table = self.backend.upload_projection(p)?;
        self.backend.decode(vectors, &table, &self.transformer.unembed, ranking)
    }

    fn head_matrices(&self, ids: &[MatrixId]) -> Result<Vec<Array2<f32>>> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let attn = &self.transformer.blocks[first.layer].attn;
        let (w_v, _) = attn.input_weights(&self.backend, &attn.w_qkv[2])?;
        let (w_o, _) = attn.output_weights(&self.backend)?;
        let matched: Vec<usize> = ids.iter().filter(|id| id.map == Map::Matched).map(|id| id.head).collect();
        let mut bases = self.matched_bases(first.layer, &matched)?.into_iter();
        let matrix = |id: &MatrixId| {
            let basis = if id.map == Map::Matched { bases.next() } else { None };
            let [w_v, w_o] = [&w_v, &w_o].map(|w| w.index_axis(Axis(0), id.head).to_owned());
            id.compute(&w_v, &w_o, basis.as_ref())
        };
        Ok(ids.iter().map(matrix).collect())
    }

    fn matched_coordinates(&self, layer: usize, heads: &[usize]) -> Result<Vec<Arc<MatchedCoordinates>>> {
        self.decoder.matched_coordinates(layer, heads, |heads| self.matched_bases(layer, heads))
    }

    fn matched_bases(&self, layer: usize, heads: &[usize]) -> Result<Vec<MatchedBasis>> {
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let attn = &self.transformer.blocks[layer].attn;
        let [w_q, w_k, _] = &attn.w_qkv;
        let (w_q, b_q) = attn.input_weights(&self.backend, w_q)?;
        let (w_k, b_k) = attn.input_weights(&self.backend, w_k)?;
        let basis = |&head: &usize| {
            let of = |w: &ndarray::Array3<f32>, b: &Array2<f32>| {
                (w.index_axis(Axis(0), head).to_owned(), b.row(head).to_owned())
            };
            let ((w_q, b_q), (w_k, b_k)) = (of(&w_q, &b_q), of(&w_k, &b_k));
            MatchedBasis::new((w_q.view(), b_q.view()), (w_k.view(), b_k.view())).ok_or(Error::Svd {
                function: "Projection::Matched",
                layer,
                head,
                hint: "are its weights finite?",
            })
        };
        heads.iter().map(basis).collect()
    }
}

impl Gpt2 {
    /// The matrix `P` of a reading for a head: `r = c P` for the first three projections. For
    /// [`Projection::Written`](crate::Projection::Written) it is `W_O`, and the vector is `A_ij v_j`. For
    /// [`Projection::Matched`](crate::Projection::Matched) row *a* is `V_a W_V W_O / √S_a`, and the entries of the vector are
    /// `c_a k_a`, with the coordinates of query and key along the singular vectors. Shape: → `[d_head, d_model]`.
    ///
    /// ```
    /// # use attention_tokens::prelude::*;
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// assert_eq!(model.reading_matrix(0, 1, Projection::Output)?, model.w_o(0, 1)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer or head that the model does not have, [`Error::Svd`] for weights that are not
    /// finite, [`Error::Device`] if the device fails.
    pub fn reading_matrix(&self, layer: usize, head: usize, reading: impl Into<Reading>) -> Result<Array2<f32>> {
        self.matrix_of(layer, head, reading.into())
    }

    /// [`reading_matrix`](Self::reading_matrix) without the generic parameter.
    fn matrix_of(&self, layer: usize, head: usize, reading: Reading) -> Result<Array2<f32>> {
        self.config().check_head(layer, head)?;
        let id = MatrixId::new([layer, head], reading.projection.into(), reading);
        Ok(self.on_device().head_matrices(&[id])?.remove(0))
    }

    /// The directions that [`Projection::Matched`](crate::Projection::Matched) reads a head along, and the heads' singular
    /// values: [`MatchedDirections::free`] tells which of them are not determined.
    ///
    /// # Errors
    /// As for [`reading_matrix`](Self::reading_matrix).
    pub fn matched_directions(&self, layer: usize, head: usize) -> Result<MatchedDirections> {
        self.config().check_head(layer, head)?;
        Ok(MatchedDirections::of(&self.on_device().matched_bases(layer, &[head])?[0]))
    }
}
