//! The receipt: sums against the model's logits, strikes against runs with a closure, the cut, files, and errors.

use attention_tokens::Prompts;
use attention_tokens::experiments::{Contributor, Receipt, ReceiptOptions, receipt};
use attention_tokens::prelude::*;
use ndarray::{ArrayD, Axis, s};

use crate::support::{demo, fixture, prompts, rng};

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

/// Every step of the processing, none, each alone, and each left out.
fn processings() -> Vec<Processing> {
    let with = |processing: &mut Processing, step: usize, on: bool| match step {
        0 => processing.fold_ln = on,
        1 => processing.center_writing_weights = on,
        2 => processing.center_unembed = on,
        3 => processing.fold_value_biases = on,
        _ => processing.refactor_factored_attn_matrices = on,
    };
    let mut all = vec![Processing::default(), Processing::none()];
    for step in 0..5 {
        let (mut alone, mut left_out) = (Processing::none(), Processing::default());
        with(&mut alone, step, true);
        with(&mut left_out, step, false);
        all.extend([alone, left_out]);
    }
    all
}

fn model(name: &str, options: LoadOptions) -> Gpt2 {
    let name = if name == "demo" { name.to_owned() } else { fixture(name).to_string_lossy().into_owned() };
    Gpt2::from_pretrained(name, options).unwrap()
}

fn at(position: isize) -> ReceiptOptions {
    ReceiptOptions { position, ..Default::default() }
}

/// The logit difference of an ordinary run.
fn logit_diff(model: &Gpt2, tokens: &[u32], position: usize, [right, wrong]: [u32; 2]) -> f64 {
    let logits = model.forward(vec![tokens.to_vec()]).unwrap().remove(0);
    f64::from(logits[[position, right as usize]]) - f64::from(logits[[position, wrong as usize]])
}

#[track_caller]
fn assert_adds_up(receipt: &Receipt, model: &Gpt2, what: &str) {
    let want = logit_diff(model, &receipt.input, receipt.position, receipt.answers);
    let total: f64 = receipt.lines.iter().map(|line| line.logits).sum();
    assert!((total - want).abs() <= 1e-4, "{what}: {total}, not {want}");
    assert!((receipt.logit_diff - want).abs() <= 1e-4 && (receipt.total() - total).abs() < 1e-9, "{what}");
    assert!((receipt.remainder() - (total - receipt.logit_diff)).abs() < 1e-9, "{what}");
    assert!(receipt.lines.windows(2).all(|pair| pair[0].logits.abs() >= pair[1].logits.abs()), "{what}: sorted");
    let (config, keys) = (model.config(), receipt.position + 1);
    let cells = receipt.lines.iter().filter(|line| line.cell.is_some()).count();
    assert_eq!(cells, config.n_layers * config.n_heads * keys, "{what}");
}

#[test]
fn lines_add_up_to_the_logit_difference_of_the_model() {
    let mut rng = rng();
    for name in ["demo", "tiny", "odd"] {
        for (index, processing) in processings().into_iter().enumerate() {
            let device = if index % 3 == 2 && name != "demo" { Device::dfdx_cpu() } else { Device::cpu() };
            let model = model(name, LoadOptions::default().processing(processing).device(device));
            let prompts = prompts(&mut rng, &model, 2, 12);
            for prompt in prompts {
                let position = rng.usize(..prompt.len());
                let answers = [rng.u32(..40), rng.u32(40..80)];
                for position in [position as isize, -1] {
                    let receipt = receipt(&model, vec![prompt.clone()], answers, at(position)).unwrap();
                    let what = format!("{name}, {processing:?}, {prompt:?} at {position}, {answers:?}");
                    assert_adds_up(&receipt, &model, &what);
                    let has_bias = receipt.lines.iter().any(|line| line.contributor == Contributor::FinalLayerNormBias);
                    assert_eq!(has_bias, !processing.fold_ln, "{what}");
                }
            }
        }
    }
}

