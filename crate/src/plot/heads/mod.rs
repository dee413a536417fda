//! Figures of heads: one head, two side by side, all of a layer, one of several by a menu.

mod grid;
mod head_menu;
mod heat_map;
mod hover;
mod layout;
mod legend;
mod panel;
mod panel_marks;
mod same_prompt;
mod sides;
mod token_colors;

pub(super) use grid::Grid;
pub(super) use head_menu::HeadMenu;
pub(super) use heat_map::HeatMaps;
pub(crate) use panel::HeadPanel;
pub(crate) use token_colors::by_frequency;
