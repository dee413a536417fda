//! The indirect-object task (Wang et al. 2022): TransformerLens' `IOIDataset`.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::evaluation::{for_each_last_logits, mean, probabilities};
use super::ioi_template::{FUNCTION, IoiOrder, Template, default_templates};
use super::words::{NAMES, OBJECTS, PLACES, Word, single_tokens};
use crate::error::{Error, Result, check_count, check_setting};
use crate::model::Gpt2;
use crate::random::{SeededRng, seeded_rng};
use crate::tokenizer::Tokenizer;

/// Options of [`IoiDataset::new`], named as in TransformerLens.
#[derive(Clone, Debug, PartialEq)]
pub struct IoiOptions {
    num_samples: usize,
    symmetric: bool,
    seed: u64,
    order: Option<IoiOrder>,
    templates: Vec<String>,
    names: Vec<String>,
    nouns: Vec<(String, Vec<String>)>,
}

impl Default for IoiOptions {
    fn default() -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Self {
            num_samples: 1000,
            symmetric: false,
            seed: 0,
            order: None,
            templates: default_templates(),
            names: words(NAMES),
            nouns: vec![("LOCATION".into(), words(PLACES)), ("OBJECT".into(), words(OBJECTS))],
        }
    }
}

impl IoiOptions {
    /// The number of prompts. Default: 1000.
    pub fn num_samples(mut self, n: usize) -> Self {
        self.num_samples = n;
        self
    }

    /// Follow each prompt by the one with exchanged names; `num_samples` is then rounded down to an even number. Default:
    /// false.
    pub fn symmetric(mut self, symmetric: bool) -> Self {
        self.symmetric = symmetric;
        self
    }

    /// The seed of the choices. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Use only templates in this order. Default: all.
    pub fn order(mut self, order: IoiOrder) -> Self {
        self.order = Some(order);
        self
    }

    /// The templates: `[A]` is the indirect object, which also ends the template as the answer, `[B]` the subject, and
    /// `[LOCATION]`, `[OBJECT]` or other words in brackets are [`nouns`](Self::nouns). Default: eight, four sentences in
    /// both orders.
    pub fn templates(mut self, templates: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.templates = templates.into_iter().map(Into::into).collect();
        self
    }

    /// The names. Those that are not single tokens are left out, also at the beginning of a text if a template begins with
    /// a name. Default: 75 common given names.
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// The nouns of a placeholder, in the place of those that it has. Default: twelve of each of `LOCATION` and `OBJECT`.
    pub fn nouns(mut self, placeholder: &str, nouns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.nouns.retain(|(kind, _)| kind != placeholder);
        self.nouns.push((placeholder.into(), nouns.into_iter().map(Into::into).collect()));
        self
    }
}

/// A prompt of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoiPrompt {
    /// The text, without the answer.
    pub text: String,
    /// The tokens of the text, with the beginning-of-sequence token in front if the model has one. Shape: `[pos]`.
    pub tokens: Vec<u32>,
    /// The token of the indirect object, with a space: the right answer. In a corrupted prompt that of the clean one.
    pub io: u32,
    /// The token of the subject, with a space: the wrong answer. In a corrupted prompt that of the clean one.
    pub s: u32,
    /// The order of the names in the template.
    pub order: IoiOrder,
    /// The position of the indirect object.
    pub io_pos: usize,
    /// The position of the subject's first mention.
    pub s1_pos: usize,
    /// The position of the subject's second mention.
    pub s2_pos: usize,
    /// The last position, which predicts the answer.
    pub end_pos: usize,
}

/// A change of a prompt that leaves its length and all positions as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoiCorruption {
    /// Three other names, all different: nothing tells which is the answer (p_ABC in the paper).
    Abc,
    /// The second mention is that of the indirect object: the other name becomes the answer.
    FlipS2,
    /// The two names are exchanged everywhere: the other name becomes the answer.
    FlipNames,
    /// The two names are exchanged where they are introduced: the order changes, the answer does not.
    FlipOrder,
}

/// How well a model does the task: `ioi_eval` in TransformerLens.
#[derive(Clone, Debug, PartialEq)]
pub struct IoiScores {
    /// The share of prompts in which the indirect object has a larger logit than the subject. Chance: 0.5.
    pub accuracy: f64,
    /// The mean difference of these logits.
    pub logit_diff: f64,
    /// The mean probability of the indirect object.
    pub probability: f64,
    /// The difference of the logits in each prompt.
    pub logit_diffs: Vec<f32>,
}

