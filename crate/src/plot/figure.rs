//! A figure: what it shows, how it looks, and how it shows itself.

use std::rc::Rc;

use plotly::Plot;

use super::heads::heat_map::HeatMaps;
use super::heads::panel::Panel;
use super::style::{ColorScale, Look, Theme};
use super::{mime, plotly_json};
use crate::error::{Error, Result};
use crate::evcxr;

/// What a figure can show.
pub(super) trait Content {
    /// As plotly draws it.
    fn plot(&self, look: Look) -> Plot;

    /// As a static picture, if it is known how it looks.
    fn svg(&self, look: Look) -> Option<String>;

    /// In words.
    fn describe(&self) -> String;

    /// The one heat map that it is, or what it is instead.
    fn panel(&self) -> std::result::Result<&Panel, &'static str>;

    /// Whether themes and colour scales apply.
    fn has_look(&self) -> bool {
        true
    }
}

/// A figure: it shows itself as the last expression of a cell, and gives its [`plotly::Plot`].
///
/// To change what this crate has no function for, take the plot, change it, and make a figure of it again:
///
/// ```
/// use attention_tokens::{notebook::plot_attns, prelude::*};
/// use ndarray::arr2;
///
/// let mut plot = plot_attns(&arr2(&[[0.0, 1.0], [2.0, 0.0]])).to_plot();
/// let layout = plot.layout().clone().title("mine");
/// plot.set_layout(layout);
/// let figure = Figure::from(plot);
/// assert!(figure.to_json().contains("mine"));
/// ```
// The content is behind a pointer whose type says nothing of plotly: in a notebook, each cell with a figure would compile the
// dropping of plotly's hundred types again.
#[derive(Clone)]
pub struct Figure {
    content: Rc<dyn Content>,
    look: Look,
}

impl Figure {
    pub(super) fn new(content: impl Content + 'static) -> Self {
        Self { content: Rc::new(content), look: Look::default() }
    }

    pub(crate) fn from_panel(panel: Panel, look: Look) -> Self {
        Self { look, ..Self::new(HeatMaps::one(panel)) }
    }

    /// Two heat maps side by side, with a title above and a description below.
    pub(crate) fn from_panels(left: Panel, right: Panel, title: &str, description: &str, look: Look) -> Self {
        Self { look, ..Self::new(HeatMaps::pair(left, right, title, description)) }
    }

    /// The figure as a [`plotly::Plot`], to change or to keep. [`Figure::from`] makes a figure of it again.
    pub fn to_plot(&self) -> Plot {
        self.content.plot(self.look)
    }

    /// The figure as plotly's JSON: `data`, `layout`, `config`.
    pub fn to_json(&self) -> String {
        plotly_json::json(&self.to_plot())
    }

    /// The figure as a static picture, drawn without a browser; `None` for a figure made from a plot, of which only plotly
    /// knows how it looks. (A plot that was taken out, changed and made a figure of again is one.)
    pub fn to_svg(&self) -> Option<String> {
        self.content.svg(self.look)
    }

    /// What the figure shows, in words.
    pub fn describe(&self) -> String {
        self.content.describe()
    }

    /// The same figure in another theme.
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, which has a look of its own.
    pub fn with_theme(&self, theme: Theme) -> Result<Self> {
        self.with_look("with_theme", Look { theme, ..self.look })
    }

    /// The same figure in other colours.
    ///
    /// # Errors
    /// [`Error::FigureKind`] for a figure made from a plot, which has a look of its own.
    pub fn with_color_scale(&self, color_scale: ColorScale) -> Result<Self> {
        self.with_look("with_color_scale", Look { color_scale, ..self.look })
    }

    fn with_look(&self, what: &'static str, look: Look) -> Result<Self> {
        match self.content.has_look() {
            true => Ok(Self { look, ..self.clone() }),
            false => Err(Error::FigureKind {
                function: what,
                expected: "a figure that this crate draws",
                found: "a figure made from a plot; change its layout and its traces",
            }),
        }
    }

    pub(crate) fn look(&self) -> Look {
        self.look
    }

    /// The one panel of the figure, to make another figure of it.
    pub(crate) fn panel(&self, what: &'static str) -> Result<&Panel> {
        self.content.panel().map_err(|found| Error::FigureKind {
            function: what,
            expected: "a figure with one heat map, as plot_attns makes it",
            found,
        })
    }

    /// Shows the figure in an evcxr notebook; evcxr calls this for a cell's last expression.
    pub fn evcxr_display(&self) {
        let (json, svg, description) = (self.to_json(), self.to_svg(), self.describe());
        let html = mime::html(&json, svg.as_deref(), &description);
        let mut contents = vec![("application/vnd.plotly.v1+json", json.as_str()), ("text/html", &html)];
        contents.extend(svg.as_deref().map(|svg| ("image/svg+xml", svg)));
        contents.push(("text/plain", &description));
        evcxr::show(&contents);
    }
}

/// A plot made elsewhere.
impl Content for Plot {
    fn plot(&self, _: Look) -> Plot {
        self.clone()
    }

    fn svg(&self, _: Look) -> Option<String> {
        None
    }

    fn describe(&self) -> String {
        format!("plotly figure with {} traces", self.data().len())
    }

    fn panel(&self) -> std::result::Result<&Panel, &'static str> {
        Err("a figure made from a plot")
    }

    fn has_look(&self) -> bool {
        false
    }
}

impl From<Plot> for Figure {
    fn from(plot: Plot) -> Self {
        Self::new(plot)
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure({})", self.describe())
    }
}
