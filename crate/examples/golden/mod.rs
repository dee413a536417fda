//! Golden data, and how a model is held against it. See `parity.rs` for what a file may have, and the limits.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use attention_tokens::prelude::*;
use attention_tokens::{BlockWeights, Weights};
use ndarray::{Array, Array1, Array2, ArrayD, ArrayView1, Axis, Dimension, Ix1, Ix2, stack};
use safetensors::{Dtype, SafeTensors};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: f64 = 1e-4;
/// For what comes out of a singular value decomposition.
const SVD_LIMIT: f64 = 2e-4;
/// Absolute, for tensors that are zero everywhere.
const ZERO_LIMIT: f64 = 1e-7;
/// A token may differ where its margin is below this share of its vector's largest |logit|.
const EXCUSABLE: f32 = 2e-5;
/// At most this share of the cells may be excused.
const MOST_EXCUSED: f64 = 0.01;

/// How many quantities were checked, and how many failed.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) checked: usize,
    pub(crate) failed: usize,
}

/// Checks every tensor of `expected.safetensors`, and prints a line for each, or for each failure alone.
pub(crate) fn check(folder: &Path, device: Device, failures_alone: bool) -> Result<Outcome> {
    let path = folder.join("expected.safetensors");
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let expected = Expected::read(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut report = Report { outcome: Outcome::default(), failures_alone };
    let mut rest: Vec<&str> = expected.0.keys().map(String::as_str).collect();

    for (level, processing) in levels() {
        // The second part of a name is its level; Hugging Face's own logits belong to the unprocessed model.
        let (mine, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|name| match name.split('.').nth(1) {
            Some("hf_logits" | "hf_logits_last") => level == "raw",
            part => part == Some(level),
        });
        rest = others;
        if mine.is_empty() {
            continue;
        }
        let options = LoadOptions::default().processing(processing).device(device);
        let model = Gpt2::from_pretrained(folder.to_string_lossy(), options)?;
        let mut checker = Checker { level, model, expected: &expected, runs: BTreeMap::new(), report: &mut report };
        for name in mine {
            checker.check(name)?;
        }
    }
    // The prompts themselves are checked in that every run takes them.
    for name in rest.into_iter().filter(|name| !(name.starts_with("prompt") && name.ends_with(".tokens"))) {
        report.unknown(name);
    }
    Ok(report.outcome)
}

fn levels() -> [(&'static str, Processing); 4] {
    let raw = Processing::none();
    let fold_ln = Processing { fold_ln: true, ..raw };
    let centered = Processing { center_writing_weights: true, center_unembed: true, ..fold_ln };
    [("raw", raw), ("fold_ln", fold_ln), ("centered", centered), ("notebook", Processing::default())]
}

/// Prints a line for each quantity, and counts.
struct Report {
    outcome: Outcome,
    failures_alone: bool,
}

impl Report {
    fn line(&mut self, name: &str, passed: bool, text: &str) {
        self.outcome.checked += 1;
        self.outcome.failed += usize::from(!passed);
        if passed && self.failures_alone {
            return;
        }
        println!("{} {name:<56} {text}", if passed { "ok  " } else { "FAIL" });
    }

    fn unknown(&mut self, name: &str) {
        self.line(name, false, "a name that is not understood");
    }

    /// Holds numbers against numbers.
    fn numbers<D: Dimension>(&mut self, name: &str, got: &Array<f32, D>, want: &ArrayD<f32>, limit: f64) {
        if got.shape() != want.shape() {
            return self.line(name, false, &format!("shape {:?}, expected {:?}", got.shape(), want.shape()));
        }
        let magnitude = want.iter().fold(0.0_f64, |largest, &x| largest.max(f64::from(x).abs()));
        // A NaN must not hide in a maximum.
        let off = |(got, want): (&f32, &f32)| match (f64::from(*got) - f64::from(*want)).abs() {
            off if off.is_nan() => f64::INFINITY,
            off => off,
        };
        let absolute = got.iter().zip(want).map(off).fold(0.0, f64::max);
        let (passed, relative) = match magnitude {
            0.0 => (absolute <= ZERO_LIMIT, f64::NAN),
            _ => (absolute <= limit * magnitude, absolute / magnitude),
        };
        self.line(name, passed, &format!("abs {absolute:.1e}  rel {relative:.1e}  limit {limit:.0e}"));
    }
}

/// Checks what belongs to one processing level.
struct Checker<'a> {
    level: &'static str,
    model: Gpt2,
    expected: &'a Expected<'a>,
    runs: BTreeMap<String, Run>,
    report: &'a mut Report,
}

/// A prompt's forward pass, and the heads decoded so far.
struct Run {
    logits: Array2<f32>,
    cache: ActivationCache,
    heads: BTreeMap<&'static str, Vec<PromptHeadData>>,
}

impl Checker<'_> {
    fn check(&mut self, name: &str) -> Result<()> {
        let (owner, tail) = name.split_once('.').ok_or("no dot")?;
        let quantity = tail.strip_prefix(self.level).and_then(|tail| tail.strip_prefix('.')).unwrap_or(tail);
        if owner == "weights" {
            return self.weights(name, quantity);
        }
        if self.expected.tokens(owner).is_err() {
            self.report.line(name, false, &format!("there is no {owner}.tokens"));
            return Ok(());
        }
        match quantity {
            "logits" | "hf_logits" => self.logits(name, owner, false),
            "hf_logits_last" => self.logits(name, owner, true),
            _ => match quantity.strip_prefix("attention_tokens.") {
                Some(tokens) => self.tokens(name, owner, tokens),
                None => self.activation(name, owner, quantity),
            },
        }
    }

    fn run(&mut self, prompt: &str) -> Result<&mut Run> {
        if !self.runs.contains_key(prompt) {
            let (mut logits, cache) = self.model.run_with_cache(self.expected.tokens(prompt)?)?;
            self.runs.insert(prompt.into(), Run { logits: logits.remove(0), cache, heads: BTreeMap::new() });
        }
        Ok(self.runs.get_mut(prompt).expect("just inserted"))
    }

    fn weights(&mut self, name: &str, quantity: &str) -> Result<()> {
        let want = self.expected.numbers(name)?;
        let rewritten = matches!(quantity, "W_Q" | "b_Q" | "W_K" | "b_K" | "W_V" | "W_O");
        let limit = if self.level == "notebook" && rewritten { SVD_LIMIT } else { LIMIT };
        match named_weight(&self.model.weights()?, quantity) {
            Some(got) => self.report.numbers(name, &got, &want, limit),
            None => self.report.unknown(name),
        }
        Ok(())
    }

    /// Logits as log-probabilities: processing may add a constant to each row.
    fn logits(&mut self, name: &str, prompt: &str, last: bool) -> Result<()> {
        let want = self.expected.numbers(name)?;
        let got = &self.run(prompt)?.logits;
        let got = log_softmax(if last { got.slice(ndarray::s![-1.., ..]).to_owned() } else { got.clone() });
        let rows = if last { want.insert_axis(Axis(0)) } else { want };
        match rows.into_dimensionality::<Ix2>() {
            Ok(want) => self.report.numbers(name, &got, &log_softmax(want).into_dyn(), LIMIT),
            Err(error) => self.report.line(name, false, &error.to_string()),
        }
        Ok(())
    }

    fn activation(&mut self, name: &str, prompt: &str, quantity: &str) -> Result<()> {
        let Some(activation) = Activation::ALL.into_iter().find(|activation| activation.name() == quantity) else {
            self.report.unknown(name);
            return Ok(());
        };
        let n_layers = self.model.config().n_layers;
        let cache = &self.run(prompt)?.cache;
        let layers = (0..n_layers).map(|layer| Ok(cache.get(activation, layer)?)).collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = layers.iter().map(|layer| layer.view()).collect();
        let mut got = stack(Axis(0), &views)?;
        let mut want = self.expected.numbers(name)?;
        // The scores that the mask takes out are −∞ in both, and −∞ − −∞ is not a number.
        if activation == Activation::AttnScores {
            for scores in [&mut got, &mut want] {
                scores.mapv_inplace(|score| if score == f32::NEG_INFINITY { 0.0 } else { score });
            }
        }
        let rewritten = matches!(activation, Activation::Q | Activation::K | Activation::V | Activation::Z);
        let limit = if self.level == "notebook" && rewritten { SVD_LIMIT } else { LIMIT };
        self.report.numbers(name, &got, &want, limit);
        Ok(())
    }

    /// `quantity` is `{projection}.{qk|q|k|v|margin}`.
    fn tokens(&mut self, name: &str, prompt: &str, quantity: &str) -> Result<()> {
        let projections = [Projection::Notebook, Projection::Output, Projection::Ov];
        let known = quantity.split_once('.').and_then(|(projection, component)| {
            Some((projections.into_iter().find(|known| known.name() == projection)?, component))
        });
        let Some((projection, component)) = known else {
            self.report.unknown(name);
            return Ok(());
        };
        let model = self.model.clone();
        let run = self.run(prompt)?;
        if !run.heads.contains_key(projection.name()) {
            let options = DecodeOptions { projection, ..DecodeOptions::default() };
            let heads = all_heads_data(&model, &run.cache, options)?;
            run.heads.insert(projection.name(), heads.iter().map(|head| head.prompts[0].clone()).collect());
        }
        let heads = run.heads[projection.name()].clone();
        let vectors = Vectors { model: &model, cache: run.cache.clone(), projection };
        match component {
            "margin" => self.margins(name, &heads),
            "qk" | "q" | "k" | "v" => self.decoded(name, component, &heads, &vectors),
            _ => {
                self.report.unknown(name);
                Ok(())
            }
        }
    }

    fn decoded(&mut self, name: &str, component: &str, heads: &[PromptHeadData], vectors: &Vectors) -> Result<()> {
        let want = self.expected.integers(name)?;
        let pos = heads.first().map_or(0, PromptHeadData::n_pos);
        let config = self.model.config();
        let mut shape = vec![config.n_layers, config.n_heads, pos];
        if component == "qk" {
            shape.push(pos);
        }
        if want.shape() != shape {
            self.report.line(name, false, &format!("shape {:?}, expected {:?}", shape, want.shape()));
            return Ok(());
        }
        let stored_margin = self.expected.numbers(&format!("{}.margin", name.rsplit_once('.').expect("a dot").0)).ok();
        let (mut compared, mut excused, mut wrong) = (0_usize, 0_usize, 0_usize);
        for (at, &want) in want.indexed_iter() {
            let data = &heads[at[0] * config.n_heads + at[1]];
            let (got, own_margin) = match component {
                "qk" => match data.cell(at[2], at[3]) {
                    None => {
                        // Masked: must be −1, and is no cell.
                        wrong += usize::from(want != -1);
                        continue;
                    }
                    Some(cell) => (data.qk.tokens[[cell, 0]], data.qk.margin[cell]),
                },
                "q" => (data.q.tokens[[at[2], 0]], data.q.margin[at[2]]),
                "k" => (data.k.tokens[[at[2], 0]], data.k.margin[at[2]]),
                _ => (data.v.tokens[[at[2], 0]], data.v.margin[at[2]]),
            };
            compared += 1;
            if i64::from(got) != want {
                let margin = match (&stored_margin, component) {
                    (Some(stored), "qk") => stored[&at],
                    _ => own_margin,
                };
                let largest = vectors.largest_logit(component, data, at[2], at.ndim().gt(&3).then(|| at[3]))?;
                if margin < EXCUSABLE * largest {
                    excused += 1;
                } else {
                    wrong += 1;
                }
            }
        }
        let passed = wrong == 0 && excused as f64 <= MOST_EXCUSED * compared as f64;
        self.report.line(name, passed, &format!("{compared} cells compared, {excused} excused, {wrong} wrong"));
        Ok(())
    }

    /// The cells above the diagonal have no margin; there the file's own number stands.
    fn margins(&mut self, name: &str, heads: &[PromptHeadData]) -> Result<()> {
        let want = self.expected.numbers(name)?;
        let config = self.model.config();
        let pos = heads.first().map_or(0, PromptHeadData::n_pos);
        let shape = [config.n_layers, config.n_heads, pos, pos];
        let got = ArrayD::from_shape_fn(&shape[..], |at| {
            let data = &heads[at[0] * config.n_heads + at[1]];
            let stored = || want.get(at.clone()).copied().unwrap_or_default();
            data.cell(at[2], at[3]).map_or_else(stored, |cell| data.qk.margin[cell])
        });
        self.report.numbers(name, &got, &want, LIMIT);
        Ok(())
    }
}

