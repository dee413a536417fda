//! The head detector: how well attention patterns match a given pattern. TransformerLens' `detect_head`.

use ndarray::{Array2, ArrayView2, Axis};

use super::head_scores::HeadScores;
use super::{for_each_run, scores_of_patterns};
use crate::error::{Error, Result, check_count, check_index};
use crate::model::{Activation, ActivationCache, Gpt2, Prompts};

/// The pattern that [`Gpt2::detect_head`] looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectionPattern {
    /// Each token attends to the one before: `"previous_token_head"` in TransformerLens.
    PreviousTokenHead,
    /// Each token attends to its earlier occurrences: `"duplicate_token_head"`.
    DuplicateTokenHead,
    /// Each token attends to those after its earlier occurrences: `"induction_head"`.
    InductionHead,
    /// A pattern of one's own: the attention that is looked for, 0 above the diagonal. Shape: `[pos, pos]`.
    Custom(Array2<f32>),
}

impl DetectionPattern {
    /// TransformerLens' name, for captions.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PreviousTokenHead => "previous_token_head",
            Self::DuplicateTokenHead => "duplicate_token_head",
            Self::InductionHead => "induction_head",
            Self::Custom(_) => "custom pattern",
        }
    }

    /// The pattern for a prompt: for the named ones, 1 at each cell that such a head attends to.
    /// Shape: `tokens [pos]` → `[pos, pos]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a pattern of one's own whose size is not that of the prompt, [`Error::DetectionPattern`] if
    /// it is not 0 above the diagonal, or not finite.
    pub fn for_tokens(&self, tokens: &[u32]) -> Result<Array2<f32>> {
        let pos = tokens.len();
        let cells = |is_one: &dyn Fn(usize, usize) -> bool| {
            Array2::from_shape_fn((pos, pos), |(query, key)| f32::from(u8::from(key <= query && is_one(query, key))))
        };
        match self {
            Self::PreviousTokenHead => Ok(cells(&|query, key| key + 1 == query)),
            Self::DuplicateTokenHead => Ok(cells(&|query, key| key < query && tokens[key] == tokens[query])),
            // The key before is an earlier occurrence; the query itself is no earlier occurrence.
            Self::InductionHead => Ok(cells(&|query, key| key > 0 && tokens[key - 1] == tokens[query])),
            Self::Custom(pattern) => {
                if pattern.dim() != (pos, pos) {
                    return Err(Error::Shape {
                        what: "detect_head: detection pattern".into(),
                        axes: "[query_pos, key_pos]",
                        expected: vec![pos, pos],
                        found: pattern.shape().to_vec(),
                        hint: "count the tokens with to_tokens, which adds the beginning-of-sequence token",
                    });
                }
                for ((query, key), &found) in pattern.indexed_iter() {
                    let error = |expected| Err(Error::DetectionPattern { expected, found, query, key });
                    if key > query && found != 0.0 {
                        return error("0 where key > query");
                    } else if !found.is_finite() {
                        return error("finite numbers");
                    }
                }
                Ok(pattern.clone())
            }
        }
    }
}

/// How [`Gpt2::detect_head`] compares an attention pattern with the detection pattern: `error_measure` in
/// TransformerLens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ErrorMeasure {
    /// `Σ pattern ⊙ detection / Σ pattern`: for a detection pattern of zeros and ones, the share of the head's attention
    /// that it covers. NaN if the head pays no attention that is not excluded.
    #[default]
    Mul,
    /// `1 − Σ |pattern − detection| / pos`: 1 for the very same pattern, −1 if no cell is shared. (TransformerLens rounds
    /// it to three decimals.)
    Abs,
}

/// Options of [`Gpt2::detect_head`]. By default the measure is [`ErrorMeasure::Mul`], and nothing is excluded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectOptions {
    /// Leave out attention to the first position.
    pub exclude_bos: bool,
    /// Leave out attention of each position to itself.
    pub exclude_current_token: bool,
    /// How patterns are compared.
    pub error_measure: ErrorMeasure,
    /// Score only these heads, as (layer, head); others get −1, as in TransformerLens. `None` is every head.
    pub heads: Option<Vec<(usize, usize)>>,
}

impl Gpt2 {
    /// The score of every head for an attention pattern, as the mean over the prompts: TransformerLens' `detect_head`.
    /// Shape: → `[n_layers, n_heads]`.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let options = DetectOptions { exclude_bos: true, ..DetectOptions::default() };
    /// let scores = model.detect_head("The cat saw the cat", &DetectionPattern::DuplicateTokenHead, options)?;
    /// assert_eq!(scores.values.dim(), (4, 8));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// (TransformerLens applies the options of a list of prompts to none of them. Here they apply to all.)
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache), and those of
    /// [`ActivationCache::detect_head`].
    pub fn detect_head(
        &self,
        prompts: impl Into<Prompts>,
        pattern: &DetectionPattern,
        options: DetectOptions,
    ) -> Result<HeadScores> {
        self.detect(prompts.into(), pattern, &options)
    }

    /// [`detect_head`](Self::detect_head) without the generic parameter. Shape: → `[n_layers, n_heads]`.
    fn detect(&self, prompts: Prompts, pattern: &DetectionPattern, options: &DetectOptions) -> Result<HeadScores> {
        let (n_layers, n_heads) = (self.config().n_layers, self.config().n_heads);
        options.check_heads(n_layers, n_heads)?;
        let prompts = self.checked_prompts(prompts)?;
        let n_prompts = prompts.len() as f32;
        // Every prompt is checked before the first one runs.
        prompts.iter().try_for_each(|tokens| options.detection(pattern, tokens).map(drop))?;
        let mut scores = Array2::<f32>::zeros((n_layers, n_heads));
        for_each_run(self, prompts, |cache| {
            let detection = options.detection(pattern, cache.one_prompt()?)?;
            scores += &(options.scores(cache, &detection)? / n_prompts);
            Ok(())
        })?;
        Ok(HeadScores { name: pattern.name().into(), values: scores, chance: None })
    }
}

