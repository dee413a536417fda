//! The interventions of a run, checked against the model and the prompts, with the values that they take from caches.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArcArray, Array1, ArrayD, ArrayView2, ArrayViewD, ArrayViewMut2, Axis, IxDyn};

use super::edit::{Closure, Edit, HookContext, not_finite};
use super::hook_point::HookPoint;
use super::intervention::Intervention;
use super::selection::Indices;
use super::values::draws;
use crate::config::Gpt2Config;
use crate::error::{Error, Result, check_index};
use crate::model::Activation;
use crate::model::layer_norm_scale;
use crate::model::sizes::Sizes;

/// The run that interventions are planned for.
pub(in crate::model) struct Target<'a> {
    pub(in crate::model) config: &'a Gpt2Config,
    /// The tokens that the run computes. Shape: `[prompt][pos]`.
    pub(in crate::model) tokens: &'a [Vec<u32>],
    /// The number of earlier positions of each prompt, in a run that continues another one. Shape: `[prompt]`.
    pub(in crate::model) past: Vec<usize>,
    /// The layers that the run computes.
    pub(in crate::model) layers: Range<usize>,
}

/// One edit of one prompt's activation.
#[derive(Clone)]
pub(in crate::model) struct PlannedEdit {
    pub(in crate::model) prompt: usize,
    pub(super) point: HookPoint,
    /// The indices along the axes of the activation; positions count from the first that the run computes.
    pub(super) indices: Indices,
    /// The pairs of a query and a key that are edited, if not all. Queries count as in `indices`.
    pub(super) cells: Option<Vec<(usize, usize)>>,
    /// The number of the prompt's earlier positions.
    pub(super) first: usize,
    pub(super) how: How,
    /// The intervention in words, for errors of closures.
    pub(super) description: Arc<str>,
}

/// The numbers of a planned edit, which copies of the edit share. Shape: each broadcasts to `indices`.
#[derive(Clone)]
pub(super) enum How {
    Scale(f32),
    Set(ArcArray<f32, IxDyn>),
    Add(ArcArray<f32, IxDyn>),
    Hook(Closure, HookContext),
    /// The scale of a layer norm at each selected position. Shape: `[pos, 1, 1]`.
    LayerNormScale(ArcArray<f32, IxDyn>),
}

impl PlannedEdit {
    /// Gives rows after a layer norm another scale, where none of the `later` edits does. `b` is the layer norm's shift, if
    /// it has weights.
    /// Shape: `x` (before the layer norm), `y` (after it) each `[pos, d_model]`, `b [d_model]`.
    pub(in crate::model) fn rescale(
        &self,
        x: ArrayView2<f32>,
        mut y: ArrayViewMut2<f32>,
        b: Option<&Array1<f32>>,
        eps: f64,
        later: &[Self],
    ) {
        let How::LayerNormScale(scales) = &self.how else { return };
        let is_replaced =
            |row: &usize| later.iter().any(|later| later.prompt == self.prompt && later.indices[0].contains(row));
        for (&row, &frozen) in self.indices[0].iter().zip(scales).filter(|(row, _)| !is_replaced(row)) {
            let ratio = layer_norm_scale(x.row(row), eps) / frozen;
            for (column, y) in y.row_mut(row).iter_mut().enumerate() {
                let b = b.map_or(0.0, |b| b[column]);
                *y = (*y - b) * ratio + b;
            }
        }
    }

    /// The first position that the edit changes.
    pub(in crate::model) fn first_position(&self) -> usize {
        self.indices[self.axis_of_positions()].iter().min().map_or(0, |&position| self.first + position)
    }

    fn axis_of_positions(&self) -> usize {
        usize::from(self.point.activation.is_of_cells())
    }

    /// The edit in a run that computes the positions from `first` on, if it changes one of them. Earlier positions were
    /// computed, and changed, in the run that this one continues.
    pub(in crate::model) fn after(mut self, first: usize) -> Option<Self> {
        let axis = self.axis_of_positions();
        let new: Vec<usize> =
            (0..self.indices[axis].len()).filter(|&index| self.indices[axis][index] >= first).collect();
        if new.len() < self.indices[axis].len() {
            let shape = self.indices.each_ref().map(Vec::len);
            if let How::Set(values) | How::Add(values) | How::LayerNormScale(values) = &mut self.how
                && values.ndim() > 0
            {
                let whole = values.broadcast(IxDyn(&shape)).expect("the values fit");
                *values = whole.select(Axis(axis), &new).into_shared();
            }
            self.indices[axis] = new.iter().map(|&index| self.indices[axis][index]).collect();
        }
        self.indices[axis].iter_mut().for_each(|position| *position -= first);
        if let Some(cells) = &mut self.cells {
            *cells = cells.iter().filter_map(|&(query, key)| Some((query.checked_sub(first)?, key))).collect();
        }
        self.first = first;
        (!new.is_empty()).then_some(self)
    }

