//! Decodes chosen pairs of queries and keys, which need not be of one prompt.

use ndarray::{Array2, Axis, concatenate};

use super::streams::{SCALED_AT_ONCE, Variance, single};
use crate::decode::{ColumnChange, Map, MatrixId, Projection, Ranking, Reading, TopTokens, Vectors};
use crate::error::Result;
use crate::model::Gpt2;

/// The attention token of each pair (row of the query, row of the key) of a head. [`Projection::Written`] takes attention
/// 1, because a pair without a prompt has none: it reads the key's value.
///
/// Callers check the head. Shape: `q`, `k`, `v` each `[rows, d_head]`, `[n]` → `[n, 1]`.
pub(crate) fn tokens_of_pairs(
    model: &Gpt2,
    [layer, head]: [usize; 2],
    reading: Reading,
    [q, k, v]: &[Array2<f32>; 3],
    pairs: &[[u32; 2]],
) -> Result<TopTokens> {
    let on_device = model.on_device();
    if reading.projection == Projection::Written {
        // A key has one token for all queries.
        let change = ColumnChange::of_reading([layer, head], reading.basis, reading.signs, v.ncols());
        let id = MatrixId::new([layer, head], Map::Output, reading);
        let top = decode(model, id, reading, single(change.of_columns(v)))?;
        let keys: Vec<usize> = pairs.iter().map(|&[_, key]| key as usize).collect();
        return Ok(TopTokens {
            tokens: top.tokens.select(Axis(0), &keys),
            logits: top.logits.select(Axis(0), &keys),
            margin: top.margin.select(Axis(0), &keys),
        });
    }
    let id = MatrixId::new([layer, head], reading.projection.into(), reading);
    let side_by_side = |q: &Array2<f32>, k: &Array2<f32>| {
        concatenate(Axis(0), &[q.view(), k.view()]).expect("each has d_head columns")
    };
    let table = if id.map == Map::Matched {
        let matched = on_device.matched_coordinates(layer, &[head])?.remove(0);
        side_by_side(&matched.of_queries(q.view()), &matched.of_keys(k.view()).mapv(|x| x * x))
    } else {
        side_by_side(q, k)
    };
    let first_key = q.nrows() as u32;
    let pairs = pairs.iter().map(|&[query, key]| [query, first_key + key]).collect();
    decode(model, id, reading, Vectors::new(table, pairs))
}

/// The most likely token of each vector. Shape: `[n, d_head]` → `[n, 1]`.
fn decode(model: &Gpt2, id: MatrixId, reading: Reading, vectors: Vectors) -> Result<TopTokens> {
    let on_device = model.on_device();
    let ranking = Ranking::new(1, reading.unembed_bias);
    if !reading.normalized {
        let top = on_device.decode_heads(&[id], ranking, &mut std::iter::once(Ok(vectors)))?;
        return Ok(TopTokens::concatenated(top));
    }
    let variance = Variance::new(&on_device.head_matrices(&[id])?[0]);
    let starts: Vec<usize> = (0..vectors.len()).step_by(SCALED_AT_ONCE).collect();
    let mut batches = starts.iter().map(|&start| {
        let mut c = vectors.compute(start..(start + SCALED_AT_ONCE).min(vectors.len()));
        variance.normalize(&mut c);
        Ok(single(c))
    });
    Ok(TopTokens::concatenated(on_device.decode_heads(&vec![id; starts.len()], ranking, &mut batches)?))
}
