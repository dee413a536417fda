//! Generation of a batch of prompts.

use std::collections::HashMap;
use std::fmt;

use ndarray::ArrayView1;

use super::options::GenerateOptions;
use super::printer::Printer;
use super::sampling::next_token;
use super::text_stream::TextStream;
use crate::error::Result;
use crate::evcxr;
use crate::model::{Gpt2, KeyValueCache, Prompts};
use crate::random::{SeededRng, seeded_rng};
use crate::terminal::lines_without_controls;

/// The result of [`Gpt2::generate`]: an element of each list for each prompt. A notebook shows the texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The text of the prompt and of what was generated, without the beginning-of-sequence token in front and without a
    /// stop token at the end. Tokens without text are written as `#` and their id.
    pub texts: Vec<String>,
    /// The tokens of the prompt, and after them those that were generated. Shape: `[prompt][pos]`.
    pub tokens: Vec<Vec<u32>>,
    /// The generated tokens, a stop token included. Shape: `[prompt][up to max_new_tokens]`.
    pub new_tokens: Vec<Vec<u32>>,
    /// Whether a stop token ended the prompt.
    pub stopped: Vec<bool>,
}

impl Generated {
    /// Shows the texts in an evcxr notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/plain", &self.to_string())]);
    }
}

/// Control characters except tabs and line breaks are written out (`\u{1b}`): no text can act on a terminal. The field
/// `texts` has the exact texts.
impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts = self.texts.iter().map(|text| lines_without_controls(text)).enumerate();
        match self.texts.len() {
            1 => texts.try_for_each(|(_, text)| f.write_str(&text)),
            _ => texts.try_for_each(|(prompt, text)| writeln!(f, "{prompt}: {text}")),
        }
    }
}

/// A token that was just generated, for the callback of [`Gpt2::generate_with`].
#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    /// The index of the prompt in its batch.
    pub prompt: usize,
    /// The token.
    pub token: u32,
    /// The text that the token completes. It is empty if the token ends inside a character, whose text then comes with a
    /// later token, and for a stop token.
    pub text: String,
}

impl Gpt2 {
    /// Continues each prompt token by token: `generate` of TransformerLens.
    ///
    /// Each prompt of a batch gets the same tokens as alone. At the end of the model's context, the last `n_ctx` tokens
    /// are the prompt of the next token, as in TransformerLens: all positions shift by one, so the keys and values of
    /// earlier ones cannot be used, and each further token takes as long as a run of `n_ctx` tokens. The
    /// beginning-of-sequence token is then no longer among them.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let options = GenerateOptions::default().max_new_tokens(20).temperature(0.7).top_k(40).seed(1);
    /// let generated = model.generate(["When Mary and John went to the", "The bus is"], options)?;
    /// assert!(generated.texts[1].starts_with("The bus is"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for an option that cannot be used,
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a stop token that the vocabulary does not have, and those of
    /// [`forward`](Self::forward).
    pub fn generate(&self, prompts: impl Into<Prompts>, options: GenerateOptions) -> Result<Generated> {
        generate(self, prompts.into(), &options, &mut |_| ())
    }

    /// [`generate`](Self::generate), with a function that is called with each token as it is generated.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let mut text = String::new();
    /// let greedy = GenerateOptions::default().max_new_tokens(2).do_sample(false);
    /// model.generate_with("Monday, Tuesday,", greedy, |new| text += &new.text)?;
    /// assert_eq!(text, " Wednesday,");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`generate`](Self::generate).
    pub fn generate_with(
        &self,
        prompts: impl Into<Prompts>,
        options: GenerateOptions,
        mut on_token: impl FnMut(NewToken),
    ) -> Result<Generated> {
        generate(self, prompts.into(), &options, &mut on_token)
    }
}

/// A prompt and its continuation.
struct Continuation {
    tokens: Vec<u32>,
    prompt_len: usize,
    stream: TextStream,
    rng: SeededRng,
    stopped: bool,
}

