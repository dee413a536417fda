//! Data sets: their prompts are what they claim to be, corrupted ones keep their positions, and the demo model does the
//! indirect-object task.

use std::collections::BTreeSet;

use attention_tokens::datasets::*;
use attention_tokens::prelude::*;

use crate::support::{demo, fixture, load, root};

/// A tokenizer that has few words of the data sets: it splits all others into characters.
const LETTERS: &str = r#"{"version": "1.0", "added_tokens": [], "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "model": {"type": "BPE", "merges": [], "vocab": {"Ġ": 0, "a": 1, "b": 2, "c": 3, "T": 4, "h": 5, "e": 6, "n": 7}}}"#;

fn ioi(model: &Gpt2, options: IoiOptions) -> IoiDataset {
    IoiDataset::new(model.tokenizer().unwrap(), options).unwrap()
}

#[test]
fn indirect_object_prompts_have_their_names_where_they_say() {
    let model = demo();
    let dataset = ioi(&model, IoiOptions::default().num_samples(200).seed(3));
    assert_eq!(dataset.prompts.len(), 200);
    let (mut orders, mut names) = (BTreeSet::new(), BTreeSet::new());
    for prompt in &dataset.prompts {
        let &IoiPrompt { io, s, io_pos, s1_pos, s2_pos, end_pos, .. } = prompt;
        assert_eq!(prompt.tokens, model.to_tokens(&prompt.text).unwrap());
        assert_eq!((prompt.tokens[io_pos], prompt.tokens[s1_pos], prompt.tokens[s2_pos]), (io, s, s));
        assert!(io != s && s1_pos.max(io_pos) < s2_pos && s2_pos < end_pos && end_pos == prompt.tokens.len() - 1);
        assert_eq!(prompt.order == IoiOrder::Abba, io_pos < s1_pos);
        assert!(prompt.text.ends_with(" to") && !prompt.text.contains('['), "{}", prompt.text);
        orders.insert(prompt.order == IoiOrder::Abba);
        names.insert(io);
    }
    assert!(orders.len() == 2 && names.len() > 40, "{orders:?}, {} names", names.len());
    let repeated = ioi(&model, IoiOptions::default().num_samples(200).seed(3));
    assert_eq!(repeated.prompts, dataset.prompts);
    assert_ne!(ioi(&model, IoiOptions::default().num_samples(200).seed(4)).prompts, dataset.prompts);
}

#[test]
fn options_of_the_indirect_object_task() {
    let model = demo();
    let options = IoiOptions::default().num_samples(30);
    let baba = ioi(&model, options.clone().order(IoiOrder::Baba));
    assert!(baba.prompts.iter().all(|prompt| prompt.order == IoiOrder::Baba && prompt.s1_pos < prompt.io_pos));
    let symmetric = ioi(&model, options.clone().symmetric(true));
    for pair in symmetric.prompts.chunks(2) {
        assert_eq!((pair[0].io, pair[0].s), (pair[1].s, pair[1].io));
        let rest = |prompt: &IoiPrompt| {
            prompt.tokens.iter().filter(|&&token| token != prompt.io && token != prompt.s).copied().collect::<Vec<_>>()
        };
        assert_eq!(rest(&pair[0]), rest(&pair[1]));
    }
    // TransformerLens' own template begins with a name, which has no space there.
    let own = options
        .templates(["[A] and [B] went to the [LOCATION] to buy [OBJECT]. [B] handed the [OBJECT] to [A]"])
        .names(["John", "Mary", "Zbigniew Brzezinski"])
        .nouns("OBJECT", ["milk", "eggs"]);
    let dataset = ioi(&model, own);
    let [john, mary] = [" John", " Mary"].map(|name| model.to_single_token(name).unwrap());
    for prompt in &dataset.prompts {
        assert!([[john, mary], [mary, john]].contains(&[prompt.io, prompt.s]));
        assert_eq!(prompt.io_pos, 1);
        let name = model.to_single_str_token(prompt.tokens[1]).unwrap();
        assert_eq!(format!(" {name}"), model.to_single_str_token(prompt.io).unwrap());
    }
    let flipped = dataset.corrupted(IoiCorruption::FlipNames, 0).unwrap();
    let first = |prompt: &IoiPrompt| prompt.text.split(' ').next().unwrap().to_owned();
    assert!(flipped.prompts.iter().zip(&dataset.prompts).all(|(flipped, clean)| {
        first(flipped) != first(clean) && ["John", "Mary"].contains(&first(flipped).as_str())
    }));
}

