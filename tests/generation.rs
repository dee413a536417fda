//! Generation: with and without the key-value cache, alone and in a batch, beyond the context, and options that cannot
//! be used. Greedy tokens are held against TransformerLens' in `golden.rs`.

use attention_tokens::prelude::*;
use attention_tokens::{Generated, NewToken};

use crate::support::{demo, fixture};

const SENTENCE: &str = "When Mary and John went to the store, John gave a drink to";

/// Models on every device of the CPU, and a few prompts for each.
fn models(names: &[&str]) -> Vec<(Gpt2, Vec<Vec<u32>>)> {
    let mut all = Vec::new();
    for device in [Device::cpu(), Device::dfdx_cpu()] {
        for &name in names {
            let name = if name == "demo" { name.to_owned() } else { fixture(name).to_string_lossy().into_owned() };
            let model = Gpt2::from_pretrained(&name, LoadOptions::default().device(device)).unwrap();
            let bos = model.config().bos_token_id.unwrap();
            let prompts = vec![vec![bos, 20, 24, 40, 33, 92, 63, 29], vec![bos], vec![bos, 5, 5, 5, 90, 1]];
            all.push((model, prompts));
        }
    }
    all
}

fn tokens(generated: Generated) -> Vec<Vec<u32>> {
    generated.tokens
}

/// Greedy, and two ways of sampling.
fn options() -> [GenerateOptions; 3] {
    let options = GenerateOptions::default().stop_at_eos(false);
    [
        options.clone().do_sample(false),
        options.clone().temperature(0.8).top_k(20).seed(3),
        options.top_p(0.9).freq_penalty(0.3).seed(4),
    ]
}

#[test]
fn the_tokens_are_the_same_with_and_without_the_cache_and_alone_and_in_a_batch() {
    for (model, prompts) in models(&["demo", "tiny", "odd"]) {
        // The demo model's large vocabulary makes dfdx slow.
        let n_new = if model.config().d_vocab > 1000 { 4 } else { 12 };
        for options in options().map(|options| options.max_new_tokens(n_new)) {
            let with = tokens(model.generate(prompts.clone(), options.clone()).unwrap());
            let without = model.generate(prompts.clone(), options.clone().use_past_kv_cache(false)).unwrap();
            assert_eq!(with, tokens(without), "{model:?} {options:?}");
            for (prompt, tokens_in_batch) in prompts.iter().zip(&with) {
                assert_eq!(tokens_in_batch[..prompt.len()], prompt[..]);
                assert_eq!(tokens_in_batch.len(), prompt.len() + n_new);
                let alone = tokens(model.generate(prompt.clone(), options.clone()).unwrap());
                assert_eq!(alone[0], *tokens_in_batch, "{model:?} {options:?}");
            }
        }
    }
}

/// Greedy tokens are the most likely ones of plain runs, also where the context ends: there the last `n_ctx` tokens are
/// the prompt.
#[test]
fn greedy_tokens_are_the_most_likely_of_plain_runs_beyond_the_context_too() {
    for (model, prompts) in models(&["tiny", "odd"]) {
        let n_ctx = model.config().n_ctx;
        let long: Vec<u32> = prompts[0].iter().copied().cycle().take(n_ctx - 2).collect();
        let full: Vec<u32> = prompts[2].iter().copied().cycle().take(n_ctx).collect();
        let greedy = GenerateOptions::default().do_sample(false).stop_at_eos(false).max_new_tokens(5);
        let generated = model.generate(vec![long, prompts[1].clone(), full], greedy.clone()).unwrap();
        for (tokens, new) in generated.tokens.iter().zip(&generated.new_tokens) {
            assert_eq!(new.len(), 5);
            for end in tokens.len() - 5..tokens.len() {
                let window = tokens[end.saturating_sub(n_ctx)..end].to_vec();
                let logits = model.forward(window).unwrap().remove(0);
                let last = logits.row(logits.nrows() - 1);
                let best = (0..last.len()).fold(0, |best, token| if last[token] > last[best] { token } else { best });
                assert_eq!(tokens[end] as usize, best, "{model:?} token {end}");
            }
        }
    }
}

#[test]
fn a_seed_repeats_its_tokens_and_equal_prompts_get_different_ones() {
    let model = demo();
    let options = GenerateOptions::default().max_new_tokens(15);
    let generate = |seed: u64| tokens(model.generate(["The", "The", "A", "The"], options.clone().seed(seed)).unwrap());
    let first = generate(1);
    assert_eq!(first, generate(1));
    assert_ne!(first, generate(2));
    assert!(first[0] != first[1] && first[0] != first[3] && first[1] != first[3]);
    let alone = |text: &str| tokens(model.generate(text, options.clone().seed(1)).unwrap()).remove(0);
    assert_eq!((alone("The"), alone("A")), (first[0].clone(), first[2].clone()));
}

