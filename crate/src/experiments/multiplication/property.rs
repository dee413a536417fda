//! The properties of a multiplication table, each a share.

/// A property of the products of a list of `n` tokens, as a number from 0 to 1. A group has closure, associativity, the
/// identities and the cancellations at 1, idempotents at `1/n`, and the last two at `1/n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableProperty {
    /// The share of products that are in the list.
    Closure,
    /// The share of triples with `(a ∘ b) ∘ c = a ∘ (b ∘ c)`, among those for which `a ∘ b` and `b ∘ c` are both in the list:
    /// of others, the table does not have the outer products. The outer products may be outside of the list. No value if
    /// there is no such triple.
    Associativity,
    /// The share of pairs of different tokens with `a ∘ b = b ∘ a`. No value for one token.
    Commutativity,
    /// The share of tokens with `a ∘ a = a`.
    Idempotents,
    /// The largest share of tokens `a` with `e ∘ a = a`, over tokens `e` of the list: 1 if there is a left identity.
    LeftIdentity,
    /// The largest share of tokens `a` with `a ∘ e = a`, over tokens `e` of the list: 1 if there is a right identity.
    RightIdentity,
    /// The share of `a` and pairs `b ≠ c` with `a ∘ b ≠ a ∘ c`: 1 if no row has a product twice. A table with both
    /// cancellations at 1 is a Latin square. No value for one token.
    LeftCancellation,
    /// The share of `a` and pairs `b ≠ c` with `b ∘ a ≠ c ∘ a`: 1 if no column has a product twice. No value for one token.
    RightCancellation,
    /// The share of products that are the most frequent one of their row: 1 if the left token, the query, decides alone.
    LeftAlone,
    /// The share of products that are the most frequent one of their column: 1 if the right token, the key, decides alone.
    RightAlone,
}

impl TableProperty {
    /// All properties.
    pub const ALL: [TableProperty; 10] = [
        TableProperty::Closure,
        TableProperty::Associativity,
        TableProperty::Commutativity,
        TableProperty::Idempotents,
        TableProperty::LeftIdentity,
        TableProperty::RightIdentity,
        TableProperty::LeftCancellation,
        TableProperty::RightCancellation,
        TableProperty::LeftAlone,
        TableProperty::RightAlone,
    ];

    /// The property in words, as tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closure => "products in the list",
            Self::Associativity => "associative triples",
            Self::Commutativity => "commuting pairs",
            Self::Idempotents => "idempotents",
            Self::LeftIdentity => "best left identity",
            Self::RightIdentity => "best right identity",
            Self::LeftCancellation => "left cancellation",
            Self::RightCancellation => "right cancellation",
            Self::LeftAlone => "the left token alone",
            Self::RightAlone => "the right token alone",
        }
    }
}

/// A share, as a count of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) counted: u64,
    pub(super) of: u64,
}

impl Value {
    /// The cases for which something holds.
    pub(super) fn count<T>(cases: impl Iterator<Item = T>, holds: impl Fn(T) -> bool) -> Self {
        let mut value = Self::default();
        for case in cases {
            value.of += 1;
            value.counted += u64::from(holds(case));
        }
        value
    }

    /// `None` without cases.
    pub(super) fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.counted as f64 / self.of as f64)
    }
}
