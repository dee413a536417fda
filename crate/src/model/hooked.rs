//! Runs with interventions, and models that carry them.

use ndarray::Array2;

use super::gpt2::Gpt2;
use super::interventions::Intervention;
use super::prompts::Prompts;
use super::run_options::RunOptions;
use crate::error::Result;

impl Gpt2 {
    /// The logits of each prompt in a run with interventions. Shape: → `[prompt] [pos, d_vocab]`.
    ///
    /// [`RunOptions::hooks`] gives a cache too, which holds the changed activations.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and [`Error::Intervention`](crate::Error::Intervention) for an intervention that
    /// does not fit the model or the prompts, before anything runs, or for a closure that returns NaN or another shape.
    pub fn run_with_hooks(
        &self,
        prompts: impl Into<Prompts>,
        interventions: &[Intervention],
    ) -> Result<Vec<Array2<f32>>> {
        let options = RunOptions::default().activations([]).hooks(interventions);
        let (logits, _) = self.run_with_cache_options(prompts, options)?;
        Ok(logits.expect("these options compute logits"))
    }

    /// A model with interventions in each of its runs: another [`Gpt2`], which shares the weights. Everything that takes a
    /// model takes it, experiments and generation too. Interventions of a model that has some already come after those.
    ///
    /// A run of a part of the model ([`RunOptions::start_at_layer`], [`RunOptions::stop_at_layer`]) leaves out the
    /// interventions of the layers that it does not compute. Generation computes new positions only: positions count from
    /// the prompt's start, −1 is the newest, and earlier positions stay as they were when they were computed. What is read
    /// from the weights is not changed: circuits, and the decoding of vectors to tokens.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let ablated = model.hooked(&[Intervention::zero(Activation::Z.at(1)).head(3)])?;
    /// assert_ne!(ablated.loss("Monday, Tuesday,")?, model.loss("Monday, Tuesday,")?);
    /// assert!(format!("{ablated:?}").contains("zero blocks.1.attn.hook_z, head 3"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Intervention`](crate::Error::Intervention) for one that does not fit the model.
    pub fn hooked(&self, interventions: &[Intervention]) -> Result<Gpt2> {
        interventions.iter().try_for_each(|intervention| intervention.check(self.config()))?;
        Ok(self.with_interventions([self.interventions(), interventions].concat()))
    }

    /// The same model without interventions.
    pub fn without_hooks(&self) -> Gpt2 {
        self.with_interventions(Vec::new())
    }
}
