//! The vectors of a head that a reading decodes, and the matrices that they are decoded through.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, Ix2, Ix3, concatenate};

use super::n_cells;
use crate::decode::{ColumnChange, Map, MatchedCoordinates, MatrixId, Projection, Reading, TopTokens, Vectors};
use crate::error::Result;
use crate::model::{Activation, ActivationCache, Gpt2};

/// Vectors that are computed together, where each has a factor of its own.
pub(super) const SCALED_AT_ONCE: usize = 16_384;

/// The vectors of one prompt, in the order of the cells or positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Of the cells with key ≤ query, query by query.
    Cells,
    /// Of the cells of one query.
    Row(usize),
    /// Of the queries of each position.
    Q,
    /// Of the keys.
    K,
    /// Of the values.
    V,
}

impl Part {
    /// The number of vectors of a prompt.
    fn len(self, pos: usize) -> usize {
        match self {
            Part::Cells => n_cells(pos),
            Part::Row(query) => query + 1,
            Part::Q | Part::K | Part::V => pos,
        }
    }

    /// The queries whose cells it has; none for a part of positions.
    fn queries(self, pos: usize) -> Range<usize> {
        match self {
            Part::Cells => 0..pos,
            Part::Row(query) => query..query + 1,
            Part::Q | Part::K | Part::V => 0..0,
        }
    }
}

/// The queries, keys and values of a head.
pub(super) struct HeadRows {
    /// The number of positions of each prompt.
    lens: Vec<usize>,
    /// Prompt by prompt. Shape: each `[rows, d_head]`.
    q: Array2<f32>,
    k: Array2<f32>,
    v: Array2<f32>,
    /// The pattern of each prompt. Shape: `[prompt] [query_pos, key_pos]`.
    pub(super) attn: Vec<Array2<f32>>,
}

impl HeadRows {
    /// Copies the rows of a head from a cache of this model.
    pub(super) fn new(cache: &ActivationCache, layer: usize, head: usize) -> Result<Self> {
        let rows = |activation| -> Result<Array2<f32>> {
            let of_prompt = |prompt| {
                let all = cache.view_of_prompt(prompt, activation, layer)?;
                let all = all.into_dimensionality::<Ix3>().expect("q, k and v have three axes"); // [pos, n_heads, d_head]
                Ok(all.index_axis_move(Axis(1), head)) // [pos, d_head]
            };
            let prompts = (0..cache.n_prompts()).map(of_prompt).collect::<Result<Vec<_>>>()?;
            Ok(concatenate(Axis(0), &prompts).expect("each has d_head columns"))
        };
        let attn = |prompt| -> Result<Array2<f32>> {
            let pattern = cache.view_of_prompt(prompt, Activation::Pattern, layer)?; // [n_heads, query_pos, key_pos]
            let attn = pattern.index_axis(Axis(0), head).to_owned();
            Ok(attn.into_dimensionality::<Ix2>().expect("a pattern has three axes"))
        };
        Ok(Self {
            lens: cache.tokens().iter().map(Vec::len).collect(),
            q: rows(Activation::Q)?,
            k: rows(Activation::K)?,
            v: rows(Activation::V)?,
            attn: (0..cache.n_prompts()).map(attn).collect::<Result<_>>()?,
        })
    }

    /// Whether an intervention made attention negative.
    fn has_negative_attention(&self) -> bool {
        self.attn.iter().flatten().any(|&attn| attn < 0.0)
    }

    /// The same head with another basis of its values.
    pub(super) fn with_values_in(mut self, change: &ColumnChange) -> Self {
        self.v = change.of_columns(&self.v);
        self
    }

