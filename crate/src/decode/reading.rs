//! Readings: how the cells of a head are read as tokens, as a value.

use std::fmt;
use std::str::FromStr;

use super::Projection;
use crate::error::Error;

/// The basis of a head's values in which a reading takes `W_V` and `W_O`.
///
/// A control: the model computes the same in each basis. [`Projection::Matched`] and [`Projection::Written`] give the same
/// tokens too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The basis of the loaded weights.
    #[default]
    AsLoaded,
    /// The columns of `W_V` and the rows of `W_O`, in pairs, in a random order of this seed, another one for each head.
    Reordered(u64),
}

/// The signs of the pairs of a column of `W_V` and a row of `W_O`. A control, as [`Basis`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Signs {
    /// The signs of the loaded weights.
    #[default]
    AsLoaded,
    /// Random signs of this seed, other ones for each head.
    Random(u64),
}

/// A way to read the cells of a head as tokens: a projection to the residual stream, and what else decides the most likely
/// token.
///
/// A [`Projection`] converts into the reading that takes the weights as they are, with the bias of the unembedding, as in
/// the original notebook.
///
/// ```
/// use attention_tokens::notebook::*;
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let run = run_prompts(&model, "The next sentence is false.")?;
/// let matched = calculate_attns_with(&run, 0, 1, Reading::MATCHED)?;
/// let without_b_u = calculate_attns_with(&run, 0, 1, Reading::MATCHED.unembed_bias(false))?;
/// assert_eq!(without_b_u.reading.to_string(), "matched, without b_U");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The map from a cell to the residual stream.
    pub projection: Projection,
    /// The basis of `W_V` and `W_O`.
    pub basis: Basis,
    /// The signs of that basis.
    pub signs: Signs,
    /// Whether `b_U` is part of the logits. Where a vector is weak, every head gives `b_U`'s largest tokens; without it, a
    /// token depends on the head alone.
    pub unembed_bias: bool,
    /// Whether the vector in the residual stream is centred and scaled to variance 1, as by the final layer norm, before it
    /// is unembedded: a weak vector then has as much weight beside `b_U` as a strong one. Without `b_U` it changes logits
    /// and margins, and no token unless the model was loaded without folding its layer norms.
    pub normalized: bool,
}

impl Default for Reading {
    /// [`Reading::NOTEBOOK`].
    fn default() -> Self {
        Self::NOTEBOOK
    }
}

impl From<Projection> for Reading {
    fn from(projection: Projection) -> Self {
        Self::of(projection)
    }
}

impl Reading {
    /// [`Projection::Notebook`], as in the original.
    pub const NOTEBOOK: Reading = Self::of(Projection::Notebook);
    /// [`Projection::Output`].
    pub const OUTPUT: Reading = Self::of(Projection::Output);
    /// [`Projection::Ov`].
    pub const OV: Reading = Self::of(Projection::Ov);
    /// [`Projection::Matched`].
    pub const MATCHED: Reading = Self::of(Projection::Matched);
    /// [`Projection::Written`].
    pub const WRITTEN: Reading = Self::of(Projection::Written);

    const fn of(projection: Projection) -> Self {
        Self { projection, basis: Basis::AsLoaded, signs: Signs::AsLoaded, unembed_bias: true, normalized: false }
    }

    /// Sets [`projection`](Self::projection).
    pub fn projection(mut self, projection: Projection) -> Self {
        self.projection = projection;
        self
    }

    /// Sets [`basis`](Self::basis).
    pub fn basis(mut self, basis: Basis) -> Self {
        self.basis = basis;
        self
    }

    /// Sets [`signs`](Self::signs).
    pub fn signs(mut self, signs: Signs) -> Self {
        self.signs = signs;
        self
    }

    /// Sets [`unembed_bias`](Self::unembed_bias).
    pub fn unembed_bias(mut self, unembed_bias: bool) -> Self {
        self.unembed_bias = unembed_bias;
        self
    }

    /// Sets [`normalized`](Self::normalized).
    pub fn normalized(mut self, normalized: bool) -> Self {
        self.normalized = normalized;
        self
    }

    /// The reading in words, for captions: "the head's OV matrix, without b_U".
    pub(crate) fn in_words(self) -> String {
        format!("{}{}", self.projection.in_words(), self.differences())
    }

    /// The differences from the reading of the projection alone, each after a comma.
    pub(crate) fn differences(self) -> String {
        let mut text = String::new();
        if let Basis::Reordered(seed) = self.basis {
            text.push_str(&format!(", random order of seed {seed}"));
        }
        if let Signs::Random(seed) = self.signs {
            text.push_str(&format!(", random signs of seed {seed}"));
        }
        if self.normalized {
            text.push_str(", normalized");
        }
        if !self.unembed_bias {
            text.push_str(", without b_U");
        }
        text
    }
}

impl fmt::Display for Reading {
    /// The name of the projection, and what differs: `ov, random signs of seed 1, without b_U`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.projection.name(), self.differences())
    }
}

impl FromStr for Reading {
    type Err = Error;

    /// Parses the text of [`Display`](fmt::Display): `"matched"`, `"ov, random signs of seed 1, without b_U"`.
    ///
    /// # Errors
    /// [`Error::Setting`] for another text.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Setting {
            function: "Reading",
            option: "text",
            expected: format!(
                "one of {}, and then any of \"random order of seed 1\", \"random signs of seed 1\", \"normalized\", \
                 \"without b_U\", separated by commas",
                Projection::ALL.map(Projection::name).join(", ")
            ),
            found: format!("{text:?}"),
        };
        let mut parts = text.split(", ");
        let name = parts.next().unwrap_or_default();
        let projection = Projection::ALL.into_iter().find(|projection| projection.name() == name);
        let mut reading = Self::of(projection.ok_or_else(unknown)?);
        for part in parts {
            let seed = |prefix: &str| part.strip_prefix(prefix)?.parse::<u64>().ok();
            reading = match part {
                "normalized" => reading.normalized(true),
                "without b_U" => reading.unembed_bias(false),
                _ => match (seed("random order of seed "), seed("random signs of seed ")) {
                    (Some(seed), _) => reading.basis(Basis::Reordered(seed)),
                    (_, Some(seed)) => reading.signs(Signs::Random(seed)),
                    _ => return Err(unknown()),
                },
            };
        }
        Ok(reading)
    }
}

impl fmt::Display for Basis {
    /// `as loaded`, `reordered, seed 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsLoaded => f.write_str("as loaded"),
            Self::Reordered(seed) => write!(f, "reordered, seed {seed}"),
        }
    }
}

impl fmt::Display for Signs {
    /// `as loaded`, `random, seed 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsLoaded => f.write_str("as loaded"),
            Self::Random(seed) => write!(f, "random, seed {seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_named_by_its_projection_and_by_what_differs() {
        assert_eq!(Reading::from(Projection::Ov).to_string(), "ov");
        let all = Reading::OV.basis(Basis::Reordered(3)).signs(Signs::Random(4)).normalized(true).unembed_bias(false);
        assert_eq!(all.to_string(), "ov, random order of seed 3, random signs of seed 4, normalized, without b_U");
        assert_eq!(all.in_words()[..21], *"the head's OV matrix,");
        for reading in [all, Reading::WRITTEN, Reading::MATCHED.normalized(true)] {
            assert_eq!(reading.to_string().parse::<Reading>().unwrap(), reading);
        }
        for text in ["", "said", "ov, twice", "ov,normalized", "ov, random signs of seed x"] {
            assert!(matches!(text.parse::<Reading>(), Err(Error::Setting { .. })), "{text}");
        }
    }
}
