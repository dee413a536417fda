//! One head's heat map, or two side by side.

use super::panel::HeadPanel;
use super::panel_marks::Place;
use crate::plot::canvas::{Area, Axes};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{Coordinate, Drawing, Mark, Text, Title, Vertical};
use crate::plot::style::{Color, FigureStyle};

/// Width and height of a figure with one panel.
const SINGLE: [usize; 2] = [1200, 800];
/// Left, right, top, bottom.
const SINGLE_MARGINS: [usize; 4] = [120, 120, 120, 130];
/// Two panels of 600 × 400 side by side, 60 for the title and 60 for the description.
const PAIR: [usize; 2] = [2 * 600, 60 + 400 + 60];
const PAIR_MARGINS: [usize; 4] = [90, 90, 80 + 60, 90 + 60];
/// Shares of the width, between the margins, of the two panels.
const PAIR_COLUMNS: [[f64; 2]; 2] = [[0.0, 0.42], [0.58, 1.0]];
const DESCRIPTION_SIZE: usize = 14;
/// Pixels between two panels and the description below.
const DESCRIPTION_DISTANCE: f64 = 125.0;

/// One panel, or two with a title above and a description below.
pub(in crate::plot) enum HeatMaps {
    One(HeadPanel),
    Pair { panels: Box<[HeadPanel; 2]>, title: String, description: String },
}

impl HeatMaps {
    /// Two panels side by side.
    pub(in crate::plot) fn pair(left: HeadPanel, right: HeadPanel, title: &str, description: &str) -> Self {
        Self::Pair { panels: Box::new([left, right]), title: title.into(), description: description.into() }
    }

    /// The panel, if the figure has only one.
    pub(in crate::plot) fn panel(&self) -> Option<&HeadPanel> {
        if let Self::One(panel) = self { Some(panel) } else { None }
    }
}

impl Content for HeatMaps {
    fn draw(&self, _: FigureStyle) -> Drawn {
        Drawn::Marks(match self {
            Self::One(panel) => one(panel, &Place::ALONE),
            Self::Pair { panels, title, description } => pair(panels, title, description),
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::One(panel) => panel.describe(),
            Self::Pair { panels, .. } => describe_pair(panels),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::One(_) => "a heat map",
            Self::Pair { .. } => "a figure with 2 heat maps",
        }
    }
}

/// A figure of one panel.
pub(super) fn one(panel: &HeadPanel, place: &Place) -> Drawing {
    let axes = panel.axes(Area::between(SINGLE_MARGINS, SINGLE));
    Drawing { axes: vec![axes], marks: panel.marks(place), ..Drawing::new(SINGLE, SINGLE_MARGINS, panel.describe()) }
}

fn pair(panels: &[HeadPanel; 2], title: &str, description: &str) -> Drawing {
    let area = Area::between(PAIR_MARGINS, PAIR);
    let [left, right] = [0, 1].map(|index| panels[index].axes(area.columns(PAIR_COLUMNS[index])));
    let right = Axes { linked: are_linked(panels), ..right };
    let mut marks = Vec::new();
    for (axes, panel) in panels.iter().enumerate() {
        marks.extend(panel.marks(&Place { axes, left: PAIR_COLUMNS[axes][0], joined_frames: false }));
    }
    marks.push(Mark::Text(Text {
        x: Coordinate::Canvas(0.5),
        y: Coordinate::Canvas(0.0),
        shift: [0.0, -DESCRIPTION_DISTANCE],
        vertical: Some(Vertical::Top),
        ..Text::new(description, DESCRIPTION_SIZE, Color::Text)
    }));
    Drawing {
        title: Some(Title { text: title.into(), size: None, y: PAIR_MARGINS[2] as f64 / 2.0 }),
        axes: vec![left, right],
        marks,
        ..Drawing::new(PAIR, PAIR_MARGINS, describe_pair(panels))
    }
}

fn describe_pair(panels: &[HeadPanel; 2]) -> String {
    panels.each_ref().map(HeadPanel::describe).join("; ")
}

/// Whether two panels are zoomed together: if they have the same size, and the same names of positions, if any.
fn are_linked([left, right]: &[HeadPanel; 2]) -> bool {
    let same_names = match (&left.data, &right.data) {
        (Some(left_data), Some(right_data)) if left.is_light() => left_data.input == right_data.input,
        _ => true,
    };
    left.pattern.dim() == right.pattern.dim() && same_names
}
