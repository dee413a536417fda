//! How often what pairs say, what they write and what they are needed for agree, over all heads.

use super::of_head::{Target, WRITTEN, data_of_layer};
use super::rates::{Agreement, WithChance, correlation};
use crate::attention_tokens::PromptHeadData;
use crate::decode::Reading;
use crate::error::{Result, check_count};
use crate::experiments::source_of;
use crate::model::{Gpt2, Prompts, RunOptions};
use crate::patching::SweepOptions;

/// Options of [`word_agreement`].
#[derive(Clone, Debug, PartialEq)]
pub struct AgreementOptions {
    /// The reading of what a pair says.
    pub said: Reading,
    /// Whether pairs are knocked out, which takes a run for each pair of each head and most of the time.
    pub needs: bool,
    /// The right and the wrong token of each prompt, or one pair for all, of the logit difference that the prediction is
    /// measured by. `None` for the logit of the model's own most likely token. Shape: `[prompt] [right, wrong]`.
    pub answers: Option<Vec<[u32; 2]>>,
    /// Memory and progress lines of the runs.
    pub sweep: SweepOptions,
}

impl Default for AgreementOptions {
    /// The notebook's reading, with needs, for the model's own predictions.
    fn default() -> Self {
        Self { said: Reading::default(), needs: true, answers: None, sweep: SweepOptions::default() }
    }
}

/// The agreement of the words of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadAgreement {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The share of pairs that say what they write.
    pub said_is_written: WithChance,
    /// The share of pairs that say the token of their key.
    pub said_is_key: WithChance,
    /// The share of pairs that say the token after their key; of the keys before the query.
    pub said_is_next: WithChance,
    /// The share of pairs that write the token of their key.
    pub written_is_key: WithChance,
    /// The share of pairs that write the token after their key; of the keys before the query.
    pub written_is_next: WithChance,
    /// Pearson's correlation of attention with the size of the need, as the mean over prompts. `None` without needs, or if one of
    /// the two is the same for all pairs, or not finite, in every prompt. In the last layer, only the last query can be needed,
    /// and it alone counts.
    pub need_by_attention: Option<WithChance>,
}

/// The result of [`word_agreement`]. A notebook shows its table.
#[derive(Clone, Debug)]
pub struct WordAgreement {
    /// Every head, layer by layer.
    pub heads: Vec<HeadAgreement>,
    /// The number of prompts.
    pub n_prompts: usize,
    /// The options.
    pub options: AgreementOptions,
    /// The model and its interventions: the beginning of a caption's end.
    pub(super) source: String,
}

