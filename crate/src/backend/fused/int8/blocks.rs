//! A quantized matrix for the kernels that keep sums in registers, with the tokens of the largest columns first.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::candidates::{CandidateList, Candidates, SharedBound};
use super::kernel::{GROUP, Group, Kernel, ROWS, RowParams, TOKENS, Tile, TokenParams};
use super::quantize::{QuantizedColumns, QuantizedVectors, ROUNDING, VectorParams, bias_rounding};
use super::scan::TOKENS_PER_BLOCK;

/// Vectors of a task: with 64 integers each, and what turns their sums into bounds, they fit the L2 cache.
const ROWS_PER_TASK: usize = 512;
/// Blocks between two looks at whether the rest of the vocabulary can be left out.
const BLOCKS_BETWEEN_LOOKS: usize = 16;

/// A quantized matrix `[inner, d_vocab]` in blocks of [`TOKENS`] tokens, by descending norm of their columns.
///
/// By Cauchy-Schwarz, no logit exceeds `‖x‖ ‖w‖ + b`. So the tokens of large columns give high bounds early, and once
/// the rest of the columns is too small for a vector, the rest of the vocabulary is left out.
pub(super) struct Blocks {
    kernel: Kernel,
    /// The integers of each group of four rows, block after block. Shape: `[blocks · groups]`.
    w: Vec<Group>,
    /// Shape: `[blocks]`.
    params: Vec<TokenParams>,
    /// The tokens in the order of the blocks. Shape: `[d_vocab]`.
    tokens: Vec<u32>,
    /// At least the norm of each column of a block and of all later ones. Shape: `[blocks]`.
    largest_norms: Vec<f32>,
}

impl Blocks {
    pub(super) fn new(kernel: Kernel, quantized: &QuantizedColumns) -> Self {
        let QuantizedColumns { blocks, inner, columns, correction } = quantized;
        let d_vocab = correction.len();
        let bound = |token: u32| columns.norm[token as usize] + columns.error[token as usize];
        // Norms are not negative, so their bits have their order.
        let mut keys: Vec<u64> =
            (0..d_vocab as u32).map(|token| u64::from(!bound(token).to_bits()) << 32 | u64::from(token)).collect();
        keys.par_sort_unstable();
        let tokens: Vec<u32> = keys.into_iter().map(|key| key as u32).collect();
        let groups = inner.div_ceil(GROUP);
        let columns_of = |tokens: &[u32]| {
            let mut w = vec![Group([[0; 16 * GROUP]; 2]); groups];
            let (mut params, mut largest_norm) = (TokenParams::zeros(), 0.0_f32);
            for (lane, &token) in tokens.iter().enumerate() {
                let at = token as usize;
                let (block, column) = (&blocks[at / TOKENS_PER_BLOCK], at % TOKENS_PER_BLOCK);
                let width = block.len() / inner;
                for (row, &q) in block[column..].iter().step_by(width).enumerate() {
                    w[row / GROUP].0[lane / 16][lane % 16 * GROUP + row % GROUP] = q;
                }
                params.correction[lane] = correction[at];
                params.scale[lane] = columns.scale[at];
                params.error[lane] = columns.error[at];
                params.norm[lane] = columns.norm[at];
                largest_norm = largest_norm.max(bound(token));
            }
            (w, params, largest_norm)
        };
        let packed: Vec<_> = tokens.par_chunks(TOKENS).with_min_len(16).map(columns_of).collect();
        let mut w = Vec::with_capacity(packed.len() * groups);
        let (mut params, mut largest_norms) = (Vec::with_capacity(packed.len()), Vec::with_capacity(packed.len()));
        for (block, block_params, largest_norm) in packed {
            w.extend(block);
            params.push(block_params);
            largest_norms.push(largest_norm);
        }
        Self { kernel, w, params, tokens, largest_norms }
    }

    /// The size in bytes of a matrix of this shape.
    pub(super) fn bytes(inner: usize, d_vocab: usize) -> usize {
        (inner.next_multiple_of(GROUP) + size_of::<TokenParams>() / TOKENS + size_of::<u32>()) * d_vocab
    }

