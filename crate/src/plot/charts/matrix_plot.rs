//! A heat map of any array with two axes.

use ndarray::Array2;

use super::array::PlotArray;
use super::axis::ChartAxis;
use super::matrix::{MAX_HOVER_TEXTS, MatrixChart};
use super::ticks;
use crate::error::{Error, Result, check_count, check_setting};
use crate::plot::figure::Figure;
use crate::plot::text::{decimals, number};

/// Maximum number of cells; more take over 3 MB of a notebook, and no screen shows them.
const MAX_CELLS: usize = 300_000;

/// A heat map of an array with two axes, from [`imshow`]. Each function returns it with one thing changed. As the last
/// expression of a cell it shows itself; [`figure`](Self::figure) makes a [`Figure`] of it, for files, themes and sizes.
#[derive(Clone, Debug)]
pub struct MatrixPlot {
    title: String,
    /// Shape: `[row, column]`.
    values: Array2<f32>,
    labels: [String; 2],
    ticks: [Vec<String>; 2],
    color_label: String,
    colors: Colors,
    /// The values at the two ends of the scale; `None` for those that the values need.
    ends: Option<[f32; 2]>,
    /// The text of each cell, row by row; `None` for its number.
    texts: Option<Vec<String>>,
    /// The hover text of each cell, row by row; `None` for its number and its place.
    hover: Option<Vec<String>>,
}

/// Where the colours of a heat map begin.
#[derive(Clone, Copy, Debug)]
enum Colors {
    /// From blue over grey to red; grey is this value.
    Diverging(f32),
    /// From dark to light.
    Sequential,
}

/// A heat map of an array with two axes: the first one downwards, the second one to the right, as matplotlib's and plotly's
/// `imshow` draw it. Shape: `[row, column]`.
///
/// As `imshow` of TransformerLens' demos, the colours diverge from 0 unless another [`midpoint`](MatrixPlot::midpoint) is
/// chosen: positive values are red, negative ones blue, and 0 is grey. (plotly's Python package has its `RdBu` the other way
/// round.) [`sequential`](MatrixPlot::sequential) is for values without a middle, such as probabilities. Cells that are NaN
/// or infinite have a light colour of their own, outside of every scale. Numbers are written into the cells where they fit;
/// they are kept as `f32`.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache("When Mary and John went to the store, John gave a drink to")?;
/// let (mary, john) = (model.to_single_token(" Mary")?, model.to_single_token(" John")?);
/// let by_head = cache.head_logit_attrs(&model, mary, Some(john))?; // [layer, head, pos]
/// let last = by_head.index_axis(ndarray::Axis(2), 14);
/// imshow(last)?.title("Mary or John, by head").y_label("Layer").x_label("Head")
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] for an array with more or fewer than two axes, without rows or columns, or with more than 300,000 cells;
/// [`Error::Setting`] for a number beyond the range of `f32`.
pub fn imshow(array: impl Into<PlotArray>) -> Result<MatrixPlot> {
    of_values(array.into().two_axes("imshow", "the array")?)
}

fn of_values(values: Array2<f64>) -> Result<MatrixPlot> {
    if values.len() > MAX_CELLS {
        return Err(Error::Count {
            function: "imshow",
            what: format!("cells of {} rows and {} columns", values.nrows(), values.ncols()),
            found: values.len(),
            min: 1,
            max: Some(MAX_CELLS),
            hint: Some("take a part with slice, or means with mean_axis"),
        });
    }
    let too_large = |x: &&f64| x.is_finite() && !(**x as f32).is_finite();
    if let Some(x) = values.iter().find(too_large) {
        check_setting("imshow", "the array", false, "numbers from -3.4e38 to 3.4e38; divide them", x)?;
    }
    Ok(MatrixPlot::new(values.mapv(|x| x as f32)))
}

impl MatrixPlot {
    /// A matrix of a figure of this crate, which has at least one cell. Shape: `[row, column]`.
    pub(crate) fn new(values: Array2<f32>) -> Self {
        let (rows, columns) = values.dim();
        let numbers = |n: usize| (0..n).map(|index| index.to_string()).collect();
        Self {
            title: String::new(),
            values,
            labels: [String::new(), String::new()],
            ticks: [numbers(columns), numbers(rows)],
            color_label: String::new(),
            colors: Colors::Diverging(0.0),
            ends: None,
            texts: None,
            hover: None,
        }
    }