/// How often the pairs of each head say what they write, say or write the token of their key or the one after it, and how
/// their attention goes with how much the prediction needs them.
///
/// **Question.** Do heads mean what they say? A pair's attention token is decoded from query and key; what the pair does to
/// the output follows from the value. See [`said_written_needed`](super::said_written_needed()) for the three.
///
/// **Statistic.** Shares of the pairs with key ≤ query, over all prompts; and Pearson's correlation of attention with the size
/// of what the prediction loses without a pair. Ranks would give the many pairs that are hardly needed as much weight as the
/// few that are.
///
/// **Control.** For each number its expected value if the words (or the attention) of each row were shuffled among the row's
/// keys, computed exactly: a head that says one word for all keys agrees as often by chance. Rows of one pair have nothing to
/// shuffle and do not count. The second control is a model that has learned nothing ([`Gpt2::with_random_weights`],
/// [`WordAgreement::table_with_control`]); its attention is nearly uniform.
///
/// **Limits.** A word is the most likely one of many; two that differ may be near each other. An agreement does not make a word
/// a cause.
///
/// ```
/// use attention_tokens::experiments::{AgreementOptions, word_agreement};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
/// let options = AgreementOptions { needs: false, ..Default::default() };
/// let agreement = word_agreement(&model, ["kXbq7ZkXbq7Z", "a b c a b c"], options)?;
/// assert_eq!(agreement.heads.len(), 8);
/// agreement.table()
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`](crate::Error::Count) for another number of answers than prompts, and those of
/// [`said_written_needed`](super::said_written_needed()).
pub fn word_agreement(model: &Gpt2, prompts: impl Into<Prompts>, options: AgreementOptions) -> Result<WordAgreement> {
    of_prompts(model, model.checked_prompts(prompts.into())?, options)
}

/// [`word_agreement`] after its checks. Shape: `prompts [prompt][pos]`.
fn of_prompts(model: &Gpt2, prompts: Vec<Vec<u32>>, options: AgreementOptions) -> Result<WordAgreement> {
    if let Some(answers) = options.answers.as_ref().filter(|answers| answers.len() != 1) {
        let what = "pairs of answers, one for each prompt";
        check_count("word_agreement", what, answers.len(), prompts.len(), Some(prompts.len()))?;
    }
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    let mut heads = vec![Counts::default(); n_layers * n_heads];
    for (index, input) in prompts.iter().enumerate() {
        let (_, cache) = model.run_with_cache_options(input.clone(), RunOptions::for_head_data())?;
        let answers = options.answers.as_ref().map(|answers| answers[if answers.len() == 1 { 0 } else { index }]);
        let target = options.needs.then(|| Target::new(model, input, answers)).transpose()?;
        for layer in 0..n_layers {
            let said = data_of_layer(model, &cache, layer, options.said)?;
            let written = data_of_layer(model, &cache, layer, WRITTEN)?;
            for (head, (said, written)) in said.iter().zip(&written).enumerate() {
                let counts = &mut heads[layer * n_heads + head];
                counts.add_words(said, written);
                if let Some(target) = &target {
                    let (needed, _) = target.needed(model, input, [layer, head], options.sweep)?;
                    let first = if layer + 1 == n_layers { input.len() - 1 } else { 0 };
                    let cell = |query: usize, key: usize| [said.attn[[query, key]], needed[[query, key]].abs()];
                    let row = |query: usize| (0..=query).map(|key| cell(query, key)).collect();
                    let rows: Vec<Vec<[f32; 2]>> = (first..input.len()).map(row).collect();
                    counts.correlations.extend(correlation(&rows));
                }
            }
        }
    }
    let heads =
        heads.iter().enumerate().map(|(index, counts)| counts.rates(index / n_heads, index % n_heads)).collect();
    Ok(WordAgreement { heads, n_prompts: prompts.len(), options, source: source_of(model) })
}

/// The counts of a head.
#[derive(Clone, Default)]
struct Counts {
    said_is_written: Agreement,
    said_is_key: Agreement,
    said_is_next: Agreement,
    written_is_key: Agreement,
    written_is_next: Agreement,
    /// Shape: `[prompt]`, of those that have one.
    correlations: Vec<WithChance>,
}

impl Counts {
    fn add_words(&mut self, said: &PromptHeadData, written: &PromptHeadData) {
        for query in 0..said.n_pos() {
            let (keys, next) = (&said.input[..=query], &said.input[1..=query]);
            let (said, written) = (said.tokens_of_query(query), written.tokens_of_query(query));
            self.said_is_written.add(&said, &written);
            self.said_is_key.add(&said, keys);
            self.written_is_key.add(&written, keys);
            self.said_is_next.add(&said[..query], next);
            self.written_is_next.add(&written[..query], next);
        }
    }

    fn rates(&self, layer: usize, head: usize) -> HeadAgreement {
        HeadAgreement {
            layer,
            head,
            said_is_written: self.said_is_written.rate(),
            said_is_key: self.said_is_key.rate(),
            said_is_next: self.said_is_next.rate(),
            written_is_key: self.written_is_key.rate(),
            written_is_next: self.written_is_next.rate(),
            need_by_attention: WithChance::mean(&self.correlations),
        }
    }
}
