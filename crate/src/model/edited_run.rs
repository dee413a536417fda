//! What interventions do to a run: edits of activations with a row for each token, of attention, and of heads' results.

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis, Ix3, s};
use rayon::prelude::*;

use super::activation::Activation;
use super::interventions::PlannedEdit;
use super::recorder::Recorder;
use super::transformer::{Attention, LayerNorm};
use crate::backend::{AttentionOutput, Backend, CellEdits, Change, Edit, Heads, RowEdits, softmax};
use crate::error::Result;
use crate::memory::{HostArray, LazyArray};

/// The edited heads of one prompt.
struct EditedHeads {
    prompt: usize,
    heads: Vec<usize>,
    /// Scores, then the pattern. Shape: `[heads, query_pos, key_pos]`.
    cells: Array3<f32>,
}

impl<B: Backend> Recorder<'_, B> {
    /// Whether an intervention changes this activation of the current layer.
    pub(super) fn edits(&self, activation: Activation) -> bool {
        !self.plan.edits.at(activation, self.layer).is_empty()
    }

    /// Edits an activation that has a row for each token.
    /// Shape: `[rows, d_model]`, `[rows, n_heads d_head]` or `[rows, d_mlp]` → the same.
    pub(super) fn edit(&self, activation: Activation, x: B::Tensor) -> Result<B::Tensor> {
        let edits = self.plan.edits.at(activation, self.layer);
        let n_heads = if activation.is_per_head() { self.cache.sizes().n_heads } else { 1 };
        let mut on_host = |mut x: ArrayViewMut2<f32>| {
            for edit in edits {
                let rows = x.slice_mut(s![self.prompts[edit.prompt].clone(), ..]);
                let shape = (rows.nrows(), n_heads, rows.ncols() / n_heads);
                edit.apply(rows.into_shape_with_order(shape).expect("whole rows are contiguous"), &[])?;
            }
            Ok(())
        };
        let by_row = |columns: usize| {
            let mut by_row = RowEdits::default();
            let first_row = |edit: &PlannedEdit| self.prompts[edit.prompt].start;
            edits.iter().try_for_each(|edit| edit.push_rows(first_row(edit), columns / n_heads, &mut by_row))?;
            Some(by_row)
        };
        self.model.backend.edit(x, Edit::on_host(&mut on_host).or_by_row(&by_row))
    }

    /// Whether the scale of the layer norm that reads this activation is held.
    pub(super) fn freezes(&self, reads: Activation) -> bool {
        !self.plan.edits.layer_norm(reads, self.layer).is_empty()
    }

    /// The layer norm that reads an activation of the current layer. Shape: `[rows, d_model]` → the same.
    pub(super) fn layer_norm(&self, norm: &LayerNorm<B>, reads: Activation, x: &B::Tensor) -> Result<B::Tensor> {
        let backend = &self.model.backend;
        let y = norm.forward(backend, x)?;
        let frozen = self.plan.edits.layer_norm(reads, self.layer);
        if frozen.is_empty() {
            return Ok(y);
        }
        let (x, b) = (backend.download(x)?, norm.weights.as_ref().map(|weights| &weights.b));
        let mut on_host = |mut y: ArrayViewMut2<f32>| {
            for (index, scale) in frozen.iter().enumerate() {
                let rows = s![self.prompts[scale.prompt].clone(), ..];
                scale.rescale(x.slice(rows), y.slice_mut(rows), b, self.model.eps(), &frozen[index + 1..]);
            }
            Ok(())
        };
        backend.edit(y, Edit::on_host(&mut on_host))
    }

    /// The edits of each prompt's scores and pattern in the current layer, for the device. `None` if only the host can make
    /// them: closures, and runs that continue an earlier one.
    pub(super) fn cell_edits(&self) -> Option<Vec<CellEdits>> {
        let mut by_prompt = vec![CellEdits::default(); self.prompts.len()];
        if self.past.is_some() {
            return None;
        }
        for edit in self.plan.edits.at(Activation::AttnScores, self.layer) {
            edit.push_cells(self.prompts[edit.prompt].len(), &mut by_prompt[edit.prompt].scores)?;
        }
        for edit in self.plan.edits.at(Activation::Pattern, self.layer) {
            edit.push_cells(self.prompts[edit.prompt].len(), &mut by_prompt[edit.prompt].pattern)?;
        }
        Some(by_prompt)
    }

    /// Attention with edits that the device makes. Shape: `q`, `k`, `v` each `[rows, n_heads d_head]`.
    pub(super) fn edited_attention(
        &mut self,
        [q, k, v]: [&B::Tensor; 3],
        heads: Heads,
        keep_pattern: bool,
        edits: Vec<CellEdits>,
    ) -> Result<AttentionOutput<B::Tensor>> {
        let backend = &self.model.backend;
        let output = backend.edited_attention([q, k, v], heads, &self.prompts, keep_pattern, &edits)?;
        if self.plan.caches(Activation::AttnScores, self.layer) {
            for (prompt, edits) in edits.into_iter().enumerate().filter(|(_, edits)| !edits.scores.is_empty()) {
                let scores = self.model.backend.attn_scores(q, k, heads, self.prompts[prompt].clone())?;
                let edited = LazyArray::new(move || {
                    let mut scores = scores.compute()?.into_owned();
                    edits.scores.apply_to_cells(&mut scores);
                    Ok(HostArray::from(scores.into_dyn()))
                });
                self.insert(prompt, Activation::AttnScores, edited);
            }
        }
        Ok(output)
    }

    /// Attention with edits that only the host can make: the heads that are edited are computed again there.
    /// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]`.
    pub(super) fn edit_attention(
        &mut self,
        output: AttentionOutput<B::Tensor>,
        [q, k, v]: [&B::Tensor; 3],
        heads: Heads,
    ) -> Result<AttentionOutput<B::Tensor>> {
        let AttentionOutput { z, mut pattern } = output;
        let (plan, backend) = (self.plan, &self.model.backend);
        let (of_scores, of_pattern) =
            (plan.edits.at(Activation::AttnScores, self.layer), plan.edits.at(Activation::Pattern, self.layer));
        let mut edited = self.scores_of_edited_heads([q, k], heads, of_scores, of_pattern)?;
        // One after the other: closures may depend on the order.
        for EditedHeads { prompt, heads, cells } in &mut edited {
            apply(of_scores, *prompt, heads, cells)?;
        }
        if plan.caches(Activation::AttnScores, self.layer) && self.past.is_none() {
            for EditedHeads { prompt, heads: which, cells } in &edited {
                let rows = self.prompts[*prompt].clone();
                let scores = self.model.backend.attn_scores(q, k, heads, rows)?.compute()?;
                let scores = with_heads(scores, which, cells);
                self.insert(*prompt, Activation::AttnScores, scores.map(ndarray::ArcArray::into_dyn));
            }
        }
        edited.par_iter_mut().for_each(|edited| edited.cells.rows_mut().into_iter().for_each(softmax));
        for EditedHeads { prompt, heads, cells } in &mut edited {
            apply(of_pattern, *prompt, heads, cells)?;
            if let Some(pattern) = pattern.get_mut(*prompt) {
                *pattern = with_heads(pattern.compute()?, heads, cells);
            }
        }
        let v = backend.download(v)?;
        let past = self.past.as_mut().map(|past| &*past.in_layer(self.layer));
        let d_head = v.ncols() / heads.n_heads;
        let z_of = |EditedHeads { prompt, heads, cells }: &EditedHeads| -> Vec<Array2<f32>> {
            let values = match past {
                Some(past) => past[*prompt].v(),
                None => v.slice(s![self.prompts[*prompt].clone(), ..]),
            };
            let product = |(&head, pattern): (&usize, ArrayView2<f32>)| {
                pattern.dot(&values.slice(s![.., head * d_head..(head + 1) * d_head])) // [pos, d_head]
            };
            heads.iter().zip(cells.outer_iter()).map(product).collect()
        };
        let new: Vec<Vec<Array2<f32>>> = edited.par_iter().map(z_of).collect();
        let mut on_host = |mut z: ArrayViewMut2<f32>| {
            for (EditedHeads { prompt, heads, .. }, new) in edited.iter().zip(&new) {
                for (&head, new) in heads.iter().zip(new) {
                    let columns = head * d_head..(head + 1) * d_head;
                    z.slice_mut(s![self.prompts[*prompt].clone(), columns]).assign(new);
                }
            }
            Ok(())
        };
        let z = backend.edit(z, Edit::on_host(&mut on_host))?;
        Ok(AttentionOutput { z, pattern })
    }

    /// The scores of the heads whose scores or patterns are edited, for each prompt that has such heads.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]`.
    fn scores_of_edited_heads(
        &mut self,
        [q, k]: [&B::Tensor; 2],
        heads: Heads,
        of_scores: &[PlannedEdit],
        of_pattern: &[PlannedEdit],
    ) -> Result<Vec<EditedHeads>> {
        let backend = &self.model.backend;
        let mut by_prompt: Vec<Vec<usize>> = vec![Vec::new(); self.prompts.len()];
        for edit in of_scores.iter().chain(of_pattern) {
            by_prompt[edit.prompt].extend(edit.heads_of_cells());
        }
        let past = self.past.as_mut().map(|past| &*past.in_layer(self.layer));
        let host_q = past.map(|_| backend.download(q)).transpose()?;
        let mut edited = Vec::new();
        for (prompt, mut which) in by_prompt.into_iter().enumerate().filter(|(_, which)| !which.is_empty()) {
            which.sort_unstable();
            which.dedup();
            let rows = self.prompts[prompt].clone();
            let cells = match (past, &host_q) {
                (Some(past), Some(q)) => scores_with_past(q.slice(s![rows, ..]), past[prompt].k(), heads, &which),
                _ => backend.attn_scores_of(q, k, heads, rows, &which)?,
            };
            edited.push(EditedHeads { prompt, heads: which, cells });
        }
        Ok(edited)
    }

    /// The output of attention with edited results of heads: what a result gains is added to the output.
    /// Shape: `z [rows, n_heads d_head]`, `attn_out [rows, d_model]` → that of `attn_out`.
    pub(super) fn edit_results(
        &mut self,
        attn: &Attention<B>,
        z: &B::Tensor,
        attn_out: B::Tensor,
    ) -> Result<B::Tensor> {
        let (plan, backend) = (self.plan, &self.model.backend);
        let edits = plan.edits.at(Activation::Result, self.layer);
        let z = backend.download(z)?;
        let mut gains = Vec::new(); // [pos, d_model] of each edited prompt
        for prompt in 0..self.prompts.len() {
            let edits: Vec<&PlannedEdit> = edits.iter().filter(|edit| edit.prompt == prompt).collect();
            if edits.is_empty() {
                continue;
            }
            let z = z.slice(s![self.prompts[prompt].clone(), ..]);
            let shape = (z.nrows(), attn.heads.n_heads, z.ncols() / attn.heads.n_heads);
            let z = z.into_shape_with_order(shape).expect("whole rows are contiguous").into_dyn();
            let before = attn.results(backend, z)?.into_dimensionality::<Ix3>().expect("a vector for each head");
            let mut after = before.clone();
            edits.iter().try_for_each(|edit| edit.apply(after.view_mut(), &[]))?;
            gains.push((prompt, (&after - &before).sum_axis(Axis(1))));
            if plan.caches(Activation::Result, self.layer) {
                self.insert(prompt, Activation::Result, HostArray::from(after.into_dyn()).into());
            }
        }
        let mut on_host = |mut attn_out: ArrayViewMut2<f32>| {
            for (prompt, gain) in &gains {
                let mut rows = attn_out.slice_mut(s![self.prompts[*prompt].clone(), ..]);
                rows += gain;
            }
            Ok(())
        };
        let by_row = |columns: usize| {
            let (mut by_row, columns) = (RowEdits::default(), (0..columns).collect::<Vec<_>>());
            let mut push = |(prompt, gain): &(usize, Array2<f32>)| {
                by_row.push(self.prompts[*prompt].clone(), &columns, Change::Add, gain.view())
            };
            gains.iter().try_for_each(&mut push)?;
            Some(by_row)
        };
        backend.edit(attn_out, Edit::on_host(&mut on_host).or_by_row(&by_row))
    }
}