    /// An upper bound of the memory that the edit takes, and that its array of scores and patterns takes while it applies.
    fn bytes(&self, pos: usize) -> usize {
        let values = match &self.how {
            How::Set(values) | How::Add(values) | How::LayerNormScale(values) => values.len(),
            How::Hook(..) => 2 * self.indices.iter().map(Vec::len).product::<usize>(), // what it gets and returns
            How::Scale(_) => 0,
        };
        let indices = self.indices.iter().map(Vec::len).sum::<usize>();
        let cells = if self.point.activation.is_of_cells() { 2 * self.indices[0].len() * pos * pos } else { 0 };
        // The copy of the edit in a batch shares the values, and has indices of its own.
        size_of::<f32>() * (values + cells) + 2 * size_of::<usize>() * indices
    }

    /// The heads of scores or a pattern that are edited.
    pub(in crate::model) fn heads_of_cells(&self) -> &[usize] {
        &self.indices[0]
    }
}

/// The edits of a run, by layer and activation, each list in the order in which they apply.
#[derive(Clone, Default)]
pub(in crate::model) struct PlannedEdits {
    edits: BTreeMap<(usize, Activation), Vec<PlannedEdit>>,
    /// The scales of layer norms, by the activation that they read.
    layer_norms: BTreeMap<(usize, Activation), Vec<PlannedEdit>>,
    /// Every intervention in words, in order.
    descriptions: Vec<Arc<str>>,
}

impl PlannedEdits {
    /// The edits of an activation.
    pub(in crate::model) fn at(&self, activation: Activation, layer: usize) -> &[PlannedEdit] {
        self.edits.get(&(layer, activation)).map_or(&[], Vec::as_slice)
    }

    /// The scales of the layer norm that reads an activation.
    pub(in crate::model) fn layer_norm(&self, reads: Activation, layer: usize) -> &[PlannedEdit] {
        self.layer_norms.get(&(layer, reads)).map_or(&[], Vec::as_slice)
    }

    /// The map that an edit belongs to.
    fn map_of(&mut self, edit: &PlannedEdit) -> &mut BTreeMap<(usize, Activation), Vec<PlannedEdit>> {
        if matches!(edit.how, How::LayerNormScale(_)) { &mut self.layer_norms } else { &mut self.edits }
    }

    /// Checks the interventions of a model and of a run. Those of layers that the run does not compute are left out if they
    /// are the model's, and errors if they are the run's.
    pub(in crate::model) fn new(of_model: &[Intervention], of_run: &[Intervention], target: &Target) -> Result<Self> {
        let mut planned = Self::default();
        planned.add(of_model, target, false)?;
        planned.add(of_run, target, true)?;
        Ok(planned)
    }

    /// The edits, in no particular order of points.
    pub(in crate::model) fn iter(&self) -> impl Iterator<Item = (usize, &PlannedEdit)> {
        self.edits
            .iter()
            .chain(&self.layer_norms)
            .flat_map(|(&(layer, _), edits)| edits.iter().map(move |edit| (layer, edit)))
    }

    /// An upper bound of the memory that the edits take while a run applies them. Shape: `tokens [prompt][pos]`.
    pub(in crate::model) fn bytes(&self, tokens: &[Vec<u32>]) -> usize {
        self.iter().map(|(_, edit)| edit.bytes(tokens[edit.prompt].len())).sum()
    }

    /// The scales of layer norms that are held: the prompt, the activation that the layer norm reads, a position, and the
    /// scale there.
    pub(in crate::model) fn held_scales(&self) -> impl Iterator<Item = (usize, (usize, Activation), usize, f32)> {
        self.layer_norms.iter().flat_map(|(&point, edits)| edits.iter().map(move |edit| (point, edit))).flat_map(
            |(point, edit)| {
                let scales: Vec<f32> = match &edit.how {
                    How::LayerNormScale(scales) => scales.iter().copied().collect(),
                    _ => Vec::new(),
                };
                let positions = edit.indices[0].iter().copied();
                positions.zip(scales).map(move |(position, scale)| (edit.prompt, point, position, scale))
            },
        )
    }

