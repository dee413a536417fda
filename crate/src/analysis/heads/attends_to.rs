//! Names of heads by the positions that they attend to.

use std::fmt;

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis};

use super::for_each_run;
use super::head_scores::HeadScores;
use crate::error::{Error, Result};
use crate::model::{Activation, Gpt2, Prompts};
use crate::plot::{Figure, Table, decimals};
use crate::tokenizer::TokenLabels;

/// A kind of positions that heads attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttendsTo {
    /// The first position, which holds the beginning-of-sequence token by default: where heads attend that find nothing.
    Bos,
    /// The query's own position.
    CurrentToken,
    /// The position before the query.
    PreviousToken,
    /// Earlier positions with the query's token.
    SameToken,
    /// Positions after earlier ones with the query's token: induction.
    Induction,
    /// Tokens of punctuation only, such as ` (`. Without a tokenizer, there are none.
    Punctuation,
}

impl AttendsTo {
    /// Every kind.
    pub const ALL: [AttendsTo; 6] = [
        AttendsTo::Bos,
        AttendsTo::CurrentToken,
        AttendsTo::PreviousToken,
        AttendsTo::SameToken,
        AttendsTo::Induction,
        AttendsTo::Punctuation,
    ];

    /// Whether a query attends to a position of this kind with a key. Only [`Bos`](Self::Bos) is the first position.
    fn includes(self, prompt: &LabelledPrompt, query: usize, key: usize) -> bool {
        let tokens = prompt.tokens;
        match self {
            Self::Bos => key == 0,
            _ if key == 0 => false,
            Self::CurrentToken => key == query,
            Self::PreviousToken => key + 1 == query,
            Self::SameToken => key < query && tokens[key] == tokens[query],
            Self::Induction => key <= query && key > 1 && tokens[key - 1] == tokens[query],
            Self::Punctuation => prompt.is_punctuation[key],
        }
    }
}

impl fmt::Display for AttendsTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bos => "first position",
            Self::CurrentToken => "current token",
            Self::PreviousToken => "previous token",
            Self::SameToken => "same token",
            Self::Induction => "induction",
            Self::Punctuation => "punctuation",
        })
    }
}

/// Options of [`Gpt2::name_heads`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NameHeadsOptions {
    /// How far above chance a head's attention to a kind of positions must be to name the head: 0 is chance, 1 is all of
    /// the attention. At least 0, and at most 1.
    pub min_excess: f32,
}

impl Default for NameHeadsOptions {
    /// 0.3: three tenths of the way from chance to all of the attention.
    fn default() -> Self {
        Self { min_excess: 0.3 }
    }
}

/// What the heads of a model attend to. See [`Gpt2::name_heads`].
#[derive(Clone, Debug, PartialEq)]
pub struct HeadNames {
    /// The kind of positions that names each head: the one whose attention is farthest above chance. `None` for a head
    /// that is near chance for all of them. Shape: `[n_layers, n_heads]`.
    pub names: Array2<Option<AttendsTo>>,
    /// The mean attention to each kind of positions, in the order of [`AttendsTo::ALL`]; NaN where the prompts have
    /// none. Shape: `[kind, n_layers, n_heads]`.
    pub attention: Array3<f32>,
    /// The attention of a head that attends to all positions alike. Shape: `[kind]`.
    pub chance: Array1<f32>,
}

/// A prompt with what its tokens are.
struct LabelledPrompt<'a> {
    tokens: &'a [u32],
    /// Shape: `[pos]`.
    is_punctuation: Vec<bool>,
}

/// For one kind of positions and one prompt: the queries that have such a position to attend to, and others too.
struct Cells {
    /// 1 where the key is of the kind, in the rows of such queries. Shape: `[query_pos, key_pos]`.
    mask: Array2<f32>,
    n_queries: f64,
    /// The sum over these queries of the share of positions that are of the kind.
    chance: f64,
}

impl Cells {
    fn new(kind: AttendsTo, prompt: &LabelledPrompt) -> Self {
        let pos = prompt.tokens.len();
        let mut cells = Self { mask: Array2::zeros((pos, pos)), n_queries: 0.0, chance: 0.0 };
        for query in 0..pos {
            let keys: Vec<usize> = (0..=query).filter(|&key| kind.includes(prompt, query, key)).collect();
            if keys.is_empty() || keys.len() == query + 1 {
                continue; // nothing to choose from
            }
            cells.n_queries += 1.0;
            cells.chance += keys.len() as f64 / (query + 1) as f64;
            keys.iter().for_each(|&key| cells.mask[[query, key]] = 1.0);
        }
        cells
    }

