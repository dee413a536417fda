//! GPT-2 as a notebook sees it: load, tokenize, run.

use std::sync::Arc;

use ndarray::{Array2, Array3, Axis};

use crate::activation_cache::{Activation, ActivationCache};
#[cfg(feature = "cuda")]
use crate::backend::Cuda;
use crate::backend::{Device, DeviceKind, Dfdx, Fused};
use crate::checkpoint::Checkpoint;
use crate::config::Gpt2Config;
use crate::error::{Error, Result, check_index};
use crate::evcxr;
use crate::pretrained::{self, LoadOptions};
use crate::processed::ProcessedCheckpoint;
use crate::prompts::{Prompt, Prompts};
use crate::slow_build;
use crate::tokenizer::Tokenizer;
use crate::transformer::{Engine, Transformer, Wanted};
use crate::weights::{BlockWeights, Processing, Weights};

/// A GPT-2 on a device, ready to run. Cloning is cheap: the weights are shared.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (logits, cache) = model.run_with_cache("Monday, Tuesday,")?;
/// let last = logits[0].row(logits[0].nrows() - 1); // [d_vocab]
/// let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
/// assert_eq!(model.to_single_str_token(best as u32)?, " Wednesday");
/// assert_eq!(cache.get(Activation::Q, 0)?.shape(), [5, 8, 16]); // [pos, n_heads, d_head]
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Gpt2(Arc<Inner>);

struct Inner {
    name: String,
    config: Gpt2Config,
    processing: Processing,
    device: Device,
    tokenizer: Option<Tokenizer>,
    engine: Box<dyn Engine>,
}

/// What [`Gpt2::run_with_cache_options`] keeps and how far it runs. Everything by default.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    activations: Option<Vec<Activation>>,
    layers: Option<Vec<usize>>,
    stop_at_layer: Option<usize>,
    no_logits: bool,
}

impl RunOptions {
    /// What [`head_data`](crate::head_data) needs, of every layer, and nothing else: queries, keys, values and patterns, no logits.
    pub fn for_head_data() -> Self {
        use Activation::{K, Pattern, Q, V};
        Self::default().activations([Q, K, V, Pattern]).no_logits()
    }

    /// Keep only these activations.
    pub fn activations(mut self, activations: impl IntoIterator<Item = Activation>) -> Self {
        self.activations = Some(activations.into_iter().collect());
        self
    }

    /// Keep activations of these layers only.
    pub fn layers(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.layers = Some(layers.into_iter().collect());
        self
    }

    /// Run only the layers below this one; there are no logits then. At most `n_layers`.
    pub fn stop_at_layer(mut self, layer: usize) -> Self {
        self.stop_at_layer = Some(layer);
        self
    }

    /// Compute no logits: TransformerLens' `return_type=None`.
    pub fn no_logits(mut self) -> Self {
        self.no_logits = true;
        self
    }

    fn check(&self, n_layers: usize) -> Result<Wanted> {
        let layers = self.layers.clone().unwrap_or_else(|| (0..n_layers).collect());
        for &layer in &layers {
            check_index("layer", layer, "the model", n_layers)?;
        }
        if let Some(layer) = self.stop_at_layer.filter(|&layer| layer > n_layers) {
            return Err(Error::Mismatch {
                what: "stop_at_layer",
                expected: format!("0 to {n_layers}, the model's number of layers"),
                found: layer.to_string(),
            });
        }
        Ok(Wanted {
            activations: self.activations.clone().unwrap_or_else(|| Activation::ALL.to_vec()),
            layers,
            stop_at_layer: self.stop_at_layer.unwrap_or(n_layers),
            logits: !self.no_logits && self.stop_at_layer.is_none(),
        })
    }
}

impl Gpt2 {
    /// Loads a model.
    ///
    /// `name` is
    /// - `"demo"`: the small trained model that comes with the crate (its folder `demo-model` has a model card),
    /// - a folder in Hugging Face's format (`config.json`, `model.safetensors` or an index with its shards, and
    ///   `tokenizer.json` or `vocab.json` with `merges.txt`; without a tokenizer, calls that take token ids work),
    /// - `"gpt2-small"` (or `"gpt2"`), `"gpt2-medium"`, `"gpt2-large"`, `"gpt2-xl"`, `"distilgpt2"` or any
    ///   `"owner/name"`: from the Hugging Face cache, else downloaded into it. The environment variables of the Python
    ///   library hold: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`. What
    ///   is in the cache is used without asking the Hub.
    ///
    /// # Errors
    /// Each of [`Error`]'s variants about names, files, configuration, tensors, the Hub and the device, naming what
    /// was found, what was expected and what to do.
    pub fn from_pretrained(name: impl AsRef<str>, options: LoadOptions) -> Result<Self> {
        Self::load(name.as_ref(), options)
    }

