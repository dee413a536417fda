//! Figures of experiments: charts, and matrices with named axes.

mod axis;
mod chart;
mod matrix;

pub(crate) use axis::ChartAxis;
pub(crate) use chart::{Chart, Form, Series};
pub(crate) use matrix::MatrixChart;
pub(super) use matrix::Names;
