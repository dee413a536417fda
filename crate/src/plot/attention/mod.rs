//! Attention patterns: one head, the heads of a layer, and the views that CircuitsVis and BertViz made known.

mod grid;
mod lines;
mod over_tokens;
mod patterns;

use self::grid::PatternGrid;
use self::lines::AttentionLines;
use self::over_tokens::OverTokens;
use self::patterns::Patterns;
use super::figure::Figure;
use crate::error::Result;
use crate::model::{ActivationCache, Gpt2};

/// Figures of the attention pattern, of a cache of one prompt. For the words that heads say, see
/// [`head_data`](crate::head_data).
impl ActivationCache {
    /// The attention pattern of one head as a heat map from 0 to 1, with the tokens of the prompt on both axes: a row for
    /// each query, a column for each key. Keys after the query, which get no attention, have a light colour of their own.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache(["The bus is late.", "The bus was early today."])?;
    /// let figure = cache.prompt(1)?.plot_attention(&model, 0, 1)?;
    /// assert!(figure.describe().starts_with("matrix: Attention of head 0.1 of demo; 7 × 7 cells, query by key"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`get`](Self::get), [`Error::OutOfRange`](crate::Error::OutOfRange) for a head that the model does not have,
    /// [`Error::Shape`](crate::Error::Shape) for another model, and [`Error::Count`](crate::Error::Count) for more than 547
    /// positions.
    pub fn plot_attention(&self, model: &Gpt2, layer: usize, head: usize) -> Result<Figure> {
        Patterns::new(self, model, layer, "plot_attention")?.head(head)
    }

    /// The attention patterns of all heads of a layer, as small heat maps in rows with one colour scale from 0 to 1.
    ///
    /// They are one heat map with one pair of axes, as those of [`layer_grid`](crate::notebook::layer_grid): zooming shows a
    /// part of the figure. Beyond 10,000 cells, gaps included, the pointer shows the attention without its positions; the
    /// limit is 300,000 cells.
    ///
    /// # Errors
    /// As for [`get`](Self::get), [`Error::Shape`](crate::Error::Shape) for another model, and
    /// [`Error::Count`](crate::Error::Count) for too many cells.
    pub fn plot_layer_attention(&self, model: &Gpt2, layer: usize) -> Result<Figure> {
        Ok(Figure::new(PatternGrid::new(Patterns::new(self, model, layer, "plot_layer_attention")?)?))
    }

    /// What a token attends to, as the prompt's text with shaded tokens: the view of CircuitsVis'
    /// `attention_heads`. A menu chooses the head, a slider the token, which is framed; the more attention a token
    /// gets from it, the darker its shade (on a dark theme: the more blue), by the square root. Tokens after the framed one
    /// are grey.
    ///
    /// CircuitsVis chooses head and token by pointing at them, which takes a script in the page; plotly's menus and sliders
    /// need none, so the figure works without a kernel and in an exported page. The pointer shows the attention as a number.
    /// The text is set in columns of one width, not as running text. A static picture shows head 0 and the last token.
    /// [`plot_layer_attention`](Self::plot_layer_attention) has the small patterns that CircuitsVis shows beside.
    ///
    /// The limit is 150,000 pairs of positions in all heads together, about 1.3 MB of a notebook: 111 tokens with 12 heads.
    ///
    /// # Errors
    /// As for [`plot_layer_attention`](Self::plot_layer_attention).
    pub fn plot_attention_over_tokens(&self, model: &Gpt2, layer: usize) -> Result<Figure> {
        Ok(Figure::new(OverTokens::new(Patterns::new(self, model, layer, "plot_attention_over_tokens")?)?))
    }

    /// What each token attends to, as lines between two columns of the prompt's tokens: the head view of BertViz. On the left
    /// is the token that attends (the query), on the right the tokens that it attends to; each head has a colour, and the
    /// opacity of a line is the attention. A menu shows one head or all of them; a click on a head in the legend hides it, a
    /// double click hides all others.
    ///
    /// BertViz shows the lines of one token while the pointer is on it, which takes a script in the page; here the pointer on
    /// a token's dot shows its strongest attention as text. Opacities are rounded to nine steps. Lines below 0.01, which
    /// could hardly be seen, are left out, and of the others the 6,000 strongest are drawn, the same number for each head:
    /// 500 of 12 heads. The title says how many are left out. In a figure of more than about 100 tokens, only every second
    /// or third has its label.
    ///
    /// # Errors
    /// As for [`get`](Self::get), and [`Error::Shape`](crate::Error::Shape) for another model.
    pub fn plot_attention_lines(&self, model: &Gpt2, layer: usize) -> Result<Figure> {
        Ok(Figure::new(AttentionLines::new(Patterns::new(self, model, layer, "plot_attention_lines")?)))
    }
}