    /// The sum over the queries of the attention to the kind. Shape: `[query_pos, key_pos]`.
    fn attention(&self, pattern: ArrayView2<f32>) -> f64 {
        pattern.iter().zip(&self.mask).map(|(&pattern, &mask)| f64::from(pattern * mask)).sum()
    }
}

impl Gpt2 {
    /// Names the heads of the model by the positions that they attend to, as the mean over the queries of all prompts
    /// that have such a position and also others. Shape: → as [`HeadNames`] lists.
    ///
    /// Chance is the attention of a head that attends to all positions up to the query alike, which falls with the
    /// length of the prompts. A head is named by the kind with the largest excess,
    /// `(attention − chance) / (1 − chance)`, if that reaches [`min_excess`](NameHeadsOptions::min_excess). Kinds
    /// overlap: the previous token may be a punctuation mark. Induction and same token need prompts that repeat
    /// themselves, such as [`RepeatedTokens::prompts`](crate::datasets::RepeatedTokens::prompts).
    ///
    /// # Errors
    /// As for [`run_with_cache`](Self::run_with_cache), and [`Error::Threshold`] if `min_excess` is not from 0 to 1.
    pub fn name_heads(&self, prompts: impl Into<Prompts>, options: NameHeadsOptions) -> Result<HeadNames> {
        self.names_of_heads(prompts.into(), options)
    }

    /// [`name_heads`](Self::name_heads) without the generic parameter.
    fn names_of_heads(&self, prompts: Prompts, options: NameHeadsOptions) -> Result<HeadNames> {
        if !(0.0..=1.0).contains(&options.min_excess) {
            let (function, what, found) = ("name_heads", "min_excess", options.min_excess);
            return Err(Error::Threshold { function, what, found, min: 0.0, max: 1.0 });
        }
        let prompts = self.checked_prompts(prompts)?;
        let labels = self.tokenizer().is_ok().then(|| self.token_labels());
        let (n_layers, n_heads, n_kinds) = (self.config().n_layers, self.config().n_heads, AttendsTo::ALL.len());
        let (mut attention, mut chance) = (Array3::<f64>::zeros((n_kinds, n_layers, n_heads)), vec![0.0; n_kinds]);
        let mut n_queries = vec![0.0; n_kinds];
        for_each_run(self, prompts, |cache| {
            let prompt = LabelledPrompt::new(cache.one_prompt()?, labels.as_ref());
            let cells = AttendsTo::ALL.map(|kind| Cells::new(kind, &prompt));
            for (kind, cells) in cells.iter().enumerate() {
                n_queries[kind] += cells.n_queries;
                chance[kind] += cells.chance;
            }
            for layer in 0..n_layers {
                let patterns = cache.cube(Activation::Pattern, layer)?; // [n_heads, query_pos, key_pos]
                for (head, pattern) in patterns.outer_iter().enumerate() {
                    for (kind, cells) in cells.iter().enumerate() {
                        attention[[kind, layer, head]] += cells.attention(pattern);
                    }
                }
            }
            Ok(())
        })?;
        for (mut attention, &n_queries) in attention.outer_iter_mut().zip(&n_queries) {
            attention /= n_queries; // 0 / 0 is NaN
        }
        let chance: Vec<f64> = chance.iter().zip(&n_queries).map(|(chance, n_queries)| chance / n_queries).collect();
        let name = |(layer, head)| {
            let excess = |kind: usize| (attention[[kind, layer, head]] - chance[kind]) / (1.0 - chance[kind]);
            let kinds = (0..n_kinds).filter(|&kind| excess(kind) >= f64::from(options.min_excess));
            kinds.max_by(|&one, &other| excess(one).total_cmp(&excess(other))).map(|kind| AttendsTo::ALL[kind])
        };
        Ok(HeadNames {
            names: Array2::from_shape_fn((n_layers, n_heads), name),
            chance: chance.into_iter().map(|chance| chance as f32).collect(),
            attention: attention.mapv(|attention| attention as f32),
        })
    }
}

