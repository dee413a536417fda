//! A figure: a plotly plot that knows what it shows, and shows itself.

use plotly::common::{Anchor, Font, Title};
use plotly::layout::{Annotation, Margin};
use plotly::{Layout, Plot};

use super::bundle;
use super::panel::{Panel, Place};
use super::svg::{Area, Picture};
use super::text::escape;
use crate::error::{Error, Result};

/// Width and height of a figure with one panel.
const SINGLE: [usize; 2] = [1200, 800];
/// Left, right, above and below.
const SINGLE_MARGINS: [usize; 4] = [120, 120, 120, 130];
/// Two panels of 600 × 400 side by side, and 60 each for title and description.
const PAIR: [usize; 2] = [2 * 600, 60 + 400 + 60];
const PAIR_MARGINS: [usize; 4] = [90, 90, 80 + 60, 90 + 60];
/// The shares of the width, between the margins, of two panels.
const DOMAINS: [[f64; 2]; 2] = [[0.0, 0.42], [0.58, 1.0]];
const TITLE_SIZE: usize = 17;
const DESCRIPTION_SIZE: usize = 14;
/// Pixels between two panels and the description below.
const DESCRIPTION_DISTANCE: f64 = 125.0;

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
    /// Of two panels: the title above and the description below.
    texts: Option<[String; 2]>,
}

impl Figure {
    pub(crate) fn from_panel(panel: Panel) -> Self {
        let mut plot = Plot::new();
        let layout = layout(SINGLE, SINGLE_MARGINS);
        let layout =
            panel.draw(0, &place(&panel, between(SINGLE_MARGINS, SINGLE), [0.0, 1.0], false), &mut plot, layout);
        plot.set_layout(layout);
        Self { plot, panels: vec![panel], texts: None }
    }

    /// Two figures side by side, with a title above and a description below.
    pub(crate) fn from_panels(left: Panel, right: Panel, title: &str, description: &str) -> Self {
        let mut plot = Plot::new();
        let mut layout = layout(PAIR, PAIR_MARGINS).title(Title::with_text(escape(title)));
        let linked = left.pattern.dim() == right.pattern.dim();
        for (index, (panel, domain)) in [&left, &right].into_iter().zip(DOMAINS).enumerate() {
            let place = place(panel, between(PAIR_MARGINS, PAIR), domain, linked && index > 0);
            layout = panel.draw(index, &place, &mut plot, layout);
        }
        let below = Annotation::new()
            .text(escape(description))
            .show_arrow(false)
            .font(Font::new().size(DESCRIPTION_SIZE).color("black"))
            .x_ref("paper")
            .y_ref("paper")
            .x(0.5)
            .y(0.0)
            .y_anchor(Anchor::Top)
            .y_shift(-DESCRIPTION_DISTANCE);
        layout.add_annotation(below);
        plot.set_layout(layout);
        Self { plot, panels: vec![left, right], texts: Some([title.into(), description.into()]) }
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

    /// The figure as a static picture, drawn without a browser; `None` for a figure made from a plot, of which only plotly
    /// knows how it looks. (A plot that was taken out, changed and made a figure of again is one.)
    pub fn to_svg(&self) -> Option<String> {
        let (size, margins) = if self.panels.len() > 1 { (PAIR, PAIR_MARGINS) } else { (SINGLE, SINGLE_MARGINS) };
        let mut picture = Picture::new(size, &self.describe());
        let area = between(margins, size);
        match &self.panels[..] {
            [] => return None,
            [panel] => picture.panel(panel, area),
            panels => {
                for (panel, domain) in panels.iter().zip(DOMAINS) {
                    picture.panel(panel, area.columns(domain));
                }
            }
        }
        if let Some([title, description]) = &self.texts {
            let middle = size[0] as f64 / 2.0;
            picture.line(middle, margins[2] as f64 / 2.0, TITLE_SIZE, title);
            let below = area.y + area.height + DESCRIPTION_DISTANCE + DESCRIPTION_SIZE as f64 / 2.0;
            picture.line(middle, below, DESCRIPTION_SIZE, description);
        }
        Some(picture.finish())
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
        let (json, svg, description) = (self.to_json(), self.to_svg(), self.describe());
        let html = bundle::html(&json, svg.as_deref(), &description);
        let mut contents = vec![("application/vnd.plotly.v1+json", json.as_str()), ("text/html", &html)];
        contents.extend(svg.as_deref().map(|svg| ("image/svg+xml", svg)));
        contents.push(("text/plain", &description));
        bundle::show(&contents);
    }
}

impl From<Plot> for Figure {
    fn from(plot: Plot) -> Self {
        Self { plot, panels: Vec::new(), texts: None }
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure({})", self.describe())
    }
}

/// The place of a panel in the middle of its share of the width.
fn place(panel: &Panel, area: Area, domain: [f64; 2], linked: bool) -> Place {
    let cells = area.columns(domain).cells(panel.pattern.dim());
    // plotly takes no domain that rounding has put the least bit outside.
    let shares = |from: f64, size: f64, of: f64| [from / of, (from + size) / of].map(|share| share.clamp(0.0, 1.0));
    let x = shares(cells.x - area.x, cells.width, area.width);
    Place { x, y: shares(cells.y - area.y, cells.height, area.height), left: domain[0], linked }
}

/// The part of a figure that is between its margins.
fn between([left, right, top, bottom]: [usize; 4], [width, height]: [usize; 2]) -> Area {
    Area { x: left as f64, y: top as f64, width: (width - left - right) as f64, height: (height - top - bottom) as f64 }
}

fn layout([width, height]: [usize; 2], [left, right, top, bottom]: [usize; 4]) -> Layout {
    let margin = Margin::new().left(left).right(right).top(top).bottom(bottom);
    Layout::new()
        .width(width)
        .height(height)
        .margin(margin)
        .plot_background_color("white")
        .paper_background_color("white")
}
