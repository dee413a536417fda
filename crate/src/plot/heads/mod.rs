//! Figures of heads: one, two side by side, all of a layer, one of several by a menu.

pub(super) mod heat_map;
pub(super) mod hover;
pub(super) mod panel;
pub(super) mod traces;

mod grid;
mod head_menu;

pub(crate) use panel::{AxisLabels, Panel};
