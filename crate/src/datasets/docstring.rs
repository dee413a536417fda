//! The docstring task (Heimersheim and Janiak 2023): which argument does the docstring of a function name next?

use rand::seq::{IndexedRandom, SliceRandom};

use super::words::{VARIABLES, Word, single_tokens};
use crate::error::{Result, check_count, check_setting};
use crate::random::{SeededRng, seeded_rng};
use crate::tokenizer::Tokenizer;

const FUNCTION: &str = "DocstringDataset";

/// Options of [`DocstringDataset::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocstringOptions {
    num_samples: usize,
    seed: u64,
    matching_args: usize,
    def_prefix_args: usize,
    def_suffix_args: usize,
    words: Vec<String>,
}

impl Default for DocstringOptions {
    fn default() -> Self {
        let words = VARIABLES.split_whitespace().map(str::to_owned).collect();
        Self { num_samples: 1000, seed: 0, matching_args: 3, def_prefix_args: 2, def_suffix_args: 1, words }
    }
}

impl DocstringOptions {
    /// The number of prompts. Default: 1000.
    pub fn num_samples(mut self, n: usize) -> Self {
        self.num_samples = n;
        self
    }

    /// The seed of the choices. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Arguments that the docstring lists, the answer included. Default: 3.
    pub fn matching_args(mut self, n: usize) -> Self {
        self.matching_args = n;
        self
    }

    /// Arguments of the definition before those that the docstring lists. Default: 2.
    pub fn def_prefix_args(mut self, n: usize) -> Self {
        self.def_prefix_args = n;
        self
    }

    /// Arguments of the definition after those that the docstring lists. Default: 1.
    pub fn def_suffix_args(mut self, n: usize) -> Self {
        self.def_suffix_args = n;
        self
    }

    /// The words of names and descriptions. Those that are not single tokens are left out. Default: about a hundred English
    /// nouns.
    pub fn words(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.words = words.into_iter().map(Into::into).collect();
        self
    }
}

/// A prompt of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocstringPrompt {
    /// A definition and the beginning of its docstring, up to the last `:param`.
    pub text: String,
    /// The tokens of the text, with the beginning-of-sequence token in front if the model has one. Shape: `[pos]`.
    pub tokens: Vec<u32>,
    /// The token of the argument that the docstring names next, with a space. In a corrupted prompt that of the clean one.
    pub answer: u32,
    /// The tokens of the other arguments of the definition.
    pub wrong_answers: Vec<u32>,
    /// The positions of the definition's arguments, in their order.
    pub def_pos: Vec<usize>,
    /// The positions of the arguments in the docstring.
    pub doc_pos: Vec<usize>,
    /// The position of the answer in the definition.
    pub answer_pos: usize,
    /// The last position, which predicts the answer.
    pub end_pos: usize,
}

/// A change of a prompt that leaves its length and all positions as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocstringCorruption {
    /// Other words as the definition's arguments.
    RandomDef,
    /// Other words as the docstring's arguments.
    RandomDoc,
    /// Other words, different ones, as both (`random_random` in the paper's code).
    RandomRandom,
}

/// Prompts of the docstring task.
///
/// ```
/// use attention_tokens::datasets::{DocstringCorruption, DocstringDataset, DocstringOptions};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let dataset = DocstringDataset::new(model.tokenizer()?, DocstringOptions::default().num_samples(10))?;
/// let corrupted = dataset.corrupted(DocstringCorruption::RandomRandom, 0)?;
/// let prompt = &dataset.prompts[0];
/// assert_eq!(prompt.tokens[prompt.answer_pos], prompt.answer);
/// assert!(!corrupted.prompts[0].tokens.contains(&prompt.answer));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DocstringDataset {
    /// The prompts.
    pub prompts: Vec<DocstringPrompt>,
    words: Vec<Word>,
    tokenizer: Tokenizer,
}

impl DocstringDataset {
    /// Draws prompts. The words of a prompt are all different.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) for no samples or fewer than two matching arguments,
    /// [`Error::Setting`](crate::Error::Setting) if too few words are single tokens.
    pub fn new(tokenizer: &Tokenizer, options: DocstringOptions) -> Result<Self> {
        let DocstringOptions { num_samples, seed, matching_args, def_prefix_args, def_suffix_args, words } = options;
        check_count(FUNCTION, "num_samples", num_samples, 1, None)?;
        check_count(FUNCTION, "matching_args", matching_args, 2, Some(100))?;
        check_count(FUNCTION, "def_prefix_args", def_prefix_args, 0, Some(100))?;
        check_count(FUNCTION, "def_suffix_args", def_suffix_args, 0, Some(100))?;
        let n_args = def_prefix_args + matching_args + def_suffix_args;
        // The function's name, its arguments, three words of its summary, two of each description.
        let n_words = 1 + n_args + 3 + 2 * (matching_args - 1);
        let words = single_tokens(tokenizer, words.iter().map(String::as_str), n_words, FUNCTION, "words")?;
        let rng = &mut seeded_rng(seed);
        let mut dataset = Self { prompts: Vec::new(), words, tokenizer: tokenizer.clone() };
        for _ in 0..num_samples {
            let words: Vec<&Word> = dataset.words.choose_multiple(rng, n_words).collect();
            let (args, others) = words.split_at(n_args);
            let matching = def_prefix_args..def_prefix_args + matching_args;
            let prompt = prompt(tokenizer, args, matching, others)?;
            dataset.prompts.push(prompt);
        }
        Ok(dataset)
    }