    /// Adds the edits of another run, in which each prompt is the one of this run that `prompt` returns, with the number of
    /// earlier positions that this run does not compute.
    pub(in crate::model) fn merge(&mut self, other: &Self, prompt: impl Fn(usize) -> (usize, usize)) {
        for (point, edits) in other.edits.iter().chain(&other.layer_norms) {
            let moved: Vec<PlannedEdit> = edits
                .iter()
                .filter_map(|edit| {
                    let (index, first) = prompt(edit.prompt);
                    Some(PlannedEdit { prompt: index, ..edit.clone().after(first)? })
                })
                .collect();
            if let Some(first) = moved.first() {
                self.map_of(first).entry(*point).or_default().extend(moved);
            }
        }
    }

    /// Whether an edit calls a closure, which may read every selected position.
    pub(in crate::model) fn has_closure(&self) -> bool {
        self.edits.values().flatten().any(|edit| matches!(edit.how, How::Hook(..)))
    }

    /// Every intervention in words, in order.
    pub(in crate::model) fn descriptions(&self) -> &[Arc<str>] {
        &self.descriptions
    }

    fn add(&mut self, interventions: &[Intervention], target: &Target, must_reach: bool) -> Result<()> {
        for intervention in interventions {
            let edits = intervention.plan(target, must_reach).map_err(|source| intervention.error(source))?;
            if !edits.is_empty() {
                let point = intervention.point;
                self.descriptions.push(edits[0].description.clone());
                self.map_of(&edits[0]).entry((point.layer, point.activation)).or_default().extend(edits);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for PlannedEdits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.edits.iter().map(|(point, edits)| (point, edits.len()))).finish()
    }
}

impl Intervention {
    /// An error with the intervention in words.
    pub(super) fn error(&self, source: Error) -> Error {
        Error::Intervention { intervention: self.to_string(), source: Box::new(source) }
    }

    /// Checks everything that needs no prompts.
    pub(in crate::model) fn check(&self, config: &Gpt2Config) -> Result<()> {
        let check = || {
            check_index("layer", self.point.layer, "the model", config.n_layers)?;
            self.selection.check(self.point, config)?;
            match &self.edit {
                Edit::Patch(cache) | Edit::Mean(cache, _) | Edit::Resample(cache, _) | Edit::FreezeLayerNorm(cache) => {
                    cache.sizes().check(&Sizes::of(config), "the cache of an intervention")
                }
                Edit::Scale(factor) => self.check_finite(ArrayD::from_elem(IxDyn(&[]), *factor).view(), false),
                Edit::Set(values) | Edit::Add(values) => self.check_finite(values.0.view(), self.of_scores()),
                Edit::Hook(_) => Ok(()),
            }
        };
        check().map_err(|source| self.error(source))
    }

    pub(super) fn of_scores(&self) -> bool {
        self.point.activation == Activation::AttnScores
    }

    /// Only scores can be infinite, and only −∞.
    pub(super) fn check_finite(&self, values: ArrayViewD<f32>, scores: bool) -> Result<()> {
        let Some((index, x)) = not_finite(values, scores) else { return Ok(()) };
        Err(Error::Setting {
            function: "Intervention",
            option: "values",
            expected: if scores { "finite numbers or -inf" } else { "finite numbers" }.into(),
            found: if index.is_empty() { x.to_string() } else { format!("{x} at {index:?}") },
        })
    }

    /// The edits of each prompt.
    fn plan(&self, target: &Target, must_reach: bool) -> Result<Vec<PlannedEdit>> {
        self.check(target.config).map_err(|error| match error {
            Error::Intervention { source, .. } => *source,
            other => other,
        })?;
        if !target.layers.contains(&self.point.layer) {
            let Range { start, end } = target.layers;
            return if must_reach { Err(unreached(self.point.layer, start, end)) } else { Ok(Vec::new()) };
        }
        let n_prompts = target.tokens.len();
        let draws = match &self.edit {
            Edit::Resample(cache, seed) => draws(cache, target, *seed),
            _ => Vec::new(),
        };
        let description: Arc<str> = self.to_string().into();
        let plan = |prompt| self.plan_prompt(target, prompt, &draws, &description);
        self.selection.prompts(n_prompts)?.into_iter().filter_map(|prompt| plan(prompt).transpose()).collect()
    }