    /// The vectors of parts, prompt by prompt; those of cells are products of queries and keys, with `matched` the products
    /// of [`Map::Matched`], or the keys' values. Shape: → `[n, d_head]`.
    fn vectors(&self, parts: &[Part], cells: CellVectors, matched: Option<&MatchedCoordinates>) -> Vectors {
        let n = self.q.nrows() as u32;
        let [of_q, of_k, of_v, ones] = [0, n, 2 * n, 3 * n];
        let row_of_ones = Array2::ones((1, self.q.ncols()));
        let tables = |q: ArrayView2<f32>, k: ArrayView2<f32>, squares: &[ArrayView2<f32>]| {
            let tables = [&[q, k, self.v.view(), row_of_ones.view()], squares].concat();
            concatenate(Axis(0), &tables).expect("each has d_head columns")
        };
        let (table, k_of_cells) = match matched {
            Some(matched) => {
                let (q, k) = (matched.of_queries(self.q.view()), matched.of_keys(self.k.view()));
                (tables(q.view(), k.view(), &[k.mapv(|x| x * x).view()]), ones + 1)
            }
            None => (tables(self.q.view(), self.k.view(), &[]), of_k),
        };
        let (mut pairs, mut first) = (Vec::with_capacity(self.n_vectors(parts)), 0);
        for &pos in &self.lens {
            let pos = pos as u32;
            for part in parts {
                let start = match part {
                    Part::Cells | Part::Row(_) => {
                        let queries = part.queries(pos as usize);
                        let cells_of = |query: u32| (0..=query).map(move |key| (query, key));
                        let queries = queries.start as u32..queries.end as u32;
                        pairs.extend(queries.flat_map(cells_of).map(|(query, key)| match cells {
                            CellVectors::QueriesTimesKeys => [of_q + first + query, k_of_cells + first + key],
                            CellVectors::Values => [of_v + first + key, ones],
                        }));
                        continue;
                    }
                    Part::Q => of_q,
                    Part::K => of_k,
                    Part::V => of_v,
                };
                pairs.extend((0..pos).map(|position| [start + first + position, ones]));
            }
            first += pos;
        }
        Vectors::new(table, pairs)
    }

    /// The number of vectors of parts in all prompts.
    fn n_vectors(&self, parts: &[Part]) -> usize {
        self.lens.iter().flat_map(|&pos| parts.iter().map(move |part| part.len(pos))).sum()
    }

    /// The attention of each vector that is one of a cell, and 1 for the others. Shape: → `[n]`.
    fn attention_of_vectors(&self, parts: &[Part]) -> Vec<f32> {
        let mut factors = Vec::with_capacity(self.n_vectors(parts));
        for (&pos, attn) in self.lens.iter().zip(&self.attn) {
            for part in parts {
                match part {
                    Part::Cells | Part::Row(_) => {
                        let row = |query: usize| attn.row(query).to_vec().into_iter().take(query + 1);
                        factors.extend(part.queries(pos).flat_map(row));
                    }
                    _ => factors.extend(std::iter::repeat_n(1.0, pos)),
                }
            }
        }
        factors
    }

    /// The decoded tokens of a part of each prompt, if the parts have it. Shape: `top [n, k]` → `[prompt] [part, k]`.
    pub(super) fn of_part(&self, top: &TopTokens, parts: &[Part], part: Part) -> Option<Vec<TopTokens>> {
        if !parts.contains(&part) {
            return None;
        }
        let (mut start, mut found) = (0, Vec::with_capacity(self.lens.len()));
        for &pos in &self.lens {
            for &other in parts {
                let end = start + other.len(pos);
                if other == part {
                    found.push(top.rows(start..end));
                }
                start = end;
            }
        }
        Some(found)
    }
}

/// The vectors of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellVectors {
    /// `q_i ⊙ k_j`, or `q_i ⊙ k_j ⊙ k_j` in the coordinates of [`Map::Matched`].
    QueriesTimesKeys,
    /// `v_j`, to be multiplied with the attention.
    Values,
}

/// Parts of a head's vectors that are decoded through one matrix.
pub(super) struct Stream {
    pub(super) id: MatrixId,
    pub(super) parts: Vec<Part>,
    cells: CellVectors,
    normalized: bool,
}