    /// The tokens of every prompt, to run. Shape: `[prompt][pos]`.
    pub fn tokens(&self) -> Vec<Vec<u32>> {
        self.prompts.iter().map(|prompt| prompt.tokens.clone()).collect()
    }

    /// The same prompts, changed: same length, same positions, and the answers of the clean prompts. The new words occur
    /// nowhere else in the prompt.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if there are too few words.
    pub fn corrupted(&self, corruption: DocstringCorruption, seed: u64) -> Result<Self> {
        let rng = &mut seeded_rng(seed);
        let mut dataset = self.clone();
        for prompt in &mut dataset.prompts {
            let places: Vec<usize> = match corruption {
                DocstringCorruption::RandomDef => prompt.def_pos.clone(),
                DocstringCorruption::RandomDoc => prompt.doc_pos.clone(),
                DocstringCorruption::RandomRandom => [&prompt.def_pos[..], &prompt.doc_pos].concat(),
            };
            let new = self.other_words(rng, &prompt.tokens, places.len())?;
            places.into_iter().zip(new).for_each(|(pos, token)| prompt.tokens[pos] = token);
            prompt.text = self.tokenizer.to_string(&prompt.tokens[self.tokenizer.text_start()..])?;
        }
        Ok(dataset)
    }

    /// `n` different words that do not occur in a prompt.
    fn other_words(&self, rng: &mut SeededRng, tokens: &[u32], n: usize) -> Result<Vec<u32>> {
        let mut others: Vec<u32> =
            self.words.iter().map(|word| word.token).filter(|token| !tokens.contains(token)).collect();
        let expected = format!("at least {n} more that are single tokens");
        check_setting(FUNCTION, "words", others.len() >= n, expected, others.len())?;
        others.shuffle(rng);
        others.truncate(n);
        Ok(others)
    }
}

/// A prompt with these arguments, of which `matching` are in the docstring, and other words for the rest.
fn prompt(
    tokenizer: &Tokenizer,
    args: &[&Word],
    matching: std::ops::Range<usize>,
    others: &[&Word],
) -> Result<DocstringPrompt> {
    let texts = |words: &[&Word], separator: &str| {
        words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(separator)
    };
    let (name, others) = (&others[0].text, &others[1..]);
    let (summary, descriptions) = others.split_at(3);
    let documented = matching.start..matching.end - 1;
    let mut text = format!("\ndef {name}(self, {}):\n    \"\"\"{}\n", texts(args, ", "), texts(summary, " "));
    for (arg, description) in args[documented.clone()].iter().zip(descriptions.chunks(2)) {
        text += &format!("\n    :param {}: {}", arg.text, texts(description, " "));
    }
    text += "\n    :param";
    let tokens = tokenizer.to_tokens(&text)?;
    let places = |word: &Word| -> Vec<usize> {
        tokens.iter().enumerate().filter_map(|(pos, &token)| (token == word.token).then_some(pos)).collect()
    };
    let all: Vec<Vec<usize>> = args.iter().map(|arg| places(arg)).collect();
    let expected = |index: usize| if documented.contains(&index) { 2 } else { 1 };
    let as_expected = all.iter().enumerate().all(|(index, places)| places.len() == expected(index));
    let needed = "a tokenizer that keeps arguments in code as single tokens";
    check_setting(FUNCTION, "tokenizer", as_expected, needed, format!("{text:?}"))?;
    let answer = matching.end - 1;
    let wrong = args.iter().enumerate().filter(|&(index, _)| index != answer);
    Ok(DocstringPrompt {
        answer: args[answer].token,
        wrong_answers: wrong.map(|(_, arg)| arg.token).collect(),
        def_pos: all.iter().map(|places| places[0]).collect(),
        doc_pos: documented.map(|index| all[index][1]).collect(),
        answer_pos: all[answer][0],
        end_pos: tokens.len() - 1,
        text,
        tokens,
    })
}
