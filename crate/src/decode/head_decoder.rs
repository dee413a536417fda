//! Decodes the heads of a layer, and caches a decode table for each.

use std::sync::Arc;

use ndarray::{Array2, Array3, Axis};

use super::projection_cache::{HeadId, ProjectionCache};
use super::{Ranking, TopTokens, Vectors};
use crate::error::Result;

/// The decoding operations of a [`Backend`](crate::backend::Backend).
pub(crate) trait DecodeBackend: Send + Sync {
    /// The unembedding on the device.
    type Unembed: Send + Sync;
    /// A head's projection on the device, and the data derived from it to decode faster.
    type DecodeTable: Send + Sync;

    /// Copies a projection to the device. Shape: `p [d_head, d_model]`.
    fn upload_projection(&self, p: Array2<f32>) -> Result<Self::DecodeTable>;

    /// An upper bound on the memory of a table in bytes, including the data that may be derived later.
    fn decode_table_bytes(table: &Self::DecodeTable, unembed: &Self::Unembed) -> usize;

    /// The `k` most likely tokens of `c P W_U + b_U` for each vector, or of `c P W_U`. Ties go to the lowest token id.
    /// Shape: `c [n, d_head]` → `[n, k]`.
    fn decode(
        &self,
        c: &Vectors,
        table: &Self::DecodeTable,
        unembed: &Self::Unembed,
        ranking: Ranking,
    ) -> Result<TopTokens>;

    /// [`decode`](Self::decode) for several heads: the vectors and the table of each, in the same order.
    ///
    /// `vectors` is lazy: it computes a head's vectors when `next` is called. A device that leaves the host's
    /// processors idle can call it for the next head while it decodes. Shape: each `[n, d_head]` → each `[n, k]`.
    fn decode_heads(
        &self,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
        tables: &[Arc<Self::DecodeTable>],
        unembed: &Self::Unembed,
        ranking: Ranking,
    ) -> Result<Vec<TopTokens>> {
        tables.iter().zip(vectors).map(|(table, c)| self.decode(&c?, table, unembed, ranking)).collect()
    }
}

/// Decodes heads, with a cache of their decode tables.
pub(crate) struct HeadDecoder<B: DecodeBackend> {
    tables: ProjectionCache<B::DecodeTable>,
}

impl<B: DecodeBackend> HeadDecoder<B> {
    /// A decoder whose tables take at most `max_bytes` of memory.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { tables: ProjectionCache::new(max_bytes) }
    }

    /// The `k` most likely tokens of the vectors of each head of one layer, in the order of `heads`.
    ///
    /// `w_v_and_w_o` returns the layer's `W_V` and `W_O`; it is called only if a head has no table yet.
    /// Shape: each of `vectors` `[n, d_head]`, `W_V [n_heads, d_model, d_head]`, `W_O [n_heads, d_head, d_model]` →
    /// each `[n, k]`.
    pub(crate) fn decode(
        &self,
        backend: &B,
        unembed: &B::Unembed,
        heads: &[HeadId],
        ranking: Ranking,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
        w_v_and_w_o: impl FnOnce() -> Result<(Array3<f32>, Array3<f32>)>,
    ) -> Result<Vec<TopTokens>> {
        let upload = |missing: &[HeadId]| {
            let (w_v, w_o) = w_v_and_w_o()?;
            let head_weights = |w: &Array3<f32>, head| w.index_axis(Axis(0), head).to_owned();
            let table = |id: &HeadId| {
                let p = id.projection.matrix(&head_weights(&w_v, id.head), &head_weights(&w_o, id.head));
                let table = backend.upload_projection(p)?;
                Ok((B::decode_table_bytes(&table, unembed), table))
            };
            missing.iter().map(table).collect()
        };
        let tables = self.tables.get_or_insert_with(heads, upload)?;
        backend.decode_heads(vectors, &tables, unembed, ranking)
    }
}
