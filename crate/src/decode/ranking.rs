//! How decoding ranks the tokens of a vector.

/// How decoding ranks the tokens of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ranking {
    /// The number of tokens of each vector, best first.
    pub(crate) k: usize,
    /// Whether `b_U` is part of the logits.
    pub(crate) unembed_bias: bool,
}

impl Ranking {
    /// `b_U`, or zeros in its place. Shape: `b_u [d_vocab]` → the same.
    pub(crate) fn bias<'a>(&self, b_u: &'a [f32]) -> std::borrow::Cow<'a, [f32]> {
        if self.unembed_bias { b_u.into() } else { vec![0.0; b_u.len()].into() }
    }
}
