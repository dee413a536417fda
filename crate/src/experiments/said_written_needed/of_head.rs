//! What each pair of a head says and writes on a prompt, and how much the prediction needs it.

use ndarray::{Array2, Ix2};

use crate::analysis::most_likely;
use crate::attention_tokens::{DecodeOptions, PromptHeadData, head_data, layer_data};
use crate::decode::Reading;
use crate::error::{Result, check_index};
use crate::experiments::check_answers;
use crate::model::{ActivationCache, Gpt2, Prompts, RunOptions};
use crate::patching::{Metric, SweepOptions, cell_effects};
use crate::tokenizer::TokenLabels;

/// The reading of what a pair writes. Without `b_U`, which is the same for every pair.
pub(super) const WRITTEN: Reading = Reading { unembed_bias: false, ..Reading::WRITTEN };
/// Needs up to this share of the largest absolute logit count as 0. They may be rounding errors, about which two processors do
/// not agree.
const ROUNDING: f32 = 1e-5;

/// Options of [`said_written_needed`].
#[derive(Clone, Debug, PartialEq)]
pub struct NeedOptions {
    /// The index of the prompt, if several are given.
    pub prompt: usize,
    /// The reading of what a pair says.
    pub said: Reading,
    /// The right and the wrong token of the logit difference that the prediction is measured by. `None` for the logit of the
    /// model's own most likely token.
    pub answers: Option<[u32; 2]>,
    /// Memory and progress lines of the runs.
    pub sweep: SweepOptions,
}

impl Default for NeedOptions {
    /// The first prompt, the notebook's reading, the model's own prediction.
    fn default() -> Self {
        Self { prompt: 0, said: Reading::default(), answers: None, sweep: SweepOptions::default() }
    }
}

/// The pairs of a head on a prompt: the result of [`said_written_needed`]. A notebook shows its figure.
#[derive(Clone, Debug)]
pub struct SaidWrittenNeeded {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// The tokens of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The token that each pair says; `None` where key > query. Shape: `[query_pos, key_pos]`.
    pub said: Array2<Option<u32>>,
    /// The token that each pair raises most. Shape: `[query_pos, key_pos]`.
    pub written: Array2<Option<u32>>,
    /// The attention. Shape: `[query_pos, key_pos]`.
    pub attn: Array2<f32>,
    /// What the logit, or the logit difference, of the last position loses without the pair; negative where it gains, 0 where it
    /// changes by no more than 1e-5 of the position's largest absolute logit. NaN where key > query. Shape: `[query_pos, key_pos]`.
    pub needed: Array2<f32>,
    /// The token whose logit is measured.
    pub right: u32,
    /// The token whose logit is subtracted, if there is one.
    pub wrong: Option<u32>,
    /// The logit, or the logit difference, of the whole model.
    pub unchanged: f32,
    /// The reading of what a pair says.
    pub reading: Reading,
    pub(super) model: Gpt2,
}

/// What each pair of a head says, what it writes, and how much the prediction of a prompt's last position needs it.
///
/// | | of the query *i* and the key *j* |
/// |---|---|
/// | said | the attention token, through the reading of the options: decoded from the product of query and key |
/// | written | the token that the pair raises most: `A_ij v_j W_O` unembedded without `b_U` |
/// | needed | the logit difference of the whole model minus that of a run in which *i* does not attend to *j* |
///
/// In that run the score of the pair is −∞, so the attention to the other keys grows ([`cell_effects`]). Each pair is knocked
/// out alone, at its own query: most queries matter for the last position only through what later layers read from them.
///
/// A need of at most 1e-5 of the largest absolute logit of the last position is 0. Such a difference between two runs may be a
/// rounding error, with another sign and another size on another processor. [`cell_effects`] has the numbers as they are.
///
/// **What it cannot show.** A pair with no effect may have a part that another one takes over. And the answer is measured at
/// one position of one prompt.
///
/// ```
/// use attention_tokens::experiments::{NeedOptions, said_written_needed};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let pairs = said_written_needed(&model, "Monday, Tuesday,", 3, 5, NeedOptions::default())?;
/// assert_eq!(model.to_single_str_token(pairs.right)?, " Wednesday");
/// pairs.plot()? // with a menu of the three
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have, a prompt that is not
/// there, or a token that the vocabulary does not have; [`Error::Setting`](crate::Error::Setting) for two equal answers;
/// otherwise as for [`head_data`] and [`cell_effects`].
pub fn said_written_needed(
    model: &Gpt2,
    prompts: impl Into<Prompts>,
    layer: usize,
    head: usize,
    options: NeedOptions,
) -> Result<SaidWrittenNeeded> {
    model.config().check_head(layer, head)?;
    let mut prompts = model.checked_prompts(prompts.into())?;
    check_index("prompt", options.prompt, "the batch", prompts.len())?;
    let input = prompts.swap_remove(options.prompt);
    of_prompt(model, input, [layer, head], &options)
}

