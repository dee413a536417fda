//! A GPT-2 on a device: load it, run it.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use ndarray::Array2;

use super::activation_cache::ActivationCache;
use super::interventions::Intervention;
use super::key_value_cache::KeyValueCache;
use super::on_device::{ModelOnDevice, OnDevice};
use super::prompts::{Prompt, Prompts};
use super::run_options::{RunOptions, RunPlan};
#[cfg(feature = "cuda")]
use crate::backend::Cuda;
use crate::backend::{Device, DeviceKind, Dfdx, Fused};
use crate::config::Gpt2Config;
use crate::error::{Error, Result, check_count};
use crate::evcxr;
use crate::memory;
use crate::pretrained::{self, Checkpoint, LoadOptions, ModelFiles, PROCESSED, ProcessedFile};
use crate::tokenizer::{TokenLabels, Tokenizer};
use crate::weights::{ProcessedWeights, Processing, RandomWeights};

/// A GPT-2 on a device, ready to run. Clones share the weights.
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

#[derive(Clone)]
struct Inner {
    name: String,
    config: Gpt2Config,
    processing: Processing,
    device: Device,
    /// As in [`LoadOptions`].
    decode_cache_bytes: Option<usize>,
    /// Where it was loaded from.
    files: Arc<ModelFiles>,
    tokenizer: Option<Tokenizer>,
    on_device: Arc<dyn ModelOnDevice>,
    /// The changes of each run, after checks of layers, heads and sizes.
    interventions: Vec<Intervention>,
}

impl Gpt2 {
    /// Loads a model.
    ///
    /// `name` is
    /// - `"demo"`: a small trained model that comes with the crate (its model card is in the folder `demo-model`),
    /// - `"letters"`: a smaller one that repeats letters, and has induction heads (folder `letters-model`),
    /// - a folder in Hugging Face's format (`config.json`, `model.safetensors` or an index with its shards, and
    ///   `tokenizer.json` or `vocab.json` with `merges.txt`; without a tokenizer, calls that take token ids work),
    /// - a folder that [`save_processed`](Self::save_processed) has written,
    /// - `"gpt2-small"` (or `"gpt2"`), `"gpt2-medium"`, `"gpt2-large"`, `"gpt2-xl"`, `"distilgpt2"` or any
    ///   `"owner/name"`: from the Hugging Face cache, else downloaded into it. The environment variables of the Python
    ///   library apply: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`,
    ///   `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT`, and those of proxies and certificates. A model that is in
    ///   the cache with its tokenizer is loaded without asking the Hub.
    ///
    /// # Errors
    /// Each of [`Error`]'s variants about names, files, configuration, tensors, the Hub and the device, naming what
    /// was found, what was expected and what to do.
    pub fn from_pretrained(name: impl AsRef<str>, options: LoadOptions) -> Result<Self> {
        Self::load(name.as_ref(), options).map_err(pretrained::explain_cached_file)
    }

    // The functions that do the work are not generic, because every notebook cell that calls a generic function
    // compiles it again.
    fn load(name: &str, options: LoadOptions) -> Result<Self> {
        evcxr::warn_of_debug_build();
        let files = pretrained::find(name, &options)?;
        let (mut config, stated) = Gpt2Config::with_stated_bos(&files.config)?;
        // Reading a tokenizer takes one thread a tenth of a second.
        let (tokenizer, on_device) = thread::scope(|scope| {
            let tokenizer = scope.spawn(|| pretrained::tokenizer(&files, &config, stated));
            let on_device = Self::read_weights(&files, &config, &options);
            (tokenizer.join().unwrap_or_else(|panic| resume_unwind(panic)), on_device)
        });
        let (tokenizer, bos) = tokenizer?;
        config.bos_token_id = bos;
        Ok(Self::assemble(name.into(), config, tokenizer, Arc::new(files), on_device?, &options))
    }