/// [`Gpt2::generate_with`] without generic parameters.
fn generate(
    model: &Gpt2,
    prompts: Prompts,
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(NewToken),
) -> Result<Generated> {
    options.check(model.config())?;
    let prompts = model.checked_prompts(prompts)?;
    let mut printer = options.verbose.then(|| Printer::new(prompts.len()));
    let mut all = continuations(model, prompts, options.seed);
    if let Some(printer) = &mut printer {
        all.iter().enumerate().for_each(|(prompt, one)| printer.print(prompt, &text_of(model, one)));
    }
    let mut active: Vec<usize> = (0..all.len()).collect();
    let mut past = KeyValueCache::new(model.config(), all.len());
    for step in 1..=options.max_new_tokens {
        let new = active.iter().enumerate().map(|(slot, &prompt)| {
            new_tokens(&all[prompt].tokens, slot, &mut past, model.config().n_ctx, options.use_past_kv_cache)
        });
        let new = new.collect();
        let next = if options.do_sample {
            let logits = model.run_with_past(new, &mut past)?; // [active, d_vocab]
            let draw = |(&prompt, logits): (&usize, ArrayView1<f32>)| {
                let Continuation { rng, tokens, .. } = &mut all[prompt];
                next_token(options, rng, logits.to_slice().expect("a row of logits is contiguous"), tokens)
            };
            active.iter().zip(logits.rows()).map(draw).collect()
        } else {
            model.most_likely_with_past(new, &mut past)?
        };
        let mut ended = Vec::new();
        for ((slot, &prompt), token) in active.iter().enumerate().zip(next) {
            let one = &mut all[prompt];
            one.tokens.push(token);
            one.stopped = options.stops_at(token, model.config());
            let mut text = if one.stopped { String::new() } else { one.stream.push(token) };
            if one.stopped || step == options.max_new_tokens {
                text += &one.stream.finish();
                ended.push(slot);
            }
            if let Some(printer) = &mut printer {
                printer.print(prompt, &text);
                if ended.last() == Some(&slot) {
                    printer.finish(prompt);
                }
            }
            on_token(NewToken { prompt, token, text });
        }
        for slot in ended.into_iter().rev() {
            active.remove(slot);
            past.remove(slot);
        }
        if active.is_empty() {
            break;
        }
    }
    Ok(Generated {
        texts: all.iter().map(|one| text_of(model, one)).collect(),
        new_tokens: all.iter().map(|one| one.tokens[one.prompt_len..].to_vec()).collect(),
        stopped: all.iter().map(|one| one.stopped).collect(),
        tokens: all.into_iter().map(|one| one.tokens).collect(),
    })
}

/// A continuation of each prompt. Prompts that are equal get different random numbers, but the first of them gets those
/// that it gets alone.
fn continuations(model: &Gpt2, prompts: Vec<Vec<u32>>, seed: u64) -> Vec<Continuation> {
    let mut occurrences: HashMap<Vec<u32>, u64> = HashMap::new();
    let continuation = |tokens: Vec<u32>| {
        let occurrence = occurrences.entry(tokens.clone()).or_default();
        let mut rng = seeded_rng(seed);
        rng.set_stream(*occurrence);
        *occurrence += 1;
        let stream = TextStream::after(&tokens, model.token_labels());
        Continuation { prompt_len: tokens.len(), tokens, stream, rng, stopped: false }
    };
    prompts.into_iter().map(continuation).collect()
}

/// The tokens of a prompt that the next run must compute, after the positions in `past`.
fn new_tokens(tokens: &[u32], slot: usize, past: &mut KeyValueCache, n_ctx: usize, use_past: bool) -> Vec<u32> {
    if !use_past || tokens.len() > n_ctx {
        past.clear(slot); // the positions of the last `n_ctx` tokens are not those that they had
    }
    tokens[tokens.len().saturating_sub(n_ctx) + past.len(slot)..].to_vec()
}

/// The text of a prompt and what was generated so far, without the tokens around it.
fn text_of(model: &Gpt2, Continuation { tokens, stopped, .. }: &Continuation) -> String {
    let tokens = &tokens[..tokens.len() - usize::from(*stopped)];
    model.token_labels().joined(tokens.strip_prefix(model.config().bos_token_id.as_slice()).unwrap_or(tokens))
}