impl<'a> LabelledPrompt<'a> {
    fn new(tokens: &'a [u32], labels: Option<&TokenLabels>) -> Self {
        let is_punctuation = |&token: &u32| labels.is_some_and(|labels| is_punctuation(labels.text(token).trim()));
        Self { tokens, is_punctuation: tokens.iter().map(is_punctuation).collect() }
    }
}

/// Whether a text consists of punctuation marks and symbols. A part of a character (`�`) is none.
fn is_punctuation(text: &str) -> bool {
    let is_mark = |c: char| !c.is_alphanumeric() && !c.is_whitespace() && !c.is_control() && c != '\u{fffd}';
    !text.is_empty() && text.chars().all(is_mark)
}

impl HeadNames {
    /// The attention of every head to one kind of positions.
    pub fn scores(&self, kind: AttendsTo) -> HeadScores {
        let index = kind as usize;
        let values = self.attention.index_axis(Axis(0), index).to_owned();
        HeadScores { name: format!("attention to {kind}"), values, chance: Some(self.chance[index]) }
    }

    /// The heads with this name, as (layer, head).
    pub fn heads(&self, kind: AttendsTo) -> Vec<(usize, usize)> {
        self.names.indexed_iter().filter(|&(_, &name)| name == Some(kind)).map(|(at, _)| at).collect()
    }

    /// A table with a row for each head: its name, and its attention to each kind of positions. The first row is chance.
    pub fn table(&self) -> Table {
        let number = |x: f32| if x.is_nan() { String::new() } else { decimals(x, 2) };
        let row = |head: String, name: String, numbers: Vec<f32>| -> Vec<String> {
            [head, name].into_iter().chain(numbers.into_iter().map(number)).collect()
        };
        let mut rows = vec![row("chance".into(), String::new(), self.chance.to_vec())];
        for ((layer, head), name) in self.names.indexed_iter() {
            let numbers = (0..AttendsTo::ALL.len()).map(|kind| self.attention[[kind, layer, head]]).collect();
            rows.push(row(format!("{layer}.{head}"), name.map_or_else(String::new, |name| name.to_string()), numbers));
        }
        let kinds = AttendsTo::ALL.map(|kind| kind.to_string());
        let header: Vec<&str> = ["head", "name"].into_iter().chain(kinds.iter().map(String::as_str)).collect();
        Table::new("Mean attention of each head", &header, rows)
    }

    /// The attention to one kind of positions as a heat map, layers by heads.
    pub fn plot(&self, kind: AttendsTo) -> Figure {
        self.scores(kind).plot()
    }

    /// Shows the table in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_is_marks_only() {
        assert!([",", "...", "(", "—", "\"", "$"].into_iter().all(is_punctuation));
        assert!(!["", "a,", "3", "#3", "\u{fffd}", "é"].into_iter().any(is_punctuation));
    }

    #[test]
    fn kinds_of_a_small_prompt() {
        // BOS, a, comma, a, comma
        let prompt = LabelledPrompt { tokens: &[0, 1, 2, 1, 2], is_punctuation: vec![false, false, true, false, true] };
        let cells = |kind| {
            let cells = Cells::new(kind, &prompt);
            let ones = cells.mask.indexed_iter().filter(|(_, x)| **x == 1.0).map(|(at, _)| at);
            (ones.collect::<Vec<_>>(), cells.n_queries, cells.chance)
        };
        let bos: Vec<_> = (1..5).map(|query| (query, 0)).collect();
        assert_eq!(cells(AttendsTo::Bos), (bos, 4.0, 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0 + 1.0 / 5.0));
        assert_eq!(cells(AttendsTo::PreviousToken).0, [(2, 1), (3, 2), (4, 3)]);
        assert_eq!(cells(AttendsTo::SameToken), (vec![(3, 1), (4, 2)], 2.0, 1.0 / 4.0 + 1.0 / 5.0));
        assert_eq!(cells(AttendsTo::Induction).0, [(3, 2), (4, 3)]);
        assert_eq!(cells(AttendsTo::Punctuation).0, [(2, 2), (3, 2), (4, 2), (4, 4)]);
        assert_eq!(cells(AttendsTo::CurrentToken).0, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    }
}
