//! Figures: pure values made of plotly types. Nothing here does I/O, except that a [`Figure`] shows itself in evcxr.
//!
//! A [`Panel`] is what to draw. plotly draws it, and so does [`svg`], for where no script runs.

mod bundle;
mod colors;
mod figure;
mod panel;
mod svg;
mod text;

pub use figure::Figure;
pub(crate) use panel::{AxisLabels, Panel};
