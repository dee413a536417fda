//! Decodes the heads of a layer, and caches a decode table for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array2;

use super::matched::{MatchedBasis, MatchedCoordinates};
use super::projection_cache::ProjectionCache;
use super::{MatrixId, Ranking, TopTokens, Vectors};
use crate::error::Result;

/// The decoding operations of a [`Backend`](crate::backend::Backend).
pub(crate) trait DecodeBackend: Send + Sync {
    /// The unembedding on the device.
    type Unembed: Send + Sync;
    /// A head's matrix on the device, and the data derived from it to decode faster.
    type DecodeTable: Send + Sync;

    /// Copies a projection to the device. Shape: `p [d_head, d_model]`.
    fn upload_projection(&self, p: Array2<f32>) -> Result<Self::DecodeTable>;

    /// An upper bound on the memory of a table in bytes, including the data that may be derived later.
    fn decode_table_bytes(table: &Self::DecodeTable, unembed: &Self::Unembed) -> usize;

    /// The `k` most likely tokens of `c P W_U + b_U` for each vector, or of `c P W_U`, or of `c P W_U − b_U`. Ties go to the
    /// lowest token id.
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
    /// By layer and head.
    matched: Mutex<HashMap<(usize, usize), Arc<MatchedCoordinates>>>,
}

impl<B: DecodeBackend> HeadDecoder<B> {
    /// A decoder whose tables take at most `max_bytes` of memory.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { tables: ProjectionCache::new(max_bytes), matched: Mutex::new(HashMap::new()) }
    }

    /// The `k` most likely tokens of vectors through each matrix, in the order of `ids`.
    ///
    /// `matrices` computes those that have no table yet; it is called at most once.
    /// Shape: each of `vectors` `[n, d_head]`, each matrix `[d_head, d_model]` → each `[n, k]`.
    pub(crate) fn decode(
        &self,
        backend: &B,
        unembed: &B::Unembed,
        ids: &[MatrixId],
        ranking: Ranking,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
        matrices: impl FnOnce(&[MatrixId]) -> Result<Vec<Array2<f32>>>,
    ) -> Result<Vec<TopTokens>> {
        let upload = |missing: &[MatrixId]| {
            let table = |p: Array2<f32>| {
                let table = backend.upload_projection(p)?;
                Ok((B::decode_table_bytes(&table, unembed), table))
            };
            matrices(missing)?.into_iter().map(table).collect()
        };
        let tables = self.tables.get_or_insert_with(ids, upload)?;
        backend.decode_heads(vectors, &tables, unembed, ranking)
    }

    /// The coordinates of some heads of a layer for [`Projection::Matched`](super::Projection::Matched), in the order of
    /// `heads`. `bases` computes those of the heads that were not asked for before; it is called at most once.
    pub(crate) fn matched_coordinates(
        &self,
        layer: usize,
        heads: &[usize],
        bases: impl FnOnce(&[usize]) -> Result<Vec<MatchedBasis>>,
    ) -> Result<Vec<Arc<MatchedCoordinates>>> {
        // No panic under the lock can leave the map half changed.
        let lock = || self.matched.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<usize> = {
            let known = lock();
            heads.iter().copied().filter(|&head| !known.contains_key(&(layer, head))).collect()
        };
        if !missing.is_empty() {
            let bases = bases(&missing)?;
            lock().extend(missing.iter().zip(bases).map(|(&head, basis)| ((layer, head), Arc::new(basis.into()))));
        }
        let known = lock();
        Ok(heads.iter().map(|&head| known[&(layer, head)].clone()).collect())
    }
}