#[test]
fn corrupted_indirect_object_prompts_differ_in_their_names_only() {
    let model = demo();
    let clean = ioi(&model, IoiOptions::default().num_samples(40));
    for corruption in [IoiCorruption::Abc, IoiCorruption::FlipS2, IoiCorruption::FlipNames, IoiCorruption::FlipOrder] {
        let corrupted = clean.corrupted(corruption, 1).unwrap();
        assert_eq!(corrupted.answers(), clean.answers());
        for (new, old) in corrupted.prompts.iter().zip(&clean.prompts) {
            let names = [old.io_pos, old.s1_pos, old.s2_pos];
            assert_eq!([new.io_pos, new.s1_pos, new.s2_pos, new.end_pos], [names[0], names[1], names[2], old.end_pos]);
            for (pos, (new, old)) in new.tokens.iter().zip(&old.tokens).enumerate() {
                assert!(names.contains(&pos) || new == old);
            }
            assert_eq!(new.tokens, model.to_tokens(&new.text).unwrap(), "{}", new.text);
            let [a, b, c] = names.map(|pos| new.tokens[pos]);
            match corruption {
                IoiCorruption::Abc => {
                    assert_eq!([a, b, c, old.io, old.s].into_iter().collect::<BTreeSet<_>>().len(), 5);
                }
                IoiCorruption::FlipS2 => assert_eq!([a, b, c], [old.io, old.s, old.io]),
                IoiCorruption::FlipNames => assert_eq!([a, b, c], [old.s, old.io, old.io]),
                IoiCorruption::FlipOrder => assert_eq!([a, b, c], [old.s, old.io, old.s]),
            }
        }
    }
}

/// The names that occur in the demo model's training text. The embeddings of all others are the same but for noise.
const KNOWN_NAMES: &str =
    "John Tom Anna Jane Alice James Kate Lucy Mark Paul Sarah Bob David Emma Henry Jack Mary Peter Rose Sam";

/// Chance is an accuracy of 0.5 and a difference of 0.
#[test]
fn the_demo_model_does_the_indirect_object_task() {
    let model = demo();
    let known = IoiOptions::default().num_samples(200).names(KNOWN_NAMES.split(' '));
    let all = ioi(&model, known.clone()).eval(&model).unwrap();
    assert!(all.accuracy > 0.65 && all.logit_diff > 0.5, "{} {}", all.accuracy, all.logit_diff);
    // One of the four sentences is much like those that it was trained on.
    let trained = ["When [A] and [B]", "When [B] and [A]"]
        .map(|names| format!("{names} went to the [LOCATION], [B] gave a [OBJECT] to [A]"));
    let clean = ioi(&model, known.templates(trained));
    let scores = clean.eval(&model).unwrap();
    println!("all sentences: accuracy {}, difference {}", all.accuracy, all.logit_diff);
    println!("accuracy {}, difference {}, probability {}", scores.accuracy, scores.logit_diff, scores.probability);
    assert_eq!(scores.logit_diffs.len(), 200);
    assert!(scores.accuracy > 0.85 && scores.logit_diff > 2.0, "{} {}", scores.accuracy, scores.logit_diff);
    // Where the second mention is the other name, so is the answer; without any repeated name there is none.
    let flipped = clean.corrupted(IoiCorruption::FlipS2, 0).unwrap().eval(&model).unwrap();
    let abc = clean.corrupted(IoiCorruption::Abc, 0).unwrap().eval(&model).unwrap();
    assert!(flipped.accuracy < 0.15, "{}", flipped.accuracy);
    assert!(abc.logit_diff.abs() < 0.5 * scores.logit_diff, "{}", abc.logit_diff);
    // The numbers are those of plain runs.
    let prompt = &clean.prompts[7];
    let logits = model.forward(prompt.tokens.clone()).unwrap().remove(0);
    let diff = logits[[prompt.end_pos, prompt.io as usize]] - logits[[prompt.end_pos, prompt.s as usize]];
    assert!((diff - scores.logit_diffs[7]).abs() < 1e-3);
}