/// The vectors that a head's tokens are decoded from, for the few cells where their logits are needed in full.
struct Vectors<'a> {
    model: &'a Gpt2,
    cache: ActivationCache,
    projection: Projection,
}

impl Vectors<'_> {
    fn largest_logit(&self, component: &str, data: &PromptHeadData, query: usize, key: Option<usize>) -> Result<f32> {
        let vector = |activation, pos: usize| -> Result<Array1<f32>> {
            let all = self.cache.view(activation, data.layer)?; // [pos, n_heads, d_head]
            Ok(all.index_axis(Axis(0), pos).index_axis(Axis(0), data.head).to_owned().into_dimensionality::<Ix1>()?)
        };
        let c = match component {
            "qk" => vector(Activation::Q, query)? * vector(Activation::K, key.ok_or("a cell has a key")?)?,
            "q" => vector(Activation::Q, query)?,
            "k" => vector(Activation::K, query)?,
            _ => vector(Activation::V, query)?,
        };
        let (w_v, w_o) = (self.model.w_v(data.layer, data.head)?, self.model.w_o(data.layer, data.head)?);
        let r = c.dot(&self.projection.matrix(&w_v, &w_o)); // [d_model]
        let weights = self.model.weights()?;
        let logits = r.dot(&weights.w_u) + &weights.b_u; // [d_vocab]
        Ok(logits.iter().fold(0.0, |largest, logit| largest.max(logit.abs())))
    }
}

