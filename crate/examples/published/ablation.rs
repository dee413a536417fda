//! What a model loses without a head.

use attention_tokens::Result;
use attention_tokens::prelude::*;

use crate::indirect_objects::eight;
use crate::predictions::{PAPER, logit_diff};
use crate::row::Row;

const MAIN_28: &str = "TransformerLens Main_Demo, cell 28";
const EXPLORATORY_105: &str = "TransformerLens Exploratory_Analysis_Demo, cell 105";

/// The values of head 0.8 are zero.
pub(crate) fn loss_without_values(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model.hooked(&[Intervention::zero(Activation::V.at(0)).head(8)])?;
    let loss = ablated.loss(PAPER)?[0];
    Ok(vec![Row::rounded("loss of \"Natural language …\" with v of 0.8 zero", 5.453, 3, loss, MAIN_28)])
}

/// The output of the strongest name mover is zero at the last position.
pub(crate) fn without_9_9(model: &Gpt2) -> Result<Vec<Row>> {
    let ablated = model.hooked(&[Intervention::zero(Activation::Z.at(9)).head(9).pos(-1)])?;
    let mut mean = 0.0;
    for (prompt, right, wrong) in eight() {
        mean += logit_diff(&ablated, ablated.to_tokens(&prompt)?, right, wrong)? / 8.0;
    }
    Ok(vec![Row::rounded("mean of the eight with z of 9.9 zero at the end", 2.917, 3, mean, EXPLORATORY_105)])
}
