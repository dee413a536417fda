//! The trait of figure contents, which the figures of heads and of experiments implement.

use std::any::Any;

use plotly::Plot;

use super::marks::Drawing;
use super::style::FigureStyle;

/// The content of a figure: data that can be drawn as marks. `Any` allows downcasting to a figure of one heat map.
pub(super) trait Content: Any {
    /// Everything to draw: the input of both writers, plotly's and SVG's.
    fn draw(&self, style: FigureStyle) -> Drawn;

    /// The content in words, for screen readers and terminals.
    fn describe(&self) -> String;

    /// The kind of figure, for error messages: "a chart".
    fn kind(&self) -> &'static str;
}

/// A figure that is ready to be written.
pub(super) enum Drawn {
    Marks(Drawing),
    /// A plot made outside this crate, which only plotly can draw.
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