#[test]
fn greater_than_prompts_have_their_years_where_they_say() {
    let model = demo();
    let options = GreaterThanOptions::default().num_samples(60);
    let dataset = GreaterThanDataset::new(model.tokenizer().unwrap(), options.clone()).unwrap();
    for prompt in &dataset.prompts {
        let (century, year) = (prompt.century, prompt.year);
        assert!((11..=17).contains(&century) && (2..=98).contains(&year));
        let text = format!("The {} lasted from the year {century}{year:02} to the year {century}", prompt.noun);
        assert_eq!((&text, &prompt.tokens), (&prompt.text, &model.to_tokens(&text).unwrap()));
        let strings = model.to_str_tokens(&text).unwrap();
        assert_eq!(strings[prompt.year_pos], format!("{year:02}"));
        assert_eq!((&strings[prompt.end_pos], prompt.end_pos), (&format!(" {century}"), strings.len() - 1));
        let corrupted = text.replace(&format!("{century}{year:02}"), &format!("{century}01"));
        assert_eq!(prompt.corrupted_tokens, model.to_tokens(&corrupted).unwrap());
    }
    // The scores are those of the probabilities of a plain run.
    let scores = dataset.eval(&model).unwrap();
    let prompt = &dataset.prompts[0];
    let logits = model.forward(prompt.tokens.clone()).unwrap().remove(0);
    let probs = attention_tokens::log_probs(&logits).row(prompt.end_pos).mapv(f32::exp);
    let sum = |years: &[u32]| years.iter().map(|&token| probs[token as usize]).sum::<f32>();
    let (before, after) = dataset.years.split_at(prompt.year as usize + 1);
    assert!((f64::from(sum(after) - sum(before)) - scores.probability_diffs[0]).abs() < 1e-5);
    assert_eq!(GreaterThanDataset::new(model.tokenizer().unwrap(), options).unwrap().prompts, dataset.prompts);
}

#[test]
fn docstrings_have_their_arguments_where_they_say() {
    let model = demo();
    let tokenizer = model.tokenizer().unwrap();
    for (prefix, matching, suffix) in [(2, 3, 1), (0, 2, 0), (1, 4, 3)] {
        let options = DocstringOptions::default().num_samples(20).def_prefix_args(prefix);
        let options = options.matching_args(matching).def_suffix_args(suffix);
        let dataset = DocstringDataset::new(tokenizer, options).unwrap();
        for prompt in &dataset.prompts {
            assert_eq!(prompt.tokens, model.to_tokens(&prompt.text).unwrap());
            let at = |places: &[usize]| places.iter().map(|&pos| prompt.tokens[pos]).collect::<Vec<_>>();
            let (args, documented) = (at(&prompt.def_pos), at(&prompt.doc_pos));
            assert_eq!((args.len(), documented.len()), (prefix + matching + suffix, matching - 1));
            assert_eq!(documented, args[prefix..prefix + matching - 1]);
            assert_eq!(prompt.answer, args[prefix + matching - 1]);
            assert_eq!(prompt.tokens[prompt.answer_pos], prompt.answer);
            assert!(prompt.wrong_answers.len() == args.len() - 1 && !prompt.wrong_answers.contains(&prompt.answer));
            assert!(prompt.text.ends_with("\n    :param"), "{}", prompt.text);
        }
        for corruption in
            [DocstringCorruption::RandomDef, DocstringCorruption::RandomDoc, DocstringCorruption::RandomRandom]
        {
            let corrupted = dataset.corrupted(corruption, 5).unwrap();
            for (new, old) in corrupted.prompts.iter().zip(&dataset.prompts) {
                let (in_def, in_doc) =
                    (corruption != DocstringCorruption::RandomDoc, corruption != DocstringCorruption::RandomDef);
                for (pos, (&new, &token)) in new.tokens.iter().zip(&old.tokens).enumerate() {
                    let changed = (in_def && old.def_pos.contains(&pos)) || (in_doc && old.doc_pos.contains(&pos));
                    assert!(if changed { !old.tokens.contains(&new) } else { new == token });
                }
                assert_eq!(new.tokens, model.to_tokens(&new.text).unwrap(), "{}", new.text);
            }
        }
    }
}

