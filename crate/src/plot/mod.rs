//! Figures: head data as heat maps, for plotly and as static pictures, and how a notebook shows them.

mod browser;
mod bundle;
mod draw;
mod extras;
mod figure;
mod grid;
mod heat_map;
mod hover;
mod look;
mod panel;
mod svg;
mod table;
mod text;

pub use figure::Figure;
pub(crate) use look::Look;
pub use look::{ColorScale, Theme};
pub(crate) use panel::{AxisLabels, Panel};
pub use table::AttentionTable;