/// Applies the edits of one prompt, in order. Shape: `cells [heads, query_pos, key_pos]`.
fn apply(edits: &[PlannedEdit], prompt: usize, heads: &[usize], cells: &mut Array3<f32>) -> Result<()> {
    let of_prompt = edits.iter().filter(|edit| edit.prompt == prompt);
    of_prompt.into_iter().try_for_each(|edit| edit.apply(cells.view_mut(), heads))
}

/// A copy of all heads' scores or patterns with those of some heads replaced.
/// Shape: `all [n_heads, query_pos, key_pos]`, `cells [heads, query_pos, key_pos]` → that of `all`.
fn with_heads(all: HostArray<Ix3>, heads: &[usize], cells: &Array3<f32>) -> LazyArray<Ix3> {
    let mut all = all.into_owned();
    for (&head, cells) in heads.iter().zip(cells.outer_iter()) {
        all.index_axis_mut(Axis(0), head).assign(&cells);
    }
    HostArray::from(all).into()
}

/// The scores of new queries over all keys, −∞ where key > query.
/// Shape: `q [new, n_heads d_head]`, `k [key_pos, n_heads d_head]` → `[which, new, key_pos]`.
fn scores_with_past(q: ArrayView2<f32>, k: ArrayView2<f32>, heads: Heads, which: &[usize]) -> Array3<f32> {
    let (d_head, first) = (q.ncols() / heads.n_heads, k.nrows() - q.nrows());
    let mut scores = Array3::zeros((which.len(), q.nrows(), k.nrows()));
    for (&head, mut scores) in which.iter().zip(scores.outer_iter_mut()) {
        let columns = s![.., head * d_head..(head + 1) * d_head];
        scores.assign(&(q.slice(columns).dot(&k.slice(columns).t()) * heads.score_scale));
        for (query, mut row) in (first..).zip(scores.rows_mut()) {
            row.slice_mut(s![query + 1..]).fill(f32::NEG_INFINITY);
        }
    }
    scores
}
