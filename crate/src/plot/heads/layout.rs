//! Where the panels of a figure are: sizes, labels, legend and title, in pixels.

use super::legend::{self, LegendPlace};
use super::panel::HeadPanel;
use crate::plot::canvas::Area;
use crate::plot::marks::{TOOL_BAR, Title, WIDTH};
use crate::plot::style::{FigureStyle, Look};

/// Left, right, top, bottom margins of plotly's canvas.
pub(super) const MARGINS: [usize; 4] = [10, 10, 10, 10];
/// Greatest side of a panel unless a height was chosen.
const SIDE: f64 = 620.0;
/// Height of a line below the panels.
pub(super) const NOTE: f64 = 20.0;
/// Height of the heading of one of two panels.
const HEADING: f64 = 40.0;
/// Width of a colour bar with its numbers.
const COLOR_BAR: f64 = 90.0;
/// Least side of a cell, with texts in it or labels beside it, for which two panels are side by side.
const MIN_CELL: f64 = 24.0;

pub(super) struct Layout {
    pub(super) size: [usize; 2],
    pub(super) margins: [usize; 4],
    pub(super) title: Option<Title>,
    /// The area of each panel's cells.
    pub(super) areas: Vec<Area>,
    pub(super) legend: LegendPlace,
    /// Pixels from the top to the first line below the panels.
    pub(super) notes_at: f64,
}

pub(super) fn width(style: FigureStyle) -> usize {
    style.size.map_or(WIDTH, |[width, _]| width)
}

/// Pixels above the panels: the title, or plotly's tool bar alone.
fn top(title: &Option<Title>) -> f64 {
    title.as_ref().map_or(TOOL_BAR, |title| title.bottom() + 8.0)
}

impl Layout {
    /// One panel, with a legend on its right.
    pub(super) fn of_one(
        panel: &HeadPanel,
        has_legend: bool,
        title: Option<&str>,
        notes: usize,
        style: FigureStyle,
    ) -> Self {
        let width = width(style);
        let title = Title::of(title, width);
        let beside = if has_legend {
            legend::WIDTH
        } else if panel.tokens().is_none() {
            COLOR_BAR
        } else {
            0.0
        };
        let frame = Frame { left: 10.0, top: top(&title), right: width as f64 - 10.0 - beside };
        let height = style.size.map(|[_, height]| height as f64 - frame.top - 10.0 - NOTE * notes as f64);
        let (area, bottom) = frame.place(panel, height, style);
        let layout = Self::finish(title, vec![area], bottom, notes, panel.insets(style)[1], style);
        if has_legend || panel.tokens().is_some() || style.look == Look::Original {
            return layout;
        }
        // plotly's colour bar begins where the canvas ends, and is as high.
        let above = (area.y - 20.0).max(0.0) as usize;
        let below = (layout.size[1] as f64 - area.bottom()).max(0.0) as usize;
        Self { margins: [MARGINS[0], MARGINS[1] + COLOR_BAR as usize, above, below], ..layout }
    }

    /// Two panels: side by side if their cells are large enough so, else one below the other.
    pub(super) fn of_pair(
        panels: &[HeadPanel; 2],
        has_legend: bool,
        title: &str,
        notes: usize,
        style: FigureStyle,
    ) -> Self {
        let width = width(style);
        let title = Title::of(Some(title), width);
        let headings = panels.iter().any(|panel| panel.title().is_some());
        let heading = if headings { HEADING } else { 0.0 };
        let beside = if has_legend { legend::WIDTH } else { 0.0 };
        let (left, right) = (10.0, width as f64 - 10.0 - beside);
        let first = top(&title) + heading;
        let below = 10.0 + NOTE * notes as f64;
        let half = (right - left) / 2.0;
        let halves = [[left, left + half], [left + half, right]];
        let cell = |panel: &HeadPanel| {
            let [inset_left, inset_right, ..] = panel.insets(style);
            (half - inset_left - inset_right) / panel.dim().1.max(1) as f64
        };
        let is_plain =
            |panel: &HeadPanel| !panel.is_light() && panel.axis_labels.is_none() && panel.token_labels.is_empty();
        let side_by_side = panels.iter().all(|panel| is_plain(panel) || cell(panel) >= MIN_CELL);
        if side_by_side {
            let height = style.size.map(|[_, height]| height as f64 - first - below);
            let place = |index: usize| {
                let [left, right] = halves[index];
                Frame { left, top: first, right }.place(&panels[index], height, style)
            };
            let [(one, one_bottom), (other, other_bottom)] = [0, 1].map(place);
            let inset = panels[1].insets(style)[1];
            let layout = Self::finish(title, vec![one, other], one_bottom.max(other_bottom), notes, inset, style);
            return Self { legend: LegendPlace { axes: 1, ..layout.legend }, ..layout };
        }
        let height = style.size.map(|[_, height]| (height as f64 - first - below - heading) / 2.0);
        let (one, bottom) = Frame { left, top: first, right }.place(&panels[0], height, style);
        let second = Frame { left, top: bottom + heading, right };
        let (other, bottom) = second.place(&panels[1], height, style);
        let inset = panels[0].insets(style)[1];
        Self::finish(title, vec![one, other], bottom, notes, inset, style)
    }

    /// `bottom` is the lower end of the panels, `inset` the width of the labels on the right.
    fn finish(
        title: Option<Title>,
        areas: Vec<Area>,
        bottom: f64,
        notes: usize,
        inset: f64,
        style: FigureStyle,
    ) -> Self {
        let height = bottom + NOTE * notes as f64 + 10.0;
        let size = style.size.unwrap_or([WIDTH, height.round() as usize]);
        let legend = LegendPlace { axes: 0, right: inset + 12.0, height: bottom - areas[0].y };
        Self { size, margins: MARGINS, title, areas, legend, notes_at: bottom }
    }
}

/// The space for a panel with its labels.
struct Frame {
    left: f64,
    top: f64,
    right: f64,
}

impl Frame {
    /// The area of the panel's cells, as large as the width allows and no higher than `height` with its labels, and the
    /// lower end of its labels.
    fn place(&self, panel: &HeadPanel, height: Option<f64>, style: FigureStyle) -> (Area, f64) {
        let [left, right, top, bottom] = panel.insets(style);
        let (rows, columns) = panel.dim();
        let (rows, columns) = (rows.max(1) as f64, columns.max(1) as f64);
        let width = (self.right - self.left - left - right).max(40.0);
        let height = height.map_or(SIDE, |height| (height - top - bottom).max(40.0));
        let cell = (width / columns).min(height / rows);
        let (used_width, used_height) = (cell * columns, cell * rows);
        let x = self.left + left + (width - used_width) / 2.0;
        let area = Area { x, y: self.top + top, width: used_width, height: used_height };
        (area, area.bottom() + bottom)
    }
}
