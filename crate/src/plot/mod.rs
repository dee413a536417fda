//! Figures: one list of marks each, which two writers turn into plotly's JSON and into a static picture.
//!
//! | layer | files |
//! |---|---|
//! | drawing | `style`, `text`, `fit`, `canvas` (areas and axes), `marks` with `cells` (a figure as a list of marks) |
//! | content | `content`, and what implements it: `heads`, `attention` and `charts` build marks |
//! | writing | `plotly_writer`, `svg_writer` with the elements of `svg` and `png`, `pixels` (a static picture as pixels) |
//! | showing | `figure`, `figures`, `table`, `mime` |

mod attention;
#[cfg(test)]
mod both_writers;
mod canvas;
mod cells;
mod charts;
mod content;
mod figure;
mod figures;
mod fit;
mod heads;
mod marks;
mod mime;
#[cfg(feature = "png")]
mod pixels;
mod plotly_writer;
mod png;
mod small_panels;
mod spreadsheet;
mod style;
mod svg;
mod svg_writer;
mod table;
mod text;

pub(crate) use charts::{Chart, ChartAxis, Form, LabelMenu, Labels, MatrixChart, Series};
pub use charts::{MatrixPlot, PlotArray, XyPlot, imshow, line, scatter};
pub use figure::Figure;
pub use figures::Figures;
pub(crate) use heads::{HeadPanel, by_frequency};
pub(crate) use style::{Color, FigureStyle};
pub use style::{ColorScale, Look, Theme};
pub use table::Table;
pub(crate) use text::{decimals, escape_xml, signed};