#[test]
fn repeated_tokens_repeat_ordinary_tokens() {
    let model = load(&fixture("tiny")).unwrap();
    let repeated = |batch, len| RepeatedTokens { batch, len, seed: 1, tokens: None }.prompts(model.config());
    let prompts = repeated(50, 15).unwrap();
    assert_eq!(prompts.len(), 50);
    for tokens in &prompts {
        assert_eq!((tokens[0], tokens.len()), (0, 31));
        assert_eq!(tokens[1..16], tokens[16..]);
        assert!(tokens[1..].iter().all(|token| (1..97).contains(token)), "no special token");
    }
    let drawn: BTreeSet<u32> = prompts.concat().into_iter().collect();
    assert_eq!(drawn.len(), 97);
    for (batch, len) in [(0, 3), (1, 0), (1, 16)] {
        let error = repeated(batch, len).unwrap_err();
        assert!(matches!(error, Error::Count { .. }), "{error}");
    }
}

fn write(text: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn documents_are_joined_and_cut_into_rows() {
    let model = demo();
    let eos = 50256;
    let file = write("The bus is late.\r\n\nThe tram\nis early.\n\n\nWe walk".as_bytes());
    for (sample_by, documents) in [
        (SampleBy::Line, vec!["The bus is late.", "The tram", "is early.", "We walk"]),
        (SampleBy::Paragraph, vec!["The bus is late.", "The tram\nis early.", "We walk"]),
        (SampleBy::Document, vec!["The bus is late.\r\n\nThe tram\nis early.\n\n\nWe walk"]),
    ] {
        let mut all = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            all.extend((index > 0).then_some(eos));
            all.extend(model.to_tokens_without_bos(document).unwrap());
        }
        let options = TextFileOptions::default().max_length(5).sample_by(sample_by);
        for bos in [true, false] {
            let rows = tokenize_and_concatenate(&model, file.path(), options.clone().add_bos_token(bos)).unwrap();
            let per_row = 5 - usize::from(bos);
            assert_eq!(rows.n_documents, documents.len());
            assert_eq!(
                (rows.tokens.nrows(), rows.n_dropped),
                (all.len() / per_row, all.len() % per_row),
                "{sample_by:?}"
            );
            for (row, want) in rows.prompts().iter().zip(all.chunks_exact(per_row)) {
                assert_eq!(row[usize::from(bos)..], *want);
                assert!(!bos || row[0] == eos);
            }
        }
        let two = tokenize_and_concatenate(&model, file.path(), options.max_rows(2)).unwrap();
        assert_eq!(two.tokens.nrows(), 2);
    }
    let empty = tokenize_and_concatenate(&model, write(b"\n\n").path(), TextFileOptions::default()).unwrap();
    assert_eq!((empty.tokens.dim(), empty.n_documents, empty.n_dropped), ((0, 256), 0, 0));
}