#[test]
fn lines_are_those_of_direct_logit_attribution() {
    for processing in [Processing::default(), Processing::none()] {
        let model = model("demo", LoadOptions::default().processing(processing));
        let answers = [" Mary", " John"].map(|word| model.to_single_token(word).unwrap());
        let receipt = receipt(&model, PROMPT, answers, ReceiptOptions::default()).unwrap();
        assert_adds_up(&receipt, &model, "demo");
        let (_, cache) = model.run_with_cache(PROMPT).unwrap();
        let last = receipt.position;
        let stack = cache.decompose_resid(&model, None).unwrap();
        let attrs = cache.logit_attrs(&model, &stack, answers[0], Some(answers[1])).unwrap();
        let near = |got: f64, want: f32, what: &str| {
            assert!((got - f64::from(want)).abs() < 1e-4, "{what}: {got}, not {want}");
        };
        for (label, attr) in stack.labels.iter().zip(attrs.column(last)) {
            let layer = || label.split('_').next().unwrap().parse().unwrap();
            let got = match label.as_str() {
                "embed" => receipt.logits_of(Contributor::Embed),
                "pos_embed" => receipt.logits_of(Contributor::PosEmbed),
                label if label.ends_with("mlp_out") => receipt.logits_of(Contributor::Mlp { layer: layer() }),
                _ => {
                    let heads = (0..8).map(|head| receipt.logits_of(Contributor::Head { layer: layer(), head }));
                    heads.sum::<f64>() + receipt.logits_of(Contributor::AttnBias { layer: layer() })
                }
            };
            near(got, *attr, label);
        }
        let cells = cache.cell_logit_attrs(&model, 3, 5, answers[0], Some(answers[1])).unwrap();
        let said = head_data(&model, &cache, 3, 5, DecodeOptions::default()).unwrap().prompt(0).unwrap();
        let written = Reading::WRITTEN.unembed_bias(false);
        let written = head_data(&model, &cache, 3, 5, written.into()).unwrap().prompt(0).unwrap();
        for key in 0..=last {
            let contributor = Contributor::Cell { layer: 3, head: 5, key };
            near(receipt.logits_of(contributor), cells[[last, key]], "cell");
            let line = receipt.lines.iter().find(|line| line.contributor == contributor).unwrap();
            let (cell, row) = (line.cell.unwrap(), written.cell(last, key).unwrap());
            assert_eq!((cell.key_token, cell.attention), (receipt.input[key], said.attn[[last, key]]));
            assert_eq!(Some(cell.said), said.attention_tokens()[[last, key]]);
            assert_eq!(Some(cell.written), written.attention_tokens()[[last, key]]);
            assert_eq!(cell.lowest, written.lowest.as_ref().unwrap().tokens[[row, 0]]);
        }
    }
}

/// What interventions add to the residual stream has lines of its own.
#[test]
fn a_hooked_model_has_a_receipt_too() {
    let mut rng = rng();
    let plain = model("odd", LoadOptions::default());
    let tokens: Vec<u32> = (0..7).map(|_| rng.u32(..90)).collect();
    let hooks = [
        Intervention::scale(Activation::Pattern.at(0), 0.5).head(1),
        Intervention::scale(Activation::Z.at(0), 2.0).head(0),
        Intervention::add(Activation::ResidPre.at(1), 0.3).pos(-1),
        Intervention::scale(Activation::MlpOut.at(1), -1.0),
        Intervention::scale(Activation::Result.at(2), 0.7).head(1),
        Intervention::add(Activation::ResidPost.at(2), 0.2),
    ];
    let model = plain.hooked(&hooks).unwrap();
    let of = |model: &Gpt2| receipt(model, vec![tokens.clone()], [3, 70], ReceiptOptions::default()).unwrap();
    let receipt = of(&model);
    assert_adds_up(&receipt, &model, "hooked");
    let edited = |receipt: &Receipt, layer: usize| {
        receipt.lines.iter().filter(|line| line.contributor == Contributor::Interventions { layer }).count()
    };
    assert_eq!([0, 1, 2].map(|layer| edited(&receipt, layer)), [1, 1, 1]);
    let error = receipt.strike(&[Contributor::Interventions { layer: 0 }]).unwrap_err().to_string();
    assert!(error.contains("without_hooks") && error.contains("interventions in layer 0"), "{error}");
    let strike = receipt.strike(&[Contributor::Mlp { layer: 0 }]).unwrap();
    assert!((strike.logit_diff - receipt.logit_diff).abs() < 1e-4);

    // Held layer norms add nothing.
    let (_, cache) = plain.run_with_cache(vec![tokens.clone()]).unwrap();
    let frozen = of(&plain.hooked(&Intervention::freeze_layer_norms(&cache)).unwrap());
    assert_eq!(edited(&frozen, 2), 0);
    assert!((frozen.total() - of(&plain).total()).abs() < 1e-4);
}

