//! Figures: head data as heat maps, for plotly and as static pictures, and how a notebook shows them.

mod charts;
mod figure;
mod heads;
mod mime;
mod plotly_json;
mod style;
mod svg;
mod table;
mod text;

pub(crate) use charts::{Chart, ChartAxis, Form, Matrix, Series, Shade};
pub use figure::Figure;
pub(crate) use heads::{AxisLabels, Panel};
pub(crate) use style::Look;
pub use style::{ColorScale, Theme};
pub use table::Table;
