//! Compares a model with golden data. `parity.rs` documents the file and the limits.

mod analysis;
mod edits;
mod expected;
mod heads;
mod named_weight;
mod report;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use attention_tokens::log_probs;
use attention_tokens::prelude::*;
use ndarray::{Array1, Array2, ArrayD, Axis, Dimension, Ix1, Ix2, stack};

use expected::Expected;
use named_weight::named_weight;
pub(crate) use report::Outcome;
use report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The largest difference, relative to the largest magnitude of a tensor.
const LIMIT: f64 = 1e-4;
/// The same for tensors that the singular value decomposition rewrites.
const SVD_LIMIT: f64 = 2e-4;
/// A token may differ if its margin is below this share of its vector's largest |logit|.
const EXCUSED_MARGIN: f32 = 2e-5;
/// The largest share of cells that may be excused.
const MAX_EXCUSED: f64 = 0.01;

/// Checks every tensor of `expected.safetensors` and `analysis.safetensors`, and prints a line for each, or only for failures.
pub(crate) fn check(folder: &Path, device: Device, only_failures: bool) -> Result<Outcome> {
    let path = folder.join("expected.safetensors");
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let expected = Expected::read(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut report = Report { outcome: Outcome::default(), only_failures };
    let mut rest: Vec<&str> = expected.0.keys().map(String::as_str).collect();

    for (level, processing) in levels() {
        // The second part of a name is its level. Hugging Face's own logits belong to the unprocessed model.
        let (of_level, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|name| match name.split('.').nth(1) {
            Some("hf_logits" | "hf_logits_last") => level == "raw",
            part => part == Some(level),
        });
        rest = others;
        if of_level.is_empty() {
            continue;
        }
        let options = LoadOptions::default().processing(processing).device(device);
        let model = Gpt2::from_pretrained(folder.to_string_lossy(), options)?;
        let mut checker = Checker {
            level,
            model,
            unembed_bias: true,
            expected: &expected,
            runs: BTreeMap::new(),
            report: &mut report,
        };
        for name in of_level {
            checker.check(name)?;
        }
    }
    // Prompts are inputs, and need no check of their own.
    for name in rest.into_iter().filter(|name| !(name.starts_with("prompt") && name.ends_with(".tokens"))) {
        report.unknown(name);
    }
    let path = folder.join("analysis.safetensors");
    if path.exists() {
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let expected = Expected::read(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let model = Gpt2::from_pretrained(folder.to_string_lossy(), LoadOptions::default().device(device))?;
        analysis::check(model.clone(), &expected, &mut report)?;
        let mut without_b_u = Checker {
            level: "notebook",
            model,
            unembed_bias: false,
            expected: &expected,
            runs: BTreeMap::new(),
            report: &mut report,
        };
        for name in expected.0.keys() {
            if let Some(quantity) = name.strip_prefix(analysis::WITHOUT_B_U) {
                without_b_u.tokens(name, "clean", quantity)?;
            }
        }
    }
    Ok(report.outcome)
}

/// The processing levels of the golden data.
fn levels() -> [(&'static str, Processing); 4] {
    let raw = Processing::none();
    let fold_ln = Processing { fold_ln: true, ..raw };
    let centered = Processing { center_writing_weights: true, center_unembed: true, ..fold_ln };
    [("raw", raw), ("fold_ln", fold_ln), ("centered", centered), ("notebook", Processing::default())]
}

/// Checks the quantities of one processing level.
struct Checker<'a> {
    level: &'static str,
    model: Gpt2,
    /// Whether the bias of the unembedding is part of the logits of attention tokens.
    unembed_bias: bool,
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
    /// Checks one tensor: `weights.{level}.{name}` or `prompt{i}.{level}.{quantity}`.
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

    /// The forward pass of a prompt, cached.
    fn run(&mut self, prompt: &str) -> Result<&mut Run> {
        if !self.runs.contains_key(prompt) {
            let (mut logits, cache) = self.model.run_with_cache(self.expected.tokens(prompt)?)?;
            self.runs.insert(prompt.into(), Run { logits: logits.remove(0), cache, heads: BTreeMap::new() });
        }
        Ok(self.runs.get_mut(prompt).expect("just inserted"))
    }

    /// A weight, in TransformerLens' layout.
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

    /// Compares log-probabilities, because processing may add a constant to each row of logits.
    /// Shape: `[pos, d_vocab]`, or `[d_vocab]` for the last position.
    fn logits(&mut self, name: &str, prompt: &str, last: bool) -> Result<()> {
        let want = self.expected.numbers(name)?;
        let got = &self.run(prompt)?.logits;
        let got = log_probs(&if last { got.slice(ndarray::s![-1.., ..]).to_owned() } else { got.clone() });
        let rows = if last { want.insert_axis(Axis(0)) } else { want };
        match rows.into_dimensionality::<Ix2>() {
            Ok(want) => self.report.numbers(name, &got, &log_probs(&want).into_dyn(), LIMIT),
            Err(error) => self.report.line(name, false, &error.to_string()),
        }
        Ok(())
    }

    /// An activation, with the layers in front.
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
        // Masked scores are −∞ in both, and −∞ − −∞ is NaN.
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

    /// Attention tokens or their margin; `quantity` is `{projection}.{qk|q|k|v|margin}`.
    fn tokens(&mut self, name: &str, prompt: &str, quantity: &str) -> Result<()> {
        let projections = [Projection::Notebook, Projection::Output, Projection::Ov];
        let known = quantity.split_once('.').and_then(|(projection, component)| {
            Some((projections.into_iter().find(|known| known.name() == projection)?, component))
        });
        let Some((projection, component)) = known else {
            self.report.unknown(name);
            return Ok(());
        };
        let (model, unembed_bias) = (self.model.clone(), self.unembed_bias);
        let run = self.run(prompt)?;
        if !run.heads.contains_key(projection.name()) {
            let options = DecodeOptions::default().projection(projection).unembed_bias(unembed_bias);
            let heads = all_heads_data(&model, &run.cache, options)?;
            run.heads.insert(projection.name(), heads.iter().map(|head| head.prompts[0].clone()).collect());
        }
        let heads = run.heads[projection.name()].clone();
        let logits = FullLogits { model: &model, cache: run.cache.clone(), projection, unembed_bias };
        match component {
            "margin" => self.margins(name, &heads),
            "qk" | "q" | "k" | "v" => self.decoded(name, component, &heads, &logits),
            _ => {
                self.report.unknown(name);
                Ok(())
            }
        }
    }

    /// Shape: `qk [n_layers, n_heads, query_pos, key_pos]`, `q`, `k`, `v` each `[n_layers, n_heads, pos]`.
    fn decoded(&mut self, name: &str, component: &str, heads: &[PromptHeadData], logits: &FullLogits) -> Result<()> {
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
                        // A masked cell has no token, and must be −1 in the file.
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
                let largest = logits.largest(component, data, at[2], at.ndim().gt(&3).then(|| at[3]))?;
                if margin < EXCUSED_MARGIN * largest {
                    excused += 1;
                } else {
                    wrong += 1;
                }
            }
        }
        let passed = wrong == 0 && excused as f64 <= MAX_EXCUSED * compared as f64;
        self.report.line(name, passed, &format!("{compared} cells compared, {excused} excused, {wrong} wrong"));
        Ok(())
    }

    /// Masked cells have no margin, and are taken from the file. Shape: `[n_layers, n_heads, query_pos, key_pos]`.
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

/// Computes all logits of a single vector, for the few cells whose token differs.
struct FullLogits<'a> {
    model: &'a Gpt2,
    cache: ActivationCache,
    projection: Projection,
    unembed_bias: bool,
}

impl FullLogits<'_> {
    /// The largest |logit| of the vector of a cell or a position.
    fn largest(&self, component: &str, data: &PromptHeadData, query: usize, key: Option<usize>) -> Result<f32> {
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
        let r = c.dot(&self.model.reading_matrix(data.layer, data.head, self.projection)?); // [d_model]
        let weights = self.model.weights()?;
        let mut logits = r.dot(&weights.w_u); // [d_vocab]
        if self.unembed_bias {
            logits += &weights.b_u;
        }
        Ok(logits.iter().fold(0.0, |largest, logit| largest.max(logit.abs())))
    }
}