    // Not generic, as the other functions that do the work: what is generic is compiled again in every notebook cell
    // that calls it.
    fn load(name: &str, options: LoadOptions) -> Result<Self> {
        slow_build::notice();
        let files = pretrained::find(name, &options)?;
        let config = Gpt2Config::from_file(&files.config)?;
        let tokenizer = Tokenizer::from_folder(&files.folder, config.bos_token_id)?;
        let LoadOptions { processing, device, folded_bytes, .. } = options;
        let checkpoint = Checkpoint::open(&files.weights, &config)?;
        let weights = ProcessedCheckpoint { checkpoint, steps: processing };
        let engine = engine_on(device, &config, &weights, folded_bytes)?;
        Ok(Self(Arc::new(Inner { name: name.into(), config, processing, device, tokenizer, engine })))
    }

    /// Shows the model, as its `Debug` does, in an evcxr notebook; evcxr calls this for a cell's last expression. (What has
    /// only `Debug`, evcxr tries to show in this way first, and compiles the cell twice.)
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/plain", &format!("{self:?}"))]);
    }

    /// The sizes and settings of the model.
    pub fn config(&self) -> &Gpt2Config {
        &self.0.config
    }

    /// The weights, processed as [`processing`](Self::processing) says: a copy of them all, for a model keeps its
    /// weights on its device alone. [`w_v`](Self::w_v) and [`w_o`](Self::w_o) copy one head's.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn weights(&self) -> Result<Weights> {
        self.engine().weights()
    }

    /// `W_V` of a head: `model.W_V[layer, head]` in TransformerLens. Shape: → `[d_model, d_head]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer or head that the model does not have, [`Error::Device`].
    pub fn w_v(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.of_head(layer, head, |engine| engine.w_v(layer))
    }

    /// `W_O` of a head: `model.W_O[layer, head]` in TransformerLens. Shape: → `[d_head, d_model]`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer or head that the model does not have, [`Error::Device`].
    pub fn w_o(&self, layer: usize, head: usize) -> Result<Array2<f32>> {
        self.of_head(layer, head, |engine| engine.w_o(layer))
    }

    /// `W_E`, the token embedding: `model.W_E` in TransformerLens. A copy. Shape: → `[d_vocab, d_model]`.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn w_e(&self) -> Result<Array2<f32>> {
        self.engine().w_e()
    }

    /// `W_U`, the unembedding: `model.W_U` in TransformerLens. A copy. Shape: → `[d_model, d_vocab]`.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn w_u(&self) -> Result<Array2<f32>> {
        self.engine().w_u()
    }

    /// The weights of one transformer block, as in [`weights`](Self::weights).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a layer that the model does not have, [`Error::Device`].
    pub fn block_weights(&self, layer: usize) -> Result<BlockWeights> {
        check_index("layer", layer, "the model", self.0.config.n_layers)?;
        self.engine().block_weights(layer)
    }

    fn of_head(
        &self,
        layer: usize,
        head: usize,
        of_layer: impl Fn(&dyn Engine) -> Result<Array3<f32>>,
    ) -> Result<Array2<f32>> {
        check_index("layer", layer, "the model", self.0.config.n_layers)?;
        check_index("head", head, "each layer", self.0.config.n_heads)?;
        Ok(of_layer(self.engine())?.index_axis_move(Axis(0), head).as_standard_layout().into_owned())
    }

    /// The weight processing that the model was loaded with.
    pub fn processing(&self) -> Processing {
        self.0.processing
    }

    /// Where the model computes.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if the model's folder has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.0.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { model: self.0.name.clone() })
    }

    /// See [`Tokenizer::to_tokens`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and the tokenizer's own.
    pub fn to_tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens(text)
    }

    /// See [`Tokenizer::to_tokens_without_bos`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and the tokenizer's own.
    pub fn to_tokens_without_bos(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer()?.to_tokens_without_bos(text)
    }

    /// See [`Tokenizer::to_str_tokens`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and the tokenizer's own.
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>> {
        self.tokenizer()?.to_str_tokens(text)
    }

    /// See [`Tokenizer::to_single_token`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::NotOneToken`].
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        self.tokenizer()?.to_single_token(text)
    }

    /// See [`Tokenizer::to_single_str_token`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::OutOfRange`].
    pub fn to_single_str_token(&self, token: u32) -> Result<String> {
        self.tokenizer()?.to_single_str_token(token)
    }

    /// See [`Tokenizer::to_string`].
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], [`Error::OutOfRange`].
    pub fn to_string(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer()?.to_string(tokens)
    }

    /// The logits of each prompt. Shape: `[prompt] [pos, d_vocab]`.
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache).
    pub fn forward(&self, prompts: impl Into<Prompts>) -> Result<Vec<Array2<f32>>> {
        self.run_without_cache(prompts.into())
    }

    fn run_without_cache(&self, prompts: Prompts) -> Result<Vec<Array2<f32>>> {
        let (logits, _) = self.run(prompts, RunOptions::default().activations([]))?;
        Ok(logits.expect("no option switches the logits off"))
    }

    /// The logits of each prompt, shape `[prompt] [pos, d_vocab]`, and every activation.
    ///
    /// Prompts of a batch may have any lengths: each gets what it gets alone.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a prompt without tokens or longer than `n_ctx`, [`Error::OutOfRange`] for a token id
    /// beyond the vocabulary, [`Error::NoTokenizer`] for text where the model has no tokenizer, [`Error::Mismatch`]
    /// for an empty batch, [`Error::Device`] if the device fails.
    pub fn run_with_cache(&self, prompts: impl Into<Prompts>) -> Result<(Vec<Array2<f32>>, ActivationCache)> {
        self.run_with_everything(prompts.into())
    }

    pub(crate) fn run_with_everything(&self, prompts: Prompts) -> Result<(Vec<Array2<f32>>, ActivationCache)> {
        let (logits, cache) = self.run(prompts, RunOptions::default())?;
        Ok((logits.expect("no option switches the logits off"), cache))
    }

    /// As [`run_with_cache`](Self::run_with_cache), keeping only what the options say. The logits are `None` if the
    /// options leave them out.
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache), and [`Error::OutOfRange`] or [`Error::Mismatch`] for a layer
    /// that the model does not have.
    pub fn run_with_cache_options(
        &self,
        prompts: impl Into<Prompts>,
        options: RunOptions,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        self.run(prompts.into(), options)
    }

    fn run(
        &self,
        Prompts(prompts): Prompts,
        options: RunOptions,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        let wanted = options.check(self.0.config.n_layers)?;
        if prompts.is_empty() {
            return Err(Error::Mismatch {
                what: "prompts",
                expected: "at least one".into(),
                found: "an empty batch".into(),
            });
        }
        let tokens = prompts.into_iter().enumerate().map(|(index, prompt)| self.checked_tokens(index, prompt));
        self.engine().run(tokens.collect::<Result<_>>()?, &wanted)
    }

    fn checked_tokens(&self, prompt: usize, content: Prompt) -> Result<Vec<u32>> {
        let &Gpt2Config { n_ctx, d_vocab, .. } = &self.0.config;
        let tokens = match content {
            Prompt::Text(text) => self.to_tokens(&text)?,
            Prompt::Tokens(tokens) => tokens,
        };
        let wrong = |found: String| {
            let expected = format!("1 to {n_ctx} tokens, the model's context");
            Err(Error::Prompt { prompt, expected, found })
        };
        match tokens.len() {
            0 => return wrong("no token (is the beginning-of-sequence token left out?)".into()),
            len if len > n_ctx => return wrong(format!("{len}")),
            _ => {}
        }
        for &token in &tokens {
            check_index("token id", token as usize, "the model's vocabulary", d_vocab)?;
        }
        Ok(tokens)
    }

    /// The model on its device. Layers and heads that it is asked for must exist.
    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.0.engine
    }

    pub(crate) fn tokenizer_if_any(&self) -> Option<Tokenizer> {
        self.0.tokenizer.clone()
    }
}

