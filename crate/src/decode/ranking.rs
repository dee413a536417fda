//! How decoding ranks the tokens of a vector.

use std::borrow::Cow;

/// The part of `b_U` in the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnembedBias {
    Added,
    LeftOut,
    /// Of negated vectors, so that the highest logits are the lowest ones.
    Subtracted,
}

/// How decoding ranks the tokens of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranking {
    /// The number of tokens of each vector, best first.
    pub(crate) k: usize,
    pub(crate) bias: UnembedBias,
}

impl Ranking {
    /// The `k` best tokens, with `b_U` or without.
    pub(crate) fn new(k: usize, unembed_bias: bool) -> Self {
        Self { k, bias: if unembed_bias { UnembedBias::Added } else { UnembedBias::LeftOut } }
    }

    /// The ranking of negated vectors.
    pub(crate) fn negated(self) -> Self {
        let bias = match self.bias {
            UnembedBias::Added => UnembedBias::Subtracted,
            UnembedBias::LeftOut => UnembedBias::LeftOut,
            UnembedBias::Subtracted => UnembedBias::Added,
        };
        Self { bias, ..self }
    }

    /// `b_U`, zeros or `−b_U`. Shape: `b_u [d_vocab]` → the same.
    pub(crate) fn bias<'a>(&self, b_u: &'a [f32]) -> Cow<'a, [f32]> {
        match self.bias {
            UnembedBias::Added => b_u.into(),
            UnembedBias::LeftOut => vec![0.0; b_u.len()].into(),
            UnembedBias::Subtracted => b_u.iter().map(|b| -b).collect(),
        }
    }
}
