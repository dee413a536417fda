//! Lines and points of any numbers.

use ndarray::Axis;

use super::array::PlotArray;
use super::axis::ChartAxis;
use super::chart::{Chart, Form, Series};
use super::ticks;
use crate::error::{Error, Result, check_count};
use crate::plot::figure::Figure;
use crate::plot::style::Color;
use crate::plot::text::number;

/// Maximum number of points of a figure; more take over 4 MB of a notebook.
const MAX_POINTS: usize = 200_000;
/// Maximum number of points with a hover text each; with more, plotly shows their numbers.
const MAX_HOVER_TEXTS: usize = 20_000;
/// Maximum number of lines and groups of points.
const MAX_SERIES: usize = 200;
/// Maximum number of names in the legend, which no figure has room for more of.
const MAX_NAMES: usize = 24;

/// Lines and points, from [`line()`] or [`scatter`]. Each function returns it with one thing changed or added. As the last
/// expression of a cell it shows itself; [`figure`](Self::figure) makes a [`Figure`] of it, for files, themes and sizes.
#[derive(Clone, Debug)]
pub struct XyPlot {
    function: &'static str,
    title: String,
    labels: [String; 2],
    x_ticks: Option<Vec<String>>,
    series: Vec<Named>,
}

/// The points of a line or of a group.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    is_line: bool,
    points: Vec<[f64; 2]>,
    /// The name of each point under the pointer, or none.
    hover: Vec<String>,
    /// The label of each point, or none.
    labels: Vec<String>,
}

/// A line of an array with one axis, or a line for each row of one with two: values upwards, their indices to the right.
/// Shape: `[point]` or `[line, point]`.
///
/// NaN and infinite values leave a gap. The lines have colours that can be told apart, also with red-green colour blindness,
/// up to 14 of them; more lines have colours of the scale, in their order.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let losses = model.loss_per_token("The next sentence is false. The previous sentence is true.")?;
/// line(&losses[0])?.title("Loss of each token").x_label("position").y_label("loss")
/// # ;
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] for an array with no axis or more than two, without numbers, with more than 200 lines or 200,000 points.
pub fn line(array: impl Into<PlotArray>) -> Result<XyPlot> {
    let rows = array.into().rows("line", "the array")?;
    check_count("line", "lines, the rows of the array", rows.nrows(), 1, Some(MAX_SERIES))?;
    let points = |row: ndarray::ArrayView1<f64>| row.iter().enumerate().map(|(x, &y)| [x as f64, y]).collect();
    let series = rows.axis_iter(Axis(0)).map(|row| Named::new("", true, points(row))).collect();
    XyPlot::new("line", series)
}

/// Points of two arrays with one axis of the same length. Shape: `x [point]`, `y [point]`.
///
/// Points with a number that is NaN or infinite have no place; the figure says how many there are.
///
/// ```
/// use attention_tokens::prelude::*;
///
/// let plot = scatter(&[0.1_f32, 0.4, 0.7], &[1.0_f64, 0.5, 0.2])?.point_labels(["0.0", "0.1", "0.2"])?;
/// let figure = plot.x_label("copying score").y_label("induction score").add_line("y = x", &[0.0, 1.0], &[0.0, 1.0])?;
/// assert!(figure.figure().describe().contains("2 series, 5 points"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Count`] for arrays with more or fewer than one axis, without numbers, of different lengths, or with more than
/// 200,000 points.
pub fn scatter(x: impl Into<PlotArray>, y: impl Into<PlotArray>) -> Result<XyPlot> {
    let points = points("scatter", x.into(), y.into())?;
    XyPlot::new("scatter", vec![Named::new("", false, points)])
}

/// Points of their coordinates. Shape: `x [n]`, `y [n]` → `[n, 2]`.
fn points(function: &'static str, x: PlotArray, y: PlotArray) -> Result<Vec<[f64; 2]>> {
    let (x, y) = (x.one_axis(function, "x")?, y.one_axis(function, "y")?);
    check_count(function, format!("numbers of y for {} of x", x.len()), y.len(), x.len(), Some(x.len()))?;
    Ok(x.into_iter().zip(y).map(|(x, y)| [x, y]).collect())
}

