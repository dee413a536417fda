//! The content of a figure, as figures of heads and of experiments implement it.

use std::any::Any;

use plotly::Plot;

use super::marks::Drawing;
use super::style::FigureStyle;

/// The content of a figure: data, from which marks follow. It is `Any` so that a figure with one heat map can be told from others.
pub(super) trait Content: Any {
    /// Everything that is drawn. Both writers, plotly's and SVG's, are given this.
    fn draw(&self, style: FigureStyle) -> Drawn;

    /// The content in words, for screen readers and terminals.
    fn describe(&self) -> String;

    /// The kind of figure, for error messages: "a chart".
    fn kind(&self) -> &'static str;
}

/// A figure that is ready to be written.
pub(super) enum Drawn {
    Marks(Drawing),
    /// A plot made elsewhere, of which only plotly knows what it looks like.
    Plot(Box<Plot>),
}

impl Content for Plot {
    fn draw(&self, _: FigureStyle) -> Drawn {
        Drawn::Plot(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        format!("plotly figure with {} traces", self.data().len())
    }

    fn kind(&self) -> &'static str {
        "a figure made from a plot"
    }
}
