//! Many heads in one figure, with a menu to choose one: nothing is asked of the kernel.

use plotly::Plot;
use plotly::common::{Anchor, Font};
use plotly::layout::update_menu::{Button, ButtonMethod, UpdateMenu};
use plotly::layout::{Shape, ShapeLine, ShapeType};
use serde_json::{Map, Value, json};

use super::heat_map::{HeatMaps, one};
use super::panel::{Panel, TOKEN_SIZE};
use crate::error::{Error, Result};
use crate::plot::figure::{Content, Figure};
use crate::plot::style::Look;

/// As many cells (with key ≤ query) of all heads together; each takes some 500 bytes of a notebook.
const MOST_CELLS: usize = 8_000;

/// Panels that differ only in what their cells and labels say.
pub(in crate::plot) struct Browser {
    panels: Vec<Panel>,
}

impl Figure {
    /// A figure of the first panel, with a menu to show another in its place.
    pub(crate) fn browser(panels: Vec<Panel>) -> Result<Self> {
        let pos = panels.first().map_or(0, |panel| panel.pattern.nrows());
        let cells = panels.len() * (pos * (pos + 1) / 2);
        match cells <= MOST_CELLS {
            true => Ok(Self::new(Browser { panels })),
            false => Err(Error::Count {
                function: "browse_heads",
                what: format!("cells of {} heads with {pos} positions", panels.len()),
                found: cells,
                min: 1,
                max: Some(MOST_CELLS),
                hint: Some("take fewer heads or a shorter prompt"),
            }),
        }
    }
}

impl Browser {
    /// What becomes of the first panel's figure to show this one: new cells, and new texts for the labels that are there.
    fn button(panel: &Panel) -> Button {
        let z: Vec<Vec<f32>> = panel.pattern.outer_iter().map(|row| row.to_vec()).collect();
        let mut cells = Map::from_iter([("z".to_owned(), json!([z]))]);
        if let Some(texts) = panel.hover_texts() {
            cells.insert("hovertext".into(), json!([texts]));
        }
        let caption = panel.caption().unwrap_or_default();
        let texts = panel.annotation_texts().into_iter().chain([caption]);
        let mut labels: Map<String, Value> =
            texts.enumerate().map(|(index, text)| (format!("annotations[{index}].text"), text.into())).collect();
        labels.insert("shapes[0].path".into(), panel.frame_path().into());
        Button::new().label(panel.name()).method(ButtonMethod::Update).args(json!([cells, labels]))
    }
}

impl Content for Browser {
    fn plot(&self, look: Look) -> Plot {
        let Some(first) = self.panels.first() else { return Plot::new() };
        let mut plot = one(&Panel { frames: Vec::new(), ..first.clone() }, look);
        let mut layout = plot.layout().clone();
        // One shape for all frames, as their number differs between heads.
        let white = ShapeLine::new().color("white").width(2.0);
        layout.add_shape(
            Shape::new().shape_type(ShapeType::Path).x_ref("x").y_ref("y").path(first.frame_path()).line(white),
        );
        let menu = UpdateMenu::new()
            .buttons(self.panels.iter().map(Self::button).collect())
            // In every theme: plotly marks the entry under the pointer with a light colour of its own.
            .background_color("white")
            .font(Font::new().size(TOKEN_SIZE + 2).color("black"))
            .x(0.0)
            .x_anchor(Anchor::Left)
            .y(1.0)
            .y_anchor(Anchor::Top);
        plot.set_layout(layout.update_menus(vec![menu]));
        plot
    }

    fn svg(&self, look: Look) -> Option<String> {
        HeatMaps::one(self.panels.first()?.clone()).svg(look)
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self.panels.iter().map(Panel::name).collect();
        let first = self.panels.first().map_or(String::new(), Panel::describe);
        format!("menu of heads {}; shown first: {first}", names.join(", "))
    }

    fn panel(&self) -> std::result::Result<&Panel, &'static str> {
        Err("a menu of heads")
    }
}