    /// The edit of one prompt; `None` where it changes none of the positions that the run computes.
    fn plan_prompt(
        &self,
        target: &Target,
        prompt: usize,
        draws: &[Option<usize>],
        description: &Arc<str>,
    ) -> Result<Option<PlannedEdit>> {
        let (point, activation, config) = (self.point, self.point.activation, target.config);
        let first = target.past[prompt];
        let pos = first + target.tokens[prompt].len();
        let mut indices = self.selection.indices(activation, config, prompt, pos)?;
        let cells = self.selection.cells(prompt, pos)?;
        let of_cells = activation.is_of_cells();
        if of_cells && !reaches_a_cell(&indices, cells.as_deref()) {
            return Err(Error::Setting {
                function: "Intervention",
                option: "key",
                expected: "a key up to a selected query, as the others are masked".into(),
                found: format!("queries {:?}, keys {:?}", indices[1], indices[2]),
            });
        }
        let how = match &self.edit {
            Edit::Scale(factor) => How::Scale(*factor),
            Edit::Set(values) => How::Set(self.fitted(&values.0, &indices)?.into_shared()),
            Edit::Add(values) => How::Add(self.fitted(&values.0, &indices)?.into_shared()),
            Edit::Patch(cache) => {
                let from = if cache.n_prompts() == 1 { 0 } else { self.same_prompt(cache, target, prompt)? };
                How::Set(self.values_of(cache, from, pos, &indices)?.into_dyn().into_shared())
            }
            Edit::Mean(cache, groups) => {
                How::Set(self.mean_of(cache, groups.as_deref(), target, prompt, &indices)?.into_dyn().into_shared())
            }
            Edit::Resample(cache, _) => {
                let Some(from) = draws[prompt] else {
                    return Err(Error::Setting {
                        function: "Intervention",
                        option: "cache",
                        expected: format!("another prompt of {pos} tokens, to replace prompt {prompt}"),
                        found: format!(
                            "prompts of {:?} tokens",
                            cache.tokens().iter().map(Vec::len).collect::<Vec<_>>()
                        ),
                    });
                };
                How::Set(self.values_of(cache, from, pos, &indices)?.into_dyn().into_shared())
            }
            Edit::FreezeLayerNorm(cache) => {
                let from = if cache.n_prompts() == 1 { 0 } else { self.same_prompt(cache, target, prompt)? };
                let rows = self.values_of(cache, from, pos, &indices)?; // [pos, 1, d_model]
                indices[2].truncate(1);
                let mut scales = rows.map_axis(Axis(2), |row| layer_norm_scale(row, config.eps)); // [pos, 1]
                for (scale, position) in scales.iter_mut().zip(&indices[0]) {
                    if let Some(held) = cache.held_scale(from, (point.layer, activation), *position) {
                        *scale = held;
                    }
                }
                How::LayerNormScale(scales.insert_axis(Axis(2)).into_dyn().into_shared())
            }
            Edit::Hook(closure) => {
                How::Hook(closure.clone(), HookContext { point, prompt, tokens: target.tokens[prompt].clone() })
            }
        };
        let edit = PlannedEdit { prompt, point, indices, cells, first: 0, how, description: description.clone() };
        Ok(edit.after(first))
    }
}

/// Whether an edit of cells selects one that is not masked.
fn reaches_a_cell([_, queries, keys]: &Indices, cells: Option<&[(usize, usize)]>) -> bool {
    match cells {
        Some(cells) => cells.iter().any(|(query, key)| queries.contains(query) && keys.contains(key)),
        None => queries.iter().max() >= keys.iter().min(),
    }
}

fn unreached(layer: usize, start: usize, end: usize) -> Error {
    let computed = match end.checked_sub(start) {
        None | Some(0) => "none".into(),
        Some(1) => format!("{start}"),
        Some(_) => format!("{start} to {}", end - 1),
    };
    Error::Setting {
        function: "Intervention",
        option: "layer",
        expected: format!("a layer that the run computes: {computed}"),
        found: layer.to_string(),
    }
}
