//! One head's heat map, or two beside or below each other.

use super::layout::{self, Layout};
use super::legend::legend;
use super::panel::HeadPanel;
use super::panel_marks::Place;
use super::token_colors::TokenColors;
use crate::plot::canvas::Axes;
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{Coordinate, Drawing, Mark, TOKEN_SIZE, Text, Vertical};
use crate::plot::style::{Color, FigureStyle, Look};

const DESCRIPTION_SIZE: usize = 14;

/// One panel, or two with a title above and a description below.
pub(in crate::plot) enum HeatMaps {
    One(HeadPanel),
    Pair { panels: Box<[HeadPanel; 2]>, title: String, description: String },
}

impl HeatMaps {
    /// Two panels.
    pub(in crate::plot) fn pair(left: HeadPanel, right: HeadPanel, title: &str, description: &str) -> Self {
        Self::Pair { panels: Box::new([left, right]), title: title.into(), description: description.into() }
    }

    /// The panel, if the figure has only one.
    pub(in crate::plot) fn panel(&self) -> Option<&HeadPanel> {
        if let Self::One(panel) = self { Some(panel) } else { None }
    }
}

impl Content for HeatMaps {
    fn draw(&self, style: FigureStyle) -> Drawn {
        Drawn::Marks(match self {
            Self::One(panel) => one(panel, &TokenColors::new([panel], style), false, None, style),
            Self::Pair { panels, title, description } => pair(panels, title, description, style),
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

/// A figure of one panel. `joined_frames` and `legend_rows` are for a figure whose marks are replaced by a menu.
pub(super) fn one(
    panel: &HeadPanel,
    colors: &TokenColors,
    joined_frames: bool,
    legend_rows: Option<usize>,
    style: FigureStyle,
) -> Drawing {
    let title = panel.capitalized_title();
    let notes: Vec<String> = panel.left_out().into_iter().collect();
    let has_legend = style.look == Look::Tokens && panel.data.is_some() && panel.tokens().is_some();
    let layout = Layout::of_one(panel, has_legend, title.as_deref(), notes.len(), style);
    let place = Place { axes: 0, area: layout.areas[0], colors, joined_frames, color_bar: true };
    let mut marks = panel.marks(&place, style);
    if has_legend {
        marks.extend(legend(&[panel], colors, &layout.legend, legend_rows));
    }
    marks.extend(notes.iter().enumerate().map(|(row, note)| below(note, row, TOKEN_SIZE, &layout)));
    Drawing {
        title: layout.title,
        axes: vec![panel.axes(layout.areas[0])],
        marks,
        no_token_background: style.look == Look::Original || panel.tokens().is_none(),
        ..Drawing::new(layout.size, layout.margins, panel.describe())
    }
}

fn pair(panels: &[HeadPanel; 2], title: &str, description: &str, style: FigureStyle) -> Drawing {
    let colors = TokenColors::new(panels, style);
    let has_legend =
        style.look == Look::Tokens && panels.iter().any(|panel| panel.data.is_some() && panel.tokens().is_some());
    let width = layout::width(style) as f64 - 60.0;
    let mut lines: Vec<(String, usize)> = Vec::new();
    if !description.is_empty() {
        lines.extend(
            fit::paragraph(description, width, DESCRIPTION_SIZE).into_iter().map(|line| (line, DESCRIPTION_SIZE)),
        );
    }
    lines.extend(panels.iter().filter_map(HeadPanel::left_out).map(|note| (note, TOKEN_SIZE)));
    let layout = Layout::of_pair(panels, has_legend, title, lines.len(), style);
    let mut marks = Vec::new();
    let mut axes = Vec::new();
    for (index, panel) in panels.iter().enumerate() {
        let area = layout.areas[index];
        let place = Place { axes: index, area, colors: &colors, joined_frames: false, color_bar: false };
        marks.extend(panel.marks(&place, style));
        marks.extend(panel.heading(&place, style));
        axes.push(Axes { linked: index == 1 && are_linked(panels), ..panel.axes(area) });
    }
    if has_legend {
        marks.extend(legend(&[&panels[0], &panels[1]], &colors, &layout.legend, None));
    }
    marks.extend(lines.iter().enumerate().map(|(row, (line, size))| below(line, row, *size, &layout)));
    Drawing {
        title: layout.title,
        axes,
        marks,
        no_token_background: style.look == Look::Original || panels.iter().any(|panel| panel.tokens().is_none()),
        ..Drawing::new(layout.size, layout.margins, describe_pair(panels))
    }
}

/// A line of text below everything else.
fn below(text: &str, row: usize, size: usize, layout: &Layout) -> Mark {
    let canvas_height = (layout.size[1] - layout.margins[2] - layout.margins[3]) as f64;
    let from_top = layout.notes_at + (row as f64 + 0.5) * layout::NOTE - layout.margins[2] as f64;
    Mark::Text(Text {
        x: Coordinate::Canvas(0.5),
        y: Coordinate::Canvas(1.0 - from_top / canvas_height),
        vertical: Some(Vertical::Middle),
        ..Text::new(text, size, Color::Text)
    })
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

#[cfg(test)]
mod tests {
    use crate::attention_tokens::PromptHeadData;
    use crate::notebook::{attention_table, plot_head};

    #[test]
    fn long_prompts_have_bounded_figures_and_tables_that_say_what_they_leave_out() {
        let data = PromptHeadData::without_a_model(1_024);
        let figure = plot_head(&data);
        let (json, svg) = (figure.to_json(), figure.to_svg().unwrap());
        assert!(json.len() < 4_000_000 && svg.len() < 1_000_000, "{} and {}", json.len(), svg.len());
        assert!(json.contains("1024 positions, more than 512: the pointer shows positions only"));
        assert!(json.contains("head 0.1 of none, through"), "a folder's last part is the model's name");
        let table = attention_table(&data);
        assert!(table.to_html().len() < 1_000_000, "{}", table.to_html().len());
        assert!(table.to_text().lines().next().unwrap().contains("of 1024 positions, 928 are left out"));
        assert_eq!(table.rows().len(), 48 + 1 + 48);
        assert_eq!((table.rows()[20].len(), table.rows()[60].len()), (1 + 21, 1 + 48 + 1 + 12));
    }
}