/// The model on its device.
fn engine_on(
    device: Device,
    config: &Gpt2Config,
    weights: &ProcessedCheckpoint,
    folded_bytes: usize,
) -> Result<Box<dyn Engine>> {
    Ok(match device.kind() {
        DeviceKind::Cpu => Box::new(Transformer::new(Fused::new(), config, weights, folded_bytes)?),
        DeviceKind::DfdxCpu => Box::new(Transformer::new(Dfdx::cpu(), config, weights, folded_bytes)?),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(ordinal) => Box::new(Transformer::new(Cuda::open(ordinal)?, config, weights, folded_bytes)?),
        #[cfg(feature = "cuda")]
        DeviceKind::DfdxCuda(ordinal) => {
            Box::new(Transformer::new(Dfdx::cuda(ordinal)?, config, weights, folded_bytes)?)
        }
        #[cfg(not(feature = "cuda"))]
        DeviceKind::Cuda(_) | DeviceKind::DfdxCuda(_) => {
            return Err(Error::Cuda {
                missing: "the feature `cuda` of attention-tokens, which this build lacks".into(),
                hint: "add features = [\"cuda\"] to the dependency (compiling it takes NVIDIA's nvcc, see the README), or load \
                       the model with Device::cpu()"
                    .into(),
            });
        }
    })
}

impl std::fmt::Debug for Gpt2 {
    /// Sizes, not tensors.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let config = &self.0.config;
        f.debug_struct("Gpt2")
            .field("name", &self.0.name)
            .field("n_layers", &config.n_layers)
            .field("n_heads", &config.n_heads)
            .field("d_model", &config.d_model)
            .field("d_head", &config.d_head)
            .field("d_vocab", &config.d_vocab)
            .field("n_ctx", &config.n_ctx)
            .field("device", &self.0.device)
            .field("processing", &self.0.processing)
            .finish()
    }
}
