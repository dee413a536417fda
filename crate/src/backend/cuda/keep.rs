//! What a cache keeps: it stays on the card until somebody looks at it, as much as there is room for.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Dimension, Ix2, Ix3};

use super::Matrix;
use super::card::Card;
use super::memory::Memory;
use super::problem::Problem;
use crate::backend::fused;
use crate::memory::{HostArray, Kept};

/// Numbers on a card that lie as an array does.
pub(super) struct OnCard<'a> {
    pub(super) memory: &'a Memory,
    /// How many numbers lie before the first of them.
    pub(super) first: usize,
}

impl OnCard<'_> {
    /// Copies them to the host.
    pub(super) fn download<D: Dimension>(&self, shape: D) -> Result<HostArray<D>, Problem> {
        let mut host = HostArray::unset(shape);
        self.memory.download(self.first, host.as_slice_mut().expect("a new array is contiguous"))?;
        Ok(host)
    }

    /// Leaves them on the card, or copies them at once if caches have all that they may.
    pub(super) fn keep<D: Dimension + Send + 'static>(&self, card: &Arc<Card>, shape: D) -> Result<Kept<D>, Problem> {
        let Some(memory) = self.memory.for_cache() else { return Ok(self.download(shape)?.into()) };
        let (card, first) = (card.clone(), self.first);
        Ok(Kept::new(move || {
            OnCard { memory: &memory, first }.download(shape.clone()).map_err(card.failed("a download"))
        }))
    }
}

/// Some rows of a matrix.
pub(super) fn rows(card: &Arc<Card>, x: &Matrix, rows: Range<usize>) -> Result<Kept<Ix2>, Problem> {
    let (on_card, shape) = x.rows(rows);
    on_card.keep(card, shape)
}

/// They are as large as the pattern, and few look at them: the few queries and keys are kept, and give them when asked.
pub(super) fn attn_scores(
    card: &Arc<Card>,
    [q, k]: [&Matrix; 2],
    n_heads: usize,
    of: Range<usize>,
) -> Result<Kept<Ix3>, Problem> {
    let (q, k) = (rows(card, q, of.clone())?, rows(card, k, of)?);
    Ok(Kept::new(move || {
        let (q, k) = (q.make()?, k.make()?);
        Ok(fused::attn_scores(q.view(), k.view(), n_heads, 0..q.nrows()))
    }))
}