    /// The candidates for the `k` best tokens of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(super) fn candidates(&self, x: ArrayView2<f32>, bias: &[f32], k: usize) -> Vec<Candidates> {
        let vectors = QuantizedVectors::new(self.kernel.zero_point(), x);
        let biases = Biases::new(self, bias);
        let (n, threads) = (vectors.params.len(), rayon::current_num_threads());
        let rows_per_task = n.div_ceil(threads).next_multiple_of(ROWS).clamp(ROWS, ROWS_PER_TASK);
        // Each task of few vectors goes through a part of the vocabulary: every second block, for example, so that all of
        // them have the large columns at the beginning.
        let parts = (2 * threads).div_ceil(n.div_ceil(rows_per_task).max(1));
        let parts = if parts < 4 { 1 } else { parts.min(self.params.len().max(1)) };
        let shared: Vec<SharedBound> = vectors.params.iter().map(|_| SharedBound::default()).collect();
        let tasks: Vec<(usize, usize)> =
            (0..n).step_by(rows_per_task).flat_map(|first| (0..parts).map(move |part| (first, part))).collect();
        let scan = |(first, part): (usize, usize)| {
            let rows = first..(first + rows_per_task).min(n);
            let mut scan = Scan {
                blocks: self,
                biases: &biases,
                shared: if parts == 1 { None } else { Some(&shared[rows.clone()]) },
                params: &vectors.params[rows.clone()],
                q: &vectors.q[rows.start * x.ncols()..rows.end * x.ncols()],
                lists: vectors.params[rows].iter().map(|x| CandidateList::new(k, x, self.largest_norm())).collect(),
            };
            scan.run(part, parts);
            scan.lists
        };
        let scanned: Vec<Vec<CandidateList>> = tasks.into_par_iter().map(scan).collect();
        let mut scanned = scanned.into_iter();
        let mut candidates = Vec::with_capacity(n);
        for first in (0..n).step_by(rows_per_task) {
            let mut lists: Vec<_> = scanned.by_ref().take(parts).map(Vec::into_iter).collect();
            for _ in first..(first + rows_per_task).min(n) {
                let joined = lists.iter_mut().map(|lists| lists.next().expect("a list for each vector"));
                let joined = joined.reduce(|mut one, other| {
                    one.append(other);
                    one
                });
                candidates.push(joined.expect("there is at least one part").finish());
            }
        }
        candidates
    }

    /// At least the norm of every column.
    fn largest_norm(&self) -> f32 {
        self.largest_norms.first().copied().unwrap_or(0.0)
    }
}

impl TokenParams {
    fn zeros() -> Self {
        Self { correction: [0; TOKENS], scale: [0.0; TOKENS], error: [0.0; TOKENS], norm: [0.0; TOKENS] }
    }
}

/// The biases of the tokens, in the order of the blocks.
struct Biases {
    /// NaN after the last token. Shape: `[blocks]`.
    blocks: Vec<[f32; TOKENS]>,
    /// The largest bias of a block and of all later ones. Shape: `[blocks]`.
    largest: Vec<f32>,
    /// The rounding error of adding a bias.
    rounding: f32,
}

impl Biases {
    /// Shape: `bias [d_vocab]`.
    fn new(order: &Blocks, bias: &[f32]) -> Self {
        let mut blocks = vec![[f32::NAN; TOKENS]; order.params.len()];
        for (block, tokens) in blocks.iter_mut().zip(order.tokens.chunks(TOKENS)) {
            block.iter_mut().zip(tokens).for_each(|(to, &token)| *to = bias[token as usize]);
        }
        let mut largest = vec![f32::NEG_INFINITY; blocks.len()];
        let mut so_far = f32::NEG_INFINITY;
        for (largest, block) in largest.iter_mut().zip(&blocks).rev() {
            so_far = block.iter().fold(so_far, |largest, &bias| largest.max(bias));
            *largest = so_far;
        }
        Self { blocks, largest, rounding: bias_rounding(bias) }
    }
}

/// Looks for the candidates of some vectors.
struct Scan<'a> {
    blocks: &'a Blocks,
    biases: &'a Biases,
    /// If other tasks scan other tokens for the same vectors. Shape: `[rows]`.
    shared: Option<&'a [SharedBound]>,
    /// Shape: `[rows]`.
    params: &'a [VectorParams],
    /// Shape: `[rows, inner]`.
    q: &'a [u8],
    /// Shape: `[rows]`.
    lists: Vec<CandidateList>,
}

/// Eight vectors of a [`Scan`].
struct Vectors {
    first: usize,
    params: RowParams,
}

