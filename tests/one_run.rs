//! What follows from one run: predictions and comparisons, neurons, figures, positions of tokens; caches of other models.

use attention_tokens::{
    Occurrence, ResidualStack, kl_divergence, log_probs, prelude::*, test_prompt_options, token_ranks,
};
use ndarray::{Array3, Axis, s};

use crate::support::{assert_close, demo, fixture, load};

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

fn answers(model: &Gpt2) -> [u32; 2] {
    [" Mary", " John"].map(|name| model.to_single_token(name).unwrap())
}

#[test]
fn test_prompt_ranks_the_answer_and_the_best_tokens() {
    let model = demo();
    let logits = model.forward(PROMPT).unwrap().remove(0);
    let last = logits.slice(s![-1.., ..]).to_owned();
    let [mary, john] = answers(&model);
    for (answer, token) in [("Mary", mary), (" John", john)] {
        let test = test_prompt(&model, PROMPT, answer).unwrap();
        assert_eq!((test.answer.len(), test.prompt.len(), &*test.prompt[2]), (1, logits.nrows(), " Mary"));
        let (found, top) = (&test.answer[0].answer, &test.answer[0].top);
        assert_eq!((found.token, found.rank), (token, token_ranks(&last, &[token]).unwrap()[[0, 0]]));
        assert!((found.prob.ln() - log_probs(&last)[[0, token as usize]]).abs() < 1e-3);
        assert_eq!(top.len(), 10);
        assert_eq!((top[0].rank, top[0].token), (0, mary));
        assert!(top.windows(2).all(|pair| pair[0].logit >= pair[1].logit && pair[0].rank <= pair[1].rank));
        assert!(test.to_string().starts_with(&format!(
            "answer {}: rank {}, logit",
            found.text.replace(' ', "␣"),
            found.rank
        )));
    }

    // Without the space it is another token, which the best ones do not include: it has a row of its own.
    let test = test_prompt_options(&model, PROMPT, "Mary", false, 3).unwrap();
    assert_eq!((&*test.answer[0].answer.text, test.answer[0].top.len()), ("Mary", 3));
    assert_eq!(test.tables()[0].rows().len(), 4);

    // Each token of a longer answer is predicted from those before it.
    let test = test_prompt(&model, PROMPT, "Mary and John").unwrap();
    assert_eq!(test.tables().len(), 3);
    let longer = test_prompt(&model, &format!("{PROMPT} Mary and"), "John").unwrap();
    let (got, want) = (&test.answer[2].answer, &longer.answer[0].answer);
    assert_eq!((got.token, got.rank), (want.token, want.rank));
    assert!((got.logit - want.logit).abs() < 1e-3);

    let options = |answer, space, top_k| test_prompt_options(&model, PROMPT, answer, space, top_k);
    assert!(matches!(options("", false, 10), Err(Error::Count { found: 0, .. })));
    assert!(matches!(options("Mary", true, 0), Err(Error::Count { found: 0, .. })));
    assert!(matches!(test_prompt(&model, PROMPT, &"Mary ".repeat(300)), Err(Error::Prompt { .. })));
}

#[test]
fn runs_diverge_where_their_prompts_differ() {
    let model = demo();
    let (clean, corrupted) = (PROMPT, PROMPT.replacen("John", "Mary", 1));
    let logits = model.forward([clean, &corrupted]).unwrap();
    let kl = kl_divergence(&logits[0], &logits[1]).unwrap();
    // Up to position 3 the prompts are equal; at position 9 only one of two names is left to repeat.
    assert!(kl.slice(s![..4]).iter().all(|&kl| kl < 1e-9) && kl[4] > 1e-6 && kl[9] > 0.1, "{kl}");
    assert!(kl_divergence(&logits[0], &logits[0]).unwrap().iter().all(|&kl| kl < 1e-12));
}

