//! A figure: a plotly plot that knows what it shows, and shows itself.

use plotly::common::{Anchor, Font, Title};
use plotly::layout::{Annotation, Margin};
use plotly::{Layout, Plot};

use super::panel::Panel;
use super::text::escape;
use crate::error::{Error, Result};

const SINGLE: [usize; 2] = [1200, 800];
/// Each of two panels side by side.
const PANEL: [usize; 2] = [600, 400];
/// Above and below two panels, for title and description.
const TITLE_HEIGHT: usize = 60;
const DESCRIPTION_HEIGHT: usize = 60;

/// A figure: it owns a [`plotly::Plot`], hands it out, and shows itself as the last expression of a cell.
///
/// To change what this crate has no function for, take the plot, change it, and make a figure of it again:
///
/// ```
/// use attention_tokens::{notebook::plot_attns, prelude::*};
/// use ndarray::arr2;
///
/// let mut plot = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])).into_plot();
/// let layout = plot.layout().clone().title("mine");
/// plot.set_layout(layout);
/// let figure = Figure::from(plot);
/// assert!(figure.to_json().contains("mine"));
/// ```
#[derive(Clone)]
pub struct Figure {
    plot: Plot,
    /// What the plot was drawn from; empty if it was made elsewhere.
    panels: Vec<Panel>,
}

impl Figure {
    pub(crate) fn from_panel(panel: Panel) -> Self {
        let mut plot = Plot::new();
        let layout = layout(SINGLE, Margin::new().left(120).right(120).top(120).bottom(130));
        let layout = panel.draw(0, [0.0, 1.0], &mut plot, layout);
        plot.set_layout(layout);
        Self { plot, panels: vec![panel] }
    }

    /// Two figures side by side, with a title above and a description below.
    pub(crate) fn from_panels(left: Panel, right: Panel, title: &str, description: &str) -> Self {
        let mut plot = Plot::new();
        let size = [2 * PANEL[0], TITLE_HEIGHT + PANEL[1] + DESCRIPTION_HEIGHT];
        let margin = Margin::new().left(90).right(90).top(80 + TITLE_HEIGHT).bottom(90 + DESCRIPTION_HEIGHT);
        let mut layout = layout(size, margin).title(Title::with_text(escape(title)));
        layout = left.draw(0, [0.0, 0.42], &mut plot, layout);
        layout = right.draw(1, [0.58, 1.0], &mut plot, layout);
        let below = Annotation::new()
            .text(escape(description))
            .show_arrow(false)
            .font(Font::new().size(14).color("black"))
            .x_ref("paper")
            .y_ref("paper")
            .x(0.5)
            .y(0.0)
            .y_anchor(Anchor::Top)
            .y_shift(-125.0);
        layout.add_annotation(below);
        plot.set_layout(layout);
        Self { plot, panels: vec![left, right] }
    }

    /// The plot.
    pub fn plot(&self) -> &Plot {
        &self.plot
    }

    /// The plot, to change or to keep. [`Figure::from`] makes a figure of it again.
    pub fn into_plot(self) -> Plot {
        self.plot
    }

    /// The plot as plotly's JSON: `data`, `layout`, `config`.
    pub fn to_json(&self) -> String {
        self.plot.to_json()
    }

    /// What the figure shows, in words.
    pub fn describe(&self) -> String {
        match &self.panels[..] {
            [] => format!("plotly figure with {} traces", self.plot.data().len()),
            panels => panels.iter().map(Panel::describe).collect::<Vec<_>>().join("; "),
        }
    }

    /// The one panel of the figure, to make another figure of it.
    pub(crate) fn panel(&self, what: &'static str) -> Result<&Panel> {
        let found = match &self.panels[..] {
            [panel] => return Ok(panel),
            [] => "a figure made from a plot".to_owned(),
            panels => format!("a figure with {} heat maps", panels.len()),
        };
        Err(Error::Mismatch { what, expected: "a figure with one heat map, as plot_attns makes it".into(), found })
    }

    /// Shows the figure in an evcxr notebook; evcxr calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        // evcxr takes several MIME types in one bundle, each between these markers.
        for (mime, content) in [("application/vnd.plotly.v1+json", self.to_json()), ("text/plain", self.describe())] {
            println!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT");
        }
    }
}

impl From<Plot> for Figure {
    fn from(plot: Plot) -> Self {
        Self { plot, panels: Vec::new() }
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure({})", self.describe())
    }
}

fn layout([width, height]: [usize; 2], margin: Margin) -> Layout {
    Layout::new()
        .width(width)
        .height(height)
        .margin(margin)
        .plot_background_color("white")
        .paper_background_color("white")
}
