//! The result of a sweep: an array with named axes.

use ndarray::{ArrayD, Axis, Dimension, Ix1, Ix2};

use crate::error::{Error, Result, check_index};
use crate::plot::{Figure, Table, decimals, imshow, signed};

/// An axis of a [`Sweep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepAxis {
    /// TransformerLens' name: `layer`, `pos`, `head`, `dest_pos`, `src_pos`.
    pub name: String,
    /// The label of each index.
    pub labels: Vec<String>,
}

impl SweepAxis {
    /// An axis with a number as the label of each index.
    pub(super) fn numbered(name: &str, n: usize) -> Self {
        Self { name: name.into(), labels: (0..n).map(|index| index.to_string()).collect() }
    }
}

/// A metric for each place of the model where a run was changed.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The metric of each run. NaN where nothing was changed, as the key is after the query. Shape: that of `axes`.
    pub values: ArrayD<f32>,
    /// The axes of the array.
    pub axes: Vec<SweepAxis>,
    /// The metric of the unchanged run.
    pub unchanged: f32,
    /// The metric's name.
    pub metric: String,
    /// What was changed, in words.
    pub title: String,
}

impl Sweep {
    /// The part of the sweep at one index of an axis.
    ///
    /// # Errors
    /// [`Error::Setting`] for an axis that the sweep does not have, [`Error::OutOfRange`] for an index beyond it.
    pub fn select(&self, axis: &str, index: usize) -> Result<Sweep> {
        let names = || self.axes.iter().map(|axis| axis.name.clone()).collect::<Vec<_>>().join(", ");
        let found = self.axes.iter().position(|other| other.name == axis).ok_or_else(|| Error::Setting {
            function: "Sweep::select",
            option: "axis",
            expected: names(),
            found: axis.into(),
        })?;
        check_index("index", index, "the axis", self.axes[found].labels.len())?;
        let mut axes = self.axes.clone();
        let removed = axes.remove(found);
        let title = format!("{}, {} {}", self.title, removed.name, removed.labels[index]);
        Ok(Self { values: self.values.index_axis(Axis(found), index).to_owned(), axes, title, ..self.clone() })
    }

    /// The values minus that of the unchanged run. Shape: that of `axes`.
    pub fn differences(&self) -> ArrayD<f32> {
        &self.values - self.unchanged
    }

    /// A heat map of a sweep with one or two axes; grey is the unchanged run's value.
    ///
    /// # Errors
    /// [`Error::Count`] for more axes: [`select`](Self::select) takes one away.
    pub fn plot(&self) -> Result<Figure> {
        let two = match self.values.ndim() {
            1 => self.values.clone().into_dimensionality::<Ix1>().map(|values| values.insert_axis(Axis(0))),
            _ => self.values.clone().into_dimensionality::<Ix2>(),
        };
        let Ok(values) = two else {
            return Err(Error::Count {
                function: "Sweep::plot",
                what: "axes".into(),
                found: self.axes.len(),
                min: 1,
                max: Some(2),
                hint: Some("Sweep::select takes one away"),
            });
        };
        let rows = match &self.axes[..] {
            [rows, _, ..] => (rows.name.clone(), rows.labels.clone()),
            _ => (String::new(), vec![self.title.clone()]),
        };
        let title = format!("{} by {}; unchanged: {}", self.metric, self.title, decimals(self.unchanged, 3));
        // The title names the metric; above the bar, a long name would be cut.
        let name = if self.metric.chars().count() > 16 { "metric" } else { self.metric.as_str() };
        let plot = imshow(&values)?.title(title).color_label(name).midpoint(f64::from(self.unchanged))?;
        let plot = plot.y_label(rows.0).y_ticks(rows.1)?;
        let columns = self.axes.last();
        let columns = columns.map_or_else(Default::default, |axis| (axis.name.clone(), axis.labels.clone()));
        Ok(plot.x_label(columns.0).x_ticks(columns.1)?.figure())
    }

    /// The places with the largest differences from the unchanged run, largest first.
    pub fn top(&self, k: usize) -> Table {
        let mut places: Vec<(Vec<usize>, f32)> = self
            .values
            .indexed_iter()
            .filter(|(_, x)| x.is_finite())
            .map(|(index, &x)| (index.slice().to_vec(), x))
            .collect();
        places.sort_by(|(_, a), (_, b)| (b - self.unchanged).abs().total_cmp(&(a - self.unchanged).abs()));
        let row = |(index, x): &(Vec<usize>, f32)| {
            let labels = index.iter().zip(&self.axes).map(|(&index, axis)| axis.labels[index].clone());
            labels.chain([decimals(*x, 3), signed(x - self.unchanged, 3)]).collect()
        };
        let header: Vec<&str> =
            self.axes.iter().map(|axis| axis.name.as_str()).chain([self.metric.as_str(), "difference"]).collect();
        Table::new(self.title.clone(), &header, places.iter().take(k).map(row).collect())
    }

    /// Shows the figure in a notebook, or the ten largest differences of a sweep with more axes; evcxr calls this for a
    /// cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        match self.plot() {
            Ok(figure) => figure.evcxr_display(),
            Err(_) => self.top(10).evcxr_display(),
        }
    }
}
