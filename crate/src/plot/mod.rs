//! Figures: pure values made of plotly types. Nothing here does I/O, except that a [`Figure`] shows itself in evcxr.

mod figure;
mod panel;
mod text;

pub use figure::Figure;
pub(crate) use panel::{AxisLabels, Panel};
