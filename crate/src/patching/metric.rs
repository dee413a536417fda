//! Metrics: one number of a run, read off its logits.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView1, s};

use crate::analysis::{kl_divergence, token_loss};
use crate::error::{Error, Result, check_count, check_setting};
use crate::model::{FinalRows, Gpt2, Prompts};

/// One number of a run, read off its logits: the mean over the prompts of a batch, unless a closure says otherwise.
///
/// A metric of tokens takes those of each prompt, or of one prompt for all.
#[derive(Clone)]
pub struct Metric {
    kind: Kind,
    name: String,
    /// The values that become 1 and 0.
    ends: Option<[f32; 2]>,
}

/// A closure of [`Metric::new`].
type Closure = Arc<dyn Fn(&[Array2<f32>]) -> f32 + Send + Sync>;

#[derive(Clone)]
enum Kind {
    LogitDiff(Vec<[u32; 2]>),
    Logit(Vec<u32>),
    LogProb(Vec<u32>),
    Loss,
    /// The last row of each prompt's logits.
    Kl(Vec<Array2<f32>>),
    Closure(Closure),
}

impl Metric {
    fn of(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), ends: None }
    }

    /// The logit of the right answer minus that of the wrong one, at the last position.
    /// Shape: `answers [prompt] [right, wrong]`.
    pub fn logit_diff(answers: &[[u32; 2]]) -> Self {
        Self::of(Kind::LogitDiff(answers.to_vec()), "logit difference")
    }

    /// The logit of a token at the last position. Shape: `tokens [prompt]`.
    pub fn logit(tokens: &[u32]) -> Self {
        Self::of(Kind::Logit(tokens.to_vec()), "logit")
    }

    /// The log-probability of a token at the last position, in nats. Shape: `tokens [prompt]`.
    pub fn log_prob(tokens: &[u32]) -> Self {
        Self::of(Kind::LogProb(tokens.to_vec()), "log-probability")
    }

    /// The mean loss of all tokens of all prompts, in nats, as of [`Gpt2::loss`].
    pub fn loss() -> Self {
        Self::of(Kind::Loss, "loss")
    }

    /// The divergence `KL(p‖q)` of the predictions `q` at the last position from those of another run, `p`, in nats.
    /// Shape: `p_logits [prompt] [pos, d_vocab]`, of which the last row counts.
    pub fn kl(p_logits: &[Array2<f32>]) -> Self {
        let last = |logits: &Array2<f32>| logits.slice(s![logits.nrows().saturating_sub(1).., ..]).to_owned();
        Self::of(Kind::Kl(p_logits.iter().map(last).collect()), "KL divergence")
    }

    /// A number that a closure computes from the logits of all prompts. A closure needs every logit, which takes longer
    /// than the metrics above. A measurement is an error if it returns NaN. Shape: `[prompt] [pos, d_vocab]`.
    pub fn new(name: impl Into<String>, closure: impl Fn(&[Array2<f32>]) -> f32 + Send + Sync + 'static) -> Self {
        Self::of(Kind::Closure(Arc::new(closure)), name)
    }

    /// The metric on the scale on which the clean run has 1 and the corrupted run 0: the share of the effect.
    ///
    /// # Errors
    /// [`Error::Setting`] if the two are equal or not finite.
    pub fn normalized(self, clean: f32, corrupted: f32) -> Result<Self> {
        let difference = clean - corrupted;
        if difference == 0.0 || !difference.is_finite() {
            return Err(Error::Setting {
                function: "Metric",
                option: "normalized",
                expected: "two different numbers, of the clean and of the corrupted run".into(),
                found: format!("{clean} and {corrupted}"),
            });
        }
        Ok(Self { name: format!("normalized {}", self.name), ends: Some([clean, corrupted]), ..self })
    }

    /// `logit difference`, `loss`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The metric of a run of a model as it is.
    ///
    /// # Errors
    /// Those of [`Gpt2::forward`], [`Error::Setting`] for NaN of a closure, [`Error::Count`] for another number of tokens or logits than prompts,
    /// [`Error::OutOfRange`] for a token that the model does not have.
    pub fn measure(&self, model: &Gpt2, prompts: impl Into<Prompts>) -> Result<f32> {
        let base = model.base_run(prompts.into())?;
        let reader = Reader::new(self, model, base.tokens())?;
        let variant = model.variant(&base, &[])?;
        let rows = model.run_variants(&base, &[&variant], reader.rows())?;
        Ok(reader.values(model, rows)?.remove(0))
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({})", self.name)
    }
}

/// A metric with what it reads of a model.
pub(super) struct Reader<'a> {
    metric: &'a Metric,
    /// Shape: `[prompt][pos]`.
    tokens: &'a [Vec<u32>],
    /// The direction in the residual stream, after the final layer norm, whose product is the metric of a prompt, and the
    /// number to add. Shape: `[prompt]` of `[d_model]`.
    directions: Vec<(Array1<f32>, f64)>,
}

