//! The most likely tokens of decoded vectors.

use std::ops::Range;

use ndarray::{Array1, Array2, s};

/// The most likely tokens of `n` decoded vectors, best first.
///
/// A tie goes to the lowest token id. A logit that is not a number comes after every number.
#[derive(Clone, Debug, PartialEq)]
pub struct TopTokens {
    /// Token ids. Shape: `[n, k]`, where `k` is at most `d_vocab`.
    pub tokens: Array2<u32>,
    /// Their logits. Shape: `[n, k]`.
    pub logits: Array2<f32>,
    /// The best logit minus the runner-up's; infinite where the vocabulary has a single token. Shape: `[n]`.
    pub margin: Array1<f32>,
}

impl TopTokens {
    /// The first `k`, or all, of the best tokens of each vector. Shape: `[n, n_ranked]`, `[n, n_ranked]`.
    pub(crate) fn of_best(mut tokens: Array2<u32>, mut logits: Array2<f32>, k: usize) -> Self {
        let margin = logits.rows().into_iter().map(|row| if row.len() < 2 { f32::INFINITY } else { row[0] - row[1] });
        let margin = margin.collect();
        if k < tokens.ncols() {
            tokens = tokens.slice(s![.., ..k]).to_owned();
            logits = logits.slice(s![.., ..k]).to_owned();
        }
        Self { tokens, logits, margin }
    }

    /// Some of the vectors.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        Self {
            tokens: self.tokens.slice(s![rows.clone(), ..]).to_owned(),
            logits: self.logits.slice(s![rows.clone(), ..]).to_owned(),
            margin: self.margin.slice(s![rows]).to_owned(),
        }
    }
}

/// So many logits are looked at together, to see that none of them is among the best. A multiple of the lanes of any
/// vector.
const CHUNK: usize = 64;

/// The best tokens of `n` vectors so far, whose logits arrive in blocks of the vocabulary.
///
/// What comes out does not depend on how the vocabulary was cut into blocks.
pub(crate) struct TopTokensBuilder {
    /// One more than `k` where the margin needs a runner-up.
    n_ranked: usize,
    k: usize,
    /// A row each, best first; never longer than `n_ranked`.
    best: Vec<Vec<(f32, u32)>>,
    arch: pulp::Arch,
}

impl TopTokensBuilder {
    pub(crate) fn new(n: usize, k: usize, d_vocab: usize) -> Self {
        let n_ranked = n_ranked(k, d_vocab);
        let best = (0..n).map(|_| Vec::with_capacity(n_ranked)).collect();
        Self { n_ranked, k: k.min(d_vocab), best, arch: pulp::Arch::new() }
    }

    /// Takes the next logits of a row: `product[i] + bias[i]` is that of token `first + i`.
    pub(crate) fn push(&mut self, row: usize, first: usize, product: &[f32], bias: &[f32]) {
        let best = &mut self.best[row];
        self.arch.dispatch(Push { best, n_ranked: self.n_ranked, first, product, bias });
    }

    /// Takes the logit of a token. Of two that are equal, that of the lower id must come first.
    pub(crate) fn push_token(&mut self, row: usize, token: u32, logit: f32) {
        insert(&mut self.best[row], self.n_ranked, logit, token);
    }

    /// The best tokens that it keeps of each vector: one more than it gives where the margin needs a runner-up.
    pub(crate) fn n_ranked(&self) -> usize {
        self.n_ranked
    }

    /// Takes the vectors of another builder as further rows.
    pub(crate) fn extend(&mut self, below: Self) {
        self.best.extend(below.best);
    }

    pub(crate) fn finish(self) -> TopTokens {
        let shape = (self.best.len(), self.n_ranked);
        let flat = || self.best.iter().flatten();
        let matrix = "every row has seen the whole vocabulary";
        let tokens = Array2::from_shape_vec(shape, flat().map(|&(_, token)| token).collect()).expect(matrix);
        let logits = Array2::from_shape_vec(shape, flat().map(|&(logit, _)| logit).collect()).expect(matrix);
        TopTokens::of_best(tokens, logits, self.k)
    }
}

/// The best tokens that are to be found of each vector: one more than `k` where the margin needs a runner-up.
pub(crate) fn n_ranked(k: usize, d_vocab: usize) -> usize {
    k.max(2).min(d_vocab)
}

/// Puts the logits in their places that are among the best, and passes quickly over all the others.
struct Push<'a> {
    best: &'a mut Vec<(f32, u32)>,
    n_ranked: usize,
    first: usize,
    product: &'a [f32],
    bias: &'a [f32],
}

