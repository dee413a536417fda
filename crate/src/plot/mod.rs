//! Figures: head data as heat maps, for plotly and as static pictures, and how a notebook shows them.

mod axis;
mod browser;
mod bundle;
mod chart;
mod draw;
mod extras;
mod figure;
mod grid;
mod heat_map;
mod hover;
mod look;
mod matrix;
mod panel;
mod svg;
mod table;
mod text;

pub(crate) use axis::ChartAxis;
pub(crate) use chart::{Chart, Form, Series, Shade};
pub use figure::Figure;
pub(crate) use look::Look;
pub use look::{ColorScale, Theme};
pub(crate) use matrix::Matrix;
pub(crate) use panel::{AxisLabels, Panel};
pub use table::Table;
