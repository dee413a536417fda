//! One head's heat map, or two side by side.

use plotly::common::{Anchor, Font, Title};
use plotly::layout::{Annotation, Margin};
use plotly::{Layout, Plot};

use super::panel::Panel;
use super::traces::Place;
use crate::plot::figure::Content;
use crate::plot::style::Look;
use crate::plot::svg::{Area, Picture};
use crate::plot::text::escape;

/// Width and height of a figure with one panel.
const SINGLE: [usize; 2] = [1200, 800];
/// Left, right, above and below.
const SINGLE_MARGINS: [usize; 4] = [120, 120, 120, 130];
/// Two panels of 600 × 400 side by side, and 60 each for title and description.
const PAIR: [usize; 2] = [2 * 600, 60 + 400 + 60];
const PAIR_MARGINS: [usize; 4] = [90, 90, 80 + 60, 90 + 60];
/// The shares of the width, between the margins, of two panels.
const DOMAINS: [[f64; 2]; 2] = [[0.0, 0.42], [0.58, 1.0]];
pub(in crate::plot) const TITLE_SIZE: usize = 17;
const DESCRIPTION_SIZE: usize = 14;
/// Pixels between two panels and the description below.
const DESCRIPTION_DISTANCE: f64 = 125.0;

/// One panel, or two with a title above and a description below.
pub(in crate::plot) enum HeatMaps {
    One(Panel),
    Pair { panels: Box<[Panel; 2]>, title: String, description: String },
}

impl HeatMaps {
    pub(in crate::plot) fn one(panel: Panel) -> Self {
        Self::One(panel)
    }

    pub(in crate::plot) fn pair(left: Panel, right: Panel, title: &str, description: &str) -> Self {
        Self::Pair { panels: Box::new([left, right]), title: title.into(), description: description.into() }
    }
}

impl Content for HeatMaps {
    fn plot(&self, look: Look) -> Plot {
        match self {
            Self::One(panel) => one(panel, look),
            Self::Pair { panels, title, description } => pair(panels, title, description, look),
        }
    }

    fn svg(&self, look: Look) -> Option<String> {
        Some(match self {
            Self::One(panel) => {
                let mut picture = Picture::new(SINGLE, &self.describe(), look);
                picture.panel(panel, between(SINGLE_MARGINS, SINGLE));
                picture.finish()
            }
            Self::Pair { panels, title, description } => {
                let mut picture = Picture::new(PAIR, &self.describe(), look);
                let area = between(PAIR_MARGINS, PAIR);
                for (panel, domain) in panels.iter().zip(DOMAINS) {
                    picture.panel(panel, area.columns(domain));
                }
                let middle = PAIR[0] as f64 / 2.0;
                picture.line(middle, PAIR_MARGINS[2] as f64 / 2.0, TITLE_SIZE, title);
                let below = area.y + area.height + DESCRIPTION_DISTANCE + DESCRIPTION_SIZE as f64 / 2.0;
                picture.line(middle, below, DESCRIPTION_SIZE, description);
                picture.finish()
            }
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::One(panel) => panel.describe(),
            Self::Pair { panels, .. } => panels.each_ref().map(Panel::describe).join("; "),
        }
    }

    fn panel(&self) -> Result<&Panel, &'static str> {
        match self {
            Self::One(panel) => Ok(panel),
            Self::Pair { .. } => Err("a figure with 2 heat maps"),
        }
    }
}

/// One panel as a plot.
pub(in crate::plot) fn one(panel: &Panel, look: Look) -> Plot {
    let mut plot = Plot::new();
    let place = place(panel, between(SINGLE_MARGINS, SINGLE), [0.0, 1.0], false);
    let layout = panel.draw(0, &place, look, &mut plot, layout(SINGLE, SINGLE_MARGINS, look));
    plot.set_layout(layout);
    plot
}

fn pair(panels: &[Panel; 2], title: &str, description: &str, look: Look) -> Plot {
    let mut plot = Plot::new();
    let title = Title::with_text(escape(title)).font(Font::new().color(look.theme.text()));
    let mut layout = layout(PAIR, PAIR_MARGINS, look).title(title);
    // Axes that are called by tokens are linked where the tokens are the same ones.
    let alike = |[left, right]: &[Panel; 2]| match (&left.data, &right.data) {
        (Some(left_data), Some(right_data)) if left.light() => left_data.input == right_data.input,
        _ => true,
    };
    let linked = panels[0].pattern.dim() == panels[1].pattern.dim() && alike(panels);
    for (index, (panel, domain)) in panels.iter().zip(DOMAINS).enumerate() {
        let place = place(panel, between(PAIR_MARGINS, PAIR), domain, linked && index > 0);
        layout = panel.draw(index, &place, look, &mut plot, layout);
    }
    let below = Annotation::new()
        .text(escape(description))
        .show_arrow(false)
        .font(Font::new().size(DESCRIPTION_SIZE).color(look.theme.text()))
        .x_ref("paper")
        .y_ref("paper")
        .x(0.5)
        .y(0.0)
        .y_anchor(Anchor::Top)
        .y_shift(-DESCRIPTION_DISTANCE);
    layout.add_annotation(below);
    plot.set_layout(layout);
    plot
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
pub(in crate::plot) fn between([left, right, top, bottom]: [usize; 4], [width, height]: [usize; 2]) -> Area {
    Area { x: left as f64, y: top as f64, width: (width - left - right) as f64, height: (height - top - bottom) as f64 }
}

/// What all figures have: their size, their margins (left, right, above, below), their background.
pub(in crate::plot) fn layout(
    [width, height]: [usize; 2],
    [left, right, top, bottom]: [usize; 4],
    look: Look,
) -> Layout {
    let margin = Margin::new().left(left).right(right).top(top).bottom(bottom);
    let background = look.theme.background();
    Layout::new()
        .width(width)
        .height(height)
        .margin(margin)
        .plot_background_color(background)
        .paper_background_color(background)
}
