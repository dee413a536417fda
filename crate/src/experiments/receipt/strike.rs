//! Lines struck out: the model is run without a part, and what that changes is compared with what the part writes.

use ndarray::{Array1, ArrayView1};

use super::contributor::Contributor;
use super::lines::Receipt;
use crate::error::{Result, check_count};
use crate::model::{BaseRun, FinalRows, Gpt2, Variant};
use crate::plot::{Table, signed};
use crate::tokenizer::TokenLabels;

/// Memory limit in bytes for the runs that are computed together.
const MAX_BYTES: usize = 256 << 20;

/// A part of the model that was struck out of a receipt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strike {
    /// The part.
    pub contributor: Contributor,
    /// What it writes to the logit difference: its line.
    pub direct: f64,
    /// The logit difference of the model without it.
    pub without: f64,
    /// What the logit difference loses without it: that of the whole model minus `without`.
    pub total: f64,
}

impl Strike {
    /// What later layers, and the scale of the final layer norm, give back when the part is missing: `direct − total`.
    ///
    /// It has the sign of `direct` where they make up for it, up to `direct` itself if the model does not notice. It has the
    /// other sign where they amplify the loss: they read what the part wrote.
    pub fn self_repair(&self) -> f64 {
        self.direct - self.total
    }
}

/// The parts that were struck out of a receipt, one at a time: the result of [`Receipt::strike`]. A notebook shows it as a
/// table.
#[derive(Clone, Debug)]
pub struct Strikes {
    /// Each part, in the order in which they were given.
    pub strikes: Vec<Strike>,
    /// The logit difference of the whole model.
    pub logit_diff: f64,
    input: Vec<u32>,
    caption: String,
    labels: TokenLabels,
}

impl Receipt {
    /// Runs the model without each of these parts, one at a time.
    ///
    /// A part is taken out at the position of the receipt alone, because there is what its line counts:
    ///
    /// | part | change of the run |
    /// |---|---|
    /// | cell | its entry of the pattern is 0; the attention to other keys stays as it is |
    /// | head | its `z` is 0 |
    /// | MLP | its output is 0, not a mean over other prompts: the line counts all that it writes |
    /// | embeddings, `b_O` | subtracted from the residual stream |
    /// | biases of the final layer norm and the unembedding | nothing later reads them: the total effect is the line |
    ///
    /// For another replacement, such as a mean, give [`Intervention`](crate::Intervention)s to [`Gpt2::run_with_hooks`].
    ///
    /// ```
    /// use attention_tokens::experiments::{Contributor, ReceiptOptions, receipt};
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let answers = [model.to_single_token(" Wednesday")?, model.to_single_token(" Monday")?];
    /// let receipt = receipt(&model, "Monday, Tuesday,", answers, ReceiptOptions::default())?;
    /// let mut parts = receipt.largest(3);
    /// parts.push(Contributor::Head { layer: 3, head: 5 });
    /// let strikes = receipt.strike(&parts)?;
    /// assert_eq!(strikes.strikes.len(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer, a head or a key that is not there;
    /// [`Error::Count`](crate::Error::Count) for no part; [`Error::Setting`](crate::Error::Setting) for
    /// [`Contributor::Interventions`]; [`Error::Device`](crate::Error::Device).
    pub fn strike(&self, contributors: &[Contributor]) -> Result<Strikes> {
        check_count("Receipt::strike", "contributors", contributors.len(), 1, None)?;
        contributors.iter().try_for_each(|part| part.check(&self.model, self.position))?;
        let runner = Runner::new(self)?;
        let embeddings = self.model.on_device().embedding_rows(&self.input)?;
        let embeddings = [&embeddings.0, &embeddings.1].map(|rows| rows.row(self.position).to_owned());
        let without = |part: &Contributor| {
            let intervention = part.without(&self.model, self.position, &embeddings)?;
            intervention.map(|intervention| self.model.variant(&runner.base, &[intervention])).transpose()
        };
        let variants = contributors.iter().map(without).collect::<Result<Vec<Option<Variant>>>>()?;
        let whole = self.model.variant(&runner.base, &[])?;
        let run: Vec<&Variant> = std::iter::once(&whole).chain(variants.iter().flatten()).collect();
        let mut logit_diffs = runner.logit_diffs(&run)?.into_iter();
        let logit_diff = logit_diffs.next().expect("the whole model is the first run");
        let strike = |(&contributor, variant): (&Contributor, &Option<Variant>)| {
            let direct = self.logits_of(contributor);
            let measured = variant.as_ref().and_then(|_| logit_diffs.next());
            let without = measured.unwrap_or(logit_diff - direct);
            Strike { contributor, direct, without, total: logit_diff - without }
        };
        Ok(Strikes {
            strikes: contributors.iter().zip(&variants).map(strike).collect(),
            logit_diff,
            input: self.input.clone(),
            caption: self.caption(),
            labels: self.model.token_labels(),
        })
    }
}

