//! The attention patterns of a layer with the tokens of the prompt.

use ndarray::{Array3, Axis};

use crate::attention_tokens::run_caption;
use crate::error::{Error, Result, check_index};
use crate::model::{ActivationCache, Gpt2};
use crate::plot::charts::{MAX_HOVER_TEXTS, MatrixPlot};
use crate::plot::figure::Figure;
use crate::plot::text::number;

/// Maximum number of cells of one head's figure, about 3 MB of a notebook.
const MAX_CELLS: usize = 300_000;

/// The attention patterns of a layer on one prompt.
pub(super) struct Patterns {
    pub(super) layer: usize,
    /// The model and what changed the run, for titles: ` of demo`.
    pub(super) caption: String,
    /// The label of each token.
    pub(super) labels: Vec<String>,
    /// NaN where key > query. Shape: `[head, query_pos, key_pos]`.
    pub(super) pattern: Array3<f32>,
    /// The function that draws them, for errors.
    pub(super) function: &'static str,
}

impl Patterns {
    /// The patterns of a layer in a cache of one prompt.
    ///
    /// # Errors
    /// As for [`ActivationCache::get`], and [`Error::Shape`] for another model.
    pub(super) fn new(cache: &ActivationCache, model: &Gpt2, layer: usize, function: &'static str) -> Result<Self> {
        cache.check_model(model, function)?;
        let tokens = cache.one_prompt()?;
        let labels = model.token_labels();
        let mut pattern = cache.pattern(layer)?;
        for ((_, query, key), attn) in pattern.indexed_iter_mut() {
            if key > query {
                *attn = f32::NAN;
            }
        }
        Ok(Self {
            layer,
            caption: run_caption(model.name(), "", &cache.interventions()),
            labels: tokens.iter().map(|&token| labels.label(token)).collect(),
            pattern,
            function,
        })
    }

    pub(super) fn n_heads(&self) -> usize {
        self.pattern.dim().0
    }

    pub(super) fn n_pos(&self) -> usize {
        self.labels.len()
    }

    /// The name of a head, `layer.head`.
    pub(super) fn name(&self, head: usize) -> String {
        format!("{}.{head}", self.layer)
    }

    /// A position and its token.
    pub(super) fn position(&self, pos: usize) -> String {
        format!("{pos} {}", self.labels[pos])
    }

    /// The hover text of a cell.
    pub(super) fn text(&self, head: usize, query: usize, key: usize) -> String {
        let attention = number(f64::from(self.pattern[[head, query, key]]));
        format!("attention {attention}\nquery {}, key {}", self.position(query), self.position(key))
    }

    /// The figure of one head.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a head that the model does not have, [`Error::Count`] for too many positions.
    pub(super) fn head(&self, head: usize) -> Result<Figure> {
        check_index("head", head, "the model", self.n_heads())?;
        let (pos, function) = (self.n_pos(), self.function);
        if pos * pos > MAX_CELLS {
            let (what, hint) = (format!("cells of {pos} positions"), Some("take a shorter prompt"));
            return Err(Error::Count { function, what, found: pos * pos, min: 1, max: Some(MAX_CELLS), hint });
        }
        let names = || (0..pos).map(|pos| self.position(pos));
        let plot = MatrixPlot::new(self.pattern.index_axis(Axis(0), head).to_owned())
            .title(format!("Attention of head {}{}", self.name(head), self.caption))
            .color_label("attention")
            .sequential()
            .between([0.0, 1.0])
            .y_label("query")
            .y_ticks(names())?
            .x_label("key")
            .x_ticks(names())?;
        if pos * pos > MAX_HOVER_TEXTS {
            return Ok(plot.figure());
        }
        let cells = (0..pos).flat_map(|query| (0..pos).map(move |key| (query, key)));
        let text = |(query, key)| if key > query { String::new() } else { self.text(head, query, key) };
        Ok(plot.under_the_pointer(cells.map(text).collect()).figure())
    }
}