impl Scan<'_> {
    /// Scans every block whose remainder by `parts` is `part`.
    fn run(&mut self, part: usize, parts: usize) {
        let groups = self.blocks.w.len() / self.blocks.params.len().max(1);
        let x = self.tiles(groups);
        let mut tiles: Vec<Vectors> = (0..self.params.len()).step_by(ROWS).map(|first| self.vectors(first)).collect();
        let blocks: Vec<usize> = (part..self.blocks.params.len()).step_by(parts).collect();
        for blocks in blocks.chunks(BLOCKS_BETWEEN_LOOKS) {
            tiles.retain_mut(|tile| self.goes_on(tile, blocks[0]));
            for &block in blocks {
                let w = &self.blocks.w[block * groups..(block + 1) * groups];
                for tile in &mut tiles {
                    let x = &x[tile.first / ROWS * groups..][..groups];
                    let bias = &self.biases.blocks[block];
                    let product = Tile { x, w, rows: &tile.params, tokens: &self.blocks.params[block], bias };
                    let above = product.tokens_above(self.blocks.kernel);
                    if above != [0; ROWS] {
                        self.add(tile, x, w, block, above);
                    }
                }
            }
        }
    }

    /// The integers of the vectors as the kernel reads them. Shape: → `[tiles · groups]`.
    fn tiles(&self, groups: usize) -> Vec<[[u8; GROUP]; ROWS]> {
        let inner = self.q.len() / self.params.len().max(1);
        // The padding of a row meets weights that are zero.
        let mut x = vec![[[0; GROUP]; ROWS]; self.params.len().div_ceil(ROWS) * groups];
        for (row, q) in self.q.chunks_exact(inner.max(1)).enumerate() {
            let tile = &mut x[row / ROWS * groups..][..groups];
            for (to, from) in tile.iter_mut().zip(q.chunks(GROUP)) {
                to[row % ROWS][..from.len()].copy_from_slice(from);
            }
        }
        x
    }

    /// The eight vectors from `first` on, fewer at the end.
    fn vectors(&self, first: usize) -> Vectors {
        let mut params = RowParams {
            scale: [0.0; ROWS],
            relative_error: [0.0; ROWS],
            norm: [0.0; ROWS],
            threshold: [f32::INFINITY; ROWS], // reached by no token of a vector that is none
        };
        for (row, x) in self.params[first..].iter().take(ROWS).enumerate() {
            params.scale[row] = x.scale;
            params.relative_error[row] = x.relative_error;
            params.norm[row] = x.norm;
        }
        let mut vectors = Vectors { first, params };
        self.update(&mut vectors);
        vectors
    }

    /// Takes over the bounds of the lists.
    fn update(&self, tile: &mut Vectors) {
        let lists = &self.lists[tile.first..];
        for (threshold, list) in tile.params.threshold.iter_mut().zip(lists) {
            *threshold = if list.is_all() { f32::INFINITY } else { list.bound() - self.biases.rounding };
        }
    }

    /// Whether a token of a block or a later one can be a candidate of one of the vectors.
    fn goes_on(&mut self, tile: &mut Vectors, block: usize) -> bool {
        if let Some(shared) = self.shared {
            let lists = self.lists[tile.first..].iter_mut().zip(&shared[tile.first..]);
            lists.take(ROWS).for_each(|(list, shared)| list.learn(shared));
            self.update(tile);
        }
        let largest_norm = self.blocks.largest_norms[block] * (1.0 + ROUNDING as f32);
        let largest_bias = self.biases.largest[block];
        let RowParams { norm, threshold, .. } = &tile.params;
        norm.iter().zip(threshold).any(|(norm, &threshold)| {
            let reached = norm * largest_norm * (1.0 + ROUNDING as f32) + largest_bias;
            threshold < f32::INFINITY && reached >= threshold
        })
    }

    /// Adds the tokens of a block that can be among the best of the vectors: one bit each.
    #[cold]
    #[inline(never)]
    fn add(&mut self, tile: &mut Vectors, x: &[[[u8; GROUP]; ROWS]], w: &[Group], block: usize, above: [u32; ROWS]) {
        let rounding = self.biases.rounding;
        let (params, bias) = (&self.blocks.params[block], &self.biases.blocks[block]);
        for (row, mut bits) in above.into_iter().enumerate().filter(|&(_, bits)| bits != 0) {
            let (list, vector) = (&mut self.lists[tile.first + row], &self.params[tile.first + row]);
            // The vector's sums once more: few vectors get here, and the kernel does not have to write those of the others.
            let sums = Tile { x, w, rows: &tile.params, tokens: params, bias }.sums(self.blocks.kernel, row);
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let bound = (params.norm[lane] * vector.relative_error + params.error[lane]) * vector.norm + rounding;
                let about = sums[lane] as f32 * params.scale[lane] * vector.scale + bias[lane];
                if about + bound >= list.bound() {
                    list.push(self.blocks.tokens[block * TOKENS + lane], about - bound, about + bound);
                }
            }
            if let Some(shared) = self.shared {
                shared[tile.first + row].raise(list.bound());
            }
        }
        self.update(tile);
    }
}
