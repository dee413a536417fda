//! The lines of a receipt, their sum, and the cut.

use super::contributor::Contributor;
use super::ledger::ReceiptOptions;
use crate::model::Gpt2;

/// A line of a [`Receipt`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiptLine {
    /// The part of the model that writes.
    pub contributor: Contributor,
    /// What it writes to the logit difference: its direct effect.
    pub logits: f64,
    /// The words of the cell, of a line that is one.
    pub cell: Option<ReceiptCell>,
}

/// The words of a cell of a head, a pair of the receipt's position and a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReceiptCell {
    /// The token at the key.
    pub key_token: u32,
    /// The attention to the key.
    pub attention: f32,
    /// The token that the pair says, in the reading of the options.
    pub said: u32,
    /// The token that the pair raises most: that of [`Projection::Written`](crate::Projection::Written) without `b_U`.
    pub written: u32,
    /// The token that the pair lowers most.
    pub lowest: u32,
}

/// A prediction as a list of what each part of the model writes: the result of [`receipt`](super::receipt()).
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The two tokens whose logits are compared: right and wrong.
    pub answers: [u32; 2],
    /// The tokens of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The position whose prediction it is.
    pub position: usize,
    /// Every line, the largest first, whatever its sign.
    pub lines: Vec<ReceiptLine>,
    /// The logit difference that the model computes, in an ordinary run.
    pub logit_diff: f64,
    /// The options of the receipt.
    pub options: ReceiptOptions,
    pub(super) model: Gpt2,
}

impl Receipt {
    /// The sum of all lines.
    pub fn total(&self) -> f64 {
        self.lines.iter().map(|line| line.logits).sum()
    }

    /// The sum of all lines minus the logit difference of the model: a rounding error.
    pub fn remainder(&self) -> f64 {
        self.total() - self.logit_diff
    }

    /// The lines that tables and figures show: the largest ones that have together the share of the options, of the sum of
    /// all sizes.
    pub fn shown(&self) -> &[ReceiptLine] {
        let sizes: f64 = self.lines.iter().map(|line| line.logits.abs()).sum();
        let mut so_far = 0.0;
        let is_below = |line: &&ReceiptLine| {
            let before = so_far;
            so_far += line.logits.abs();
            before < self.options.share * sizes
        };
        let n = self.lines.iter().take_while(is_below).count();
        &self.lines[..n]
    }

    /// The lines that are not [`shown`](Self::shown).
    pub fn further(&self) -> &[ReceiptLine] {
        &self.lines[self.shown().len()..]
    }

    /// What a part of the model writes to the logit difference: a line, or the sum of the cells of a head. 0 if the receipt
    /// has no such line.
    pub fn logits_of(&self, contributor: Contributor) -> f64 {
        let is_part = |line: &&ReceiptLine| match (contributor, line.contributor) {
            (Contributor::Head { layer, head }, Contributor::Cell { layer: of_layer, head: of_head, .. }) => {
                (layer, head) == (of_layer, of_head)
            }
            (part, line) => part == line,
        };
        self.lines.iter().filter(is_part).map(|line| line.logits).sum()
    }

    /// The parts of the model of the `n` largest lines, for [`strike`](Self::strike).
    pub fn largest(&self, n: usize) -> Vec<Contributor> {
        self.lines.iter().take(n).map(|line| line.contributor).collect()
    }
}