impl ActivationCache {
    /// [`Gpt2::detect_head`] in a run of one prompt. Reads [`Pattern`](crate::Activation::Pattern) of every layer.
    /// Shape: → `[n_layers, n_heads]`.
    ///
    /// # Errors
    /// [`Error::Count`] for a prompt without a cell that is not excluded, [`Error::OutOfRange`] for a head that the
    /// model does not have, those of [`DetectionPattern::for_tokens`], and those of [`get`](Self::get).
    pub fn detect_head(&self, pattern: &DetectionPattern, options: DetectOptions) -> Result<HeadScores> {
        let detection = options.detection(pattern, self.one_prompt()?)?;
        options.check_heads(self.n_layers(), self.cube(Activation::Pattern, 0)?.len_of(Axis(0)))?;
        let values = options.scores(self, &detection)?;
        Ok(HeadScores { name: pattern.name().into(), values, chance: None })
    }
}

impl DetectOptions {
    /// [`Error::OutOfRange`] for a head that the model does not have.
    fn check_heads(&self, n_layers: usize, n_heads: usize) -> Result<()> {
        for &(layer, head) in self.heads.iter().flatten() {
            check_index("layer", layer, "the model", n_layers)?;
            check_index("head", head, "each layer", n_heads)?;
        }
        Ok(())
    }

    /// The detection pattern for a prompt that is long enough. Shape: `tokens [pos]` → `[pos, pos]`.
    fn detection(&self, pattern: &DetectionPattern, tokens: &[u32]) -> Result<Array2<f32>> {
        // With both excluded, the first cell that is left is that of the third query and the second key.
        let least = if self.exclude_bos && self.exclude_current_token { 3 } else { 2 };
        check_count("detect_head", "tokens of a prompt", tokens.len(), least, None)?;
        pattern.for_tokens(tokens)
    }

    /// The score of every head in a run of one prompt. Shape: `detection [query_pos, key_pos]` → `[n_layers, n_heads]`.
    fn scores(&self, cache: &ActivationCache, detection: &Array2<f32>) -> Result<Array2<f32>> {
        scores_of_patterns(cache, |layer, head, pattern| self.score(layer, head, pattern, detection))
    }

    /// The score of one head. Shape: both `[query_pos, key_pos]`.
    fn score(&self, layer: usize, head: usize, pattern: ArrayView2<f32>, detection: &Array2<f32>) -> f32 {
        if self.heads.as_ref().is_some_and(|heads| !heads.contains(&(layer, head))) {
            return -1.0;
        }
        let excluded =
            |query, key| (self.exclude_bos && key == 0) || (self.exclude_current_token && query == key) || key > query;
        let cells = pattern.indexed_iter().zip(detection).filter(|(((query, key), _), _)| !excluded(*query, *key));
        let (mut covered, mut all, mut difference) = (0.0_f64, 0.0_f64, 0.0_f64);
        for ((_, &pattern), &detection) in cells {
            let (pattern, detection) = (f64::from(pattern), f64::from(detection));
            covered += pattern * detection;
            all += pattern;
            difference += (pattern - detection).abs();
        }
        match self.error_measure {
            ErrorMeasure::Mul => (covered / all) as f32,
            ErrorMeasure::Abs => (1.0 - difference / pattern.nrows() as f64) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn named_patterns_of_a_small_prompt() {
        let tokens = [9, 1, 2, 1];
        let of = |pattern: DetectionPattern| pattern.for_tokens(&tokens).unwrap();
        let previous = [[0., 0., 0., 0.], [1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.]];
        assert_eq!(of(DetectionPattern::PreviousTokenHead), arr2(&previous));
        let mut only = Array2::zeros((4, 4));
        only[[3, 1]] = 1.0;
        assert_eq!(of(DetectionPattern::DuplicateTokenHead), only);
        only.fill(0.0);
        only[[3, 2]] = 1.0;
        assert_eq!(of(DetectionPattern::InductionHead), only);
        // A token that repeats at once is the one after its earlier occurrence.
        assert_eq!(DetectionPattern::InductionHead.for_tokens(&[1, 1]).unwrap(), arr2(&[[0., 0.], [0., 1.]]));
    }

    #[test]
    fn measures_of_a_small_pattern() {
        let pattern = arr2(&[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]);
        let detection = arr2(&[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let score = |exclude_bos, exclude_current_token, error_measure| {
            let options = DetectOptions { exclude_bos, exclude_current_token, error_measure, heads: None };
            options.score(0, 0, pattern.view(), &detection)
        };
        let near = |got: f32, want: f32| assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        near(score(false, false, ErrorMeasure::Mul), 0.8 / 3.0);
        near(score(true, false, ErrorMeasure::Mul), 0.3 / 1.3);
        near(score(false, true, ErrorMeasure::Mul), 0.8);
        near(score(true, true, ErrorMeasure::Mul), 1.0);
        near(score(false, false, ErrorMeasure::Abs), 1.0 - (1.0 + 0.5 + 0.5 + 0.2 + 0.7 + 0.5) / 3.0);
        near(score(true, true, ErrorMeasure::Abs), 1.0 - 0.7 / 3.0);
        let others = DetectOptions { heads: Some(vec![(1, 0)]), ..DetectOptions::default() };
        assert_eq!(others.score(0, 0, pattern.view(), &detection), -1.0);
    }
}
