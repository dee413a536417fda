//! The concordance: contexts against a plain loop, bounds, and pages that say what they should and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use attention_tokens::experiments::*;
use attention_tokens::prelude::*;

use crate::support::demo;

/// For the small model that repeats letters.
const PROMPTS: [&str; 6] = [
    "a b c d a b c d e f",
    "k l m k l m k l m",
    "",
    "z y x z y x",
    "k l m k l m k l m",
    "q r s t u q r s t u v w q r s t",
];

const HOSTILE: &str = "A <b>bold</b> & \"quoted\" </script><script>alert('x')</script> word";

fn letters() -> Gpt2 {
    Gpt2::from_pretrained("letters", LoadOptions::default()).unwrap()
}

/// Files with the prompts, in a folder of their own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let files = [folder.join("a.txt"), folder.join("b.txt")];
    std::fs::write(&files[0], PROMPTS[..4].join("\n")).unwrap();
    std::fs::write(&files[1], PROMPTS[4..].join("\n")).unwrap();
    files.to_vec()
}

fn collect(model: &Gpt2, files: &[PathBuf], options: &ConcordanceOptions) -> Concordance {
    concordance(model, files, options, &mut |_| ()).unwrap()
}

#[test]
fn contexts_are_those_of_a_plain_loop() {
    let model = letters();
    let folder = tempfile::tempdir().unwrap();
    for (reading, first_key) in [(Reading::MATCHED.unembed_bias(false), false), (Reading::OV, true)] {
        // Batches of one prompt and of several.
        let options = ConcordanceOptions {
            reading,
            first_key,
            max_tokens: 12,
            batch_tokens: if first_key { 1 } else { 30 },
            words_per_head: 7,
            contexts_per_word: 2,
        };
        let found = collect(&model, &files(folder.path()), &options);
        assert_eq!((found.n_prompts, found.heads.len()), (5, 8));
        let prompts: Vec<Vec<u32>> = PROMPTS
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| model.to_tokens(text).unwrap().into_iter().take(12).collect())
            .collect();
        let (_, cache) = model.run_with_cache(prompts.clone()).unwrap();
        let data = all_heads_data(&model, &cache, reading.into()).unwrap();
        let written = all_heads_data(&model, &cache, Reading::WRITTEN.unembed_bias(false).into()).unwrap();
        for ((data, written), head) in data.iter().zip(&written).zip(&found.heads) {
            assert_eq!((data.layer, data.head), (head.layer, head.head));
            // Every cell of every word.
            let mut cells: BTreeMap<u32, Vec<(usize, usize, usize)>> = BTreeMap::new();
            for (prompt, data) in data.prompts.iter().enumerate() {
                let tokens = data.attention_tokens();
                for ((query, key), token) in tokens.indexed_iter() {
                    if let Some(token) = token.filter(|_| first_key || key > 0) {
                        cells.entry(token).or_default().push((prompt, query, key));
                    }
                }
            }
            assert_eq!(head.n_words, cells.len());
            assert_eq!(head.n_cells, cells.values().map(|cells| cells.len() as u64).sum::<u64>());
            let mut words: Vec<u32> = cells.keys().copied().collect();
            words.sort_by_key(|word| (std::cmp::Reverse(cells[word].len()), *word));
            words.truncate(7);
            assert_eq!(head.words.iter().map(|word| word.token).collect::<Vec<_>>(), words);
            for word in &head.words {
                let mut own = cells[&word.token].clone();
                assert_eq!(word.count, own.len() as u64);
                let attn = |&(prompt, query, key): &(usize, usize, usize)| data.prompts[prompt].attn[[query, key]];
                own.sort_by(|a, b| attn(b).total_cmp(&attn(a)).then(a.cmp(b)));
                let mut texts = BTreeSet::new();
                own.retain(|(prompt, _, _)| texts.insert(prompts[*prompt].clone()));
                own.truncate(2);
                assert_eq!(word.contexts.len(), own.len());
                for (context, cell) in word.contexts.iter().zip(&own) {
                    let (prompt, query, key) = *cell;
                    // A repeated prompt has the same numbers up to the order of sums, so either may be the first.
                    assert_eq!(context.tokens, prompts[prompt]);
                    assert!((context.attn - attn(cell)).abs() < 1e-5, "{context:?} {cell:?}");
                    let its = &data.prompts[prompt];
                    assert_eq!(its.attention_tokens()[[context.query, context.key]], Some(word.token));
                    if (context.query, context.key) != (query, key) {
                        let other = (prompt, context.query, context.key);
                        assert!((attn(&other) - attn(cell)).abs() < 1e-5, "{context:?} {cell:?}");
                    }
                    let written = written.prompts[prompt].attention_tokens()[[context.query, context.key]];
                    assert_eq!(Some(context.written), written);
                }
            }
        }
    }
}