/// The change of an activation, given as an array.
type Change = Box<dyn Fn(&mut ArrayD<f32>) + Send + Sync>;

#[test]
fn total_effects_are_those_of_runs_with_a_closure() {
    let mut rng = rng();
    for (name, device) in [("demo", Device::cpu()), ("odd", Device::cpu()), ("tiny", Device::dfdx_cpu())] {
        let model = model(name, LoadOptions::default().device(device));
        let weights = model.weights().unwrap();
        let tokens: Vec<u32> = (0..9).map(|_| rng.u32(..90)).collect();
        let answers = [rng.u32(..40), rng.u32(40..80)];
        for position in [8_usize, 5] {
            let receipt = receipt(&model, vec![tokens.clone()], answers, at(position as isize)).unwrap();
            let (layer, head, key) = (1_usize, rng.usize(..2), rng.usize(..=position));
            let embed = weights.w_e.row(tokens[position] as usize).to_owned();
            let pos_embed = weights.w_pos.row(position).to_owned();
            let b_o = weights.blocks[layer].b_o.clone();
            let minus = |vector: ndarray::Array1<f32>| -> Change {
                Box::new(move |x| {
                    let mut row = x.index_axis_mut(Axis(0), position);
                    row -= &vector;
                })
            };
            let struck: [(Contributor, HookPoint, Change); 6] = [
                (
                    Contributor::Cell { layer, head, key },
                    Activation::Pattern.at(layer),
                    Box::new(move |x| x[[head, position, key]] = 0.0),
                ),
                (
                    Contributor::Head { layer: 0, head },
                    Activation::Z.at(0),
                    Box::new(move |x| x.slice_mut(s![position, head, ..]).fill(0.0)),
                ),
                (
                    Contributor::Mlp { layer: 0 },
                    Activation::MlpOut.at(0),
                    Box::new(move |x| x.slice_mut(s![position, ..]).fill(0.0)),
                ),
                (Contributor::Embed, Activation::ResidPre.at(0), minus(embed)),
                (Contributor::PosEmbed, Activation::ResidPre.at(0), minus(pos_embed)),
                (Contributor::AttnBias { layer }, Activation::AttnOut.at(layer), minus(b_o)),
            ];
            let parts: Vec<Contributor> =
                struck.iter().map(|(part, ..)| *part).chain([Contributor::UnembedBias]).collect();
            let strikes = receipt.strike(&parts).unwrap();
            assert!((strikes.logit_diff - receipt.logit_diff).abs() < 1e-4);
            for (strike, (part, point, change)) in strikes.strikes.iter().zip(struck) {
                let hook = Intervention::hook(point, move |mut x, _| {
                    change(&mut x);
                    x
                });
                let without = logit_diff(&model.hooked(&[hook]).unwrap(), &tokens, position, answers);
                assert_eq!(strike.contributor, part);
                assert!((strike.without - without).abs() < 2e-4, "{name}, {part}: {}, not {without}", strike.without);
                let total = receipt.logit_diff - without;
                assert!((strike.total - total).abs() < 2e-4, "{name}, {part}: {}, not {total}", strike.total);
                assert_eq!(strike.direct, receipt.logits_of(part));
                assert_eq!(strike.self_repair(), strike.direct - strike.total);
            }
            let bias = strikes.strikes.last().unwrap();
            assert!(bias.self_repair().abs() < 1e-9 && bias.direct == receipt.logits_of(Contributor::UnembedBias));
        }
    }
}

/// With the layer norms held, nothing reads the last MLP but the logits, and a head of the last layer only that MLP.
#[test]
fn nothing_repairs_the_last_layer_if_layer_norms_are_held() {
    let model = demo();
    let answers = [" Mary", " John"].map(|word| model.to_single_token(word).unwrap());
    let (_, cache) = model.run_with_cache(PROMPT).unwrap();
    let frozen = model.hooked(&Intervention::freeze_layer_norms(&cache)).unwrap();
    let strike = |model: &Gpt2, part| {
        let receipt = receipt(model, PROMPT, answers, ReceiptOptions::default()).unwrap();
        receipt.strike(&[part]).unwrap().strikes[0]
    };
    let last = Contributor::Mlp { layer: 3 };
    let held = strike(&frozen, last);
    assert!(held.direct.abs() > 0.1 && held.self_repair().abs() < 1e-4, "{held:?}");
    assert!(strike(&model, last).self_repair().abs() > 1e-3, "the scale of the final layer norm changes");
}

