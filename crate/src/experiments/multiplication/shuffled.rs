//! The properties of a multiplication table beside those of shuffled tables.

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::product_table::{Codes, ProductTable};
use super::property::TableProperty;
use crate::error::{Result, check_count};
use crate::plot::Table;
use crate::random::seeded_stream;

/// A property of a table beside the same property of shuffled tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PropertyTest {
    /// The property.
    pub property: TableProperty,
    /// Its value; `None` where nothing can be counted.
    pub value: Option<f64>,
    /// The number of products, pairs or triples that it counts.
    pub n_counted: u64,
    /// The same of shuffled tables. `None` without a value, and for the closure, which shuffling does not change.
    pub shuffled: Option<ShuffledProperty>,
}

/// A property of shuffled tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShuffledProperty {
    /// The mean.
    pub mean: f64,
    /// The 2.5% and the 97.5% quantile.
    pub quantiles: [f64; 2],
    /// One-sided p-value: the share of tables, the observed one among them, whose value is at least the observed one.
    pub p: f64,
    /// The number of shuffled tables that have a value.
    pub n: usize,
}

/// The properties of a table beside those of shuffled tables: the result of [`ProductTable::test`].
#[derive(Clone, Debug, PartialEq)]
pub struct TableTest {
    /// A row for each property, in the order of [`TableProperty::ALL`].
    pub results: Vec<PropertyTest>,
    /// The number of tokens of the list.
    pub n_tokens: usize,
    /// The number of shuffled tables.
    pub n_shuffles: usize,
    /// The source of the table, for captions.
    pub(super) of: String,
}

impl ProductTable {
    /// The properties beside those of `n_shuffles` tables with the same products in a random order. Takes `n³` steps for
    /// each.
    ///
    /// # Errors
    /// [`Error::Count`](crate::Error::Count) if `n_shuffles` is 0.
    pub fn test(&self, n_shuffles: usize, seed: u64) -> Result<TableTest> {
        check_count("ProductTable::test", "n_shuffles", n_shuffles, 1, None)?;
        let shares = |codes: &Codes| TableProperty::ALL.map(|property| codes.value(property).share());
        let shuffled: Vec<[Option<f64>; TableProperty::ALL.len()]> = (0..n_shuffles as u64)
            .into_par_iter()
            .map(|stream| {
                let mut codes = self.codes().clone();
                let cells = codes.codes.as_slice_mut().expect("a table in standard layout");
                cells.shuffle(&mut seeded_stream(seed, stream));
                shares(&codes)
            })
            .collect();
        let result = |(index, property): (usize, TableProperty)| {
            let value = self.value(property);
            let values = shuffled.iter().filter_map(|values| values[index]).collect();
            let shuffled = match value {
                Some(value) if property != TableProperty::Closure => ShuffledProperty::new(value, values),
                _ => None,
            };
            PropertyTest { property, value, n_counted: self.n_counted(property), shuffled }
        };
        let results = TableProperty::ALL.into_iter().enumerate().map(result).collect();
        Ok(TableTest { results, n_tokens: self.tokens().len(), n_shuffles, of: String::new() })
    }
}

impl ShuffledProperty {
    /// `None` without values.
    fn new(observed: f64, mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let last = n.checked_sub(1)?;
        // A tie must count.
        let at_least = values.iter().filter(|&&value| value >= observed - 1e-12).count();
        Some(Self {
            mean: values.iter().sum::<f64>() / n as f64,
            quantiles: [0.025, 0.975].map(|quantile| values[(quantile * last as f64).round() as usize]),
            p: (1 + at_least) as f64 / (1 + n) as f64,
            n,
        })
    }
}

impl TableTest {
    /// The row of a property.
    pub fn result(&self, property: TableProperty) -> PropertyTest {
        *self.results.iter().find(|result| result.property == property).expect("a test has every property")
    }

    /// The properties as a table.
    pub fn table(&self) -> Table {
        let rows = self.results.iter().map(PropertyTest::row).collect();
        Table::new(self.caption(), &PropertyTest::HEADER, rows)
    }

    /// The properties as a table, beside those of a control, such as the table of a model that has learned nothing.
    pub fn table_with_control(&self, control: &TableTest) -> Table {
        let row = |result: &PropertyTest| {
            let control = control.result(result.property);
            let mut row = result.row();
            row.push(share(control.value));
            row.push(control.shuffled.map_or(NOTHING.into(), |shuffled| format!("{:.3}", shuffled.p)));
            row
        };
        let header = [&PropertyTest::HEADER[..], &["control", "p of control"]].concat();
        let caption = format!("{}; control: {}", self.caption(), control.source());
        Table::new(caption, &header, self.results.iter().map(row).collect())
    }

    fn source(&self) -> String {
        let (of, n) = (&self.of, self.n_tokens);
        let tokens = if n == 1 { "token" } else { "tokens" };
        format!("{n} {tokens}{of}")
    }

    fn caption(&self) -> String {
        let n = self.n_shuffles;
        let tables = if n == 1 { "table" } else { "tables" };
        format!("Multiplication of {}, against {n} shuffled {tables}", self.source())
    }
}

/// In place of a number that does not exist.
const NOTHING: &str = "–";

fn share(value: Option<f64>) -> String {
    value.map_or(NOTHING.into(), |value| format!("{value:.3}"))
}

impl PropertyTest {
    const HEADER: [&'static str; 6] = ["property", "share", "of", "shuffled", "95% of shuffled", "p"];

    fn row(&self) -> Vec<String> {
        let [mean, range, p] = match self.shuffled {
            None => [NOTHING; 3].map(String::from),
            Some(ShuffledProperty { mean, quantiles: [low, high], p, .. }) => {
                [format!("{mean:.3}"), format!("{low:.3} to {high:.3}"), format!("{p:.3}")]
            }
        };
        vec![self.property.name().into(), share(self.value), self.n_counted.to_string(), mean, range, p]
    }
}