    /// The title, above the figure.
    pub fn title(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// The name of the axis at the bottom.
    pub fn x_label(mut self, label: impl Into<String>) -> Self {
        self.labels[0] = label.into();
        self
    }

    /// The name of the axis on the left.
    pub fn y_label(mut self, label: impl Into<String>) -> Self {
        self.labels[1] = label.into();
        self
    }

    /// The label of each column: tokens, names of heads, numbers. Without it, columns are counted from 0. Labels of more
    /// than 32 characters are cut, and only as many are shown as there is room for; the pointer shows all.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    /// use ndarray::arr2;
    ///
    /// let plot = imshow(&arr2(&[[0.5, -1.0, 2.0]]))?.x_ticks(["The", " next", " bus"])?.y_ticks([0.1])?;
    /// assert!(plot.clone().x_ticks(0..4).unwrap_err().to_string().contains("x_ticks for 3 columns: expected 3, found 4"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each column.
    pub fn x_ticks(mut self, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let n = self.values.ncols();
        self.ticks[0] = ticks::labels("imshow", format!("x_ticks for {n} columns"), labels, n)?;
        Ok(self)
    }

    /// The label of each row, as [`x_ticks`](Self::x_ticks) for columns.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each row.
    pub fn y_ticks(mut self, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let n = self.values.nrows();
        self.ticks[1] = ticks::labels("imshow", format!("y_ticks for {n} rows"), labels, n)?;
        Ok(self)
    }

    /// The name of the values, above the colour bar. There is room for about 16 characters.
    pub fn color_label(self, label: impl Into<String>) -> Self {
        Self { color_label: label.into(), ..self }
    }

    /// A diverging scale around this value: red is above it, blue below it, and both ends are as far from it. The default
    /// is 0.
    ///
    /// # Errors
    /// [`Error::Setting`] for NaN or infinity.
    pub fn midpoint(self, value: f64) -> Result<Self> {
        let allowed = (value as f32).is_finite();
        check_setting("imshow", "midpoint", allowed, "a finite number", value)?;
        Ok(self.diverging(value as f32))
    }

    /// [`midpoint`](Self::midpoint) of a finite number.
    pub(crate) fn diverging(self, midpoint: f32) -> Self {
        Self { colors: Colors::Diverging(midpoint), ends: None, ..self }
    }

    /// A sequential scale, from the lowest value to the highest one: viridis, or that of
    /// [`Figure::with_color_scale`].
    pub fn sequential(self) -> Self {
        Self { colors: Colors::Sequential, ends: None, ..self }
    }

    /// The values at the two ends of the scale, for figures to compare; values beyond have the colour of an end. The middle
    /// of a diverging scale is then halfway between the two.
    ///
    /// # Errors
    /// [`Error::Setting`] unless both are finite and the first is lower.
    pub fn color_range(self, low: f64, high: f64) -> Result<Self> {
        let ends = [low as f32, high as f32];
        let allowed = ends.iter().all(|x| x.is_finite()) && ends[0] < ends[1];
        check_setting(
            "imshow",
            "color_range",
            allowed,
            "two finite numbers, the lower one first",
            format!("{low}, {high}"),
        )?;
        Ok(self.between(ends))
    }

    /// [`color_range`](Self::color_range) of two finite numbers, the lower one first.
    pub(crate) fn between(self, ends: [f32; 2]) -> Self {
        Self { ends: Some(ends), ..self }
    }

    /// A text in each cell in place of its number, row by row: the most likely tokens, for example. Empty texts leave the
    /// cells without one.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each cell.
    pub fn cell_texts(self, texts: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let what = self.of_cells("cell_texts");
        let texts = ticks::labels("imshow", what, texts, self.values.len())?;
        Ok(self.in_cells(texts))
    }

    /// [`cell_texts`](Self::cell_texts), one for each cell.
    pub(crate) fn in_cells(self, texts: Vec<String>) -> Self {
        Self { texts: Some(texts), ..self }
    }

    /// The cells without numbers.
    pub fn without_numbers(self) -> Self {
        let n = self.values.len();
        self.in_cells(vec![String::new(); n])
    }

    /// A text for each cell under the pointer, row by row, in place of its value and the labels of its column and row. A
    /// matrix of more than 5,000 cells shows the latter in any case.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each cell.
    pub fn hover(self, texts: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let what = self.of_cells("hover");
        let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
        check_count("imshow", what, texts.len(), self.values.len(), Some(self.values.len()))?;
        Ok(self.under_the_pointer(texts))
    }

    /// [`hover`](Self::hover), one for each cell.
    pub(crate) fn under_the_pointer(self, texts: Vec<String>) -> Self {
        Self { hover: Some(texts), ..self }
    }

    fn of_cells(&self, what: &str) -> String {
        format!("{what} for {} × {} cells", self.values.nrows(), self.values.ncols())
    }

    /// The figure.
    pub fn figure(&self) -> Figure {
        let [columns, rows] = [0, 1].map(|axis| {
            ChartAxis::names(&self.labels[axis], self.ticks[axis].iter().map(|label| ticks::on_axis(label)))
        });
        let chart = MatrixChart {
            title: self.titled(),
            rows,
            columns,
            scale: (self.color_label.clone(), self.ends()),
            labels: self.texts.clone().unwrap_or_else(|| self.numbers()),
            texts: self.hover.clone().unwrap_or_else(|| self.values_and_places()),
            values: self.values.clone(),
        };
        match self.colors {
            Colors::Diverging(_) => chart.diverging_figure(),
            Colors::Sequential => chart.figure(),
        }
    }

    /// The title, and the number of infinite values, which the colour bar cannot show.
    fn titled(&self) -> String {
        let note = match self.values.iter().filter(|x| x.is_infinite()).count() {
            0 => String::new(),
            1 => "1 cell is infinite and has no colour".into(),
            n => format!("{n} cells are infinite and have no colour"),
        };
        ticks::lines([self.title.clone(), note])
    }

    fn finite(&self) -> impl Iterator<Item = f32> {
        self.values.iter().copied().filter(|x| x.is_finite())
    }

    /// The values at the ends of the scale.
    fn ends(&self) -> [f32; 2] {
        if let Some(ends) = self.ends {
            return ends;
        }
        match self.colors {
            Colors::Diverging(middle) => {
                let width = self.finite().fold(0.0_f32, |width, x| width.max((x - middle).abs()));
                let width = if width > 0.0 { width } else { 1.0 };
                [middle - width, middle + width]
            }
            Colors::Sequential => {
                let (low, high) =
                    self.finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
                if low < high {
                    [low, high]
                } else if low == high {
                    [low - 0.5, low + 0.5]
                } else {
                    [0.0, 1.0]
                }
            }
        }
    }

    /// The numbers in the cells, where two decimals would show too little or too much of them; else none, and the chart
    /// writes two decimals.
    fn numbers(&self) -> Vec<String> {
        let largest = self.finite().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let written = |x: f32| match largest {
            1e5.. => format!("{x:.1e}"),
            100.0.. => decimals(x, 0),
            0.01.. => decimals(x, 3),
            1e-4.. => decimals(x, 4),
            _ => format!("{x:.1e}"),
        };
        if largest == 0.0 || (0.1..100.0).contains(&largest) {
            return Vec::new();
        }
        self.values.iter().map(|&x| written(x)).collect()
    }

    /// The hover texts; none for a matrix that is too large for them.
    fn values_and_places(&self) -> Vec<String> {
        if self.values.len() > MAX_HOVER_TEXTS {
            return Vec::new();
        }
        let [x, y] = [0, 1].map(|axis| match self.labels[axis].as_str() {
            "" => ["column", "row"][axis],
            label => label,
        });
        // plotly shows no text over an empty cell.
        let text = |((row, column), &value): ((usize, usize), &f32)| {
            if value.is_nan() {
                return String::new();
            }
            format!("{}\n{y} {}, {x} {}", number(f64::from(value)), self.ticks[1][row], self.ticks[0][column])
        };
        self.values.indexed_iter().map(text).collect()
    }

    /// Shows the figure in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.figure().evcxr_display();
    }
}

impl From<MatrixPlot> for Figure {
    fn from(plot: MatrixPlot) -> Self {
        plot.figure()
    }
}
