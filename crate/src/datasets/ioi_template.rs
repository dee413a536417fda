//! Templates of the indirect-object task: `[A]` is the indirect object, `[B]` the subject.

use crate::error::{Result, check_setting};

pub(super) const FUNCTION: &str = "IoiDataset";

/// The order in which the two names are introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoiOrder {
    /// The indirect object first: *When **Mary** and John …, John gave … to* Mary.
    Abba,
    /// The subject first: *When **John** and Mary …, John gave … to* Mary.
    Baba,
}

/// Sentences in both orders, with a place and an object.
pub(super) fn default_templates() -> Vec<String> {
    let sentences = [
        "When [1] and [2] went to the [LOCATION], [B] gave a [OBJECT] to [A]",
        "After [1] and [2] went to the [LOCATION], [B] gave a [OBJECT] to [A]",
        "Then, [1] and [2] went to the [LOCATION]. [B] gave a [OBJECT] to [A]",
        "While [1] and [2] were at the [LOCATION], [B] gave a [OBJECT] to [A]",
    ];
    let in_order = |first: &str, second: &str| sentences.map(|text| text.replace("[1]", first).replace("[2]", second));
    [in_order("[A]", "[B]"), in_order("[B]", "[A]")].concat()
}

/// A checked template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// Without the answer `[A]` and the space before it.
    text: String,
    pub(super) order: IoiOrder,
}

impl Template {
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a text that is not `… [A] … [B] … [B] … [A]`, in any order but for the
    /// last.
    pub(super) fn new(template: &str) -> Result<Self> {
        let text = template.strip_suffix(" [A]").unwrap_or_default();
        let places = |name: &str| text.match_indices(name).map(|(at, _)| at).collect::<Vec<_>>();
        let (a, b) = (places("[A]"), places("[B]"));
        let expected = "\"[A]\" once and \"[B]\" twice, the second time after both names, and \" [A]\" at the end";
        let allowed = a.len() == 1 && b.len() == 2 && a[0] < b[1];
        check_setting(FUNCTION, "templates", allowed, expected, format!("{template:?}"))?;
        let order = if a[0] < b[0] { IoiOrder::Abba } else { IoiOrder::Baba };
        Ok(Self { text: text.into(), order })
    }

    /// Whether the text begins with a name, which then has no space in front.
    pub(super) fn begins_with_name(&self) -> bool {
        self.text.starts_with("[A]") || self.text.starts_with("[B]")
    }

    /// The text with these names, and with a noun for each other placeholder.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a placeholder without nouns.
    pub(super) fn fill(&self, io: &str, s: &str, nouns: &[(&str, &str)]) -> Result<String> {
        let fill = |text: String, (kind, noun): &(&str, &str)| text.replace(&format!("[{kind}]"), noun);
        let text = nouns.iter().fold(self.text.clone(), fill).replace("[A]", io).replace("[B]", s);
        let rest = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(kind, _)| kind);
        let expected = "nouns for each placeholder of the templates";
        check_setting(FUNCTION, "nouns", rest.is_none(), expected, format!("none for [{}]", rest.unwrap_or_default()))?;
        Ok(text)
    }
}