/// A weight by TransformerLens' name, the layers of per-layer ones stacked in front.
fn named_weight(weights: &Weights, name: &str) -> Option<ArrayD<f32>> {
    fn layers<D: Dimension>(weights: &Weights, of: impl Fn(&BlockWeights) -> &Array<f32, D>) -> Option<ArrayD<f32>> {
        let views: Vec<_> = weights.blocks.iter().map(|block| of(block).view().into_dyn()).collect();
        stack(Axis(0), &views).ok()
    }
    match name {
        "W_E" => Some(weights.w_e.clone().into_dyn()),
        "W_pos" => Some(weights.w_pos.clone().into_dyn()),
        "W_U" => Some(weights.w_u.clone().into_dyn()),
        "b_U" => Some(weights.b_u.clone().into_dyn()),
        "W_Q" => layers(weights, |block| &block.w_q),
        "b_Q" => layers(weights, |block| &block.b_q),
        "W_K" => layers(weights, |block| &block.w_k),
        "b_K" => layers(weights, |block| &block.b_k),
        "W_V" => layers(weights, |block| &block.w_v),
        "b_V" => layers(weights, |block| &block.b_v),
        "W_O" => layers(weights, |block| &block.w_o),
        "b_O" => layers(weights, |block| &block.b_o),
        "W_in" => layers(weights, |block| &block.w_in),
        "b_in" => layers(weights, |block| &block.b_in),
        "W_out" => layers(weights, |block| &block.w_out),
        "b_out" => layers(weights, |block| &block.b_out),
        _ => None,
    }
}