impl pulp::WithSimd for Push<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { best, n_ranked, first, product, bias } = self;
        let insert_all = |best: &mut Vec<(f32, u32)>, start: usize, end: usize| {
            for index in start..end {
                insert(best, n_ranked, product[index] + bias[index], (first + index) as u32);
            }
        };
        // Comparisons with NaN are false, and NaN is the worst of all: until numbers have taken all places, every
        // logit is looked at by itself.
        let mut start = 0;
        while start < product.len() && (best.len() < n_ranked || best[n_ranked - 1].0.is_nan()) {
            insert_all(best, start, start + 1);
            start += 1;
        }
        let chunks = (product.len() - start) / CHUNK;
        let end = start + chunks * CHUNK;
        let (products, biases) = (S::as_simd_f32s(&product[start..end]).0, S::as_simd_f32s(&bias[start..end]).0);
        let vectors = CHUNK / S::F32_LANES;
        for (chunk, (x, b)) in products.chunks_exact(vectors).zip(biases.chunks_exact(vectors)).enumerate() {
            let worst = simd.splat_f32s(best[n_ranked - 1].0);
            let above = |(&x, &b)| simd.greater_than_f32s(simd.add_f32s(x, b), worst);
            let any = |mask| simd.first_true_m32s(mask) < S::F32_LANES;
            let masks = x.iter().zip(b).map(above);
            if masks.reduce(|one, other| simd.or_m32s(one, other)).is_some_and(any) {
                for (vector, pair) in x.iter().zip(b).enumerate() {
                    if any(above(pair)) {
                        let start = start + chunk * CHUNK + vector * S::F32_LANES;
                        insert_all(best, start, start + S::F32_LANES);
                    }
                }
            }
        }
        insert_all(best, end, product.len());
    }
}

/// Puts a logit in its place, behind its equals: tokens arrive by ascending id.
#[inline(always)]
fn insert(best: &mut Vec<(f32, u32)>, n_ranked: usize, logit: f32, token: u32) {
    // NaN is the worst of all.
    let beats = |other: f32| logit > other || (other.is_nan() && !logit.is_nan());
    if best.len() == n_ranked {
        if !beats(best[n_ranked - 1].0) {
            return;
        }
        best.pop();
    }
    let at = best.partition_point(|&(other, _)| !beats(other));
    best.insert(at, (logit, token));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows in blocks of `block` tokens.
    fn top_in_blocks(k: usize, rows: &[&[f32]], bias: &[f32], block: usize) -> TopTokens {
        let d_vocab = bias.len();
        let mut builder = TopTokensBuilder::new(rows.len(), k, d_vocab);
        for start in (0..d_vocab).step_by(block) {
            let end = (start + block).min(d_vocab);
            for (index, row) in rows.iter().enumerate() {
                builder.push(index, start, &row[start..end], &bias[start..end]);
            }
        }
        builder.finish()
    }

    fn top(k: usize, rows: &[&[f32]], bias: &[f32]) -> TopTokens {
        top_in_blocks(k, rows, bias, 3)
    }

    #[test]
    fn ties_go_to_the_lowest_id() {
        let top = top(3, &[&[1.0, 5.0, 5.0, 2.0, 5.0], &[0.0; 5]], &[0.0; 5]);
        assert_eq!(top.tokens, ndarray::arr2(&[[1, 2, 4], [0, 1, 2]]));
        assert_eq!(top.logits.row(0).to_vec(), [5.0, 5.0, 5.0]);
        assert_eq!(top.margin.to_vec(), [0.0, 0.0]);
    }

    #[test]
    fn the_margin_needs_no_second_token_in_the_answer() {
        let top = top(1, &[&[1.0, 2.0, 4.5]], &[3.0, 0.0, 1.0]);
        assert_eq!((top.tokens[[0, 0]], top.logits[[0, 0]], top.margin[0]), (2, 5.5, 1.5));
    }

    #[test]
    fn a_vocabulary_smaller_than_k_gives_all_of_it() {
        let top = top(5, &[&[2.0]], &[0.5]);
        assert_eq!((top.tokens.dim(), top.logits[[0, 0]], top.margin[0]), ((1, 1), 2.5, f32::INFINITY));
    }

    #[test]
    fn what_is_not_a_number_comes_last() {
        let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
        let top = top(4, &[&[nan, 1.0, nan, low, 2.0], &[low, low, nan, nan, low]], &[0.0; 5]);
        assert_eq!(top.tokens, ndarray::arr2(&[[4, 1, 3, 0], [0, 1, 4, 2]]));
    }

    #[test]
    fn equals_a_stable_sort_whatever_the_blocks() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 28) as f32
        };
        for n in [1, 2, 3, 17, 200, 1000] {
            let (row, bias): (Vec<f32>, Vec<f32>) = (0..n).map(|_| (random(), random())).unzip();
            let mut sorted: Vec<usize> = (0..n).collect();
            sorted.sort_by(|&a, &b| (row[b] + bias[b]).total_cmp(&(row[a] + bias[a])));
            for (k, block) in [(1, 1), (1, 64), (2, 63), (4, 65), (4, 1000)] {
                let top = top_in_blocks(k, &[&row], &bias, block);
                let got: Vec<usize> = top.tokens.iter().map(|&token| token as usize).collect();
                assert_eq!(got, sorted[..k.min(n)], "n = {n}, k = {k}, blocks of {block}");
            }
        }
    }
}