#[test]
fn every_decomposition_adds_up_to_the_residual_stream() {
    for processing in [Processing::default(), Processing::none()] {
        let model = Gpt2::from_pretrained("demo", LoadOptions::default().processing(processing)).unwrap();
        let (_, cache) = model.run_with_cache(PROMPT).unwrap();
        let (n_heads, d_mlp) = (model.config().n_heads, model.config().d_mlp);
        for layer in [Some(0), Some(2), None] {
            let n_layers = layer.unwrap_or(4);
            let accumulated = cache.accumulated_resid(layer, false).unwrap().values;
            let resid = accumulated.index_axis(Axis(0), n_layers);
            let at = resid.select(Axis(0), &[resid.nrows() - 1, 3]);
            for (expand_neurons, n_mlp) in [(true, n_layers * d_mlp), (false, n_layers)] {
                let stack = cache.get_full_resid_decomposition(&model, layer, expand_neurons, Some(&[-1, 3])).unwrap();
                assert_eq!(stack.positions, [resid.nrows() - 1, 3]);
                assert_eq!(stack.labels.len(), n_layers * n_heads + n_mlp + 3);
                assert_eq!(stack.labels[stack.labels.len() - 3..], ["embed", "pos_embed", "bias"]);
                if n_layers > 0 {
                    let first_mlp = if expand_neurons { "L0N0" } else { "0_mlp_out" };
                    assert_eq!((&*stack.labels[1], &*stack.labels[n_layers * n_heads]), ("L0H1", first_mlp));
                }
                assert_close(&stack.values.sum_axis(Axis(0)), &at, 1e-5);
            }
            let neurons = cache.stack_neuron_results(&model, layer, Some(&[-1, 3]), true).unwrap();
            assert_eq!(neurons.labels.last().unwrap(), "remainder");
            assert_close(&neurons.values.sum_axis(Axis(0)), &at, 1e-5);
        }
        // A decomposition into heads and neurons, at chosen positions, sums to the logit with the bias.
        let [mary, john] = answers(&model);
        let stack = cache.get_full_resid_decomposition(&model, None, true, Some(&[-1, 0])).unwrap();
        for incorrect in [None, Some(john)] {
            let deviation = cache.logit_attrs_deviation(&model, &stack, mary, incorrect).unwrap();
            assert!(deviation < 1e-3, "{deviation}");
        }
        // Without one component, by what that writes.
        let without = ResidualStack {
            values: stack.values.slice(s![1.., .., ..]).to_owned(),
            labels: stack.labels[1..].to_vec(),
            ..stack.clone()
        };
        let of_first =
            cache.logit_attrs(&model, &stack, mary, None).unwrap().row(0).fold(0.0_f32, |a, b| a.max(b.abs()));
        let deviation = cache.logit_attrs_deviation(&model, &without, mary, None).unwrap();
        assert!((deviation - of_first).abs() < 1e-3 && of_first > 1e-3, "{deviation} {of_first}");

        // Logits of neurons without the stack.
        let neurons = cache.stack_neuron_results(&model, None, None, false).unwrap();
        let want = cache.logit_attrs(&model, &neurons, mary, Some(john)).unwrap();
        let got: Array3<f32> = cache.neuron_logit_attrs(&model, mary, Some(john)).unwrap();
        assert_eq!(got.dim(), (4, d_mlp, want.ncols()));
        assert_close(&got, &want, 1e-5);
    }
}

