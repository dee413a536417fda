//! Many heads in one figure, with a menu to choose one. It works without a kernel.

use super::heat_map;
use super::panel::HeadPanel;
use super::same_prompt::same_prompt;
use super::token_colors::{TokenColors, ranking};
use crate::attention_tokens::HeadData;
use crate::error::{Error, Result};
use crate::plot::content::{Content, Drawn};
use crate::plot::marks::{Drawing, Mark, MenuChoice, Text};
use crate::plot::style::{Color, FigureStyle};

/// Maximum number of cells with key ≤ query in all heads together; each takes about 500 bytes of a notebook.
const MAX_CELLS: usize = 8_000;

/// Labelled panels of heads on one prompt; one is shown at a time.
pub(in crate::plot) struct HeadMenu {
    panels: Vec<HeadPanel>,
}

impl HeadMenu {
    /// A menu of these heads, on one prompt of their batch, with frames where the attention exceeds `min_attn`.
    ///
    /// # Errors
    /// [`Error::Count`] if there are no heads or too many cells, [`Error::DifferentPrompts`] if the heads ran on
    /// different prompts, [`Error::OutOfRange`] if there is no such prompt.
    pub(in crate::plot) fn new(heads: &[HeadData], prompt: usize, min_attn: f32) -> Result<Self> {
        let data = same_prompt(heads, prompt, "browse_heads")?;
        let panels: Vec<HeadPanel> = data.into_iter().map(|data| HeadPanel::labelled(data, min_attn)).collect();
        let panels = HeadPanel::with_same_sides(panels);
        let pos = panels.first().map_or(0, |panel| panel.pattern.nrows());
        let cells = panels.len() * (pos * (pos + 1) / 2);
        if cells > MAX_CELLS {
            return Err(Error::Count {
                function: "browse_heads",
                what: format!("cells of {} heads with {pos} positions", panels.len()),
                found: cells,
                min: 1,
                max: Some(MAX_CELLS),
                hint: Some("take fewer heads or a shorter prompt"),
            });
        }
        Ok(Self { panels })
    }
}

impl Content for HeadMenu {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let colors = TokenColors::new(&self.panels, style);
        // One shape for all frames, and the same number of rows in each legend, because plotly's menu replaces elements by
        // their index.
        let most = self.panels.iter().max_by_key(|panel| ranking([*panel]).len()).unwrap_or(&self.panels[0]);
        let drawn = |panel: &HeadPanel, rows| heat_map::one(panel, &colors, true, rows, style);
        let is_row = |mark: &&Mark| matches!(mark, Mark::Text(Text { color: Color::Rgb(_), .. }));
        // The legend's squares are the only texts with a colour of their own.
        let rows = drawn(most, None).marks.iter().filter(is_row).count();
        let choice = |panel: &HeadPanel| {
            let Drawing { marks, title, .. } = drawn(panel, Some(rows));
            MenuChoice { name: panel.name(), title: title.map_or_else(String::new, |title| title.text), marks }
        };
        let menu = self.panels.iter().map(choice).collect();
        Drawn::Marks(Drawing { menu, ..drawn(&self.panels[0], Some(rows)) })
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self.panels.iter().map(HeadPanel::name).collect();
        let first = self.panels.first().map_or(String::new(), HeadPanel::describe);
        format!("menu of heads {}; shown first: {first}", names.join(", "))
    }

    fn kind(&self) -> &'static str {
        "a menu of heads"
    }
}