impl Stream {
    /// The streams of a reading of a head; those of negated matrices come last.
    pub(super) fn of_reading(head: [usize; 2], reading: Reading, rows: &HeadRows) -> Vec<Self> {
        let stream = |map: Map, parts: &[Part], cells: CellVectors| Self {
            id: MatrixId::new(head, map, reading),
            parts: parts.to_vec(),
            cells,
            normalized: reading.normalized,
        };
        let products = CellVectors::QueriesTimesKeys;
        match reading.projection {
            Projection::Notebook | Projection::Output | Projection::Ov => {
                vec![stream(reading.projection.into(), &[Part::Cells, Part::Q, Part::K, Part::V], products)]
            }
            Projection::Matched => vec![
                stream(Map::Matched, &[Part::Cells, Part::Q, Part::K], products),
                stream(Map::Output, &[Part::V], products),
            ],
            Projection::Written => {
                let (written, lowest): (&[Part], &[Part]) = if depends_on_key_alone(reading, rows) {
                    (&[Part::V], &[Part::V])
                } else {
                    (&[Part::Cells, Part::V], &[Part::Cells])
                };
                let mut negated = stream(Map::Output, lowest, CellVectors::Values);
                negated.id = negated.id.negated();
                vec![
                    stream(Map::Output, written, CellVectors::Values),
                    stream(Map::Matched, &[Part::Q, Part::K], products),
                    negated,
                ]
            }
        }
    }

    /// The stream of the cells of one query, and for [`Projection::Written`] the negated one. If the token depends on the key
    /// alone, they are streams of all values.
    pub(super) fn of_row(head: [usize; 2], reading: Reading, rows: &HeadRows, query: usize) -> Vec<Self> {
        let is_written = reading.projection == Projection::Written;
        let part = if is_written && depends_on_key_alone(reading, rows) { Part::V } else { Part::Row(query) };
        let stream = |id: MatrixId| Self {
            id,
            parts: vec![part],
            cells: if is_written { CellVectors::Values } else { CellVectors::QueriesTimesKeys },
            normalized: reading.normalized,
        };
        let id = MatrixId::new(head, reading.projection.into(), reading);
        if is_written { vec![stream(id), stream(id.negated())] } else { vec![stream(id)] }
    }

    /// The stream of the cells alone, to be decoded through another matrix.
    pub(super) fn of_cells(head: [usize; 2], projection: Projection) -> Self {
        let cells = match projection {
            Projection::Written => CellVectors::Values,
            _ => CellVectors::QueriesTimesKeys,
        };
        let id = MatrixId::new(head, projection.into(), projection.into());
        Self { id, parts: vec![Part::Cells], cells, normalized: false }
    }

    /// The vectors, in as many batches as there are closures, which compute them.
    /// Shape: each `[n, d_head]`.
    pub(super) fn batches<'a>(
        &'a self,
        model: &'a Gpt2,
        rows: &'a HeadRows,
        matched: Option<&'a MatchedCoordinates>,
    ) -> Result<Vec<Batch<'a>>> {
        let matched = matched.filter(|_| self.id.map == Map::Matched);
        let has_cells = self.parts.iter().any(|part| matches!(part, Part::Cells | Part::Row(_)));
        let by_attention = self.cells == CellVectors::Values && has_cells;
        if !by_attention && !self.normalized {
            return Ok(vec![Box::new(move || rows.vectors(&self.parts, self.cells, matched))]);
        }
        let vectors = Arc::new(rows.vectors(&self.parts, self.cells, matched));
        let attention = Arc::new(by_attention.then(|| rows.attention_of_vectors(&self.parts)));
        let variance = match self.normalized {
            true => Some(Variance::new(&model.on_device().head_matrices(&[self.id])?[0])),
            false => None,
        };
        let variance = Arc::new(variance);
        let n = vectors.len();
        let batch = |start: usize| -> Batch<'a> {
            let (vectors, attention, variance) = (vectors.clone(), attention.clone(), variance.clone());
            let range = start..(start + SCALED_AT_ONCE).min(n);
            Box::new(move || {
                let mut c = vectors.compute(range.clone());
                if let Some(attention) = &*attention {
                    for (mut c, &attention) in c.outer_iter_mut().zip(&attention[range.clone()]) {
                        c *= attention;
                    }
                }
                if let Some(variance) = &*variance {
                    variance.normalize(&mut c);
                }
                single(c)
            })
        };
        Ok((0..n).step_by(SCALED_AT_ONCE).map(batch).collect())
    }
}

