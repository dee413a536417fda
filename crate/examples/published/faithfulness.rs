//! The indirect-object task with heads knocked out, as Wang et al. 2022 do it: a head's output is its mean over prompts of
//! the same template with three different names (p_ABC), position by position.

use attention_tokens::Result;
use attention_tokens::datasets::{IoiCorruption, IoiPrompt};
use attention_tokens::prelude::*;

use crate::circuits::{Heads, NAME_MOVERS, NEGATIVE_NAME_MOVERS, S_INHIBITION, dataset_of, templates};
use crate::row::Row;

const SECTION_3_4: &str = "Wang et al. 2022, arXiv:2211.00593, section 3.4";
const SECTION_4: &str = "Wang et al. 2022, arXiv:2211.00593, section 4";

const BACKUP_NAME_MOVERS: Heads = &[[9, 0], [9, 7], [10, 1], [10, 2], [10, 6], [10, 10], [11, 2], [11, 9]];
const INDUCTION: Heads = &[[5, 5], [5, 8], [5, 9], [6, 9]];
const DUPLICATE_TOKEN: Heads = &[[0, 1], [0, 10], [3, 0]];
const PREVIOUS_TOKEN: Heads = &[[2, 2], [4, 11]];

/// Prompts of each template.
const N: usize = 10;

/// The mean logit difference of the whole model, and of the model with interventions that are chosen for each template.
fn differences(model: &Gpt2, hooks: impl Fn(&IoiPrompt, &ActivationCache) -> Vec<Intervention>) -> Result<(f64, f64)> {
    let (mut whole, mut changed, mut n) = (0.0, 0.0, 0.0);
    for template in templates() {
        let mut clean = dataset_of(model, [template], N)?;
        // A name or a noun of several tokens would move the positions.
        let places = |prompt: &IoiPrompt| [prompt.io_pos, prompt.s1_pos, prompt.s2_pos, prompt.end_pos];
        let first = places(&clean.prompts[0]);
        clean.prompts.retain(|prompt| places(prompt) == first);
        let abc = clean.corrupted(IoiCorruption::Abc, 0)?;
        let only_z = RunOptions::default().activations([Activation::Z]).no_logits();
        let (_, abc) = model.run_with_cache_options(abc.tokens(), only_z)?;
        let hooks = hooks(&clean.prompts[0], &abc);
        let (metric, weight) = (Metric::logit_diff(&clean.answers()), clean.prompts.len() as f64);
        whole += weight * f64::from(metric.measure(model, clean.tokens())?);
        changed += weight * f64::from(metric.measure(&model.hooked(&hooks)?, clean.tokens())?);
        n += weight;
    }
    Ok((whole / n, changed / n))
}

pub(crate) fn name_movers(model: &Gpt2) -> Result<Vec<Row>> {
    let (whole, without) = differences(model, |prompt, abc| {
        let knock_out = |&[layer, head]: &[usize; 2]| {
            Intervention::mean(Activation::Z.at(layer), abc).head(head).pos(prompt.end_pos as isize)
        };
        NAME_MOVERS.iter().map(knock_out).collect()
    })?;
    let change = without / whole - 1.0;
    Ok(vec![Row::number("without 9.6 9.9 10.0: relative change of the difference", -0.05, 0.1, change, SECTION_3_4)])
}

/// Every head is knocked out but those of the circuit, each at its position.
pub(crate) fn circuit(model: &Gpt2) -> Result<Vec<Row>> {
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    let (whole, circuit) = differences(model, |prompt, abc| {
        let kept: [(usize, &[Heads]); 3] = [
            (prompt.s1_pos + 1, &[PREVIOUS_TOKEN]),
            (prompt.s2_pos, &[INDUCTION, DUPLICATE_TOKEN]),
            (prompt.end_pos, &[S_INHIBITION, NAME_MOVERS, NEGATIVE_NAME_MOVERS, BACKUP_NAME_MOVERS]),
        ];
        let elsewhere: Vec<isize> = (0..=prompt.end_pos)
            .filter(|pos| kept.iter().all(|(kept, _)| kept != pos))
            .map(|pos| pos as isize)
            .collect();
        let mut hooks = Vec::new();
        for layer in 0..n_layers {
            let knock_out = Intervention::mean(Activation::Z.at(layer), abc);
            hooks.push(knock_out.clone().positions(elsewhere.clone()));
            for (pos, classes) in kept {
                let in_circuit = |head: usize| classes.iter().any(|heads| heads.contains(&[layer, head]));
                let heads: Vec<usize> = (0..n_heads).filter(|&head| !in_circuit(head)).collect();
                hooks.push(knock_out.clone().heads(heads).pos(pos as isize));
            }
        }
        hooks
    })?;
    Ok(vec![
        Row::number("the circuit alone: |F(M) − F(C)|", 0.46, 0.35, (whole - circuit).abs(), SECTION_4),
        Row::number("the circuit alone: F(C) / F(M)", 0.87, 0.1, circuit / whole, SECTION_4),
    ])
}