impl<'a> Reader<'a> {
    /// Checks the metric against the prompts. Shape: `tokens [prompt][pos]`.
    pub(super) fn new(metric: &'a Metric, model: &Gpt2, tokens: &'a [Vec<u32>]) -> Result<Self> {
        let n = tokens.len();
        let check = |what: &str, found: usize| match found {
            1 => Ok(()),
            _ => check_count("Metric", format!("{what}, one for each prompt"), found, n, Some(n)),
        };
        let mut directions = Vec::new();
        match &metric.kind {
            Kind::LogitDiff(answers) => {
                check("pairs of answers", answers.len())?;
                let tokens = answers.concat();
                model.check_tokens(&tokens)?;
                let (columns, b_u) = model.on_device().unembed_columns(&tokens)?;
                directions.extend((0..tokens.len()).step_by(2).map(|right| {
                    let b = f64::from(b_u[right]) - f64::from(b_u[right + 1]);
                    (&columns.row(right) - &columns.row(right + 1), b)
                }));
            }
            Kind::Logit(answers) => {
                check("tokens", answers.len())?;
                model.check_tokens(answers)?;
                let (columns, b_u) = model.on_device().unembed_columns(answers)?;
                directions.extend(columns.outer_iter().zip(&b_u).map(|(column, &b)| (column.to_owned(), f64::from(b))));
            }
            Kind::LogProb(answers) => {
                check("tokens", answers.len())?;
                model.check_tokens(answers)?;
            }
            Kind::Kl(logits) => {
                check("arrays of logits", logits.len())?;
                let d_vocab = model.config().d_vocab;
                if let Some(other) = logits.iter().find(|logits| logits.dim() != (1, d_vocab)) {
                    return Err(Error::Shape {
                        what: "Metric::kl: logits".into(),
                        axes: "the last row [1, d_vocab]",
                        expected: vec![1, d_vocab],
                        found: other.shape().to_vec(),
                        hint: "give logits of this model, as Gpt2::forward returns them",
                    });
                }
            }
            Kind::Loss => {
                let shortest = tokens.iter().map(Vec::len).min().unwrap_or(0);
                check_count("Metric::loss", "tokens of a prompt", shortest, 2, None)?;
            }
            Kind::Closure(_) => {}
        }
        Ok(Self { metric, tokens, directions })
    }

    /// The rows after the final layer norm that the metric needs.
    pub(super) fn rows(&self) -> FinalRows {
        match self.metric.kind {
            Kind::Loss | Kind::Closure(_) => FinalRows::All,
            _ => FinalRows::Last,
        }
    }

    /// Bytes of logits that the metric needs for one row.
    pub(super) fn bytes_of_logits(&self, d_vocab: usize) -> usize {
        if self.directions.is_empty() { 2 * size_of::<f32>() * d_vocab } else { 0 }
    }

    /// The metric of each run. Shape: `rows [run] [prompt] [1 or pos, d_model]` → `[run]`.
    pub(super) fn values(&self, model: &Gpt2, rows: Vec<Vec<Array2<f32>>>) -> Result<Vec<f32>> {
        let raw = if self.directions.is_empty() { self.read_logits(model, rows)? } else { self.read_directions(&rows) };
        Ok(match self.metric.ends {
            Some([clean, corrupted]) => raw.into_iter().map(|x| (x - corrupted) / (clean - corrupted)).collect(),
            None => raw,
        })
    }

    /// [`values`](Self::values) without logits.
    fn read_directions(&self, rows: &[Vec<Array2<f32>>]) -> Vec<f32> {
        let of_prompt = |(prompt, rows): (usize, &Array2<f32>)| {
            let (direction, b) = of(&self.directions, prompt);
            rows.row(rows.nrows() - 1).iter().zip(direction).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
                + b
        };
        rows.iter().map(|prompts| mean(prompts.iter().enumerate().map(of_prompt))).collect()
    }

    /// [`values`](Self::values) from logits, of one run at a time.
    fn read_logits(&self, model: &Gpt2, rows: Vec<Vec<Array2<f32>>>) -> Result<Vec<f32>> {
        let value = |prompts: Vec<Array2<f32>>| {
            let logits = prompts.into_iter().map(|rows| model.on_device().logits_of_normalized(rows));
            self.of_logits(&logits.collect::<Result<Vec<_>>>()?)
        };
        rows.into_iter().map(value).collect()
    }

    /// Shape: `logits [prompt] [1 or pos, d_vocab]`.
    fn of_logits(&self, logits: &[Array2<f32>]) -> Result<f32> {
        Ok(match &self.metric.kind {
            Kind::LogProb(answers) => {
                mean(logits.iter().enumerate().map(|(prompt, logits)| {
                    -f64::from(token_loss(logits.row(logits.nrows() - 1), *of(answers, prompt)))
                }))
            }
            Kind::Kl(p_logits) => {
                let divergence =
                    |(prompt, logits): (usize, &Array2<f32>)| Ok(kl_divergence(of(p_logits, prompt), logits)?[0]);
                mean(logits.iter().enumerate().map(divergence).collect::<Result<Vec<f64>>>()?.into_iter())
            }
            Kind::Loss => {
                let losses = logits.iter().zip(self.tokens).flat_map(|(logits, tokens)| {
                    let loss = |(row, &next): (ArrayView1<f32>, &u32)| f64::from(token_loss(row, next));
                    logits.rows().into_iter().zip(&tokens[1..]).map(loss).collect::<Vec<_>>()
                });
                mean(losses)
            }
            Kind::Closure(closure) => {
                let value = closure(logits);
                let expected = "a number from the closure";
                check_setting("Metric", "value", !value.is_nan(), expected, format!("NaN of {}", self.metric.name))?;
                value
            }
            Kind::LogitDiff(_) | Kind::Logit(_) => unreachable!("these have directions"),
        })
    }
}

/// The item of a prompt, where one item may stand for all.
fn of<T>(items: &[T], prompt: usize) -> &T {
    &items[if items.len() == 1 { 0 } else { prompt }]
}

fn mean(values: impl Iterator<Item = f64>) -> f32 {
    let (sum, n) = values.fold((0.0, 0_u32), |(sum, n), x| (sum + x, n + 1));
    (sum / f64::from(n)) as f32
}