/// A closure that computes vectors to decode. Shape: → `[n, d_head]`.
pub(super) type Batch<'a> = Box<dyn FnOnce() -> Vectors + Send + 'a>;

/// Whether [`Projection::Written`] has one token for all queries of a key: attention is a positive factor of all logits, or
/// normalization takes it away.
pub(super) fn depends_on_key_alone(reading: Reading, rows: &HeadRows) -> bool {
    (reading.normalized || !reading.unembed_bias) && !rows.has_negative_attention()
}

/// The tokens of the cells of a prompt from those of its keys, whose logits attention scales unless they are normalized.
/// Shape: `keys [pos, k]`, `attn [query_pos, key_pos]` → `[n_cells, k]`.
pub(super) fn cells_of_keys(keys: &TopTokens, attn: &Array2<f32>, normalized: bool) -> TopTokens {
    let pos = attn.nrows();
    let cells: Vec<(usize, usize)> = (0..pos).flat_map(|query| (0..=query).map(move |key| (query, key))).collect();
    let keys_of_cells: Vec<usize> = cells.iter().map(|&(_, key)| key).collect();
    let mut top = TopTokens {
        tokens: keys.tokens.select(Axis(0), &keys_of_cells),
        logits: keys.logits.select(Axis(0), &keys_of_cells),
        margin: keys.margin.select(Axis(0), &keys_of_cells),
    };
    if !normalized {
        for (row, &cell) in cells.iter().enumerate() {
            top.logits.row_mut(row).mapv_inplace(|logit| logit * attn[cell]);
            // An infinite margin, of a vocabulary of one token, stays.
            if top.margin[row].is_finite() {
                top.margin[row] *= attn[cell];
            }
        }
    }
    top
}

/// Vectors to decode as they are. Shape: `[n, d_head]` → the same.
pub(super) fn single(mut c: Array2<f32>) -> Vectors {
    let n = c.nrows() as u32;
    c.push_row(ndarray::Array1::ones(c.ncols()).view()).expect("as many columns");
    Vectors::new(c, (0..n).map(|row| [row, n]).collect())
}

/// The variance of `c P` along `d_model`, as a quadratic form.
pub(super) struct Variance {
    /// `P Pᵀ / d_model` of a matrix with centred rows. Shape: `[d_head, d_head]`.
    gram: Array2<f64>,
}

impl Variance {
    /// Shape: `p [d_head, d_model]`, each row of mean 0.
    pub(super) fn new(p: &Array2<f32>) -> Self {
        let p = p.mapv(f64::from);
        Self { gram: p.dot(&p.t()) / p.ncols() as f64 }
    }

    /// Scales each vector so that `c P` has variance 1. One whose `c P` is 0 stays. Shape: `[n, d_head]`.
    pub(super) fn normalize(&self, c: &mut Array2<f32>) {
        let exact = c.mapv(f64::from);
        let products = exact.dot(&self.gram);
        for ((mut c, exact), product) in c.outer_iter_mut().zip(exact.outer_iter()).zip(products.outer_iter()) {
            let variance = exact.dot(&product);
            if variance > 0.0 && variance.is_finite() {
                let scale = variance.sqrt().recip();
                c.iter_mut().zip(exact).for_each(|(c, exact)| *c = (exact * scale) as f32);
            }
        }
    }
}
