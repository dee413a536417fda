//! Products of 8-bit integers by `rten-gemm`, for processors without a kernel of their own.

use ndarray::{ArrayView2, Axis};
use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::candidates::Candidates;
use super::kernel::Int8Gemm;
use super::quantize::{ColumnParams, QuantizedColumns, QuantizedVectors};
use super::scan::{Products, Scan, TOKENS_PER_BLOCK, VECTORS_PER_BLOCK, tokens};

/// A quantized matrix `[inner, d_vocab]`, packed for `rten-gemm`.
pub(super) struct PackedColumns {
    /// Shape: each `[inner, up to TOKENS_PER_BLOCK]`.
    blocks: Vec<PackedBMatrix<i8>>,
    pub(super) columns: ColumnParams,
    /// See [`QuantizedColumns`].
    correction: Vec<i32>,
    largest_norm: f32,
}

impl PackedColumns {
    pub(super) fn new(quantized: QuantizedColumns) -> Self {
        let int8 = Int8Gemm::new();
        let QuantizedColumns { inner, blocks, columns, correction } = quantized;
        let pack = |q: &Vec<i8>| int8.prepack_b(NdTensorView::from_data([inner, q.len() / inner], q.as_slice()));
        let largest_norm = columns.norms().into_iter().fold(0.0_f32, f32::max);
        Self { blocks: blocks.iter().map(pack).collect(), columns, correction, largest_norm }
    }

    /// The size in bytes of a matrix of this shape.
    pub(super) fn bytes(inner: usize, d_vocab: usize) -> usize {
        (inner + 4 * size_of::<f32>()) * d_vocab
    }

    /// The candidates for the `k` best tokens of each vector. Shape: `x [n, inner]`, `bias [d_vocab]` → `[n]`.
    pub(super) fn candidates(&self, zero_point: i32, x: ArrayView2<f32>, bias: &[f32], k: usize) -> Vec<Candidates> {
        let int8 = Int8Gemm::new();
        let QuantizedVectors { q, params } = QuantizedVectors::new(zero_point, x);
        let q = ArrayView2::from_shape(x.dim(), &q).expect("as many integers as floats"); // [n, inner]
        // Blocks of equal size (the last may be smaller by a few rows): a short last block would cost a pass over all
        // tokens for little.
        let rows_per_block = params.len().div_ceil(params.len().div_ceil(VECTORS_PER_BLOCK).max(1)).max(1);
        let pack = |q: ArrayView2<u8>| {
            let values = q.to_slice().expect("a range of rows is contiguous");
            int8.prepack_a(NdTensorView::from_data([q.nrows(), q.ncols()], values))
        };
        let vectors: Vec<_> = q.axis_chunks_iter(Axis(0), rows_per_block).map(pack).collect();
        let scratch = || vec![0; TOKENS_PER_BLOCK * rows_per_block];
        let scan = Scan { params: &params, rows_per_block, bias, k, largest_norm: self.largest_norm };
        scan.run(scratch, |block, index, products, scan_row| {
            let (x, w) = (&vectors[index], &self.blocks[block]);
            let products = &mut products[..x.rows() * w.cols()]; // [rows, tokens]
            let (x, w) = (GemmInputA::Packed(x), GemmInputB::Packed(w));
            int8.gemm(products, x, w, GemmOptions::default()).expect("the shapes fit each other");
            let tokens = tokens(block, bias.len());
            let [scale, error, norm] = self.columns.range(tokens.clone());
            let correction = &self.correction[tokens.clone()];
            for (row, products) in products.chunks_exact(tokens.len()).enumerate() {
                scan_row(row, Products::Integers { products, correction, scale }, error, norm);
            }
        })
    }
}
