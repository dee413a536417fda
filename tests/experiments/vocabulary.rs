//! Vocabulary counts: over files, resumed, in shards, written for dataframes, and the `vocabulary` example.

use std::path::Path;
use std::time::Duration;

use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use super::PROMPTS;
use crate::support::{demo, example};

fn prompts_file(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("prompts.txt");
    let lines: Vec<String> = varied_prompts().into_iter().take(9).collect();
    std::fs::write(&path, lines.join("\n\n") + "\r\n").unwrap(); // empty lines and a Windows line ending are ignored
    path
}

fn no_progress(_: SweepProgress) {}

fn options() -> SweepOptions {
    SweepOptions { max_tokens: 8, batch_tokens: 20, save_every: Duration::ZERO, ..Default::default() }
}

/// The counts of every head and component.
fn all_counts(counts: &VocabularyCounts) -> Vec<std::collections::BTreeMap<u32, u64>> {
    let heads = (0..4).flat_map(|layer| (0..8).map(move |head| (layer, head)));
    heads
        .flat_map(|(layer, head)| Component::ALL.map(|component| counts.of(layer, head, component).unwrap().clone()))
        .collect()
}

/// A file, its shards, the same prompts in one batch, and a sweep that is stopped and resumed give the same counts.
#[test]
fn counts_do_not_depend_on_how_a_file_is_divided() {
    let (model, folder) = (demo(), tempfile::tempdir().unwrap());
    let file = prompts_file(folder.path());
    let mut reports = Vec::new();
    let whole = count_file(&model, &file, &options(), &mut |progress| reports.push(progress)).unwrap();
    assert_eq!(whole.n_prompts(), 9);
    let last = reports.last().unwrap();
    assert_eq!((last.prompts, last.bytes.0, last.remaining), (9, last.bytes.1, Duration::ZERO));
    assert!(reports.len() > 2 && reports.is_sorted_by_key(|progress| progress.prompts));
    assert!(reports[0].to_string().ends_with("to go (an estimate)"));

    let truncated = |text: &String| model.to_tokens(text).unwrap().into_iter().take(8).collect::<Vec<u32>>();
    let batch: Vec<Vec<u32>> = varied_prompts().iter().take(9).map(truncated).collect();
    let mut one_batch = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    one_batch.add(&model, batch).unwrap();
    assert_eq!(all_counts(&whole), all_counts(&one_batch));

    let mut merged = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    for shard in 0..2 {
        let options = SweepOptions { shard: (shard, 2), ..options() };
        let counts = count_file(&model, &file, &options, &mut no_progress).unwrap();
        assert_eq!(counts.n_prompts(), if shard == 0 { 5 } else { 4 });
        merged.merge(&counts).unwrap();
    }
    assert_eq!((all_counts(&merged), merged.n_prompts()), (all_counts(&whole), 9));

    let stopped = SweepOptions { state: Some(folder.path().join("state")), stop_after: Some(3), ..options() };
    let mut calls = 0;
    let resumed = loop {
        let counts = count_file(&model, &file, &stopped, &mut no_progress).unwrap();
        calls += 1;
        if counts.n_prompts() == 9 {
            break counts;
        }
    };
    assert!(calls > 2, "{calls}");
    assert_eq!(all_counts(&resumed), all_counts(&whole));
    // A finished sweep returns its counts.
    assert_eq!(all_counts(&count_file(&model, &file, &stopped, &mut no_progress).unwrap()), all_counts(&whole));
    let loaded = VocabularyCounts::load(folder.path().join("state"), &whole).unwrap();
    assert_eq!(all_counts(&loaded), all_counts(&whole));
}

