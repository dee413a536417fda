//! Compares a model with numbers that were published about GPT-2 small.
//!
//!     cargo run --release --example published -- MODEL
//!
//! MODEL is a name or a folder for `Gpt2::from_pretrained`: `gpt2-small`, or a folder with its weights. For every number
//! the program prints the published one, that of the model, their difference, the largest difference that is allowed, and
//! the source. A few minutes on two cores.
//!
//! Exit status: 0 if every number is within its tolerance; 1 if one is not, or after an error; 2 if MODEL does not have
//! the shape and the vocabulary of GPT-2 small, about which nothing is known then, so that nothing is computed.
//!
//! To add a row, write a function from the model to rows in the file of its group, and name it in [`GROUPS`]. What was
//! published and cannot be repeated is in `left_out.rs`.

mod ablation;
mod author;
mod circuits;
mod faithfulness;
mod greater_than;
mod heads;
mod indirect_objects;
mod left_out;
mod patching;
mod predictions;
mod row;
mod unembedding;

use std::process::ExitCode;

use attention_tokens::prelude::*;
use row::Row;

/// Computes some rows.
type Measure = fn(&Gpt2) -> attention_tokens::Result<Vec<Row>>;

/// The headings, and the functions that compute the rows below each.
const GROUPS: &[(&str, &[Measure])] = &[
    ("Losses and predictions", &[predictions::losses, predictions::cat, predictions::milk, predictions::test_prompt]),
    ("The beginning-of-sequence token", &[predictions::bos_matters]),
    ("The bias of the unembedding, b_U", &[unembedding::largest_biases, unembedding::names]),
    ("Indirect objects: TransformerLens' demos", &[indirect_objects::eight_prompts, indirect_objects::evaluation]),
    ("Indirect objects: the author's notebook", &[author::logit_differences, author::patched_heads, author::lens]),
    ("Indirect objects: Wang et al. 2022", &[circuits::task, circuits::attention, circuits::name_movers]),
    ("Indirect objects: Wang et al. 2022, knocked out", &[faithfulness::name_movers, faithfulness::circuit]),
    ("Direct logit attribution", &[indirect_objects::attribution_of_9_9, indirect_objects::attribution_of_heads]),
    (
        "Without a head",
        &[ablation::loss_without_values, ablation::without_9_9, ablation::self_repair, ablation::without_10_7],
    ),
    ("Activation patching", &[patching::by_head, patching::direct_paths]),
    ("Heads", &[heads::previous_token, heads::induction]),
    ("Greater-than", &[greater_than::task, greater_than::mlps]),
    ("Attention tokens", &[unembedding::common_tokens]),
];

/// The model does not have GPT-2 small's shape and vocabulary.
const ANOTHER_MODEL: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name] = args.as_slice() else {
        eprintln!("usage: published MODEL");
        eprintln!("MODEL is gpt2-small, or a folder with its weights");
        return ExitCode::FAILURE;
    };
    match Gpt2::from_pretrained(name, LoadOptions::default()) {
        Ok(model) => compare(name, &model),
        Err(error) => {
            eprintln!("published: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(name: &str, model: &Gpt2) -> ExitCode {
    if let Some(difference) = difference_to_gpt2_small(model) {
        println!(
            "published: the numbers are GPT-2 small's, and {name} is another model: {difference}. Nothing was run."
        );
        return ExitCode::from(ANOTHER_MODEL);
    }
    let (mut n_rows, mut n_outside, mut n_errors) = (0, 0, 0);
    for (heading, measures) in GROUPS {
        println!("\n{heading}\n{}", row::header());
        for measure in *measures {
            match measure(model) {
                Ok(rows) => {
                    n_rows += rows.len();
                    n_outside += rows.iter().filter(|row| !row.is_within()).count();
                    rows.iter().for_each(|row| println!("{row}"));
                }
                Err(error) => {
                    n_errors += 1;
                    println!("error: {error}");
                }
            }
        }
    }
    left_out::print();
    println!(
        "\npublished: {n_rows} numbers, {} within their tolerances, {n_outside} outside, {n_errors} errors",
        n_rows - n_outside
    );
    if n_outside + n_errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How a model differs from GPT-2 small, if it does: in a size, or in the tokens of a text.
fn difference_to_gpt2_small(model: &Gpt2) -> Option<String> {
    let config = model.config();
    let sizes = [
        ("layers", config.n_layers, 12),
        ("heads a layer", config.n_heads, 12),
        ("d_model", config.d_model, 768),
        ("tokens in the vocabulary", config.d_vocab, 50257),
        ("positions", config.n_ctx, 1024),
    ];
    if let Some((what, found, expected)) = sizes.into_iter().find(|(_, found, expected)| found != expected) {
        return Some(format!("{what}: {found} in place of {expected}"));
    }
    match model.to_tokens("Hello world!") {
        Ok(tokens) if tokens == [50256, 15496, 995, 0] => None,
        Ok(tokens) => Some(format!("\"Hello world!\" is {tokens:?} in place of [50256, 15496, 995, 0]")),
        Err(error) => Some(error.to_string()),
    }
}
