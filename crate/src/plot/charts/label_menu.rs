//! A matrix of numbers with several labels for each cell, and a menu that chooses which of them is shown.

use super::matrix::{ABOVE, MatrixChart};
use crate::plot::canvas::Area;
use crate::plot::content::{Content, Drawn};
use crate::plot::fit;
use crate::plot::marks::{CellLabels, Cells, ColorRange, Drawing, Hover, Mark, MenuChoice, Paint, Title};
use crate::plot::style::FigureStyle;

/// Pixels for the menu, below the title.
const MENU: f64 = 34.0;

/// A matrix whose colours stay while a menu replaces the labels of its cells. It works without a kernel; a static picture
/// shows the first labels.
#[derive(Clone, Debug)]
pub(crate) struct LabelMenu {
    /// The numbers and the hover texts. Its title and labels are not drawn.
    pub(crate) matrix: MatrixChart,
    /// At least one.
    pub(crate) choices: Vec<Labels>,
}

/// An entry of the menu.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// The name in the menu.
    pub(crate) name: String,
    /// The title of the figure.
    pub(crate) title: String,
    /// The label of each cell, row by row; empty for none.
    pub(crate) texts: Vec<String>,
}

impl LabelMenu {
    /// The cells with the labels of a choice that fit, horizontally: a menu cannot change the number of other texts.
    fn cells(&self, labels: &Labels, area: Area) -> Cells {
        let (rows, columns) = self.matrix.values.dim();
        let fitted = fit::fit(&labels.texts, [area.width / columns.max(1) as f64, area.height / rows.max(1) as f64]);
        let paint = Paint::Scale(ColorRange::Ends(self.matrix.scale.1.map(f64::from)));
        let labels = Some(CellLabels { texts: fitted.texts, size: fitted.size });
        Cells { labels, ..self.matrix.cells(paint, self.matrix.values.mapv(f64::from), true) }
    }
}

impl Content for LabelMenu {
    fn draw(&self, style: FigureStyle) -> Drawn {
        let first = &self.choices[0];
        let titled = MatrixChart { title: first.title.clone(), ..self.matrix.clone() };
        let (title, size, margins) = titled.layout(ABOVE + MENU, style);
        let area = Area::between(margins, size);
        let choice = |labels: &Labels| MenuChoice {
            name: labels.name.clone(),
            title: Title::new(&labels.title, size[0]).text,
            // The hover texts stay.
            marks: vec![Mark::Cells(Cells { hover: Hover::Skip, ..self.cells(labels, area) })],
        };
        Drawn::Marks(Drawing {
            title: Some(title),
            axes: vec![self.matrix.axes(area)],
            marks: vec![Mark::Cells(self.cells(first, area))],
            no_token_background: self.matrix.values.iter().any(|value| !value.is_finite()),
            menu: self.choices.iter().map(choice).collect(),
            menu_above: true,
            ..Drawing::new(size, margins, self.describe())
        })
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.choices.iter().map(|choice| choice.name.as_str()).collect();
        let first = MatrixChart { title: self.choices[0].title.clone(), ..self.matrix.clone() };
        format!("menu of labels {}; {}", names.join(", "), first.describe())
    }

    fn kind(&self) -> &'static str {
        "a matrix with a menu"
    }
}
