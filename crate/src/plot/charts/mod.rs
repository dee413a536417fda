//! Figures of experiments and of any array: charts, and matrices with named axes.

mod array;
mod axis;
mod chart;
mod label_menu;
mod label_places;
mod matrix;
mod matrix_plot;
mod ticks;
mod xy_plot;

pub use array::PlotArray;
pub(crate) use axis::ChartAxis;
pub(crate) use chart::{Chart, Form, Series};
pub(crate) use label_menu::{LabelMenu, Labels};
pub(in crate::plot) use matrix::MAX_HOVER_TEXTS;
pub(crate) use matrix::MatrixChart;
pub(super) use matrix::Names;
pub use matrix_plot::{MatrixPlot, imshow};
pub use xy_plot::{XyPlot, line, scatter};
