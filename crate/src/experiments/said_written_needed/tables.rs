//! The tables of the agreement of words.

use super::agreement::{HeadAgreement, WordAgreement};
use super::rates::WithChance;
use crate::plot::{Table, decimals};

/// A measure of a head; `None` where it has none.
type Measure = fn(&HeadAgreement) -> Option<WithChance>;

/// The measures with their names.
const MEASURES: [(&str, Measure); 6] = [
    ("says what it writes", |head| Some(head.said_is_written)),
    ("says the key's token", |head| Some(head.said_is_key)),
    ("says the token after the key", |head| Some(head.said_is_next)),
    ("writes the key's token", |head| Some(head.written_is_key)),
    ("writes the token after the key", |head| Some(head.written_is_next)),
    ("correlation of attention and need", |head| head.need_by_attention),
];

impl WordAgreement {
    /// Each measure as a mean over heads, beside chance, and the head that is farthest above chance.
    pub fn table(&self) -> Table {
        let row = |(name, measure): &(&str, Measure)| {
            let mean = self.mean(*measure)?;
            let above = |head: &&HeadAgreement| measure(head).map_or(f64::MIN, |of| of.observed - of.by_chance);
            let best = self.heads.iter().max_by(|a, b| above(a).total_cmp(&above(b)))?;
            let of_best = measure(best)?;
            let head = format!("{}.{}", best.layer, best.head);
            let numbers = [mean.observed, mean.by_chance].map(three);
            let of_best = [of_best.observed, of_best.by_chance].map(three);
            Some([(*name).to_owned()].into_iter().chain(numbers).chain([head]).chain(of_best).collect())
        };
        let header = ["a pair", "mean of heads", "by chance", "farthest above it", "of that head", "by chance"];
        let caption = format!("Said, written, needed{}; chance: shuffled within each row", self.source());
        Table::new(caption, &header, MEASURES.iter().filter_map(row).collect())
    }

    /// Each measure as a mean over heads, beside chance, and beside the same of a control, such as a model that has learned
    /// nothing.
    ///
    /// ```
    /// use attention_tokens::experiments::{AgreementOptions, word_agreement};
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    /// let options = AgreementOptions { needs: false, ..Default::default() };
    /// let agreement = word_agreement(&model, "kXbq7ZkXbq7Z", options.clone())?;
    /// let control = word_agreement(&model.with_random_weights(1)?, "kXbq7ZkXbq7Z", options)?;
    /// assert_eq!(agreement.table_with_control(&control).rows().len(), 5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn table_with_control(&self, control: &WordAgreement) -> Table {
        let row = |(name, measure): &(&str, Measure)| {
            let (own, of_control) = (self.mean(*measure)?, control.mean(*measure)?);
            let numbers = [own.observed, own.by_chance, of_control.observed, of_control.by_chance].map(three);
            Some([(*name).to_owned()].into_iter().chain(numbers).collect())
        };
        let header = ["a pair", "mean of heads", "by chance", "control", "by chance"];
        let caption = format!(
            "Said, written, needed{}; control{}; chance: shuffled within each row",
            self.source(),
            control.source()
        );
        Table::new(caption, &header, MEASURES.iter().filter_map(row).collect())
    }

    /// Every head with all measures, and chance in brackets.
    pub fn heads_table(&self) -> Table {
        let measures = || MEASURES.iter().filter(|(_, measure)| self.mean(*measure).is_some());
        let row = |head: &HeadAgreement| {
            let number = |(_, measure): &(&str, Measure)| {
                measure(head).map_or_else(String::new, |of| format!("{} ({})", three(of.observed), three(of.by_chance)))
            };
            [format!("{}.{}", head.layer, head.head)].into_iter().chain(measures().map(number)).collect()
        };
        let header: Vec<&str> = std::iter::once("head").chain(measures().map(|(name, _)| *name)).collect();
        let caption = format!("Said, written, needed{}; in brackets: shuffled within each row", self.source());
        Table::new(caption, &header, self.heads.iter().map(row).collect())
    }

    /// The mean over the heads that have the measure; `None` if there are none.
    fn mean(&self, measure: Measure) -> Option<WithChance> {
        WithChance::mean(&self.heads.iter().filter_map(measure).collect::<Vec<_>>())
    }

    /// The model, the prompts and the reading: the end of a caption.
    fn source(&self) -> String {
        let prompts = if self.n_prompts == 1 { "prompt" } else { "prompts" };
        format!("{}, {} {prompts}, says: {}", self.source, self.n_prompts, self.options.said)
    }

    /// Shows the table in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}

fn three(x: f64) -> String {
    decimals(x, 3)
}
