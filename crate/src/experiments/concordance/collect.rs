//! Counts words and collects contexts in two passes over files of prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::best::{BestContexts, counted_cells};
use super::{Concordance, ConcordanceOptions, ConcordanceProgress, HeadWord, HeadWords};
use crate::attention_tokens::{HeadData, all_heads_data};
use crate::decode::Reading;
use crate::error::{Error, Result, check_count};
use crate::experiments::vocabulary::{Place, PromptFile, ranked};
use crate::model::{ActivationCache, Gpt2, RunOptions};

/// The words of every head over text files of prompts, one prompt a line, with the contexts in which the head says them
/// while it attends most.
///
/// **Question.** In which contexts does a head say a word, and what does it write there?
///
/// **Statistic.** The first pass counts the words of each head over all cells with key ≤ query; the second one keeps for
/// each of a head's most frequent words the cells of highest attention, at most one for each prompt, and what the cell
/// writes. Both passes read the files, line by line: memory holds the counts of the words and the contexts, however long
/// the files are. The same files give the same concordance.
///
/// **Control.** None: a concordance is for reading. Whether a reading's words are more than chance is a question for
/// [`merge_test`](crate::experiments::merge_test()).
///
/// **Limits.** The contexts are those of highest attention, not typical ones, and a word that seems to fit its best
/// contexts need not fit others.
///
/// ```
/// use attention_tokens::experiments::{ConcordanceOptions, concordance};
/// use attention_tokens::prelude::*;
///
/// let folder = tempfile::tempdir().unwrap();
/// let prompts = folder.path().join("prompts.txt");
/// std::fs::write(&prompts, "Monday, Tuesday, Wednesday\nThe next bus is late.\n").unwrap();
/// let model = Gpt2::from_pretrained("letters", LoadOptions::default())?;
/// let options = ConcordanceOptions { words_per_head: 20, ..Default::default() };
/// let concordance = concordance(&model, &[prompts], &options, &mut |progress| println!("{progress}"))?;
/// assert_eq!(concordance.n_prompts, 2);
/// concordance.write_pages(folder.path())?; // index.html, head-0-0.html, …
/// # assert!(folder.path().join("head-0-0.html").exists());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] for no files, or an option that is 0 or more tokens a prompt than the context has; [`Error::Io`] naming
/// the file; [`Error::Format`] for a line that is not UTF-8 or longer than a megabyte, and for a file that changes between
/// the passes; [`Error::NoTokenizer`] or [`Error::Tokenize`]; [`Error::Device`] if the device fails.
pub fn concordance(
    model: &Gpt2,
    files: &[PathBuf],
    options: &ConcordanceOptions,
    progress: &mut dyn FnMut(ConcordanceProgress),
) -> Result<Concordance> {
    const OPTIONS: &str = "ConcordanceOptions";
    check_count("concordance", "files", files.len(), 1, None)?;
    check_count(OPTIONS, "max_tokens", options.max_tokens, 1, Some(model.config().n_ctx))?;
    check_count(OPTIONS, "batch_tokens", options.batch_tokens, 1, None)?;
    check_count(OPTIONS, "words_per_head", options.words_per_head, 1, None)?;
    check_count(OPTIONS, "contexts_per_word", options.contexts_per_word, 1, None)?;
    let (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
    let index = |head: &HeadData| head.layer * n_heads + head.head;

    let mut counts: Vec<BTreeMap<u32, u64>> = vec![BTreeMap::new(); n_layers * n_heads];
    let mut count = |batch: &Batch| {
        progress(ConcordanceProgress { pass: 1, prompts: batch.end() });
        for head in all_heads_data(model, &batch.cache, options.reading.into())? {
            let counts = &mut counts[index(&head)];
            for data in head.prompts() {
                for (_, _, row) in counted_cells(data, options.first_key) {
                    *counts.entry(data.qk.tokens[[row, 0]]).or_default() += 1;
                }
            }
        }
        Ok(())
    };
    let (places, n_prompts) = for_each_batch(model, files, options, &mut count)?;

    let chosen: Vec<Vec<(u32, u64)>> =
        counts.iter().map(|counts| ranked(counts).into_iter().take(options.words_per_head).collect()).collect();
    let best =
        |words: &Vec<(u32, u64)>| BestContexts::new(words.iter().map(|&(word, _)| word), options.contexts_per_word);
    let mut best: Vec<BestContexts> = chosen.iter().map(best).collect();
    let mut collect = |batch: &Batch| {
        progress(ConcordanceProgress { pass: 2, prompts: batch.end() });
        let written = all_heads_data(model, &batch.cache, Reading::WRITTEN.unembed_bias(false).into())?;
        for (head, written) in all_heads_data(model, &batch.cache, options.reading.into())?.iter().zip(&written) {
            let prompts = head.prompts().iter().zip(written.prompts());
            for ((data, written), prompt) in prompts.zip(batch.first..) {
                best[index(head)].add(prompt, data, written, options.first_key);
            }
        }
        Ok(())
    };
    let (again, _) = for_each_batch(model, files, options, &mut collect)?;
    for ((path, place), again) in files.iter().zip(&places).zip(&again) {
        if place != again {
            let (expected, found) = ("a file that does not change while it is read".into(), "other bytes".into());
            return Err(Error::Format { path: path.clone(), expected, found, source: None });
        }
    }

    let heads = chosen.into_iter().zip(counts).zip(best).enumerate();
    let heads = heads.map(|(index, ((chosen, counts), mut best))| {
        let word = |(token, count): (u32, u64)| HeadWord { token, count, contexts: best.take(token) };
        HeadWords {
            layer: index / n_heads,
            head: index % n_heads,
            n_words: counts.len(),
            n_cells: counts.values().sum(),
            words: chosen.into_iter().map(word).collect(),
        }
    });
    Ok(Concordance {
        heads: heads.collect(),
        n_prompts,
        options: options.clone(),
        model: model.name().to_owned(),
        labels: model.token_labels(),
    })
}

/// The run of some prompts that follow each other in the files.
struct Batch {
    cache: ActivationCache,
    /// The index of the first prompt.
    first: u64,
}

impl Batch {
    fn end(&self) -> u64 {
        self.first + self.cache.n_prompts() as u64
    }
}

/// Runs the prompts of files in batches. Returns where each file ended, and the number of prompts.
fn for_each_batch(
    model: &Gpt2,
    files: &[PathBuf],
    options: &ConcordanceOptions,
    each: &mut dyn FnMut(&Batch) -> Result<()>,
) -> Result<(Vec<Place>, u64)> {
    let (mut batch, mut n_tokens, mut first) = (Vec::<Vec<u32>>::new(), 0, 0);
    let mut run = |batch: &mut Vec<Vec<u32>>| -> Result<()> {
        let n = batch.len() as u64;
        if n > 0 {
            let (_, cache) = model.run_with_cache_options(std::mem::take(batch), RunOptions::for_head_data())?;
            each(&Batch { cache, first })?;
            first += n;
        }
        Ok(())
    };
    let mut places = Vec::with_capacity(files.len());
    for path in files {
        let mut file = PromptFile::open(Path::new(path))?;
        while let Some((_, line)) = file.next_prompt()? {
            let mut tokens = model.to_tokens(&line)?;
            tokens.truncate(options.max_tokens);
            if tokens.is_empty() {
                continue; // a model without a beginning-of-sequence token may have none
            }
            n_tokens += tokens.len();
            batch.push(tokens);
            if n_tokens >= options.batch_tokens {
                run(&mut batch)?;
                n_tokens = 0;
            }
        }
        places.push(file.place());
    }
    run(&mut batch)?;
    Ok((places, first))
}