/// Runs variants of the receipt's prompt, and reads the logit difference at its position.
struct Runner<'a> {
    model: &'a Gpt2,
    base: BaseRun,
    position: usize,
    rows: FinalRows,
    /// The direction after the final layer norm, and the difference of the biases. Shape: `[d_model]`.
    direction: (Array1<f64>, f64),
}

impl<'a> Runner<'a> {
    fn new(receipt: &'a Receipt) -> Result<Self> {
        let Receipt { model, input, position, answers, .. } = receipt;
        let (columns, b_u) = model.on_device().unembed_columns(answers)?;
        let columns = columns.mapv(f64::from);
        let direction = (&columns.row(0) - &columns.row(1), f64::from(b_u[0]) - f64::from(b_u[1]));
        let rows = if position + 1 == input.len() { FinalRows::Last } else { FinalRows::All };
        Ok(Self { model, base: model.base_run(vec![input.clone()].into())?, position: *position, rows, direction })
    }

    /// The logit difference of each run, within the limit of memory. Shape: → `[variant]`.
    fn logit_diffs(&self, variants: &[&Variant]) -> Result<Vec<f64>> {
        let together = variants.iter().map(|variant| self.bytes(variant)).max().map_or(1, |bytes| MAX_BYTES / bytes);
        let mut logit_diffs = Vec::with_capacity(variants.len());
        for batch in variants.chunks(together.max(1)) {
            for rows in self.model.run_variants(&self.base, batch, self.rows)? {
                let row = if self.rows == FinalRows::Last { 0 } else { self.position };
                logit_diffs.push(self.logit_diff(rows[0].row(row)));
            }
        }
        Ok(logit_diffs)
    }

    /// Shape: `row [d_model]` after the final layer norm.
    fn logit_diff(&self, row: ArrayView1<f32>) -> f64 {
        let (direction, bias) = &self.direction;
        row.iter().zip(direction).map(|(&x, w)| f64::from(x) * w).sum::<f64>() + bias
    }

    /// An upper bound of the memory of a run: residual stream, queries, keys, values, z and outputs, neurons, patterns.
    fn bytes(&self, variant: &Variant) -> usize {
        let (config, pos) = (self.model.config(), self.base.tokens()[0].len());
        let rows = if self.rows == FinalRows::Last { variant.n_rows(&self.base) } else { pos };
        let keys_and_values = 2 * pos * config.d_model * config.n_layers;
        let floats = rows * (12 * config.d_model + 2 * config.d_mlp + 2 * config.n_heads * pos) + keys_and_values;
        size_of::<f32>() * floats + variant.bytes()
    }
}

impl Strikes {
    /// Direct effect, total effect and self-repair of each part, side by side.
    pub fn table(&self) -> Table {
        let row = |strike: &Strike| {
            let [.., key] = strike.contributor.place();
            let key = key.map_or_else(String::new, |key| self.labels.label(self.input[key]));
            let numbers = [strike.direct, strike.total, strike.self_repair(), strike.without];
            let numbers = numbers.map(|x| signed(x, 3));
            [strike.contributor.to_string(), key].into_iter().chain(numbers).collect()
        };
        let header = [
            "struck out",
            "key's token",
            "direct effect",
            "total effect",
            "self-repair",
            "logit difference without it",
        ];
        let caption = format!("Struck out, one at a time, at that position: {}", self.caption);
        Table::new(caption, &header, self.strikes.iter().map(row).collect())
    }

    /// Shows the table in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}