impl Named {
    fn new(name: &str, is_line: bool, points: Vec<[f64; 2]>) -> Self {
        Self { name: name.into(), is_line, points, hover: Vec::new(), labels: Vec::new() }
    }

    /// Whether a point has a place.
    fn is_drawn(point: &[f64; 2]) -> bool {
        point.iter().all(|x| x.is_finite())
    }
}

impl XyPlot {
    fn new(function: &'static str, series: Vec<Named>) -> Result<Self> {
        let (title, labels) = (String::new(), [String::new(), String::new()]);
        Self { function, title, labels, x_ticks: None, series }.checked()
    }

    fn checked(self) -> Result<Self> {
        let found = self.series.iter().map(|series| series.points.len()).sum();
        check_count(self.function, "lines and groups of points", self.series.len(), 1, Some(MAX_SERIES))?;
        if found > MAX_POINTS {
            let (function, what) = (self.function, "points of all lines".into());
            let hint = Some("take every n-th with slice, or means");
            return Err(Error::Count { function, what, found, min: 1, max: Some(MAX_POINTS), hint });
        }
        Ok(self)
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

    /// The name of each line or group of points, in their order, for the legend and the pointer. A legend has 24 names at
    /// most; the title says how many more there are.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    /// use ndarray::arr2;
    ///
    /// let plot = line(&arr2(&[[3.0, 2.0, 1.5], [3.0, 2.5, 2.2]]))?.names(["trained", "untrained"])?;
    /// assert!(plot.names(["trained"]).unwrap_err().to_string().contains("names for 2 lines: expected 2, found 1"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each.
    pub fn names(mut self, names: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let n = self.series.len();
        let what = format!("names for {n} {}", if n == 1 { "line" } else { "lines" });
        let names = ticks::labels(self.function, what, names, n)?;
        self.series.iter_mut().zip(names).for_each(|(series, name)| series.name = name);
        Ok(self)
    }

    /// The places of the points from left to right, the same ones for all lines, instead of 0, 1, 2, … Shape: `[point]`.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each point of each line.
    pub fn x(mut self, x: impl Into<PlotArray>) -> Result<Self> {
        let x = x.into().one_axis(self.function, "x")?;
        for series in &mut self.series {
            let n = series.points.len();
            check_count(self.function, format!("numbers of x for {n} points"), x.len(), n, Some(n))?;
            series.points.iter_mut().zip(&x).for_each(|(point, &x)| point[0] = x);
        }
        Ok(self)
    }

    /// Labels along the axis at the bottom, for the places 0, 1, 2, …: tokens, names of layers. Labels of more than 32
    /// characters are cut, and only as many are shown as there is room for; the pointer shows all.
    ///
    /// # Errors
    /// [`Error::Count`] unless the number of labels equals the number of points of the longest line.
    pub fn x_ticks(self, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let n = self.series.iter().map(|series| series.points.len()).max().unwrap_or(0);
        let labels = ticks::labels(self.function, format!("x_ticks for {n} points"), labels, n)?;
        Ok(Self { x_ticks: Some(labels), ..self })
    }

    /// One more line through these points. Shape: `x [point]`, `y [point]`.
    ///
    /// # Errors
    /// As for [`scatter`] and [`line()`].
    pub fn add_line(self, name: &str, x: impl Into<PlotArray>, y: impl Into<PlotArray>) -> Result<Self> {
        self.with(name, true, x.into(), y.into())
    }

    /// One more group of points, of another colour and shape. Shape: `x [point]`, `y [point]`.
    ///
    /// # Errors
    /// As for [`scatter`].
    pub fn add_points(self, name: &str, x: impl Into<PlotArray>, y: impl Into<PlotArray>) -> Result<Self> {
        self.with(name, false, x.into(), y.into())
    }

    fn with(mut self, name: &str, is_line: bool, x: PlotArray, y: PlotArray) -> Result<Self> {
        let points = points(self.function, x, y)?;
        self.series.push(Named::new(name, is_line, points));
        self.checked()
    }

    /// The name of each point of the line or group that was added last: under the pointer, and above the points where it
    /// covers no other one.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each.
    pub fn point_labels(self, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        let mut plot = self.named_points("point_labels", labels)?;
        if let Some(last) = plot.series.last_mut() {
            last.labels = last.hover.clone();
        }
        Ok(plot)
    }

    /// The name of each point of the line or group that was added last, under the pointer.
    ///
    /// # Errors
    /// [`Error::Count`] unless there is one for each.
    pub fn hover(self, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        self.named_points("hover", labels)
    }

    fn named_points(mut self, what: &str, labels: impl IntoIterator<Item = impl ToString>) -> Result<Self> {
        if let Some(last) = self.series.last_mut() {
            let n = last.points.len();
            last.hover = ticks::labels(self.function, format!("{what} for {n} points"), labels, n)?;
            last.labels = Vec::new();
        }
        Ok(self)
    }

    /// The figure.
    pub fn figure(&self) -> Figure {
        let x = match &self.x_ticks {
            Some(labels) => ChartAxis::names(&self.labels[0], labels.iter().map(|label| ticks::on_axis(label))),
            None => ChartAxis::linear(&self.labels[0]),
        };
        let series = self.series.iter().enumerate().map(|(index, series)| self.drawn(index, series)).collect();
        let named = self.series.iter().filter(|series| !series.name.is_empty()).count();
        let names =
            if named > MAX_NAMES { format!("{MAX_NAMES} of {named} names are in the legend") } else { String::new() };
        let all = self.series.iter().flat_map(|series| &series.points);
        let points = match all.filter(|point| !Named::is_drawn(point)).count() {
            0 => String::new(),
            1 => "1 point that is not finite is not drawn".into(),
            n => format!("{n} points that are not finite are not drawn"),
        };
        let title = ticks::lines([self.title.clone(), names, points]);
        Chart { title, x, y: ChartAxis::linear(&self.labels[1]), series }.figure()
    }

    fn drawn(&self, index: usize, series: &Named) -> Series {
        let n = self.series.len();
        let names_before = self.series[..index].iter().filter(|series| !series.name.is_empty()).count();
        let name = if names_before < MAX_NAMES { series.name.clone() } else { String::new() };
        let form = if series.is_line { Form::Line } else { Form::Points };
        // A line has a gap at a point that is not finite; of points alone, these are left out.
        let kept: Vec<usize> = (0..series.points.len())
            .filter(|&point| series.is_line || Named::is_drawn(&series.points[point]))
            .collect();
        let of = |texts: &[String]| -> Vec<String> {
            if texts.is_empty() { Vec::new() } else { kept.iter().map(|&point| texts[point].clone()).collect() }
        };
        let n_points: usize = self.series.iter().map(|series| series.points.len()).sum();
        let texts = if n_points > MAX_HOVER_TEXTS && series.hover.is_empty() {
            Vec::new()
        } else {
            kept.iter().map(|&point| self.text(series, point)).collect()
        };
        Series {
            symbol: index,
            texts,
            labels: of(&series.labels),
            ..Series::new(
                name,
                form,
                Color::of_series(index, n),
                kept.iter().map(|&point| series.points[point]).collect(),
            )
        }
    }

    /// The hover text of a point: its value, its place, and the names of both.
    fn text(&self, series: &Named, index: usize) -> String {
        let [x, y] = series.points[index];
        let place = match &self.x_ticks {
            Some(labels) if x.fract() == 0.0 && x >= 0.0 => labels.get(x as usize).cloned(),
            _ => None,
        };
        let named = |label: &str, otherwise: &str| if label.is_empty() { otherwise.into() } else { label.to_owned() };
        let (x_label, y_label) = (named(&self.labels[0], "x"), named(&self.labels[1], "y"));
        let mut lines =
            vec![format!("{y_label} {}", number(y)), format!("{x_label} {}", place.unwrap_or_else(|| number(x)))];
        lines.extend(series.hover.get(index).cloned());
        if !series.name.is_empty() {
            lines.push(series.name.clone());
        }
        lines.join("\n")
    }

    /// Shows the figure in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.figure().evcxr_display();
    }
}

impl From<XyPlot> for Figure {
    fn from(plot: XyPlot) -> Self {
        plot.figure()
    }
}
