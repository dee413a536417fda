//! Decoding through folded matrices: a head's projection times the unembedding.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use super::panels::{Panels, WIDTH};
use super::{FusedLinear, gemm};
use crate::backend::TopTokens;
use crate::backend::top_tokens::TopTokensBuilder;

/// Panels whose logits lie in memory at a time: 256 tokens.
const PANELS: usize = 4;
/// Vectors whose logits lie in memory at a time at most: with [`PANELS`] panels, a fifth of the second-level cache.
const ROWS: usize = 192;
/// Vectors that are decoded in one pass over the folded matrix, which bounds what the running best tokens take.
const ROWS_A_PASS: usize = 4096;

/// `P W_U` of each projection. Shape: `projections`, each `[d_head, d_model]`, `w_u [d_model, d_vocab]` → each
/// `[d_head, d_vocab]`.
///
/// A logit of a folded matrix costs `d_head` multiplications, of a projection and the unembedding `d_model`.
pub(super) fn fold(projections: &[Array2<f32>], w_u: &Panels) -> Vec<Panels> {
    let views: Vec<ArrayView2<f32>> = projections.iter().map(|projection| projection.view()).collect();
    // All projections below each other make one product of many rows, which is faster than many of few.
    let Ok(stacked) = concatenate(Axis(0), &views) else { return Vec::new() };
    let mut folded: Vec<Panels> = views.iter().map(|p| Panels::unset(p.nrows(), w_u.dim().1)).collect();
    let mut by_panel: Vec<Vec<_>> = w_u.iter().map(|_| Vec::with_capacity(folded.len())).collect();
    for folded in &mut folded {
        folded.iter_mut().zip(&mut by_panel).for_each(|(panel, list)| list.push(panel));
    }
    w_u.iter().zip(by_panel).collect::<Vec<_>>().into_par_iter().for_each(|(w_u, mut folded)| {
        if let [folded] = folded.as_mut_slice() {
            return gemm::product(1.0, stacked.view(), w_u, folded.view_mut());
        }
        let mut product = Array2::zeros((stacked.nrows(), w_u.ncols()));
        gemm::product(1.0, stacked.view(), w_u, product.view_mut());
        let mut start = 0;
        for mut folded in folded {
            let end = start + folded.nrows();
            folded.assign(&product.slice(s![start..end, ..]));
            start = end;
        }
    });
    folded
}

/// See [`Backend::decode`](crate::backend::Backend::decode).
pub(super) fn decode(c: ArrayView2<f32>, folded: &Panels, unembed: &FusedLinear, k: usize) -> TopTokens {
    let mut top = TopTokensBuilder::new(0, k, unembed.b.len());
    for c in c.axis_chunks_iter(Axis(0), ROWS_A_PASS) {
        top.extend(decode_pass(c, folded, unembed, k));
    }
    top.finish()
}

fn decode_pass(c: ArrayView2<f32>, folded: &Panels, unembed: &FusedLinear, k: usize) -> TopTokensBuilder {
    let bias = unembed.b.as_slice().expect("a bias is contiguous");
    let panels: Vec<ArrayView2<f32>> = folded.iter().collect();
    let builder = || TopTokensBuilder::new(c.nrows(), k, bias.len());
    // Blocks of equal size: a short one at the end would be read through all panels for little.
    let rows = c.nrows().div_ceil(c.nrows().div_ceil(ROWS));
    // rayon folds runs of neighbouring groups and joins the runs in order. Every run begins without knowing how good the
    // best tokens are, so there should be few.
    let groups = panels.par_chunks(PANELS).enumerate();
    let groups_a_run = groups.len().div_ceil(2 * rayon::current_num_threads());
    let groups = groups.with_min_len(groups_a_run);
    let folds = groups.fold(
        || (builder(), Array2::zeros((rows, PANELS * WIDTH))),
        |(mut top, mut logits), (group, panels)| {
            let first = group * PANELS * WIDTH;
            for (block, c) in c.axis_chunks_iter(Axis(0), rows).enumerate() {
                let mut width = 0;
                for panel in panels {
                    let end = width + panel.ncols();
                    gemm::product(1.0, c, *panel, logits.slice_mut(s![..c.nrows(), width..end]));
                    width = end;
                }
                for (index, logits) in logits.outer_iter().take(c.nrows()).enumerate() {
                    let logits = &logits.to_slice().expect("a row is contiguous")[..width];
                    top.push(block * rows + index, first, logits, &bias[first..first + width]);
                }
            }
            (top, logits)
        },
    );
    let join = |mut low: TopTokensBuilder, high| {
        low.append(high);
        low
    };
    folds.map(|(top, _)| top).reduce_with(join).unwrap_or_else(builder)
}
