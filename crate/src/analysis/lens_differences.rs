//! The difference of two logits through the lens, by the place in the model.

use ndarray::{Array2, Axis};

use super::logit_lens::LensScale;
use crate::error::{Result, check_count};
use crate::model::{ActivationCache, Gpt2};
use crate::plot::{Chart, ChartAxis, Color, Figure, Form, Series, decimals};

/// The mean difference of two answers' logits that the residual stream gives before, inside and after each layer, at the
/// last position of the prompts. See [`ActivationCache::lens_differences`].
#[derive(Clone, Debug, PartialEq)]
pub struct LensDifferences {
    /// The place in the model of each column: `"0_pre"`, `"0_mid"`, …, `"final_post"`.
    pub labels: Vec<String>,
    /// The scale of the layer norm of each row.
    pub scales: Vec<LensScale>,
    /// The differences. Shape: `[scale, component]`.
    pub values: Array2<f32>,
}

impl ActivationCache {
    /// The logit of a right answer minus that of a wrong one, as the residual stream before, inside and after each layer
    /// would give them at the last position: the mean over the prompts, which may be one or several of any lengths, for
    /// each choice of the layer norm's scale. `answers` has a pair for each prompt, or one for all.
    /// Shape: `answers [prompt] [right, wrong]`, `scales [scale]` → `[scale, component]`.
    ///
    /// ```
    /// use attention_tokens::{LensScale, prelude::*};
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (logits, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
    /// let [mary, john] = [model.to_single_token(" Mary")?, model.to_single_token(" John")?];
    /// let by_layer = cache.lens_differences(&model, &[[mary, john]], &[LensScale::Own, LensScale::Final])?;
    /// let last = logits[0].row(logits[0].nrows() - 1);
    /// let difference = last[mary as usize] - last[john as usize];
    /// assert_eq!(by_layer.labels[8], "final_post");
    /// assert!((by_layer.values[[0, 8]] - difference).abs() < 1e-3); // after the last layer it is the model's
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) for another number of answers than prompts, or no scale,
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a token that the vocabulary does not have,
    /// [`Error::Shape`](crate::Error::Shape) for a cache of another model, and those of [`get`](Self::get).
    pub fn lens_differences(
        &self,
        model: &Gpt2,
        answers: &[[u32; 2]],
        scales: &[LensScale],
    ) -> Result<LensDifferences> {
        const FUNCTION: &str = "lens_differences";
        self.check_model(model, FUNCTION)?;
        let n = self.n_prompts();
        if answers.len() != 1 {
            check_count(FUNCTION, "pairs of answers, one for each prompt", answers.len(), n, Some(n))?;
        }
        check_count(FUNCTION, "scales", scales.len(), 1, None)?;
        model.check_tokens(answers.as_flattened())?;
        // What a vector of zeros gives: the bias of the unembedding, and of the layer norm if that is not folded.
        let constant = model.on_device().unembed(Array2::zeros((1, model.config().d_model)))?; // [1, d_vocab]
        let mut labels = Vec::new();
        let mut values = Array2::<f64>::zeros((scales.len(), 2 * self.n_layers() + 1));
        for prompt in 0..n {
            let (cache, [right, wrong]) = (self.prompt(prompt)?, answers[if answers.len() == 1 { 0 } else { prompt }]);
            let resid = cache.accumulated_resid(None, true)?;
            let last = resid.positions.len() - 1;
            let direction = model.centered_direction(right, Some(wrong))?;
            let products = resid.values.index_axis(Axis(1), last).dot(&direction); // [component]
            let constant = constant[[0, right as usize]] - constant[[0, wrong as usize]];
            for (mut values, &scale) in values.outer_iter_mut().zip(scales) {
                let scale = cache.lens_scales(model, scale)?;
                for ((value, product), scale) in values.iter_mut().zip(&products).zip(scale.column(last)) {
                    *value += f64::from(product / scale + constant) / n as f64;
                }
            }
            labels = resid.labels;
        }
        Ok(LensDifferences { labels, scales: scales.to_vec(), values: values.mapv(|x| x as f32) })
    }
}

impl LensDifferences {
    /// A line for each scale, from the embeddings to the end of the model.
    pub fn plot(&self) -> Figure {
        let line = |(index, (scale, values)): (usize, (&LensScale, ndarray::ArrayView1<f32>))| {
            let points = values.iter().enumerate().map(|(place, &value)| [place as f64, f64::from(value)]).collect();
            let text = |(label, value): (&String, &f32)| format!("{label}, {}: {}", scale.name(), decimals(*value, 3));
            Series {
                symbol: index,
                texts: self.labels.iter().zip(values).map(text).collect(),
                ..Series::new(scale.name(), Form::Line, Color::of_layer(index, self.scales.len()), points)
            }
        };
        Chart {
            title: "Mean logit difference through the lens, at the last position".into(),
            x: ChartAxis::names("residual stream", self.labels.iter().cloned()),
            y: ChartAxis::linear("logit difference"),
            series: self.scales.iter().zip(self.values.outer_iter()).enumerate().map(line).collect(),
        }
        .figure()
    }

    /// Shows the figure in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.plot().evcxr_display();
    }
}