#[test]
fn errors_name_the_state_or_the_file_that_does_not_fit() {
    let (model, folder) = (demo(), tempfile::tempdir().unwrap());
    let file = prompts_file(folder.path());
    let state = folder.path().join("state");
    let with_state = SweepOptions { state: Some(state.clone()), ..options() };
    count_file(&model, &file, &with_state, &mut no_progress).unwrap();
    let error = |file: &Path, options: &SweepOptions| {
        count_file(&model, file, options, &mut no_progress).unwrap_err().to_string()
    };

    let other_length = error(&file, &SweepOptions { max_tokens: 9, ..with_state.clone() });
    assert!(
        other_length.contains("8 tokens a prompt") && other_length.contains("remove it to begin anew"),
        "{other_length}"
    );
    let other_projection = error(&file, &SweepOptions { reading: Reading::OV, ..with_state.clone() });
    assert!(other_projection.contains("projection notebook"), "{other_projection}");
    let without_bias = SweepOptions { reading: Reading::NOTEBOOK.unembed_bias(false), ..with_state.clone() };
    let other_bias = error(&file, &without_bias);
    assert!(other_bias.contains("found projection notebook, weights"), "{other_bias}");

    let saved = std::fs::read(&state).unwrap();
    for broken in [&saved[..saved.len() / 2], b"nonsense", b""] {
        std::fs::write(&state, broken).unwrap();
        let text = error(&file, &with_state);
        assert!(text.contains("state") && text.contains("expected counts of attention tokens"), "{text}");
    }

    assert!(error(&folder.path().join("none.txt"), &options()).contains("none.txt"));
    let text = folder.path().join("latin.txt");
    std::fs::write(&text, b"fine\nna\xefve\n").unwrap();
    let latin = error(&text, &options());
    assert!(latin.contains("latin.txt") && latin.contains("UTF-8") && latin.contains("prompt 2"), "{latin}");
    std::fs::write(&text, vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(error(&text, &options()).contains("a longer line at byte 0"));
    for (wrong, expected) in [
        (SweepOptions { max_tokens: 0, ..options() }, "SweepOptions: max_tokens: expected 1 to 256, found 0"),
        (SweepOptions { max_tokens: 257, ..options() }, "SweepOptions: max_tokens: expected 1 to 256, found 257"),
        (SweepOptions { shard: (2, 2), ..options() }, "shard 2 out of range: the sweep has 2, 0 to 1"),
        (SweepOptions { batch_tokens: 0, ..options() }, "SweepOptions: batch_tokens: expected at least 1, found 0"),
    ] {
        assert_eq!(error(&file, &wrong), expected);
    }
}

/// Counts without `b_U` are what decoding without it gives, and a state keeps the choice.
#[test]
fn counts_without_the_bias_of_the_unembedding() {
    let (model, folder) = (demo(), tempfile::tempdir().unwrap());
    let file = prompts_file(folder.path());
    let without_bias = SweepOptions {
        reading: Reading::NOTEBOOK.unembed_bias(false),
        state: Some(folder.path().join("state")),
        ..options()
    };
    let counts = count_file(&model, &file, &without_bias, &mut no_progress).unwrap();
    let decoding = DecodeOptions::default().unembed_bias(false);
    let mut same = VocabularyCounts::new(&model, decoding.reading).unwrap();
    let loaded = VocabularyCounts::load(folder.path().join("state"), &same).unwrap();
    assert_eq!(all_counts(&loaded), all_counts(&counts));
    assert_ne!(all_counts(&count_file(&model, &file, &options(), &mut no_progress).unwrap()), all_counts(&counts));

    let prompt = "The cat sat on the mat.";
    same.add(&model, prompt).unwrap();
    let (_, cache) = model.run_with_cache(prompt).unwrap();
    let data = head_data(&model, &cache, 1, 2, decoding).unwrap();
    let tokens = data.prompt(0).unwrap().qk.tokens.column(0).to_vec();
    for (&token, &count) in same.of(1, 2, Component::Qk).unwrap() {
        assert_eq!(tokens.iter().filter(|&&other| other == token).count() as u64, count);
    }
    assert!(same.table(Component::Qk).to_text().starts_with("Tokens of each head (qk), 1 prompts, without b_U"));
}

/// The largest entries of `b_U`, and the shared tokens with and without it.
#[test]
fn the_bias_of_the_unembedding_is_part_of_what_heads_share() {
    let model = demo();
    let share = UnembedBiasShare::measure(&model, PROMPTS, Projection::Notebook, Component::Qk, 10, 1).unwrap();
    let b_u = model.weights().unwrap().b_u;
    let mut order: Vec<u32> = (0..b_u.len() as u32).collect();
    order.sort_by(|&a, &b| b_u[b as usize].total_cmp(&b_u[a as usize]).then(a.cmp(&b)));
    let expected: Vec<(u32, f32)> = order[..10].iter().map(|&token| (token, b_u[token as usize])).collect();
    assert_eq!(share.largest, expected);
    assert!(share.with_bias.cells_of_largest > 2.0 * share.without_bias.cells_of_largest, "{share:?}");
    assert_eq!(share.table().rows().len(), 3);
    assert_eq!(share.largest_table().rows().len(), 10);
    let none = UnembedBiasShare::measure(&model, PROMPTS, Projection::Notebook, Component::Qk, 0, 1).unwrap_err();
    assert_eq!(none.to_string(), "UnembedBiasShare: tokens of b_U: expected 1 to 50257, found 0");
}

#[test]
fn counts_are_written_for_dataframes() {
    let (model, folder) = (demo(), tempfile::tempdir().unwrap());
    let mut counts = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    counts.add(&model, ["Tom said \"no, thanks\",\nand left."]).unwrap();
    let path = folder.path().join("counts.csv");
    counts.write_csv(&path).unwrap();
    let mut csv = csv::Reader::from_path(&path).unwrap();
    assert_eq!(csv.headers().unwrap(), vec!["layer", "head", "component", "token_id", "token", "count"]);
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    let expected: usize = all_counts(&counts).iter().map(|counts| counts.len()).sum();
    assert_eq!(rows.len(), expected);
    let row = rows.iter().find(|row| &row[0] == "3" && &row[1] == "5" && &row[2] == "k").unwrap();
    let token = row[3].parse::<u32>().unwrap();
    assert_eq!(row[4], model.to_single_str_token(token).unwrap());
    assert_eq!(row[5], counts.of(3, 5, Component::K).unwrap()[&token].to_string());

    #[cfg(feature = "parquet")]
    {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let path = folder.path().join("counts.parquet");
        counts.write_parquet(&path).unwrap();
        let reader = SerializedFileReader::try_from(path.as_path()).unwrap();
        let parquet_rows: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!((parquet_rows.len(), reader.metadata().num_row_groups()), (expected, 1));
        let same =
            format!("layer: 3, head: 5, component: \"k\", token_id: {token}, token: {:?}, count: {}", &row[4], &row[5]);
        assert!(parquet_rows.iter().any(|row| row.contains(&same)), "{same}; {:?}", parquet_rows.last());
    }
}

#[test]
fn prompt_sets_are_varied_or_controlled() {
    let model = demo();
    let varied = varied_prompts();
    let distinct: std::collections::BTreeSet<&String> = varied.iter().collect();
    assert_eq!((varied.len(), distinct.len()), (100, 100));
    assert!(varied.iter().all(|prompt| (3..=30).contains(&model.to_tokens(prompt).unwrap().len())));
    let random = random_tokens(model.config(), 9, 1);
    assert_eq!((random.len(), random[0]), (10, 50256));
    assert_eq!(random, random_tokens(model.config(), 9, 1));
    assert_ne!(random, random_tokens(model.config(), 9, 2));
    let controlled =
        [one_token_repeated(model.config(), 262, 9), three_token_cycle(model.config(), [1, 2, 3], 9), random];
    let mut counts = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    counts.add(&model, controlled.to_vec()).unwrap();
    assert_eq!(counts.n_prompts(), 3);
}

#[test]
fn an_embedding_map_needs_enough_tokens_of_the_same_model() {
    let model = demo();
    let mut counts = VocabularyCounts::new(&model, Projection::Notebook).unwrap();
    counts.add(&model, ["The next bus is late."]).unwrap();
    let map = |n| counts.embedding_map(&model, Component::Qk, n, MapMethod::Pca);
    let map_of_20 = map(20).unwrap();
    assert_eq!((map_of_20.tokens.len(), map_of_20.places.dim()), (20, (20, 2)));
    assert!(map_of_20.variance[0] >= map_of_20.variance[1] && map_of_20.variance[1] > 0.0);
    assert!(map(2).unwrap_err().to_string().contains("tokens: expected at least 3, found 2"));
    let other = Gpt2::from_pretrained("demo", LoadOptions::default().processing(Processing::none())).unwrap();
    assert!(counts.embedding_map(&other, Component::Qk, 20, MapMethod::Pca).is_err());
    assert!(counts.add(&other, ["x"]).is_err());
}

/// The `vocabulary` example: a sweep that is stopped and resumed, and two shards that are merged.
#[test]
fn the_example_resumes_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    prompts_file(folder.path());
    let run = |args: &[&str]| {
        let output = example("vocabulary").arg("demo").args(args).current_dir(folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (passed, printed, errors) = run(&["prompts.txt", "whole", "--stop-after", "0", "--tokens", "8"]);
    assert!(passed && printed.contains("the same command resumes"), "{printed} {errors}");
    assert!(run(&["prompts.txt", "whole", "--tokens", "8"]).1.contains("9 prompts, in whole.csv"));
    for shard in ["0/2", "1/2"] {
        assert!(run(&["prompts.txt", &shard.replace('/', "-"), "--shard", shard, "--tokens", "8"]).0);
    }
    let (passed, printed, _) = run(&["--merge", "merged", "0-2", "1-2"]);
    assert!(passed && printed.contains("tokens common to every head"), "{printed}");
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(file("merged.csv"), file("whole.csv"));
    let (passed, printed, _) = run(&["--estimate", "4", "prompts.txt"]);
    assert!(passed && printed.contains("an estimate for all 9"), "{printed}");
    assert!(run(&["prompts.txt"]).2.contains("usage"));

    // Batches of another size, and counts that have the same bytes however they were added up.
    let options = ["--tokens", "8", "--batch-tokens", "9", "--save-every", "0"];
    assert!(run(&[&["prompts.txt", "small-batches"], &options[..]].concat()).0);
    assert_eq!(file("small-batches.csv"), file("whole.csv"));
    assert!(run(&["--merge", "merged-whole", "whole"]).0 && run(&["--merge", "merged-again", "1-2", "0-2"]).0);
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("merged") == bytes("merged-whole") && bytes("merged") == bytes("merged-again"));
}

/// What machines that share a file must have in common: another model, reading or limit of tokens is another identity.
#[test]
fn the_example_prints_its_identity() {
    let run = |args: &[&str]| {
        let output = example("vocabulary").args(args).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let identity = |args: &[&str]| {
        let (passed, printed) = run(args);
        assert!(passed && printed.lines().count() == 1, "{printed}");
        serde_json::from_str::<serde_json::Value>(&printed).unwrap()
    };
    let whole = identity(&["demo", "--identity", "--tokens", "8", "--reading", "ov, without b_U"]);
    let options = SweepOptions { max_tokens: 8, reading: Reading::OV.unembed_bias(false), ..Default::default() };
    let expected = CountIdentity::new(&demo(), &options).unwrap();
    assert_eq!(whole.to_string(), serde_json::from_str::<serde_json::Value>(&expected.to_json()).unwrap().to_string());
    assert_eq!((expected.version.as_str(), expected.tokenizer.len()), (env!("CARGO_PKG_VERSION"), 64));
    let letters = identity(&["letters", "--identity"]);
    for name in ["fingerprint", "tokenizer", "n_layers", "d_vocab", "reading", "max_tokens"] {
        assert_ne!(letters[name], whole[name], "{name}");
    }
    for name in ["version", "state_format", "parquet"] {
        assert_eq!(letters[name], whole[name], "{name}");
    }
    let unprocessed = Gpt2::from_pretrained("demo", LoadOptions::default().processing(Processing::none())).unwrap();
    let unprocessed = CountIdentity::new(&unprocessed, &options).unwrap();
    assert_ne!(unprocessed.fingerprint, expected.fingerprint);
    assert_eq!(CountIdentity { fingerprint: expected.fingerprint.clone(), ..unprocessed }, expected);
    assert!(!run(&["demo", "--identity", "--sideways"]).0);
    let tiny = crate::support::fixture("tiny");
    assert!(!run(&[tiny.to_str().unwrap(), "--identity"]).0, "a model without a tokenizer");
}