#[test]
fn a_stop_token_ends_its_prompt_only() {
    let model = demo();
    let greedy = GenerateOptions::default().do_sample(false).max_new_tokens(6);
    let mary = model.to_single_token(" Mary").unwrap();
    let prompts = ["Monday, Tuesday,", SENTENCE];
    let free = model.generate(prompts, greedy.clone()).unwrap();
    assert_eq!((free.new_tokens[1][0], &free.stopped), (mary, &vec![false, false]));
    let stopping = model.generate(prompts, greedy.clone().eos_token_ids([7, mary])).unwrap();
    assert_eq!(stopping.new_tokens, [free.new_tokens[0].clone(), vec![mary]]);
    assert_eq!(stopping.stopped, [false, true]);
    assert_eq!(stopping.texts[1], SENTENCE, "the stop token is no part of the text");
    let ignored = model.generate(prompts, greedy.clone().eos_token_ids([mary]).stop_at_eos(false)).unwrap();
    assert_eq!(ignored.new_tokens, free.new_tokens);
    let nothing = model.generate(prompts, greedy.max_new_tokens(0)).unwrap();
    assert_eq!((nothing.texts, nothing.new_tokens), (prompts.map(String::from).to_vec(), vec![vec![]; 2]));
}

#[test]
fn pieces_of_text_add_up() {
    let model = demo();
    // Everything is about as likely, so most tokens are rare ones, among them parts of characters.
    let options = GenerateOptions::default().max_new_tokens(60).temperature(50.0).stop_at_eos(false);
    let prompts = ["The bus is", "Monday"];
    let mut pieces = vec![String::new(); 2];
    let mut new = vec![Vec::new(); 2];
    let generated = model.generate_with(prompts, options, |NewToken { prompt, token, text }| {
        pieces[prompt] += &text;
        new[prompt].push(token);
    });
    let generated = generated.unwrap();
    assert_eq!(new, generated.new_tokens);
    for ((prompt, pieces), text) in prompts.iter().zip(&pieces).zip(&generated.texts) {
        assert_eq!(prompt.to_string() + pieces, *text);
    }
    let shown = generated.to_string();
    assert!(shown.starts_with("0: The bus is") && shown.contains("\n1: Monday"), "{shown}");
}

#[test]
fn a_model_without_a_tokenizer_generates_ids() {
    let model = Gpt2::from_pretrained(fixture("tiny").to_string_lossy(), LoadOptions::default()).unwrap();
    let generated =
        model.generate(vec![0_u32, 20, 24], GenerateOptions::default().do_sample(false).max_new_tokens(2)).unwrap();
    let [a, b] = generated.new_tokens[0][..] else { panic!("{generated:?}") };
    assert_eq!(generated.texts, [format!(" #20 #24 #{a} #{b}")]);
}

#[test]
fn options_that_cannot_be_used_are_named() {
    let model = demo();
    let options = GenerateOptions::default;
    for (options, option, advice) in [
        (options().temperature(0.0), "temperature", "do_sample(false)"),
        (options().temperature(-1.0), "temperature", "above 0"),
        (options().temperature(f64::NAN), "temperature", "NaN"),
        (options().temperature(f64::INFINITY), "temperature", "inf"),
        (options().top_k(0), "top_k", "do_sample(false)"),
        (options().top_p(0.0), "top_p", "above 0 and at most 1"),
        (options().top_p(1.01), "top_p", "1.01"),
        (options().top_p(f64::NAN), "top_p", "NaN"),
        (options().freq_penalty(-0.5), "freq_penalty", "at least 0"),
        (options().freq_penalty(f64::NAN), "freq_penalty", "NaN"),
    ] {
        let error = model.generate("a", options).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Setting { option: name, .. } if name == option), "{text}");
        assert!(text.starts_with(&format!("generate: {option}: expected ")) && text.contains(advice), "{text}");
    }
    let stop = model.generate("a", options().eos_token_ids([1, 50257])).unwrap_err();
    assert!(matches!(stop, Error::OutOfRange { what: "stop token", index: 50257, .. }), "{stop}");
    let none = model.generate(Vec::<Vec<u32>>::new(), options()).unwrap_err();
    assert!(matches!(none, Error::Count { found: 0, min: 1, .. }), "{none}");
    let empty = model.generate(vec![vec![1], vec![]], options()).unwrap_err();
    assert!(matches!(empty, Error::Prompt { prompt: 1, len: 0, .. }), "{empty}");
    let long = model.generate(vec![1_u32; 257], options()).unwrap_err();
    assert!(matches!(long, Error::Prompt { len: 257, n_ctx: 256, .. }), "{long}");
    let unknown = model.generate(vec![50257_u32], options()).unwrap_err();
    assert!(matches!(unknown, Error::OutOfRange { what: "token id", .. }), "{unknown}");
}