#[test]
fn the_lens_and_attributions_are_figures() {
    let model = demo();
    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    let [mary, john] = answers(&model);
    let lens = cache.logit_lens(&model, &[mary, john]).unwrap();
    let json = |figure: &Figure| serde_json::from_str::<serde_json::Value>(&figure.to_json()).unwrap();
    for (color, name, value) in [
        (LensColor::TopProbability, "probability", lens.top_probabilities[[8, 14]]),
        (LensColor::Probability(1), "probability of ␣John", lens.probabilities[[8, 14, 1]]),
        (LensColor::Logit(0), "logit of ␣Mary", lens.logits[[8, 14, 0]]),
        (LensColor::Rank(1), "log10(1 + rank of ␣John)", (lens.ranks[[8, 14, 1]] as f32 + 1.0).log10()),
    ] {
        let figure = lens.plot(&model, color).unwrap();
        assert!(figure.describe().contains(&format!("colour: {name}")), "{}", figure.describe());
        let figure = json(&figure);
        // The last layer is the first row, which plotly has on top.
        let shown = figure["data"][0]["z"][0][14].as_f64().unwrap() as f32;
        assert!((shown - value).abs() <= 1e-3 * value.abs(), "{color:?}: {shown} {value}");
        assert_eq!(figure["layout"]["yaxis"]["ticktext"][0], "final_post");
        assert_eq!(figure["layout"]["xaxis"]["ticktext"][2], "2 ␣Mary");
        let text = |trace: usize| figure["data"][trace]["text"][0][14].as_str().unwrap().replace('\u{200b}', "");
        assert_eq!((text(0) + &text(1)).replace("<br>", ""), "␣Mary");
        let hover = figure["data"][0]["hovertext"][0][14].as_str().unwrap();
        assert!(hover.contains("final_post, position 14 ␣to") && hover.contains("rank 0"), "{hover}");
    }
    assert!(matches!(lens.plot(&model, LensColor::Rank(2)), Err(Error::OutOfRange { what: "answer", .. })));

    let stack = cache.decompose_resid(&model, None).unwrap();
    let figure = cache.plot_logit_attrs(&model, &stack, mary, Some(john)).unwrap();
    let text = figure.describe();
    assert!(text.contains("Logit of ␣Mary minus ␣John by component; sum with the bias within"), "{text}");
    let deviation: f32 = text.split("within ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(deviation < 1e-4, "{deviation}");
    let figure = json(&figure);
    let (low, high) = (figure["data"][0]["zmin"].as_f64().unwrap(), figure["data"][0]["zmax"].as_f64().unwrap());
    assert_eq!((low, &figure["data"][0]["colorscale"]), (-high, &"RdBu".into()));

    let neurons = cache.get_full_resid_decomposition(&model, None, true, Some(&[-1])).unwrap();
    let figure = cache.plot_logit_attrs(&model, &neurons, mary, Some(john)).unwrap();
    assert!(figure.describe().contains("40 × 1 cells") && figure.describe().contains("40 largest of 2083"));
    let heads = cache.plot_head_logit_attrs(&model, mary, Some(john), -1).unwrap();
    assert!(heads.describe().contains("at position 14 ␣to"), "{}", heads.describe());
    assert!(heads.to_svg().is_some_and(|svg| svg.contains("<svg")));
}

/// A cell is labelled with what its pair says, and coloured by what it writes.
#[test]
fn cells_that_say_and_write_are_a_figure() {
    let model = demo();
    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    let [mary, john] = answers(&model);
    let written = cache.cell_logit_attrs(&model, 3, 5, mary, Some(john)).unwrap();
    let said = head_data(&model, &cache, 3, 5, DecodeOptions::default()).unwrap().prompt(0).unwrap();
    let figure = cache.plot_cell_logit_attrs(&model, &said, mary, Some(john)).unwrap();
    let words = figure.describe();
    assert!(words.contains("Head 3.5: labels are said (through the original notebook's projection)"), "{words}");
    let json: serde_json::Value = serde_json::from_str(&figure.to_json()).unwrap();
    let text = |trace: usize, query: usize, key: usize| {
        let text = json["data"][trace]["text"][query][key].as_str().unwrap();
        text.replace('\u{200b}', "").replace("<br>", "").replace("&lt;", "<").replace("&amp;", "&")
    };
    let mut labelled = 0;
    let cells = json["data"][0]["z"].as_array().unwrap();
    for (query, row) in cells.iter().enumerate() {
        for (key, value) in row.as_array().unwrap().iter().enumerate() {
            let Some(value) = value.as_f64() else {
                assert!(key > query, "only above the diagonal");
                continue;
            };
            let want = written[[query, key]];
            assert!(key <= query && (value as f32 - want).abs() <= 1e-3 * want.abs() + 1e-6, "{query} {key}");
            let token = said.attention_tokens()[[query, key]].unwrap();
            let label = text(0, query, key) + &text(1, query, key);
            // A label that does not fit into its cell is left out.
            assert!(label.is_empty() || label == said.token_label(token), "{label}");
            labelled += usize::from(!label.is_empty());
        }
    }
    assert!(labelled > 100, "{labelled} of 120");
    let hover = json["data"][0]["hovertext"][14][2].as_str().unwrap();
    assert!(hover.starts_with("writes ") && hover.contains("says ␣**") | hover.contains("says **"), "{hover}");
    assert!(hover.contains("query 14 ␣to, key 2 ␣Mary"), "{hover}");

    let (_, other) = model.run_with_cache("Monday, Tuesday,").unwrap();
    let error = other.plot_cell_logit_attrs(&model, &said, mary, None).unwrap_err().to_string();
    assert!(error.contains("data: expected the head's data on the prompt of the cache"), "{error}");
}

#[test]
fn positions_of_tokens() {
    let model = demo();
    let position = |token, mode| model.get_token_position(token, PROMPT, mode);
    assert_eq!(position(" John", Occurrence::First).unwrap(), 4);
    assert_eq!(position(" John", Occurrence::Last).unwrap(), 10);
    assert_eq!(position("<|endoftext|>", Occurrence::Last).unwrap(), 0);
    let error = position("John", Occurrence::First).unwrap_err().to_string();
    assert!(error.starts_with("the prompt has no token \"John\"") && error.contains("\"␣John\""), "{error}");
    assert!(matches!(position(" gave a", Occurrence::First), Err(Error::NotOneToken { .. })));
    let [_, john] = answers(&model);
    assert_eq!(model.get_token_position(" John", vec![john, 5, john], Occurrence::Last).unwrap(), 2);
    assert!(matches!(model.get_token_position(" John", ["a", "b"], Occurrence::First), Err(Error::Count { .. })));
    let tokens = model.to_tokens(PROMPT).unwrap();
    assert_eq!(model.to_str_tokens_of(&tokens).unwrap(), model.to_str_tokens(PROMPT).unwrap());
}

/// Every function that takes a model and a cache, with a cache of a model of other sizes.
#[test]
fn caches_of_other_models_are_errors() {
    let models = [demo(), load(&fixture("tiny")).unwrap(), load(&fixture("odd")).unwrap()];
    for (of_run, model) in [(1, 0), (0, 1), (2, 1), (1, 2), (0, 2)] {
        let (_, cache) = models[of_run].run_with_cache(vec![1_u32, 50, 7]).unwrap();
        let own = cache.accumulated_resid(None, false).unwrap();
        let model = &models[model];
        let folder = tempfile::tempdir().unwrap();
        let results = [
            cache.embeddings(model).map(drop),
            cache.ln1_scale(model, 0).map(drop),
            cache.ln2_scale(model, 0).map(drop),
            cache.ln_final_scale(model).map(drop),
            cache.apply_ln_to_stack(model, &own, None, false).map(drop),
            cache.decompose_resid(model, None).map(drop),
            cache.stack_head_results(model, None, true).map(drop),
            cache.stack_neuron_results(model, None, None, false).map(drop),
            cache.get_full_resid_decomposition(model, None, true, None).map(drop),
            cache.logit_attrs(model, &own, 3, None).map(drop),
            cache.logit_attrs_deviation(model, &own, 3, None).map(drop),
            cache.plot_logit_attrs(model, &own, 3, None).map(drop),
            cache.head_logit_attrs(model, 3, None).map(drop),
            cache.plot_head_logit_attrs(model, 3, None, -1).map(drop),
            cache.neuron_logit_attrs(model, 3, None).map(drop),
            cache.cell_logit_attrs(model, 0, 0, 3, None).map(drop),
            cache.logit_lens(model, &[3]).map(drop),
            cache.write_safetensors(model, folder.path().join("cache.safetensors")),
            head_data(model, &cache, 0, 0, DecodeOptions::default()).map(drop),
        ];
        for (index, result) in results.into_iter().enumerate() {
            assert!(matches!(result, Err(Error::Shape { .. })), "function {index}: {result:?}");
        }
    }
    // A stack of another run, or one that a person changed.
    let model = &models[0];
    let (_, cache) = model.run_with_cache(vec![1_u32, 50, 7]).unwrap();
    let (_, longer) = model.run_with_cache(vec![1_u32, 50, 7, 8]).unwrap();
    let stack = longer.decompose_resid(model, None).unwrap();
    let error = cache.logit_attrs(model, &stack, 3, None).unwrap_err();
    assert!(matches!(error, Error::Position { position: 3, len: 3, .. }), "{error}");
    let stack = ResidualStack { labels: vec!["one".into()], ..cache.decompose_resid(model, None).unwrap() };
    assert!(matches!(cache.logit_attrs(model, &stack, 3, None), Err(Error::Shape { .. })));
    assert!(matches!(cache.apply_ln_to_stack(model, &stack, None, false), Err(Error::Shape { .. })));
}

#[test]
fn what_is_missing_is_named_with_how_to_get_it() {
    let model = demo();
    let options = RunOptions::default().activations([Activation::Z]).layers([0, 1]);
    let (_, cache) = model.run_with_cache_options(PROMPT, options).unwrap();
    for (result, part) in [
        (cache.head_logit_attrs(&model, 3, None).map(drop), "resid_post of layer 3"),
        (cache.neuron_logit_attrs(&model, 3, None).map(drop), "resid_post of layer 3"),
        (cache.stack_neuron_results(&model, None, None, false).map(drop), "mlp_post of layer"),
        (cache.stack_head_results(&model, None, false).map(drop), "z of layer"),
        (cache.get_full_resid_decomposition(&model, Some(1), false, None).map(drop), "mlp_out of layer 0"),
    ] {
        let error = result.unwrap_err().to_string();
        let how = "it holds only z of layers 0, 1; run again with RunOptions whose activations and layers include it";
        assert!(error.contains(part) && error.contains(how), "{error}");
    }
    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    let attempt = |result: Result<(), Error>| result.unwrap_err().to_string();
    for (error, parts) in [
        (
            attempt(cache.get_full_resid_decomposition(&model, None, true, Some(&[15])).map(drop)),
            ["position 15", "15 tokens"],
        ),
        (attempt(cache.plot_head_logit_attrs(&model, 3, None, -16).map(drop)), ["position -16", "-15 to -1"]),
        (attempt(cache.get_full_resid_decomposition(&model, Some(5), true, None).map(drop)), ["layer", "0 to 4"]),
        (attempt(cache.neuron_logit_attrs(&model, 50_257, None).map(drop)), ["50257", "50256"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

/// A stack that would take more memory than most machines have is refused before it is allocated.
#[test]
fn stacks_of_neurons_have_a_limit() {
    let model = demo();
    let options = RunOptions::default().activations([Activation::MlpPost]).no_logits();
    let (_, cache) = model.run_with_cache_options(vec![7_u32; 256], options).unwrap();
    let positions: Vec<isize> = (0..4500).map(|index| index % 256).collect();
    let error = cache.stack_neuron_results(&model, None, Some(&positions), false).unwrap_err().to_string();
    assert!(error.contains("4294967296") && error.contains("neuron_logit_attrs"), "{error}");
}