/// The visible text of a page, and the names of its elements.
fn read(page: &str) -> (String, Vec<String>) {
    let (mut text, mut tags) = (String::new(), Vec::new());
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = start + rest[start..].find('>').unwrap();
        let tag: String =
            rest[start + 1..end].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/' || *c == '!').collect();
        rest = &rest[end + 1..];
        if tag == "script" || tag == "style" {
            rest = &rest[rest.find(&format!("</{tag}>")).unwrap()..];
        }
        tags.push(tag);
    }
    text.push_str(rest);
    for (escaped, c) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        text = text.replace(escaped, c);
    }
    (text, tags)
}

#[test]
fn pages_of_all_heads_are_escaped_bounded_and_load_nothing() {
    let model = demo();
    let folder = tempfile::tempdir().unwrap();
    let options = ConcordanceOptions { max_tokens: 60, words_per_head: 10, contexts_per_word: 3, ..Default::default() };
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, format!("{HOSTILE}\nThe next bus is late.\n")).unwrap();
    let found = collect(&model, &[prompts], &options);
    let pages = folder.path().join("new/pages");
    found.write_pages(&pages).unwrap();
    let mut names: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 4 * 8 + 1);
    assert!(names.contains(&"index.html".to_owned()) && names.contains(&"head-3-7.html".to_owned()));
    let mut hostile = 0;
    for name in &names {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.len() < 60_000, "{name}: {} bytes", page.len());
        assert!(page.contains("default-src 'none'") && !page.contains("http:") && !page.contains("https:"));
        assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("), "{name}");
        let (text, tags) = read(&page);
        // The prompt with markup is text: there is one script, and no element of the prompt.
        assert_eq!(tags.iter().filter(|tag| *tag == "script").count(), 1, "{name}");
        assert!(!tags.iter().any(|tag| tag == "b" || tag == "/b"), "{name}");
        hostile += usize::from(text.contains(HOSTILE));
    }
    assert!(hostile > 10, "{hostile} pages have the prompt with markup");
    let index = std::fs::read_to_string(pages.join("index.html")).unwrap();
    for name in names.iter().filter(|name| *name != "index.html") {
        assert!(index.contains(&format!("href=\"{name}\"")), "{name}");
    }
    // The same files give the same pages.
    let (model, again) = (letters(), folder.path().join("again"));
    for folder in [&again, &folder.path().join("once more")] {
        collect(&model, &files(folder.parent().unwrap()), &options).write_pages(folder).unwrap();
    }
    for name in std::fs::read_dir(&again).unwrap().map(|entry| entry.unwrap().file_name()) {
        let other = folder.path().join("once more").join(&name);
        assert_eq!(std::fs::read(again.join(&name)).unwrap(), std::fs::read(other).unwrap(), "{name:?}");
    }
    // The words of a head are on its page, with their contexts.
    let head = &found.heads[9];
    assert_eq!((head.layer, head.head, head.words.len()), (1, 1, head.n_words.min(10)));
    let page = std::fs::read_to_string(pages.join("head-1-1.html")).unwrap();
    assert_eq!(page.matches("<section data-part>").count(), head.words.len());
    let contexts: usize = head.words.iter().map(|word| word.contexts.len()).sum();
    assert_eq!(page.matches(" → <code>").count(), contexts);
}

#[test]
fn what_cannot_be_read_or_written_is_an_error() {
    let model = letters();
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let options = ConcordanceOptions::default();
    let error = |files: &[PathBuf], options: &ConcordanceOptions| {
        concordance(&model, files, options, &mut |_| ()).unwrap_err().to_string()
    };
    assert!(error(&[], &options).contains("files: expected at least 1, found 0"));
    assert!(error(&[folder.path().join("none.txt")], &options).contains("none.txt"));
    for (options, name) in [
        (ConcordanceOptions { max_tokens: 0, ..options.clone() }, "max_tokens: expected 1 to 96, found 0"),
        (ConcordanceOptions { batch_tokens: 0, ..options.clone() }, "batch_tokens: expected at least 1"),
        (ConcordanceOptions { words_per_head: 0, ..options.clone() }, "words_per_head: expected at least 1"),
        (ConcordanceOptions { contexts_per_word: 0, ..options.clone() }, "contexts_per_word: expected at least 1"),
    ] {
        assert!(error(&files, &options).contains(name));
    }
    // A file that changes between the passes.
    let mut passes = 0;
    let path = files[0].clone();
    let changed = concordance(&model, &files[..1], &options, &mut |progress| {
        if std::mem::replace(&mut passes, progress.pass) == 0 {
            std::fs::write(&path, PROMPTS[..4].join("\n").replace("d a", "e a")).unwrap();
        }
    });
    assert!(changed.unwrap_err().to_string().contains("a file that does not change while it is read"));
    // No prompts: every head has no words.
    std::fs::write(&files[0], "\n\n").unwrap();
    let empty = collect(&model, &files[..1], &options);
    assert!(empty.n_prompts == 0 && empty.heads.iter().all(|head| head.n_cells == 0 && head.words.is_empty()));
    empty.write_pages(folder.path().join("empty")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(empty.write_pages(folder.path().join("file")).unwrap_err().to_string().contains("cannot be written"));
}