#[test]
fn the_cut_is_stated_and_the_rest_is_one_line() {
    let model = demo();
    let answers = [" Mary", " John"].map(|word| model.to_single_token(word).unwrap());
    let of = |share: f64| receipt(&model, PROMPT, answers, ReceiptOptions { share, ..Default::default() }).unwrap();
    for share in [0.3, 0.9, 1.0] {
        let receipt = of(share);
        let size = |lines: &[attention_tokens::experiments::ReceiptLine]| {
            lines.iter().map(|line| line.logits.abs()).sum::<f64>()
        };
        let (shown, all) = (receipt.shown(), size(&receipt.lines));
        assert!(size(shown) >= share * all - 1e-9 && size(&shown[..shown.len() - 1]) < share * all);
        assert_eq!(shown.len() + receipt.further().len(), receipt.lines.len());
        let table = receipt.table();
        let rows = table.rows();
        let n_further = usize::from(!receipt.further().is_empty());
        assert_eq!(rows.len(), shown.len() + n_further + 3);
        let number = |row: &Vec<String>| row[6].parse::<f64>().unwrap();
        let sum: f64 = rows[..shown.len() + n_further].iter().map(number).sum();
        let total = number(&rows[rows.len() - 3]);
        assert!((sum - total).abs() < 1e-4 * rows.len() as f64, "{sum}, not {total}");
        assert!((total - number(&rows[rows.len() - 2])).abs() < 2e-4);
        assert!(rows.last().unwrap()[6].starts_with("within 5e-"), "{table}");
        let text = table.to_text();
        let first_line = format!(
            "Receipt of demo: logit of ␣Mary minus ␣John, at position 14 ␣to; lines with {}% of all sizes; says: notebook",
            100.0 * share
        );
        assert!(text.starts_with(&first_line), "{text}");
        if n_further > 0 {
            assert!(text.contains(&format!("{} further lines", receipt.further().len())), "{text}");
            let description = receipt.plot().describe();
            assert!(description.contains(&format!("{} points", shown.len() + 1)), "{description}");
        }
    }
    // Of many bars, not all names are shown.
    let figure = of(0.3).plot();
    for figure in [figure.clone(), figure.with_theme(Theme::Dark).unwrap()] {
        let (json, svg) = (figure.to_json(), figure.to_svg().unwrap());
        assert!(json.contains("3.5 ← 2 ␣Mary") && json.contains("further lines") && svg.contains("3.5 ← 2 ␣Mary"));
        roxmltree::Document::parse(&svg).unwrap();
    }
    let strikes = of(0.9).strike(&of(0.9).largest(3)).unwrap();
    assert_eq!(strikes.table().rows().len(), 3);
}

#[test]
fn a_file_has_every_line() {
    let model = demo().hooked(&[Intervention::scale(Activation::Pattern.at(0), 0.9).head(1)]).unwrap();
    let answers = [" Mary", " John"].map(|word| model.to_single_token(word).unwrap());
    let receipt = receipt(&model, PROMPT, answers, ReceiptOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.csv");
    receipt.write_csv(&path).unwrap();
    let mut csv = csv::Reader::from_path(&path).unwrap();
    let column = |name: &str, headers: &csv::StringRecord| headers.iter().position(|header| header == name).unwrap();
    let headers = csv.headers().unwrap().clone();
    let [logits, right, key_token, kind] =
        ["logits", "right", "key_token", "contributor"].map(|name| column(name, &headers));
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), receipt.lines.len());
    let sum: f64 = rows.iter().map(|row| row[logits].parse::<f64>().unwrap()).sum();
    assert!((sum - receipt.total()).abs() < 1e-9);
    for (row, line) in rows.iter().zip(&receipt.lines) {
        assert_eq!(&row[right], " Mary");
        assert_eq!(&row[kind] == "cell", line.cell.is_some());
        let token = line.cell.map_or(String::new(), |cell| model.to_single_str_token(cell.key_token).unwrap());
        assert_eq!(row[key_token], token);
    }
    let interventions = column("interventions", &headers);
    assert_eq!(&rows[0][interventions], "scale by 0.9 blocks.0.attn.hook_pattern, head 1");
}

