//! Previous-token and induction heads.

use attention_tokens::prelude::*;
use attention_tokens::{HeadScore, Result};

use crate::row::Row;

const DETECTOR_27: &str = "TransformerLens Head_Detector_Demo, cells 22, 23, 27";
const DETECTOR_53: &str = "TransformerLens Head_Detector_Demo, cells 51, 53";
const INDUCTION: &str = "README of designer-coderajay/induction-head-detector";

/// Heads in the order of the model, as text.
fn names(mut heads: Vec<HeadScore>) -> String {
    heads.sort_by_key(|head| (head.layer, head.head));
    heads.iter().map(|head| format!("{}.{}", head.layer, head.head)).collect::<Vec<_>>().join(" ")
}

pub(crate) fn previous_token(model: &Gpt2) -> Result<Vec<Row>> {
    let prompt = "The head detector feature for TransformerLens allows users to check for various common heads automatically, \
                  reducing the cost of discovery.";
    let prompts = [
        "This is the first the test prompt.",
        "This is another test prompt, being just a sequence of tokens.",
        "If you're interested in mechanistic interpretability, this is how the sausage REALLY is made.",
    ];
    let previous = &DetectionPattern::PreviousTokenHead;
    let one = model.detect_head(prompt, previous, DetectOptions::default())?;
    let options = DetectOptions { error_measure: attention_tokens::ErrorMeasure::Abs, ..DetectOptions::default() };
    let three = model.detect_head(prompts, previous, options)?;
    Ok(vec![
        Row::text("the two largest previous-token scores", "2.2 4.11", names(one.top(2)), DETECTOR_27),
        Row::text("the largest on three prompts, measure \"abs\"", "4.11", names(three.top(1)), DETECTOR_53),
    ])
}

pub(crate) fn induction(model: &Gpt2) -> Result<Vec<Row>> {
    // The tokens there are random and not given. Others are drawn here, so the tolerance is wide.
    let scores =
        model.repeated_token_scores(RepeatedTokens { len: 50, batch: 10, ..RepeatedTokens::default() })?.induction;
    let published = [([5, 5], 0.932), ([6, 9], 0.913), ([7, 10], 0.910), ([5, 1], 0.908), ([7, 2], 0.833)];
    let mut rows =
        vec![Row::text("the five largest induction scores", "5.1 5.5 6.9 7.2 7.10", names(scores.top(5)), INDUCTION)];
    rows.extend(published.map(|([layer, head], published)| {
        let what = format!("{layer}.{head}: induction score, 50 random tokens twice");
        Row::number(what, published, 0.08, scores.values[[layer, head]], INDUCTION)
    }));
    Ok(rows)
}