/// [`said_written_needed`] after its checks. Shape: `input [pos]`.
fn of_prompt(
    model: &Gpt2,
    input: Vec<u32>,
    [layer, head]: [usize; 2],
    options: &NeedOptions,
) -> Result<SaidWrittenNeeded> {
    let target = Target::new(model, &input, options.answers)?;
    let (_, cache) = model.run_with_cache_options(input.clone(), RunOptions::for_head_data())?;
    let data = |reading: Reading| -> Result<PromptHeadData> {
        head_data(model, &cache, layer, head, DecodeOptions::from(reading))?.prompt(0)
    };
    let (said, written) = (data(options.said)?, data(WRITTEN)?);
    let (needed, unchanged) = target.needed(model, &input, [layer, head], options.sweep)?;
    Ok(SaidWrittenNeeded {
        layer,
        head,
        said: said.attention_tokens(),
        written: written.attention_tokens(),
        attn: said.attn,
        needed,
        right: target.right,
        wrong: target.wrong,
        unchanged,
        reading: options.said,
        input,
        model: model.clone(),
    })
}

/// The number that a prediction is measured by.
pub(super) struct Target {
    pub(super) right: u32,
    pub(super) wrong: Option<u32>,
    metric: Metric,
    /// Needs up to this size are set to 0.
    rounding: f32,
}

impl Target {
    /// The logit difference of the answers, or the logit of the most likely token after the prompt, the lowest id on a tie.
    /// Shape: `input [pos]`.
    pub(super) fn new(model: &Gpt2, input: &[u32], answers: Option<[u32; 2]>) -> Result<Self> {
        if let Some(answers) = answers {
            check_answers(model, "said_written_needed", answers)?;
        }
        let logits = model.logits_at(input.to_vec(), &[-1])?.remove(0).into_raw_vec_and_offset().0; // [d_vocab]
        let sizes = logits.iter().map(|logit| logit.abs()).filter(|size| size.is_finite());
        let rounding = ROUNDING * sizes.fold(0.0, f32::max);
        let (right, wrong, metric) = match answers {
            Some([right, wrong]) => (right, Some(wrong), Metric::logit_diff(&[[right, wrong]])),
            None => {
                let right = most_likely(&logits);
                (right, None, Metric::logit(&[right]))
            }
        };
        Ok(Self { right, wrong, metric, rounding })
    }

    /// What the number loses without each pair of a head, 0 where that is rounding, and the number of the whole model.
    /// Shape: `input [pos]` → `[query_pos, key_pos]`.
    pub(super) fn needed(
        &self,
        model: &Gpt2,
        input: &[u32],
        [layer, head]: [usize; 2],
        options: SweepOptions,
    ) -> Result<(Array2<f32>, f32)> {
        let sweep = cell_effects(model, input.to_vec(), layer, head, &self.metric, options)?;
        let rounded = |change: f32| if change.abs() <= self.rounding { 0.0 } else { -change };
        let lost = sweep.differences().mapv_into(rounded); // NaN stays
        Ok((lost.into_dimensionality::<Ix2>().expect("a number for each query and key"), sweep.unchanged))
    }
}

/// The data of every head of a layer on the cache's only prompt. Shape: → `[n_heads]`.
pub(super) fn data_of_layer(
    model: &Gpt2,
    cache: &ActivationCache,
    layer: usize,
    reading: Reading,
) -> Result<Vec<PromptHeadData>> {
    let heads = layer_data(model, cache, layer, DecodeOptions::from(reading))?;
    heads.into_iter().map(|head| head.prompt(0)).collect()
}

/// `logit of ␣Mary minus ␣John`.
pub(super) fn target_name(labels: &TokenLabels, right: u32, wrong: Option<u32>) -> String {
    let minus = wrong.map_or_else(String::new, |wrong| format!(" minus {}", labels.label(wrong)));
    format!("logit of {}{minus}", labels.label(right))
}