/// Shape: `[pos, d_vocab]` → the same.
fn log_softmax(mut logits: Array2<f32>) -> Array2<f32> {
    for mut row in logits.rows_mut() {
        let row_view: ArrayView1<f32> = row.view();
        let largest = f64::from(row_view.fold(f32::NEG_INFINITY, |largest, &x| largest.max(x)));
        let sum: f64 = row_view.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        row.mapv_inplace(|x| (f64::from(x) - largest - sum.ln()) as f32);
    }
    logits
}

/// The tensors of `expected.safetensors`.
struct Expected<'a>(BTreeMap<String, safetensors::tensor::TensorView<'a>>);

impl<'a> Expected<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self(SafeTensors::deserialize(bytes)?.tensors().into_iter().collect()))
    }

    /// The token ids of a prompt.
    fn tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        let tokens = self.integers(&format!("{prompt}.tokens"))?;
        Ok(tokens.iter().map(|&token| u32::try_from(token)).collect::<std::result::Result<_, _>>()?)
    }

    fn integers(&self, name: &str) -> Result<ArrayD<i64>> {
        self.read_as(name, |dtype, bytes| match dtype {
            Dtype::I32 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
            Dtype::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            _ => None,
        })
    }

    fn numbers(&self, name: &str) -> Result<ArrayD<f32>> {
        self.read_as(name, |dtype, bytes| match dtype {
            Dtype::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            Dtype::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
            _ => None,
        })
    }

    fn read_as<T>(&self, name: &str, read: impl Fn(Dtype, &[u8]) -> Option<T>) -> Result<ArrayD<T>> {
        let tensor = self.0.get(name).ok_or_else(|| format!("there is no {name}"))?;
        let width = tensor.dtype().bitsize() / 8;
        let values: Option<Vec<T>> =
            tensor.data().chunks_exact(width.max(1)).map(|bytes| read(tensor.dtype(), bytes)).collect();
        let values = values.ok_or_else(|| format!("{name} has dtype {:?}", tensor.dtype()))?;
        Ok(ArrayD::from_shape_vec(tensor.shape(), values)?)
    }
}
