//! Options of generation, by TransformerLens' names.

use crate::config::Gpt2Config;
use crate::error::{Result, check_index, check_setting};

const FUNCTION: &str = "generate";

/// Options of [`Gpt2::generate`](crate::Gpt2::generate), with TransformerLens' names and defaults: up to 10 new tokens,
/// sampled from the model's probabilities, until the end-of-sequence token.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let greedy = GenerateOptions::default().max_new_tokens(6).do_sample(false);
/// let generated = model.generate("Monday, Tuesday,", greedy)?;
/// assert_eq!(generated.texts[0], "Monday, Tuesday, Wednesday, Thursday, Friday,");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    pub(super) max_new_tokens: usize,
    pub(super) stop_at_eos: bool,
    eos_token_ids: Option<Vec<u32>>,
    pub(super) do_sample: bool,
    pub(super) top_k: Option<usize>,
    pub(super) top_p: Option<f64>,
    pub(super) temperature: f64,
    pub(super) freq_penalty: f64,
    pub(super) use_past_kv_cache: bool,
    pub(super) seed: u64,
    pub(super) verbose: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 10,
            stop_at_eos: true,
            eos_token_ids: None,
            do_sample: true,
            top_k: None,
            top_p: None,
            temperature: 1.0,
            freq_penalty: 0.0,
            use_past_kv_cache: true,
            seed: 0,
            verbose: false,
        }
    }
}

impl GenerateOptions {
    /// Generate at most this many tokens for each prompt. Default: 10.
    pub fn max_new_tokens(mut self, n: usize) -> Self {
        self.max_new_tokens = n;
        self
    }

    /// End a prompt after a stop token. Default: true.
    pub fn stop_at_eos(mut self, stop: bool) -> Self {
        self.stop_at_eos = stop;
        self
    }

    /// The stop tokens, in the place of the model's own end-of-sequence tokens
    /// ([`Gpt2Config::eos_token_ids`](crate::Gpt2Config::eos_token_ids)): `eos_token_id` in TransformerLens.
    pub fn eos_token_ids(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.eos_token_ids = Some(tokens.into_iter().collect());
        self
    }

    /// Draw each token at random from the model's probabilities. With `false`, take the most likely token; the options
    /// that change probabilities are then ignored. Default: true.
    pub fn do_sample(mut self, sample: bool) -> Self {
        self.do_sample = sample;
        self
    }

    /// Draw from the `k` most likely tokens only, and those that tie with the last of them.
    pub fn top_k(mut self, k: usize) -> Self {
        self.top_k = Some(k);
        self
    }

    /// Draw from the most likely tokens only: as few as have together a probability of more than `p`, at most 1.
    ///
    /// With [`top_k`](Self::top_k), the `k` tokens are chosen first, as in Hugging Face transformers. (TransformerLens
    /// ignores `top_p` then.)
    pub fn top_p(mut self, p: f64) -> Self {
        self.top_p = Some(p);
        self
    }

    /// Divide the logits by this number, above 0. Default: 1.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Subtract this number from a token's logit (after the division by the temperature) for each time that it occurs in
    /// the prompt and in what was generated. Default: 0.
    pub fn freq_penalty(mut self, penalty: f64) -> Self {
        self.freq_penalty = penalty;
        self
    }

    /// Keep the keys and values of earlier positions instead of computing them for each token again. The tokens are the
    /// same. Default: true.
    pub fn use_past_kv_cache(mut self, keep: bool) -> Self {
        self.use_past_kv_cache = keep;
        self
    }

    /// The seed of random choices: the same seed gives the same tokens. Default: 0.
    ///
    /// A prompt gets the same tokens alone and in any batch. A prompt that is in a batch several times gets another
    /// sample each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Print the text as it is generated. (TransformerLens shows a progress bar.) In a notebook, whose output arrives line
    /// by line, long lines are broken between words. Default: false.
    pub fn verbose(mut self, print: bool) -> Self {
        self.verbose = print;
        self
    }

    /// Checks every option.
    pub(super) fn check(&self, config: &Gpt2Config) -> Result<()> {
        let Self { temperature, freq_penalty, .. } = *self;
        check_setting(
            FUNCTION,
            "temperature",
            temperature.is_finite() && temperature > 0.0,
            "a number above 0 (do_sample(false) takes the most likely token each time)",
            temperature,
        )?;
        check_setting(
            FUNCTION,
            "freq_penalty",
            freq_penalty.is_finite() && freq_penalty >= 0.0,
            "a number of at least 0",
            freq_penalty,
        )?;
        if let Some(k) = self.top_k {
            let expected = "at least 1 (do_sample(false) takes the most likely token, leaving top_k out takes all)";
            check_setting(FUNCTION, "top_k", k > 0, expected, k)?;
        }
        if let Some(p) = self.top_p {
            let expected = "a probability above 0 and at most 1 (leave top_p out to take all tokens)";
            check_setting(FUNCTION, "top_p", p > 0.0 && p <= 1.0, expected, p)?;
        }
        for &token in self.eos_token_ids.iter().flatten() {
            check_index("stop token", token as usize, "the model's vocabulary", config.d_vocab)?;
        }
        Ok(())
    }

    /// Whether a token ends its prompt.
    pub(super) fn stops_at(&self, token: u32, config: &Gpt2Config) -> bool {
        self.stop_at_eos && self.eos_token_ids.as_ref().unwrap_or(&config.eos_token_ids).contains(&token)
    }
}
