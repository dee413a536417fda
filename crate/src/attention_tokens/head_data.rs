//! The data of a head: for each cell (query, key) its attention, its attention token, and the tokens of the key
//! position's query, key and value vectors.

use ndarray::{Array2, Array4, s};

use super::n_cells;
use crate::decode::{Reading, TopTokens};
use crate::error::{Result, check_index};
use crate::tokenizer::TokenLabels;

/// The columns of a head's data, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// The token id at the key position.
    Input,
    /// The attention pattern.
    Attn,
    /// The attention token of query and key.
    Qk,
    /// The token of the key position's query vector.
    Q,
    /// The token of the key position's key vector.
    K,
    /// The token of the key position's value vector.
    V,
}

impl Feature {
    /// All features, in the order of [`HeadData::to_array`]'s last axis.
    pub const ALL: [Feature; 6] = [Feature::Input, Feature::Attn, Feature::Qk, Feature::Q, Feature::K, Feature::V];

    /// `"input"`, `"attn"`, `"qk"`, `"q"`, `"k"`, `"v"`: the original's column names.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Input => "input",
            Feature::Attn => "attn",
            Feature::Qk => "qk",
            Feature::Q => "q",
            Feature::K => "k",
            Feature::V => "v",
        }
    }
}

/// The data of one head on every prompt of a batch.
#[derive(Clone, Debug)]
pub struct HeadData {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// How its cells were read as tokens.
    pub reading: Reading,
    /// The data of each prompt, in the order of the batch.
    pub prompts: Vec<PromptHeadData>,
}

/// The data of one head on one prompt.
#[derive(Clone, Debug)]
pub struct PromptHeadData {
    /// The layer, from 0.
    pub layer: usize,
    /// The head of the layer, from 0.
    pub head: usize,
    /// How its cells were read as tokens.
    pub reading: Reading,
    /// The token ids of the prompt. Shape: `[pos]`.
    pub input: Vec<u32>,
    /// The attention pattern; 0 where key > query. Shape: `[query_pos, key_pos]`.
    pub attn: Array2<f32>,
    /// The attention tokens, a row for each cell with key ≤ query, query by query; [`cell`](Self::cell) returns the row
    /// of a cell. Shape: `n = pos (pos + 1) / 2` rows.
    pub qk: TopTokens,
    /// The tokens of the query vectors, a row for each position.
    pub q: TopTokens,
    /// The tokens of the key vectors, a row for each position.
    pub k: TopTokens,
    /// The tokens of the value vectors, a row for each position.
    pub v: TopTokens,
    /// The tokens with the lowest logits of each cell, lowest first, in the rows of [`qk`](Self::qk): what the cell writes
    /// against. Only of [`Projection::Written`](crate::Projection::Written). The margin is the second-lowest logit minus the
    /// lowest.
    pub lowest: Option<TopTokens>,
    /// The interventions that changed the run, in words; none for a run as the model is.
    pub interventions: Vec<String>,
    /// The name of the model, as it was given to `from_pretrained`.
    pub(super) model: String,
    pub(super) labels: TokenLabels,
}

/// More interventions than these are counted in a caption instead of listed.
const MAX_IN_CAPTION: usize = 3;

/// A model, what was read of its run, and what changed the run: the end of a caption.
pub(crate) fn run_caption(model: &str, what: &str, interventions: &[String]) -> String {
    // Of a folder, the last part.
    let model = model.trim_end_matches(['/', '\\']);
    let model = if model.matches(['/', '\\']).count() > 1 || model.starts_with(['/', '.']) {
        model.rsplit(['/', '\\']).next().unwrap_or(model)
    } else {
        model
    };
    let mut caption = format!(" of {model}{what}");
    for intervention in interventions.iter().take(MAX_IN_CAPTION) {
        caption.push_str(&format!("; {intervention}"));
    }
    if let Some(more @ 1..) = interventions.len().checked_sub(MAX_IN_CAPTION) {
        caption.push_str(&format!("; {more} more interventions"));
    }
    caption
}

impl HeadData {
    /// Number of prompts in the batch.
    pub fn n_prompts(&self) -> usize {
        self.prompts.len()
    }

    /// The data of one prompt of the batch.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if the batch has no such prompt.
    pub fn prompt(&self, prompt: usize) -> Result<PromptHeadData> {
        check_index("prompt", prompt, "the batch", self.prompts.len())?;
        Ok(self.prompts[prompt].clone())
    }

    pub(crate) fn prompts(&self) -> &[PromptHeadData] {
        &self.prompts
    }

    /// The original notebook's array, with the features in the order of [`Feature::ALL`]. Every feature is −1 where
    /// key > query and beyond the end of shorter prompts. (Token ids below 2²⁴ are exact in `f32`.)
    /// Shape: → `[batch, query, key, feature]`.
    pub fn to_array(&self) -> Array4<f32> {
        let longest = self.prompts.iter().map(|prompt| prompt.input.len()).max().unwrap_or(0);
        let mut array = Array4::from_elem((self.prompts.len(), longest, longest, Feature::ALL.len()), -1.0);
        for (prompt, mut array) in self.prompts.iter().zip(array.outer_iter_mut()) {
            let pos = prompt.input.len();
            for (index, feature) in Feature::ALL.into_iter().enumerate() {
                array.slice_mut(s![..pos, ..pos, index]).assign(&prompt.feature(feature));
            }
        }
        array
    }
}

