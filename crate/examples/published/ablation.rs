//! What a model loses without a head, and what other heads do then.

use attention_tokens::Result;
use attention_tokens::prelude::*;

use crate::indirect_objects::eight;
use crate::predictions::{PAPER, last_logits, logit_diff};
use crate::row::Row;

const MAIN_28: &str = "TransformerLens Main_Demo, cell 28";
const EXPLORATORY_105: &str = "TransformerLens Exploratory_Analysis_Demo, cell 105";
const EXPLORATORY_114: &str = "TransformerLens Exploratory_Analysis_Demo, cells 114–118";
const COPY_SUPPRESSION: &str = "McDougall et al. 2023, arXiv:2310.04625";

/// The values of head 0.8 are zero.
pub(crate) fn loss_without_values(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model.hooked(&[Intervention::zero(Activation::V.at(0)).head(8)])?;
    let loss = ablated.loss(PAPER)?[0];
    Ok(vec![Row::rounded("loss of \"Natural language …\" with v of 0.8 zero", 5.453, 3, loss, MAIN_28)])
}

/// The model without the output of the strongest name mover at the last position.
fn model_without_9_9(model: &Gpt2) -> Result<Gpt2> {
    model.hooked(&[Intervention::zero(Activation::Z.at(9)).head(9).pos(-1)])
}

pub(crate) fn without_9_9(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model_without_9_9(model)?;
    let mut mean = 0.0;
    for (prompt, right, wrong) in eight() {
        mean += logit_diff(&ablated, ablated.to_tokens(&prompt)?, right, wrong)? / 8.0;
    }
    Ok(vec![Row::rounded("mean of the eight with z of 9.9 zero at the end", 2.917, 3, mean, EXPLORATORY_105)])
}

/// What two other heads write at the last position without 9.9, minus what they write with it.
pub(crate) fn self_repair(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model_without_9_9(model)?;
    let (mut ratio, mut changes) = (0.0, [0.0; 2]);
    for (prompt, right, wrong) in eight() {
        let answers = [model.to_single_token(right)?, model.to_single_token(wrong)?];
        let of_model = |model: &Gpt2| {
            let (_, cache) = model.run_with_cache(&prompt)?;
            let attrs = cache.head_logit_attrs(model, answers[0], Some(answers[1]))?; // [layer, head, pos]
            let last = attrs.dim().2 - 1;
            let written = [[10, 7], [10, 10]].map(|[layer, head]| f64::from(attrs[[layer, head, last]]));
            Ok::<_, Error>((f64::from(cache.ln_final_scale(model)?[last]), written))
        };
        let ((scale, written), (ablated_scale, ablated_written)) = (of_model(model)?, of_model(&ablated)?);
        ratio += scale / ablated_scale / 8.0;
        for (change, (ablated, written)) in changes.iter_mut().zip(ablated_written.into_iter().zip(written)) {
            *change += (ablated - written) / 8.0;
        }
    }
    // The two changes were published in words, with one digit.
    Ok(vec![
        Row::rounded("final layer norm: scale with 9.9 / without, mean", 1.0417, 4, ratio, EXPLORATORY_114),
        Row::number("10.7 writes more without 9.9, mean of the eight", 1.0, 0.15, changes[0], EXPLORATORY_114),
        Row::number("10.10 writes more without 9.9, mean of the eight", 0.8, 0.15, changes[1], EXPLORATORY_114),
    ])
}

/// The head that suppresses copies is zero. The paper replaces it by its mean over a large text.
pub(crate) fn without_10_7(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model.hooked(&[Intervention::zero(Activation::Z.at(10)).head(7)])?;
    let logits = last_logits(&ablated, ablated.to_tokens("All's fair in love and")?)?;
    let most_likely = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token as u32);
    let token = model.to_single_str_token(most_likely)?;
    Ok(vec![Row::text("\"All's fair in love and\" with z of 10.7 zero", " love", token, COPY_SUPPRESSION)])
}
