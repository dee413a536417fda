//! Whether a model completes a prompt with an answer: the rank of each of its tokens, and the most likely ones.

use std::fmt;

use ndarray::ArrayView1;

use super::loss::log_sum_exp;
use super::unembedding::rank;
use crate::error::{Result, check_count};
use crate::evcxr;
use crate::model::Gpt2;
use crate::plot::{Table, decimals};
use crate::tokenizer::TokenLabels;

/// Number of most likely tokens in the table of [`test_prompt`].
const TOP_K: usize = 10;

/// A token of the vocabulary as the next one: its place among all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedToken {
    /// The number of tokens with a larger logit: 0 for the most likely one.
    pub rank: usize,
    /// The logit.
    pub logit: f32,
    /// The probability.
    pub prob: f32,
    /// The token id.
    pub token: u32,
    /// The token as text.
    pub text: String,
}

/// A token of the answer, and the tokens that the model would rather have had in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerToken {
    /// The token of the answer.
    pub answer: RankedToken,
    /// The most likely tokens, best first.
    pub top: Vec<RankedToken>,
}

/// The result of [`test_prompt`], which a notebook shows as one table for each token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptTest {
    /// The tokens of the prompt, the beginning-of-sequence token included.
    pub prompt: Vec<String>,
    /// The tokens of the answer.
    pub answer: Vec<AnswerToken>,
    shown: Shown,
}

/// How tables show the prompt and the tokens.
#[derive(Clone, Debug)]
struct Shown {
    prompt: Vec<u32>,
    labels: TokenLabels,
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.prompt == other.prompt
    }
}

/// Tests whether the model completes a prompt with an answer, as TransformerLens' `test_prompt`: the ten most likely next
/// tokens and the rank of the answer's. The answer gets a space in front, unless it has one. For an answer of several
/// tokens, each is predicted from the prompt and the answer's tokens before it.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let test = test_prompt(&model, "When Mary and John went to the store, John gave a drink to", "Mary")?;
/// assert_eq!((test.answer[0].answer.rank, &*test.answer[0].answer.text), (0, " Mary"));
/// test // as the last expression of a cell, a table
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::NoTokenizer`](crate::Error::NoTokenizer), [`Error::Tokenize`](crate::Error::Tokenize),
/// [`Error::Count`](crate::Error::Count) for an empty answer, [`Error::Prompt`](crate::Error::Prompt) if prompt and
/// answer exceed the context, [`Error::Device`](crate::Error::Device).
pub fn test_prompt(model: &Gpt2, prompt: &str, answer: &str) -> Result<PromptTest> {
    test_prompt_options(model, prompt, answer, true, TOP_K)
}

/// [`test_prompt`] with its options: whether an answer without a space in front gets one, and the number of most likely
/// tokens.
///
/// # Errors
/// As for [`test_prompt`], and [`Error::Count`](crate::Error::Count) if `top_k` is 0.
pub fn test_prompt_options(
    model: &Gpt2,
    prompt: &str,
    answer: &str,
    prepend_space_to_answer: bool,
    top_k: usize,
) -> Result<PromptTest> {
    check_count("test_prompt", "top_k", top_k, 1, None)?;
    let space = if prepend_space_to_answer && !answer.starts_with(' ') { " " } else { "" };
    let answer = model.to_tokens_without_bos(&format!("{space}{answer}"))?;
    check_count("test_prompt", "tokens of the answer", answer.len(), 1, None)?;
    let mut tokens = model.to_tokens(prompt)?;
    let labels = model.token_labels();
    let prompt: Vec<String> = tokens.iter().map(|&token| labels.text(token)).collect();
    let prompt_tokens = tokens.clone();
    // The last token of the answer predicts nothing here.
    tokens.extend(&answer[..answer.len() - 1]);
    let positions: Vec<isize> = (-(answer.len() as isize)..0).collect();
    let logits = model.logits_at(tokens, &positions)?.remove(0); // [answer, d_vocab]
    let answer =
        logits.rows().into_iter().zip(&answer).map(|(logits, &token)| answer_token(logits, token, top_k, &labels));
    let answer = answer.collect();
    Ok(PromptTest { prompt, answer, shown: Shown { prompt: prompt_tokens, labels } })
}

/// Shape: `logits [d_vocab]`.
fn answer_token(logits: ArrayView1<f32>, answer: u32, top_k: usize, labels: &TokenLabels) -> AnswerToken {
    let log_sum = log_sum_exp(logits);
    let ranked = |token: u32| {
        let logit = logits[token as usize];
        RankedToken {
            rank: rank(logits, token),
            logit,
            prob: (f64::from(logit) - log_sum).exp() as f32,
            token,
            text: labels.text(token),
        }
    };
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let k = top_k.min(tokens.len());
    if k < tokens.len() {
        tokens.select_nth_unstable_by(k, by_logit);
    }
    tokens.truncate(k);
    tokens.sort_unstable_by(by_logit);
    AnswerToken { answer: ranked(answer), top: tokens.into_iter().map(ranked).collect() }
}

impl PromptTest {
    /// A table for each token of the answer: rank, logit, probability and text of the most likely tokens, and of the
    /// answer's if it is not among them.
    pub fn tables(&self) -> Vec<Table> {
        let Shown { prompt, labels } = &self.shown;
        let row = |token: &RankedToken| {
            let RankedToken { rank, logit, prob, token, .. } = token;
            vec![rank.to_string(), decimals(*logit, 2), format!("{:.2}%", 100.0 * prob), labels.label(*token)]
        };
        let mut context = prompt.clone();
        let mut tables = Vec::new();
        for AnswerToken { answer, top } in &self.answer {
            let mut rows: Vec<Vec<String>> = top.iter().map(row).collect();
            if !top.iter().any(|token| token.token == answer.token) {
                rows.push(row(answer));
            }
            let caption = format!(
                "answer {}: rank {}, logit {}, probability {:.2}%, after {}",
                labels.label(answer.token),
                answer.rank,
                decimals(answer.logit, 2),
                100.0 * answer.prob,
                labels.labels(&context)
            );
            tables.push(Table::new(caption, &["rank", "logit", "prob", "token"], rows));
            context.push(answer.token);
        }
        tables
    }

    /// Shows the tables in an evcxr notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        let html: String = self.tables().iter().map(Table::to_html).collect();
        evcxr::show(&[("text/html", &html), ("text/plain", &self.to_string())]);
    }
}

impl fmt::Display for PromptTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables().iter().try_for_each(|table| writeln!(f, "{table}"))
    }
}
