//! The most likely tokens of decoded vectors.

use std::ops::Range;

use ndarray::{Array1, Array2, Axis, concatenate, s};

/// The most likely tokens of `n` decoded vectors, best first.
///
/// A tie goes to the lowest token id. NaN logits come after every number.
#[derive(Clone, Debug, PartialEq)]
pub struct TopTokens {
    /// Token ids. Shape: `[n, k]`, where `k` is at most `d_vocab`.
    pub tokens: Array2<u32>,
    /// Their logits. Shape: `[n, k]`.
    pub logits: Array2<f32>,
    /// The best logit minus the second-best; infinite if the vocabulary has a single token. Shape: `[n]`.
    pub margin: Array1<f32>,
}

impl TopTokens {
    /// The margin, and the first `k` of the ranked tokens of each vector (all, if there are fewer).
    /// Shape: `tokens`, `logits` each `[n, n_ranked]` → `[n, k]`, `[n, k]`, `[n]`.
    pub(crate) fn from_ranked(mut tokens: Array2<u32>, mut logits: Array2<f32>, k: usize) -> Self {
        let margin = logits.rows().into_iter().map(|row| if row.len() < 2 { f32::INFINITY } else { row[0] - row[1] });
        let margin = margin.collect();
        if k < tokens.ncols() {
            tokens = tokens.slice(s![.., ..k]).to_owned();
            logits = logits.slice(s![.., ..k]).to_owned();
        }
        Self { tokens, logits, margin }
    }

    /// The top tokens of a range of the vectors. Shape: `[n, k]` → `[rows, k]`.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        Self {
            tokens: self.tokens.slice(s![rows.clone(), ..]).to_owned(),
            logits: self.logits.slice(s![rows.clone(), ..]).to_owned(),
            margin: self.margin.slice(s![rows]).to_owned(),
        }
    }

    /// The top tokens of several lists of vectors as one. Shape: each `[n, k]` → `[rows, k]`.
    ///
    /// # Panics
    /// If there is none, or if they differ in `k`.
    pub(crate) fn concatenated(parts: Vec<Self>) -> Self {
        let same = "parts of one decoding have as many tokens each";
        let tokens: Vec<_> = parts.iter().map(|part| part.tokens.view()).collect();
        let logits: Vec<_> = parts.iter().map(|part| part.logits.view()).collect();
        let margin: Vec<_> = parts.iter().map(|part| part.margin.view()).collect();
        Self {
            tokens: concatenate(Axis(0), &tokens).expect(same),
            logits: concatenate(Axis(0), &logits).expect(same),
            margin: concatenate(Axis(0), &margin).expect(same),
        }
    }

    /// The top tokens of negated vectors as the lowest ones of the vectors, lowest first, with their own logits.
    pub(crate) fn into_lowest(mut self) -> Self {
        self.logits.mapv_inplace(|logit| -logit);
        self
    }
}

/// The number of logits that are compared with the worst ranked one at a time; a chunk without a better one is skipped.
/// A multiple of the lanes of any SIMD register.
const CHUNK: usize = 64;

/// Ranks the tokens of `n` vectors, whose logits arrive in blocks of the vocabulary.
///
/// The result does not depend on the size of the blocks.
pub(crate) struct TopTokensBuilder {
    /// See [`n_ranked`].
    n_ranked: usize,
    k: usize,
    /// The best logits and tokens of each row so far, best first; at most `n_ranked`.
    best: Vec<Vec<(f32, u32)>>,
    arch: pulp::Arch,
}

impl TopTokensBuilder {
    /// A builder for the `k` best tokens of `n` rows.
    pub(crate) fn new(n: usize, k: usize, d_vocab: usize) -> Self {
        let n_ranked = n_ranked(k, d_vocab);
        let best = (0..n).map(|_| Vec::with_capacity(n_ranked)).collect();
        Self { n_ranked, k: k.min(d_vocab), best, arch: pulp::Arch::new() }
    }

    /// Adds the next logits of a row: that of token `first + i` is `product[i] + bias[i]`. Shape: each `[tokens]`.
    pub(crate) fn push(&mut self, row: usize, first: usize, product: &[f32], bias: &[f32]) {
        let best = &mut self.best[row];
        self.arch.dispatch(PushLogits { best, n_ranked: self.n_ranked, first, product, bias });
    }

