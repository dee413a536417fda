//! Ranks readings by the merge test, and prints the same table for a model that has learned nothing.
//!
//!     cargo run --release --example referee -- MODEL [PROMPTS [RANDOM]]
//!
//! MODEL is a name or a folder for `Gpt2::from_pretrained`. PROMPTS is the number of varied prompts (10), RANDOM that of
//! random partitions of each head and prompt (100). Lines on stderr show the progress; the last line has the seconds of the
//! first reading alone, and the time that a reading of all 144 heads of GPT-2 small would take in proportion to the work, an
//! estimate.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use attention_tokens::Signs;
use attention_tokens::experiments::{MergeOptions, merge_test, varied_prompts};
use attention_tokens::prelude::*;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let (Some(name), Ok(n_prompts), Ok(n_random), ..=3) = (args.first(), number(1, 10), number(2, 100), args.len())
    else {
        eprintln!("usage: referee MODEL [PROMPTS [RANDOM]]");
        return ExitCode::FAILURE;
    };
    match referee(name, n_prompts, n_random) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("referee: {error}");
            ExitCode::FAILURE
        }
    }
}

fn referee(name: &str, n_prompts: usize, n_random: usize) -> Result<(), Box<dyn Error>> {
    let model = Gpt2::from_pretrained(name, LoadOptions::default())?;
    // From all parts of the list, which is ordered by kind.
    let all = varied_prompts();
    let step = (all.len() / n_prompts.max(1)).max(1);
    let prompts: Vec<String> = all.into_iter().step_by(step).take(n_prompts).collect();
    let options = MergeOptions { n_random, ..Default::default() };

    let start = Instant::now();
    merge_test(&model, prompts.clone(), &[Reading::NOTEBOOK], options.clone())?;
    let seconds = start.elapsed().as_secs_f64();

    let readings = readings();
    let test = merge_test(&model, prompts.clone(), &readings, options.clone())?;
    println!("{}", test.table());
    let best = test.ranking()[0].reading;
    println!("{}", test.heads_table(readings.iter().position(|&reading| reading == best).unwrap_or_default())?);
    let control = merge_test(&model.with_random_weights(1)?, prompts, &readings, options)?;
    println!("{}", test.table_with_control(&control)?);

    let config = model.config();
    let work = |heads: usize, layers: usize, d_model: usize, d_vocab: usize| {
        (heads * d_model * (d_vocab + 6 * layers * d_model)) as f64
    };
    let share = work(144, 12, 768, 50_257)
        / work(config.n_layers * config.n_heads, config.n_layers, config.d_model, config.d_vocab);
    println!("{seconds:.1} s for one reading; GPT-2 small, an estimate: {:.0} min", seconds * share / 60.0);
    Ok(())
}

/// Each projection with the bias of the unembedding and without, and two in which only signs differ.
fn readings() -> Vec<Reading> {
    let mut readings: Vec<Reading> = Vec::new();
    for projection in Projection::ALL {
        readings.extend([true, false].map(|unembed_bias| Reading::from(projection).unembed_bias(unembed_bias)));
    }
    readings.extend([1, 2].map(|seed| Reading::NOTEBOOK.signs(Signs::Random(seed)).unembed_bias(false)));
    readings
}