#[test]
fn text_files_that_cannot_be_used_are_named() {
    let model = demo();
    let read = |text: &[u8], options| tokenize_and_concatenate(&model, write(text).path(), options).map(drop);
    let bad = |text: &[u8]| read(text, TextFileOptions::default()).unwrap_err().to_string();
    assert!(bad(b"one\ntwo \xff three").contains("expected text in UTF-8, found the byte 0xff at 8"));
    assert!(bad(b"cut \xe6\x97").contains("the byte 0xe6 at 4"));
    assert!(bad(b"\xe6\x97\nx").contains("the byte 0xe6 at 0"));
    let far = [vec![b'a'; (1 << 20) - 1], "é".into(), vec![0xc0]].concat(); // é lies across the end of a piece
    assert!(bad(&far).contains(&format!("the byte 0xc0 at {}", (1 << 20) + 1)));
    for max_length in [0, 1, 257] {
        let error = read(b"x", TextFileOptions::default().max_length(max_length)).unwrap_err();
        assert!(matches!(error, Error::Count { found, .. } if found == max_length), "{error}");
    }
    let missing = tokenize_and_concatenate(&model, "no/such/file.txt", TextFileOptions::default()).unwrap_err();
    assert!(matches!(&missing, Error::Io { path, .. } if path.ends_with("file.txt")), "{missing}");
    let ids_only = load(&fixture("tiny")).unwrap();
    let no_tokenizer = tokenize_and_concatenate(&ids_only, write(b"x").path(), TextFileOptions::default()).unwrap_err();
    assert!(matches!(no_tokenizer, Error::NoTokenizer { .. }), "{no_tokenizer}");
}

#[test]
fn data_sets_that_cannot_be_made_name_the_option() {
    let model = demo();
    let tokenizer = model.tokenizer().unwrap();
    let options = IoiOptions::default;
    for (options, option, found) in [
        (options().names(["Mary", "Zbigniew Brzezinski", "Mary"]), "names", "1 among 3 words"),
        (options().templates(Vec::<String>::new()), "templates", "none"),
        (options().templates(["[A] and [B] went. [B] gave it to"]), "templates", "gave it to"),
        (options().templates(["[A] went. [B] gave it to [A]"]), "templates", "[A] went"),
        (options().templates(["[B] went, [B] gave [A] it [A]"]), "templates", "[B] went"),
        (options().templates(["When[A] and [B] went, [B] gave it to [A]"]), "templates", "When"),
        (options().templates(["When [A] and [B] saw the [CITY], [B] gave it to [A]"]), "nouns", "[CITY]"),
        (options().nouns("OBJECT", Vec::<String>::new()), "nouns", "none"),
        (options().order(IoiOrder::Baba).templates(["When [A] and [B] went, [B] gave it to [A]"]), "templates", "none"),
    ] {
        let error = IoiDataset::new(tokenizer, options).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, Error::Setting { option: name, .. } if *name == option), "{text}");
        assert!(text.starts_with("IoiDataset: ") && text.contains(found), "{text}");
    }
    let few = IoiDataset::new(tokenizer, options().num_samples(3).names(["Mary", "John", "Anna"])).unwrap();
    assert!(few.corrupted(IoiCorruption::FlipS2, 0).is_ok());
    let error = few.corrupted(IoiCorruption::Abc, 0).unwrap_err().to_string();
    assert_eq!(error, "IoiDataset: names: expected at least 5 that are single tokens, found 3");
    for error in [
        IoiDataset::new(tokenizer, options().num_samples(0)).map(drop),
        IoiDataset::new(tokenizer, options().num_samples(1).symmetric(true)).map(drop),
        GreaterThanDataset::new(tokenizer, GreaterThanOptions::default().num_samples(0)).map(drop),
        DocstringDataset::new(tokenizer, DocstringOptions::default().num_samples(0)).map(drop),
        DocstringDataset::new(tokenizer, DocstringOptions::default().matching_args(1)).map(drop),
    ] {
        assert!(matches!(error, Err(Error::Count { .. })), "{error:?}");
    }
    let few = DocstringOptions::default().words(["load", "size", "file"]);
    let error = DocstringDataset::new(tokenizer, few).unwrap_err().to_string();
    assert!(error.contains("words: expected at least 14") && error.contains("3 among 3"), "{error}");
    let none = GreaterThanOptions::default().nouns(Vec::<String>::new());
    assert!(matches!(GreaterThanDataset::new(tokenizer, none), Err(Error::Setting { option: "nouns", .. })));
}