#[cfg(test)]
impl PromptHeadData {
    /// Data of a head without a model: 40 attention tokens in turn, on `pos` positions.
    pub(crate) fn without_a_model(pos: usize) -> Self {
        let top = |rows: usize| TopTokens {
            tokens: Array2::from_shape_fn((rows, 2), |(row, rank)| (row * row % 40 + rank) as u32),
            logits: Array2::from_shape_fn((rows, 2), |(row, rank)| row as f32 / 7.0 - rank as f32),
            margin: ndarray::Array1::ones(rows),
        };
        Self {
            layer: 0,
            head: 1,
            reading: Reading::NOTEBOOK,
            lowest: None,
            input: (0..pos as u32).collect(),
            attn: Array2::from_shape_fn(
                (pos, pos),
                |(query, key)| if key <= query { 1.0 / (query + 1) as f32 } else { 0.0 },
            ),
            qk: top(n_cells(pos)),
            q: top(pos),
            k: top(pos),
            v: top(pos),
            interventions: Vec::new(),
            model: "/models/none".into(),
            labels: TokenLabels::new(None),
        }
    }
}

impl PromptHeadData {
    /// Number of positions.
    pub fn n_pos(&self) -> usize {
        self.input.len()
    }

    /// The row of a cell in [`qk`](Self::qk); `None` where key > query or beyond the prompt.
    pub fn cell(&self, query: usize, key: usize) -> Option<usize> {
        (key <= query && query < self.n_pos()).then(|| n_cells(query) + key)
    }

    /// The cells that have data, those with key ≤ query, as (query, key), query by query.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..self.n_pos()).flat_map(|query| (0..=query).map(move |key| (query, key)))
    }

    /// The head's name: `layer.head`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.layer, self.head)
    }

    /// The head and its model, how its tokens were decoded, and what changed the run, for titles and captions.
    pub(crate) fn caption(&self) -> String {
        format!("head {}{}", self.name(), self.decoded())
    }

    /// The model, how tokens were decoded, and what changed the run: the part of a caption that heads have in common.
    pub(crate) fn decoded(&self) -> String {
        run_caption(&self.model, &format!(", through {}", self.reading.in_words()), &self.interventions)
    }

    /// A feature of every cell, −1 where key > query. Shape: → `[query_pos, key_pos]`.
    pub fn feature(&self, feature: Feature) -> Array2<f32> {
        let best = |top: &TopTokens, row: usize| top.tokens[[row, 0]] as f32;
        let pos = self.n_pos();
        Array2::from_shape_fn((pos, pos), |(query, key)| match self.cell(query, key) {
            None => -1.0,
            Some(cell) => match feature {
                Feature::Input => self.input[key] as f32,
                Feature::Attn => self.attn[[query, key]],
                Feature::Qk => best(&self.qk, cell),
                Feature::Q => best(&self.q, key),
                Feature::K => best(&self.k, key),
                Feature::V => best(&self.v, key),
            },
        })
    }

    /// The attention tokens of a query, from the first key to its own position. Shape: → `[query + 1]`.
    pub(crate) fn tokens_of_query(&self, query: usize) -> Vec<u32> {
        let first = n_cells(query);
        self.qk.tokens.slice(s![first..=first + query, 0]).to_vec()
    }

    /// The attention token of every cell with key ≤ query, `None` elsewhere. Shape: → `[query_pos, key_pos]`.
    pub fn attention_tokens(&self) -> Array2<Option<u32>> {
        let pos = self.n_pos();
        Array2::from_shape_fn((pos, pos), |(query, key)| Some(self.qk.tokens[[self.cell(query, key)?, 0]]))
    }

    /// The text of a token, unchanged; `#` and its id if it has none.
    pub(crate) fn token_text(&self, token: u32) -> String {
        self.labels.text(token)
    }

    /// The label of a token in figures and tables: its text with everything visible. No two tokens of a vocabulary have
    /// the same label.
    ///
    /// | token | label |
    /// |---|---|
    /// | `" the"` | `␣the` |
    /// | newline, tab, carriage return, lone space | `<nl>`, `<tab>`, `<cr>`, `<sp>` |
    /// | other invisible characters | `<nbsp>`, `<zwsp>`, `<U+FE0F>` |
    /// | a piece of a character | its bytes: `<0xF0><0x9F>` |
    /// | `<\|endoftext\|>` | `EOS` |
    /// | an id without text (no tokenizer, or an id beyond it) | `#1234` |
    /// | a text that looks like one of these | `<U+003C>nl>` for the five characters `<nl>` |
    /// | more than 40 characters | the first 28 and the id: `…<#1234>` |
    pub fn token_label(&self, token: u32) -> String {
        self.labels.label(token)
    }
}