    fn read_weights(files: &ModelFiles, config: &Gpt2Config, options: &LoadOptions) -> Result<Arc<dyn ModelOnDevice>> {
        let weights = match &files.weights[..] {
            [file] if file.ends_with(PROCESSED) => {
                let raw = Box::new(ProcessedFile::open(file, config, options.processing)?);
                ProcessedWeights { raw, steps: Processing::none() }
            }
            files => ProcessedWeights { raw: Box::new(Checkpoint::open(files, config)?), steps: options.processing },
        };
        put_on_device(config, &weights, options)
    }

    fn assemble(
        name: String,
        config: Gpt2Config,
        tokenizer: Option<Tokenizer>,
        files: Arc<ModelFiles>,
        on_device: Arc<dyn ModelOnDevice>,
        options: &LoadOptions,
    ) -> Self {
        let &LoadOptions { processing, device, decode_cache_bytes, .. } = options;
        let interventions = Vec::new();
        Self(Arc::new(Inner {
            name,
            config,
            processing,
            device,
            decode_cache_bytes,
            files,
            tokenizer,
            on_device,
            interventions,
        }))
    }

    /// A model of the same shape, tokenizer, processing and device that has learned nothing: the control for what an
    /// experiment finds in this one. Interventions are left out.
    ///
    /// Weights are normal numbers, as Hugging Face's `GPT2PreTrainedModel` initializes them: standard deviation 0.02, and
    /// 0.02 / √(2 n_layers) for `W_O` and `W_out`; biases are 0, and layer norms only normalize. A seed gives the same
    /// weights on every machine.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
    /// let untrained = model.with_random_weights(1)?;
    /// // It predicts every token with about the same probability.
    /// let chance = (model.config().d_vocab as f32).ln();
    /// assert!((untrained.loss("a b c a b c")?[0] - chance).abs() < 0.2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn with_random_weights(&self, seed: u64) -> Result<Self> {
        let Inner { name, config, processing, device, decode_cache_bytes, files, tokenizer, .. } = &*self.0;
        let (processing, device, decode_cache_bytes) = (*processing, *device, *decode_cache_bytes);
        let options = LoadOptions { processing, device, decode_cache_bytes, ..LoadOptions::default() };
        let raw = Box::new(RandomWeights { config: config.clone(), seed });
        let weights = ProcessedWeights { raw, steps: processing };
        let name = format!("{name}, random weights of seed {seed}");
        let on_device = put_on_device(config, &weights, &options)?;
        Ok(Self::assemble(name, config.clone(), tokenizer.clone(), files.clone(), on_device, &options))
    }

    /// Shows the model's `Debug` text in a notebook; evcxr calls this for a cell's last expression. (For a type with
    /// `Debug` alone, evcxr first tries this method, and compiles the cell twice.)
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        evcxr::show(&[("text/plain", &format!("{self:?}"))]);
    }

    /// The sizes and settings of the model.
    pub fn config(&self) -> &Gpt2Config {
        &self.0.config
    }

    /// The weight processing that the model was loaded with.
    pub fn processing(&self) -> Processing {
        self.0.processing
    }

    /// The device that the model computes on.
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

    /// The logits of each prompt. Shape: → `[prompt] [pos, d_vocab]`.
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache).
    pub fn forward(&self, prompts: impl Into<Prompts>) -> Result<Vec<Array2<f32>>> {
        self.run_without_cache(prompts.into())
    }

    /// [`forward`](Self::forward) without the generic parameter. Shape: → `[prompt] [pos, d_vocab]`.
    fn run_without_cache(&self, prompts: Prompts) -> Result<Vec<Array2<f32>>> {
        let (logits, _) = self.run(prompts, RunOptions::default().activations([]))?;
        Ok(logits.expect("these options compute logits"))
    }

    /// The logits of each prompt, and every activation. Shape: → `[prompt] [pos, d_vocab]`, and the cache.
    ///
    /// Prompts of a batch may have different lengths: each gets the same results as alone.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a prompt without tokens or longer than `n_ctx`, [`Error::OutOfRange`] for a token id
    /// beyond the vocabulary, [`Error::NoTokenizer`] or [`Error::Tokenize`] for text, [`Error::Count`] for an empty
    /// batch, [`Error::Device`] if the device fails.
    pub fn run_with_cache(&self, prompts: impl Into<Prompts>) -> Result<(Vec<Array2<f32>>, ActivationCache)> {
        self.run_with_full_cache(prompts.into())
    }

    /// [`run_with_cache`](Self::run_with_cache) without the generic parameter. Shape: → `[prompt] [pos, d_vocab]`.
    pub(crate) fn run_with_full_cache(&self, prompts: Prompts) -> Result<(Vec<Array2<f32>>, ActivationCache)> {
        let (logits, cache) = self.run(prompts, RunOptions::default())?;
        Ok((logits.expect("these options compute logits"), cache))
    }

    /// [`run_with_cache`](Self::run_with_cache) with options: which activations to cache, how far to run. The logits
    /// are `None` if the options leave them out. Shape: → `[prompt] [pos, d_vocab]`.
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache), and [`Error::OutOfRange`] or [`Error::Count`] for a layer
    /// that the model does not have.
    pub fn run_with_cache_options(
        &self,
        prompts: impl Into<Prompts>,
        options: RunOptions,
    ) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        self.run(prompts.into(), options)
    }

    /// [`run_with_cache_options`](Self::run_with_cache_options) without the generic parameter.
    /// Shape: → `[prompt] [pos, d_vocab]`.
    fn run(&self, prompts: Prompts, options: RunOptions) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        let tokens = self.checked_prompts(prompts)?;
        let plan = options.plan(&self.0.config, &self.0.interventions, &tokens)?;
        self.0.on_device.clone().run(tokens, &plan)
    }

    /// Runs new tokens of each prompt, which follow the positions in `past`, and adds these to it. Returns the logits after
    /// the last token of each prompt. Shape: `[prompt][pos]`, no prompt without tokens → `[prompt, d_vocab]`.
    pub(crate) fn run_with_past(&self, tokens: Vec<Vec<u32>>, past: &mut KeyValueCache) -> Result<Array2<f32>> {
        let plan = self.plan_with_past(&tokens, past)?;
        self.0.on_device.clone().run_with_past(tokens, past, &plan)
    }

    /// The most likely token after the last one of each prompt, where [`run_with_past`](Self::run_with_past) would return
    /// the logits. Shape: `[prompt][pos]`, no prompt without tokens → `[prompt]`.
    pub(crate) fn most_likely_with_past(&self, tokens: Vec<Vec<u32>>, past: &mut KeyValueCache) -> Result<Vec<u32>> {
        let plan = self.plan_with_past(&tokens, past)?;
        self.0.on_device.clone().most_likely_with_past(tokens, past, &plan)
    }

    fn plan_with_past(&self, tokens: &[Vec<u32>], past: &KeyValueCache) -> Result<RunPlan> {
        let lengths = (0..tokens.len()).map(|prompt| past.len(prompt)).collect();
        RunPlan::with_past(&self.0.config, &self.0.interventions, tokens, lengths)
    }

    /// The interventions that [`hooked`](Self::hooked) added, in the order in which they apply.
    pub fn interventions(&self) -> &[Intervention] {
        &self.0.interventions
    }

    /// The same model with other interventions.
    pub(super) fn with_interventions(&self, interventions: Vec<Intervention>) -> Self {
        Self(Arc::new(Inner { interventions, ..(*self.0).clone() }))
    }

    /// The token ids of each prompt, after checks of their number and of each id. Shape: → `[prompt][pos]`.
    pub(crate) fn checked_prompts(&self, prompts: Prompts) -> Result<Vec<Vec<u32>>> {
        let prompts = self.tokens_of(prompts)?;
        let n_ctx = self.0.config.n_ctx;
        match prompts.iter().position(|tokens| tokens.is_empty() || tokens.len() > n_ctx) {
            Some(prompt) => Err(Error::Prompt { prompt, len: prompts[prompt].len(), n_ctx }),
            None => Ok(prompts),
        }
    }

    /// The token ids of each prompt, of any length, after a check of each id. Shape: → `[prompt][pos]`.
    pub(crate) fn tokens_of(&self, Prompts(prompts): Prompts) -> Result<Vec<Vec<u32>>> {
        check_count("running the model", "prompts", prompts.len(), 1, None)?;
        let tokens = |content| {
            let tokens = match content {
                Prompt::Text(text) => self.to_tokens(&text)?,
                Prompt::Tokens(tokens) => tokens,
            };
            self.check_tokens(&tokens)?;
            Ok(tokens)
        };
        prompts.into_iter().map(tokens).collect()
    }

    /// [`Error::OutOfRange`] for a token id that the model's vocabulary does not have.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        self.0.config.check_tokens(tokens)
    }

    /// The model on its device, which does not check layers and heads.
    pub(crate) fn on_device(&self) -> &dyn ModelOnDevice {
        &*self.0.on_device
    }

    /// The same, shared.
    pub(super) fn on_device_arc(&self) -> Arc<dyn ModelOnDevice> {
        self.0.on_device.clone()
    }

    /// The name that the model was loaded by.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The files that it was loaded from.
    pub(super) fn files(&self) -> &ModelFiles {
        &self.0.files
    }

    /// The labels of the model's tokens.
    pub(crate) fn token_labels(&self) -> TokenLabels {
        TokenLabels::new(self.0.tokenizer.clone())
    }
}