/// A tokenizer of single letters has none of the words.
#[test]
fn a_tokenizer_without_the_words_is_an_error() {
    let folder = crate::support::Folder::copy_of("tiny");
    std::fs::write(folder.path().join("tokenizer.json"), LETTERS).unwrap();
    let model = load(folder.path()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    assert!(matches!(IoiDataset::new(tokenizer, IoiOptions::default()), Err(Error::Setting { option: "names", .. })));
    let docstring = DocstringDataset::new(tokenizer, DocstringOptions::default());
    assert!(matches!(docstring, Err(Error::Setting { option: "words", .. })));
    let greater_than = GreaterThanDataset::new(tokenizer, GreaterThanOptions::default());
    assert!(matches!(greater_than, Err(Error::Setting { option: "nouns", .. })));
}

/// The demo model without a beginning- and an end-of-sequence token: a prompt begins with its first word.
#[test]
fn data_sets_of_a_model_without_special_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |file: &str, edit: fn(String) -> String| {
        let text = std::fs::read_to_string(root().join("crate/demo-model").join(file)).unwrap();
        std::fs::write(folder.path().join(file), edit(text)).unwrap();
    };
    copy("config.json", |text| text.replace(": 50256", ": null"));
    copy("tokenizer.json", |text| text.replace("<|endoftext|>", "<rest>"));
    std::fs::copy(root().join("crate/demo-model/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let model = load(folder.path()).unwrap();
    assert_eq!((model.config().bos_token_id, model.config().eos_token_ids.len()), (None, 0));

    let options = IoiOptions::default().num_samples(20).templates(["[A] and [B] met. [B] gave a [OBJECT] to [A]"]);
    let dataset = ioi(&model, options);
    for prompt in &dataset.prompts {
        assert_eq!((prompt.io_pos, prompt.s1_pos, prompt.tokens.len()), (0, 2, prompt.end_pos + 1));
        assert_eq!(prompt.tokens, model.to_tokens_without_bos(&prompt.text).unwrap());
    }
    let flipped = dataset.corrupted(IoiCorruption::FlipNames, 0).unwrap();
    for (flipped, clean) in flipped.prompts.iter().zip(&dataset.prompts) {
        assert_eq!(flipped.tokens, model.to_tokens_without_bos(&flipped.text).unwrap());
        assert_eq!((flipped.tokens[2], flipped.tokens.len()), (clean.io, clean.tokens.len()));
    }
    let docstrings =
        DocstringDataset::new(model.tokenizer().unwrap(), DocstringOptions::default().num_samples(5)).unwrap();
    let corrupted = docstrings.corrupted(DocstringCorruption::RandomDef, 0).unwrap();
    assert!(corrupted.prompts.iter().all(|prompt| prompt.text.starts_with("\ndef")), "{}", corrupted.prompts[0].text);

    let file = write(b"The bus is late.\nThe tram is early.");
    let options = TextFileOptions::default().max_length(3);
    let one = tokenize_and_concatenate(&model, file.path(), options.clone().sample_by(SampleBy::Document)).unwrap();
    assert_eq!(one.prompts().concat()[..], model.to_tokens("The bus is late.\nThe tram is early.").unwrap()[..9]);
    let lines = tokenize_and_concatenate(&model, file.path(), options).unwrap_err().to_string();
    assert!(lines.starts_with("tokenize_and_concatenate: sample_by: expected SampleBy::Document"), "{lines}");
}
