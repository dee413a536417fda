//! Runs the variants of a sweep in batches, and measures each.

use std::time::{Duration, Instant};

use super::metric::{Metric, Reader};
use super::options::SweepOptions;
use crate::error::Result;
use crate::model::{Activation, ActivationCache, BaseRun, FinalRows, Gpt2, Intervention, Prompts, Variant};

/// The time between progress lines, and before the first.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// A sweep over prompts.
pub(super) struct Engine<'a> {
    pub(super) model: &'a Gpt2,
    pub(super) metric: &'a Metric,
    pub(super) options: SweepOptions,
    base: BaseRun,
}

impl<'a> Engine<'a> {
    /// Runs the prompts without a change.
    pub(super) fn new(model: &'a Gpt2, prompts: Prompts, metric: &'a Metric, options: SweepOptions) -> Result<Self> {
        let base = model.base_run(prompts)?;
        Ok(Self { model, metric, options, base })
    }

    /// The token ids. Shape: `[prompt][pos]`.
    pub(super) fn tokens(&self) -> &[Vec<u32>] {
        self.base.tokens()
    }

    /// A run of the prompts with interventions.
    pub(super) fn variant(&self, interventions: &[Intervention]) -> Result<Variant> {
        self.model.variant(&self.base, interventions)
    }

    /// The metric of the unchanged run, and of each of `n` variants. Variants of one layer that follow each other are
    /// computed together.
    pub(super) fn run(
        &self,
        n: usize,
        variants: impl Iterator<Item = Result<Variant>>,
        title: &str,
    ) -> Result<(f32, Vec<f32>)> {
        let reader = Reader::new(self.metric, self.model, self.base.tokens())?;
        let unchanged = self.measure(&reader, &[self.variant(&[])?])?[0];
        let (mut values, mut batch, mut bytes) = (Vec::with_capacity(n), Vec::<Variant>::new(), 0);
        let mut next_line = Instant::now() + BETWEEN_LINES;
        for variant in variants {
            let variant = variant?;
            let more = self.bytes(&variant, &reader);
            let fits = batch
                .last()
                .is_none_or(|last| last.layer() == variant.layer() && bytes + more <= self.options.max_bytes);
            if !fits {
                values.extend(self.measure(&reader, &batch)?);
                (batch, bytes) = (Vec::new(), 0);
                if self.options.progress && Instant::now() >= next_line {
                    eprintln!("{title}: {} of {n} runs", values.len());
                    next_line = Instant::now() + BETWEEN_LINES;
                }
            }
            bytes += more;
            batch.push(variant);
        }
        values.extend(self.measure(&reader, &batch)?);
        Ok((unchanged, values))
    }

    /// The number of variants like this one that [`cache`](Self::cache) may take together: at least one.
    pub(super) fn n_cached_together(&self, variant: &Variant, n_layers: usize) -> usize {
        let rows: usize = self.base.tokens().iter().map(Vec::len).sum();
        let floats = rows * (self.floats_of_row() + n_layers * self.model.config().d_model);
        (self.options.max_bytes / (size_of::<f32>() * floats + variant.bytes())).max(1)
    }

    /// An activation of some layers in each variant, in a cache of all prompts. The variants run as one batch.
    pub(super) fn cache(
        &self,
        variants: &[Variant],
        activation: Activation,
        layers: &[usize],
    ) -> Result<Vec<ActivationCache>> {
        self.model.cache_variants(&self.base, &variants.iter().collect::<Vec<_>>(), activation, layers)
    }

    fn measure(&self, reader: &Reader, batch: &[Variant]) -> Result<Vec<f32>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.model.run_variants(&self.base, &batch.iter().collect::<Vec<_>>(), reader.rows())?;
        reader.values(self.model, rows)
    }

    /// An upper bound of the memory that a variant takes while it runs.
    fn bytes(&self, variant: &Variant, reader: &Reader) -> usize {
        let config = self.model.config();
        let all: usize = self.base.tokens().iter().map(Vec::len).sum();
        let (rows, rows_of_logits) = match reader.rows() {
            FinalRows::All => (all, all),
            FinalRows::Last => (variant.n_rows(&self.base), self.base.tokens().len()),
        };
        let keys_and_values = 2 * all * config.d_model * (config.n_layers - variant.layer());
        size_of::<f32>() * (rows * self.floats_of_row() + keys_and_values)
            + rows_of_logits * reader.bytes_of_logits(config.d_vocab)
            + variant.bytes()
    }

    /// The numbers of a row that a run holds at a time: residual stream, queries, keys, values, z and outputs, and the
    /// neurons before and after the activation function.
    fn floats_of_row(&self) -> usize {
        let config = self.model.config();
        10 * config.d_model + 2 * config.d_mlp
    }
}