/// The memory for decode tables where that of the machine is not known.
const DECODE_CACHE_BYTES: usize = 2_000_000_000;

/// Uploads the weights to the backend of the device.
fn put_on_device(
    config: &Gpt2Config,
    weights: &ProcessedWeights,
    options: &LoadOptions,
) -> Result<Arc<dyn ModelOnDevice>> {
    let &LoadOptions { device, decode_cache_bytes, .. } = options;
    let decode_cache_bytes = decode_cache_bytes.unwrap_or_else(|| match device.kind() {
        DeviceKind::Cpu => memory::machine_bytes().map_or(DECODE_CACHE_BYTES, |bytes| (bytes / 4) as usize),
        _ => DECODE_CACHE_BYTES,
    });
    Ok(match device.kind() {
        DeviceKind::Cpu => Arc::new(OnDevice::new(Fused::new(), config, weights, decode_cache_bytes)?),
        DeviceKind::DfdxCpu => Arc::new(OnDevice::new(Dfdx::cpu(), config, weights, decode_cache_bytes)?),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(ordinal) => {
            Arc::new(OnDevice::new(Cuda::open(ordinal)?, config, weights, decode_cache_bytes)?)
        }
        #[cfg(feature = "cuda")]
        DeviceKind::DfdxCuda(ordinal) => {
            Arc::new(OnDevice::new(Dfdx::cuda(ordinal)?, config, weights, decode_cache_bytes)?)
        }
        #[cfg(not(feature = "cuda"))]
        DeviceKind::Cuda(_) | DeviceKind::DfdxCuda(_) => {
            return Err(Error::Cuda {
                missing: "the feature `cuda` of attention-tokens, which this build lacks".into(),
                hint: "add features = [\"cuda\"] to the dependency (compiling it takes NVIDIA's nvcc, see docs/gpu.md), or load \
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
        let mut shown = f.debug_struct("Gpt2");
        shown
            .field("name", &self.0.name)
            .field("n_layers", &config.n_layers)
            .field("n_heads", &config.n_heads)
            .field("d_model", &config.d_model)
            .field("d_head", &config.d_head)
            .field("d_vocab", &config.d_vocab)
            .field("n_ctx", &config.n_ctx)
            .field("device", &self.0.device)
            .field("processing", &self.0.processing);
        if !self.0.interventions.is_empty() {
            shown.field("interventions", &self.0.interventions);
        }
        shown.finish()
    }
}