/// Prompts of the indirect-object task.
///
/// The demo model knows few names: `John Tom Anna Jane Alice James Kate Lucy Mark Paul Sarah Bob David Emma Henry Jack Mary
/// Peter Rose Sam`. With others it is at chance.
///
/// ```
/// use attention_tokens::datasets::{IoiCorruption, IoiDataset, IoiOptions};
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let options = IoiOptions::default().num_samples(20).names(["Mary", "John", "Anna", "Paul", "Tom"]);
/// let clean = IoiDataset::new(model.tokenizer()?, options)?;
/// let corrupted = clean.corrupted(IoiCorruption::FlipS2, 0)?;
/// let prompt = &clean.prompts[0];
/// assert_eq!(prompt.tokens[prompt.s2_pos], prompt.s);
/// assert_eq!(corrupted.prompts[0].tokens[prompt.s2_pos], prompt.io);
/// let (logits, cache) = model.run_with_cache(clean.tokens())?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct IoiDataset {
    /// The prompts.
    pub prompts: Vec<IoiPrompt>,
    names: Vec<Word>,
    tokenizer: Tokenizer,
}

impl IoiDataset {
    /// Draws prompts: for each a template, a noun for each placeholder, and two names.
    ///
    /// # Errors
    /// [`Error::Setting`] for templates or nouns that do not fit each other, or fewer than two names that are single
    /// tokens; [`Error::Count`] for no samples.
    pub fn new(tokenizer: &Tokenizer, options: IoiOptions) -> Result<Self> {
        check_count(FUNCTION, "num_samples", options.num_samples, 1 + usize::from(options.symmetric), None)?;
        let templates = options.templates.iter().map(|text| Template::new(text)).collect::<Result<Vec<_>>>()?;
        let templates: Vec<Template> = templates
            .into_iter()
            .filter(|template| options.order.is_none_or(|order| order == template.order))
            .collect();
        let expected = "at least one template, in the order that is asked for";
        check_setting(FUNCTION, "templates", !templates.is_empty(), expected, "none")?;
        let mut names = single_tokens(tokenizer, options.names.iter().map(String::as_str), 2, FUNCTION, "names")?;
        if templates.iter().any(Template::begins_with_name) {
            names.retain(|name| name.at_start.is_some());
        }
        let mut dataset = Self { prompts: Vec::new(), names, tokenizer: tokenizer.clone() };
        let rng = &mut seeded_rng(options.seed);
        let pairs = options.num_samples / (1 + usize::from(options.symmetric));
        for _ in 0..pairs {
            let template = &templates[rng.random_range(0..templates.len())];
            let nouns = draw_nouns(rng, &options.nouns)?;
            let [io, s] = draw_names(rng, &dataset.names, &[])?;
            dataset.prompts.push(dataset.prompt(template, &io, &s, &nouns)?);
            if options.symmetric {
                dataset.prompts.push(dataset.prompt(template, &s, &io, &nouns)?);
            }
        }
        Ok(dataset)
    }

    /// The tokens of every prompt, to run. Shape: `[prompt][pos]`.
    pub fn tokens(&self) -> Vec<Vec<u32>> {
        self.prompts.iter().map(|prompt| prompt.tokens.clone()).collect()
    }

    /// The right and the wrong answer of every prompt. Shape: `[prompt]`.
    pub fn answers(&self) -> Vec<[u32; 2]> {
        self.prompts.iter().map(|prompt| [prompt.io, prompt.s]).collect()
    }

    /// The same prompts, changed: same length, same positions, and the answers of the clean prompts. The seed draws the
    /// names of [`IoiCorruption::Abc`].
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than five names for [`IoiCorruption::Abc`].
    pub fn corrupted(&self, corruption: IoiCorruption, seed: u64) -> Result<Self> {
        let rng = &mut seeded_rng(seed);
        let mut dataset = self.clone();
        for prompt in &mut dataset.prompts {
            let [io, s] = [prompt.io, prompt.s].map(|token| self.names.iter().find(|name| name.token == token));
            let (Some(io), Some(s)) = (io, s) else { continue }; // every answer is one of the names
            let [new_io, new_s1, new_s2] = match corruption {
                IoiCorruption::Abc => draw_names(rng, &self.names, &[io, s])?,
                IoiCorruption::FlipS2 => [io, s, io].map(Word::clone),
                IoiCorruption::FlipNames => [s, io, io].map(Word::clone),
                IoiCorruption::FlipOrder => [s, io, s].map(Word::clone),
            };
            for (pos, name) in [(prompt.io_pos, new_io), (prompt.s1_pos, new_s1), (prompt.s2_pos, new_s2)] {
                // A name at the beginning of the text has no space: `IoiDataset::new` has found it there.
                let at_start =
                    pos == self.tokenizer.text_start() && ![prompt.io, prompt.s].contains(&prompt.tokens[pos]);
                prompt.tokens[pos] = if at_start { name.at_start.unwrap_or(name.token) } else { name.token };
            }
            prompt.text = self.tokenizer.to_string(&prompt.tokens[self.tokenizer.text_start()..])?;
        }
        Ok(dataset)
    }