    /// Adds the logit of one token. Tokens must arrive by ascending id, so that ties go to the lowest.
    pub(crate) fn push_token(&mut self, row: usize, token: u32, logit: f32) {
        insert(&mut self.best[row], self.n_ranked, logit, token);
    }

    /// See [`n_ranked`].
    pub(crate) fn n_ranked(&self) -> usize {
        self.n_ranked
    }

    /// Appends the rows of another builder.
    pub(crate) fn extend(&mut self, other: Self) {
        self.best.extend(other.best);
    }

    /// The top tokens of all rows. Shape: → `[n, k]`.
    ///
    /// # Panics
    /// If a row has fewer logits than `n_ranked`.
    pub(crate) fn finish(self) -> TopTokens {
        let shape = (self.best.len(), self.n_ranked);
        let flat = || self.best.iter().flatten();
        let complete = "every row has seen the whole vocabulary";
        let tokens = Array2::from_shape_vec(shape, flat().map(|&(_, token)| token).collect()).expect(complete);
        let logits = Array2::from_shape_vec(shape, flat().map(|&(logit, _)| logit).collect()).expect(complete);
        TopTokens::from_ranked(tokens, logits, self.k)
    }
}

/// The number of tokens to rank per vector: `k`, or 2 for the margin of the best token, but at most the vocabulary.
pub(crate) fn n_ranked(k: usize, d_vocab: usize) -> usize {
    k.max(2).min(d_vocab)
}

/// Inserts the logits that rank among the best, and skips all others a chunk at a time.
struct PushLogits<'a> {
    best: &'a mut Vec<(f32, u32)>,
    n_ranked: usize,
    first: usize,
    product: &'a [f32],
    bias: &'a [f32],
}

impl pulp::WithSimd for PushLogits<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { best, n_ranked, first, product, bias } = self;
        let insert_all = |best: &mut Vec<(f32, u32)>, start: usize, end: usize| {
            for index in start..end {
                insert(best, n_ranked, product[index] + bias[index], (first + index) as u32);
            }
        };
        // NaN ranks last, but compares as false: until `n_ranked` numbers are ranked, logits are inserted one by one.
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

/// Inserts a logit after the equal ones, because tokens arrive by ascending id.
#[inline(always)]
fn insert(best: &mut Vec<(f32, u32)>, n_ranked: usize, logit: f32, token: u32) {
    // NaN ranks last.
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

    /// The top tokens of rows that arrive in blocks of `block` tokens. Shape: `rows` and `bias` each `[d_vocab]` →
    /// `[n, k]`.
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

    /// [`top_in_blocks`] of three tokens. Shape: `rows` and `bias` each `[d_vocab]` → `[n, k]`.
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
    fn the_margin_is_known_for_k_1() {
        let top = top(1, &[&[1.0, 2.0, 4.5]], &[3.0, 0.0, 1.0]);
        assert_eq!((top.tokens[[0, 0]], top.logits[[0, 0]], top.margin[0]), (2, 5.5, 1.5));
    }

    #[test]
    fn k_beyond_the_vocabulary_returns_all_tokens() {
        let top = top(5, &[&[2.0]], &[0.5]);
        assert_eq!((top.tokens.dim(), top.logits[[0, 0]], top.margin[0]), ((1, 1), 2.5, f32::INFINITY));
    }

    #[test]
    fn nan_ranks_last() {
        let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
        let top = top(4, &[&[nan, 1.0, nan, low, 2.0], &[low, low, nan, nan, low]], &[0.0; 5]);
        assert_eq!(top.tokens, ndarray::arr2(&[[4, 1, 3, 0], [0, 1, 4, 2]]));
    }

    #[test]
    fn blocks_of_any_size_give_a_stable_sort() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut small_integer = || random.u32(0..16) as f32; // many ties
        for n in [1, 2, 3, 17, 200, 1000] {
            let (row, bias): (Vec<f32>, Vec<f32>) = (0..n).map(|_| (small_integer(), small_integer())).unzip();
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
