//! A published number beside that of the model.

use std::fmt;

/// What was published.
enum Published {
    /// A number, and the largest difference that counts as none.
    Number { value: f64, tolerance: f64 },
    /// A lower limit.
    AtLeast(f64),
    /// An upper limit.
    AtMost(f64),
    /// Tokens, or heads.
    Text(String),
}

/// What the model has.
enum Yours {
    Number(f64),
    Text(String),
}

/// A published number or text, that of the model, and where it was published.
pub(crate) struct Row {
    what: String,
    published: Published,
    yours: Yours,
    source: &'static str,
}

impl Row {
    /// A number that may differ by a tolerance.
    pub(crate) fn number(
        what: impl Into<String>,
        value: f64,
        tolerance: f64,
        yours: impl Into<f64>,
        source: &'static str,
    ) -> Self {
        let (published, yours) = (Published::Number { value, tolerance }, Yours::Number(yours.into()));
        Self { what: what.into(), published, yours, source }
    }

    /// A number that was published with some decimals, computed with 1e-3 of precision on another machine.
    pub(crate) fn rounded(
        what: impl Into<String>,
        value: f64,
        decimals: i32,
        yours: impl Into<f64>,
        source: &'static str,
    ) -> Self {
        Self::number(what, value, 1e-3 + 0.5 * 10_f64.powi(-decimals), yours, source)
    }

    /// A number with a lower limit.
    pub(crate) fn at_least(what: impl Into<String>, limit: f64, yours: impl Into<f64>, source: &'static str) -> Self {
        Self { what: what.into(), published: Published::AtLeast(limit), yours: Yours::Number(yours.into()), source }
    }

    /// A number with an upper limit.
    pub(crate) fn at_most(what: impl Into<String>, limit: f64, yours: impl Into<f64>, source: &'static str) -> Self {
        Self { what: what.into(), published: Published::AtMost(limit), yours: Yours::Number(yours.into()), source }
    }

    /// A text that must be equal.
    pub(crate) fn text(what: impl Into<String>, text: &str, yours: impl Into<String>, source: &'static str) -> Self {
        Self { what: what.into(), published: Published::Text(text.into()), yours: Yours::Text(yours.into()), source }
    }

    /// Whether the model agrees with what was published.
    pub(crate) fn is_within(&self) -> bool {
        match (&self.published, &self.yours) {
            (Published::Number { value, tolerance }, Yours::Number(yours)) => (yours - value).abs() <= *tolerance,
            (Published::AtLeast(limit), Yours::Number(yours)) => yours >= limit,
            (Published::AtMost(limit), Yours::Number(yours)) => yours <= limit,
            (Published::Text(text), Yours::Text(yours)) => text == yours,
            _ => false,
        }
    }
}

/// The names of the columns.
pub(crate) fn header() -> String {
    columns("", "published", "yours", "difference", "tolerance", "", "source")
}

fn columns(
    what: &str,
    published: &str,
    yours: &str,
    difference: &str,
    tolerance: &str,
    within: &str,
    source: &str,
) -> String {
    let text = format!("{what:<79} {published:>9} {yours:>9} {difference:>9} {tolerance:>9}  {within:<7}  {source}");
    text.trim_end().to_owned()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |x: f64| format!("{x:.4}");
        let within = if self.is_within() { "within" } else { "OUTSIDE" };
        if let (Published::Text(text), Yours::Text(yours)) = (&self.published, &self.yours) {
            writeln!(f, "{}", columns(&self.what, "", "", "", "equal", within, self.source))?;
            return write!(f, "    published {text:?}\n    yours     {yours:?}");
        }
        let yours = match &self.yours {
            Yours::Number(yours) => *yours,
            Yours::Text(_) => f64::NAN,
        };
        let (published, difference, tolerance) = match self.published {
            Published::Number { value, tolerance } => (number(value), yours - value, format!("{tolerance:.1e}")),
            Published::AtLeast(limit) => (format!("≥ {}", number(limit)), yours - limit, String::new()),
            Published::AtMost(limit) => (format!("≤ {}", number(limit)), yours - limit, String::new()),
            Published::Text(_) => (String::new(), f64::NAN, String::new()),
        };
        let difference = format!("{difference:+.4}");
        write!(f, "{}", columns(&self.what, &published, &number(yours), &difference, &tolerance, within, self.source))
    }
}