    /// How well a model does the task on these prompts.
    ///
    /// # Errors
    /// As for [`Gpt2::forward`].
    pub fn eval(&self, model: &Gpt2) -> Result<IoiScores> {
        let (mut logit_diffs, mut io) = (Vec::new(), Vec::new());
        model.check_tokens(&self.answers().concat())?;
        for_each_last_logits(model, self.tokens(), |prompt, logits| {
            let prompt = &self.prompts[prompt];
            logit_diffs.push(logits[prompt.io as usize] - logits[prompt.s as usize]);
            io.extend(probabilities(logits, &[prompt.io]));
        })?;
        let right: Vec<f64> = logit_diffs.iter().map(|&diff| f64::from(u8::from(diff > 0.0))).collect();
        let diffs: Vec<f64> = logit_diffs.iter().map(|&diff| f64::from(diff)).collect();
        Ok(IoiScores { accuracy: mean(&right), logit_diff: mean(&diffs), probability: mean(&io), logit_diffs })
    }

    fn prompt(&self, template: &Template, io: &Word, s: &Word, nouns: &[(&str, &str)]) -> Result<IoiPrompt> {
        let text = template.fill(&io.text, &s.text, nouns)?;
        let tokens = self.tokenizer.to_tokens(&text)?;
        let start = self.tokenizer.text_start();
        let positions = |name: &Word| -> Vec<usize> {
            let is_name = |(pos, token): (usize, &u32)| {
                (*token == name.token || (pos == start && name.at_start == Some(*token))).then_some(pos)
            };
            tokens.iter().enumerate().filter_map(is_name).collect()
        };
        let ([io_pos], [s1_pos, s2_pos]) = (&positions(io)[..], &positions(s)[..]) else {
            return Err(Error::Setting {
                function: FUNCTION,
                option: "templates",
                expected:
                    "names after a space, or at the beginning if they are single tokens there, and in no other place"
                        .into(),
                found: format!("{text:?}"),
            });
        };
        let (io_pos, s1_pos, s2_pos, end_pos) = (*io_pos, *s1_pos, *s2_pos, tokens.len() - 1);
        let (io, s, order) = (io.token, s.token, template.order);
        Ok(IoiPrompt { text, tokens, io, s, order, io_pos, s1_pos, s2_pos, end_pos })
    }
}

/// A noun for each placeholder.
fn draw_nouns<'a>(rng: &mut SeededRng, nouns: &'a [(String, Vec<String>)]) -> Result<Vec<(&'a str, &'a str)>> {
    let draw = |(kind, nouns): &'a (String, Vec<String>)| match nouns.choose(rng) {
        Some(noun) => Ok((kind.as_str(), noun.as_str())),
        None => Err(Error::Setting {
            function: FUNCTION,
            option: "nouns",
            expected: format!("at least one for [{kind}]"),
            found: "none".into(),
        }),
    };
    nouns.iter().map(draw).collect()
}

/// `N` different names that are none of `others`.
fn draw_names<const N: usize>(rng: &mut SeededRng, names: &[Word], others: &[&Word]) -> Result<[Word; N]> {
    let mut left: Vec<&Word> = names.iter().filter(|name| !others.contains(name)).collect();
    left.shuffle(rng);
    let drawn: Vec<Word> = left.into_iter().take(N).cloned().collect();
    drawn.try_into().map_err(|drawn: Vec<Word>| Error::Setting {
        function: FUNCTION,
        option: "names",
        expected: format!("at least {} that are single tokens", N + others.len()),
        found: (drawn.len() + others.len()).to_string(),
    })
}
