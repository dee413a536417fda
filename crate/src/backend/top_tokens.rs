//! The most likely tokens of decoded vectors.

use ndarray::{Array1, Array2};

/// The most likely tokens of `n` decoded vectors, best first.
///
/// A tie goes to the lowest token id.
#[derive(Clone, Debug, PartialEq)]
pub struct TopTokens {
    /// Token ids. Shape: `[n, k]`, where `k` is at most `d_vocab`.
    pub tokens: Array2<u32>,
    /// Their logits. Shape: `[n, k]`.
    pub logits: Array2<f32>,
    /// The best logit minus the runner-up's; infinite where the vocabulary has a single token. Shape: `[n]`.
    pub margin: Array1<f32>,
}

/// Collects the best tokens of vectors whose logits arrive in order, a row of the whole vocabulary each.
pub(crate) struct TopTokensBuilder {
    k: usize,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    margin: Vec<f32>,
    /// The running best of one row, best first; one more than `k` where the margin needs a runner-up.
    best: Vec<(f32, u32)>,
}

impl TopTokensBuilder {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, tokens: Vec::new(), logits: Vec::new(), margin: Vec::new(), best: Vec::new() }
    }

    /// Takes the next row: `product[v] + bias[v]` is the logit of token `v`.
    pub(crate) fn push(&mut self, product: &[f32], bias: &[f32]) {
        let wanted = self.k.max(2).min(bias.len());
        self.best.clear();
        let mut worst = f32::NEG_INFINITY;
        for (token, (&x, &b)) in product.iter().zip(bias).enumerate() {
            let logit = x + b;
            // Strictly greater, so that the lowest id keeps its place among equals.
            if logit > worst || self.best.len() < wanted {
                self.best.truncate(wanted - 1);
                let at = self.best.partition_point(|&(other, _)| other >= logit);
                self.best.insert(at, (logit, token as u32));
                if self.best.len() == wanted {
                    worst = self.best[wanted - 1].0;
                }
            }
        }
        self.margin.push(self.best.get(1).map_or(f32::INFINITY, |runner_up| self.best[0].0 - runner_up.0));
        for &(logit, token) in self.best.iter().take(self.k) {
            self.tokens.push(token);
            self.logits.push(logit);
        }
    }

    pub(crate) fn finish(self) -> TopTokens {
        let n = self.margin.len();
        let k = self.tokens.len().checked_div(n).unwrap_or(0);
        let matrix = "every row added the same number of tokens";
        TopTokens {
            tokens: Array2::from_shape_vec((n, k), self.tokens).expect(matrix),
            logits: Array2::from_shape_vec((n, k), self.logits).expect(matrix),
            margin: self.margin.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(k: usize, rows: &[&[f32]], bias: &[f32]) -> TopTokens {
        let mut builder = TopTokensBuilder::new(k);
        rows.iter().for_each(|row| builder.push(row, bias));
        builder.finish()
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
    fn equals_a_stable_sort() {
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 28) as f32
        };
        for n in [1, 2, 3, 17, 200] {
            let (row, bias): (Vec<f32>, Vec<f32>) = (0..n).map(|_| (random(), random())).unzip();
            let mut sorted: Vec<usize> = (0..n).collect();
            sorted.sort_by(|&a, &b| (row[b] + bias[b]).total_cmp(&(row[a] + bias[a])));
            for k in [1, 2, 4] {
                let got: Vec<usize> = top(k, &[&row], &bias).tokens.iter().map(|&token| token as usize).collect();
                assert_eq!(got, sorted[..k.min(n)], "n = {n}, k = {k}");
            }
        }
    }
}