#[test]
fn what_has_no_receipt_says_why() {
    let model = demo();
    let answers = [" Mary", " John"].map(|word| model.to_single_token(word).unwrap());
    let error =
        |prompts: Prompts, answers, options| receipt(&model, prompts, answers, options).unwrap_err().to_string();
    let one = || Prompts::from(PROMPT);
    let mary = answers[0];
    let twice = error(one(), [mary, mary], ReceiptOptions::default());
    assert_eq!(
        twice,
        format!(
            "receipt: answers: expected two different tokens, the right one and the wrong one, found token {mary} twice"
        )
    );
    let beyond = error(one(), answers, at(15));
    assert_eq!(
        beyond,
        "position 15 out of range: prompt 0 has 15 tokens, positions 0 to 14, or -15 to -1 from the end"
    );
    let no_prompt = error(one(), answers, ReceiptOptions { prompt: 2, ..Default::default() });
    assert_eq!(no_prompt, "prompt 2 out of range: the batch has 1, number 0");
    let second = ReceiptOptions { prompt: 1, position: -7, ..Default::default() };
    let beyond = error([PROMPT, "Monday, Tuesday,"].into(), answers, second);
    assert!(beyond.starts_with("position -7 out of range: prompt 1 has 5 tokens"), "{beyond}");
    for share in [0.0, 1.5, f64::NAN] {
        let message = error(one(), answers, ReceiptOptions { share, ..Default::default() });
        assert!(message.contains("share above 0 and at most 1"), "{message}");
    }
    assert!(error(one(), [mary, 99_999_999], ReceiptOptions::default()).contains("99999999"));
    assert!(error(vec![Vec::<u32>::new()].into(), answers, ReceiptOptions::default()).contains("prompt 0"));

    let receipt = receipt(&model, PROMPT, answers, at(3)).unwrap();
    let error = |part| receipt.strike(&[part]).unwrap_err().to_string();
    assert_eq!(
        error(Contributor::Cell { layer: 0, head: 1, key: 4 }),
        "key 4 out of range: the row of the position has 4, 0 to 3"
    );
    assert!(error(Contributor::Head { layer: 0, head: 8 }).starts_with("head 8 out of range"));
    assert!(error(Contributor::Mlp { layer: 4 }).starts_with("layer 4 out of range"));
    assert!(receipt.strike(&[]).unwrap_err().to_string().contains("contributors: expected at least 1"));
}

/// One token is a prompt, whose heads have one key each.
#[test]
fn a_prompt_of_one_token_adds_up_too() {
    let model = demo();
    let receipt = receipt(&model, vec![vec![50_256_u32]], [11, 13], ReceiptOptions::default()).unwrap();
    assert_adds_up(&receipt, &model, "one token");
    let strikes = receipt.strike(&receipt.largest(4)).unwrap();
    assert!(strikes.strikes.iter().all(|strike| strike.total.is_finite()));
    assert!(!format!("{}{}", receipt.table(), strikes.table()).contains("NaN"));
}

/// The row of a receipt is decoded alone.
#[test]
fn pairs_say_what_they_say_in_the_data_of_their_head() {
    let mut rng = rng();
    let model = model("odd", LoadOptions::default());
    let tokens: Vec<u32> = (0..8).map(|_| rng.u32(..90)).collect();
    let (_, cache) = model.run_with_cache(vec![tokens.clone()]).unwrap();
    let readings = [
        Reading::NOTEBOOK,
        Reading::OUTPUT.signs(attention_tokens::Signs::Random(3)),
        Reading::OV.normalized(true),
        Reading::MATCHED.unembed_bias(false),
        Reading::WRITTEN,
        Reading::WRITTEN.normalized(true),
    ];
    for said in readings {
        let position = rng.usize(..8);
        let options = ReceiptOptions { said, ..at(position as isize) };
        let receipt = receipt(&model, vec![tokens.clone()], [3, 70], options).unwrap();
        let heads = all_heads_data(&model, &cache, said.into()).unwrap();
        let mut compared = 0;
        for line in &receipt.lines {
            let (Contributor::Cell { layer, head, key }, Some(cell)) = (line.contributor, line.cell) else { continue };
            let data = heads[layer * 2 + head].prompt(0).unwrap();
            assert_eq!(Some(cell.said), data.attention_tokens()[[position, key]], "{said} at {:?}", line.contributor);
            compared += 1;
        }
        assert_eq!(compared, 6 * (position + 1));
    }
}
