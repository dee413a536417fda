//! Products of floats that stay in registers: up to 13 rows and 32 columns of a weight matrix at a time.
//!
//! A prompt of a dozen tokens multiplies each weight by only a dozen numbers, so reading the weights takes as long as the
//! arithmetic. These kernels read each weight once for a dozen rows, and while they compute, the processor already fetches
//! the weights that come 2 kB later.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::gemm::ROWS_PER_TASK;

/// Columns of a panel.
pub(super) const PANEL_WIDTH: usize = 32;
/// So many products are summed before the sum is added to those before it. `rten-gemm` does the same, so every kernel gives
/// the same bits.
const DEPTH: usize = 256;

/// A row of a panel.
pub(super) type PanelRow = [f32; PANEL_WIDTH];

/// Where the products of a row and a panel go.
type Piece<'a> = &'a mut [f32; PANEL_WIDTH];

/// How this processor multiplies floats, where there is a kernel for it. On other processors `rten-gemm` does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// With AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Found),
    /// With AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512(Found),
}

/// The processor has the instructions of a kernel. Only [`Kernel::available`] makes it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found(());

impl Kernel {
    /// The kernels that this processor can run, the fastest last.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Self::Avx2(Found(())));
            }
            if is_x86_feature_detected!("avx512f") {
                kernels.push(Self::Avx512(Found(())));
            }
        }
        kernels
    }

    /// `y = epilogue(x w)` on the calling thread, for some panels of a matrix. `epilogue` updates each row in place. The rows
    /// of `y` may be pieces of longer ones; the last panel may have more columns than are left of them.
    /// Shape: `x [rows, inner]`, contiguous row by row, `panels [panels · inner]`, `y [rows, columns]`.
    pub(super) fn matmul(
        self,
        x: ArrayView2<f32>,
        panels: &[PanelRow],
        mut y: ArrayViewMut2<f32>,
        epilogue: impl Fn(&mut [f32]),
    ) {
        let (inner, columns) = (x.ncols(), y.ncols());
        let blocks = x.axis_chunks_iter(Axis(0), ROWS_PER_TASK).zip(y.axis_chunks_iter_mut(Axis(0), ROWS_PER_TASK));
        for (x, mut y) in blocks {
            let x = x.to_slice().expect("the matrix is contiguous, row by row");
            let rows = y.rows_mut().into_iter().map(|row| row.into_slice().expect("a piece of a row is contiguous"));
            let mut rows: Vec<&mut [f32]> = rows.collect();
            for (start, panel) in (0..columns).step_by(PANEL_WIDTH).zip(panels.chunks_exact(inner)) {
                if let Some(mut pieces) = pieces(&mut rows, start) {
                    self.multiply(x, panel, &mut pieces);
                } else {
                    let mut products = [[0.0; PANEL_WIDTH]; ROWS_PER_TASK];
                    let products = &mut products[..rows.len()];
                    self.multiply(x, panel, &mut products.iter_mut().collect::<Vec<_>>());
                    let copies = rows.iter_mut().zip(products);
                    copies.for_each(|(row, products)| row[start..].copy_from_slice(&products[..columns - start]));
                }
            }
            rows.into_iter().for_each(&epilogue);
        }
    }

    /// Writes the products of all rows of `x` and a panel. Shape: `x [rows · inner]`, `panel [inner]`, `y [rows]`.
    fn multiply(self, x: &[f32], panel: &[PanelRow], y: &mut [Piece]) {
        let inner = panel.len();
        for (block, w) in panel.chunks(DEPTH).enumerate() {
            let mut from = 0;
            for tiles in (1..=y.len().div_ceil(self.rows_of_tile())).rev() {
                let to = from + (y.len() - from).div_ceil(tiles); // tiles of about equal height
                let tile = Tile { x: &x[from * inner + block * DEPTH..], inner, w, add: block > 0 };
                match self {
                    // SAFETY: `available` has found the instructions. The function needs nothing else.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Self::Avx2(_) => unsafe { x86::avx2(tile, &mut y[from..to]) },
                    // SAFETY: the same.
                    #[cfg(target_arch = "x86_64")]
                    #[allow(unsafe_code)]
                    Self::Avx512(_) => unsafe { x86::avx512(tile, &mut y[from..to]) },
                }
                from = to;
            }
        }
    }

    /// The most rows whose sums fit the registers.
    fn rows_of_tile(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 6,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 13,
        }
    }
}

/// The columns from `start` on of each row, if there are enough for a panel.
fn pieces<'a>(rows: &'a mut [&mut [f32]], start: usize) -> Option<Vec<Piece<'a>>> {
    rows.iter_mut().map(|row| row[start..].first_chunk_mut()).collect()
}

/// A few rows and a part of a panel.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there is no kernel"))]
struct Tile<'a> {
    /// Rows of `inner` numbers each, of which the first `depth` are multiplied.
    x: &'a [f32],
    inner: usize,
    /// Shape: `[depth]`, at most [`DEPTH`].
    w: &'a [PanelRow],
    /// Whether the sums are added to the numbers in the result, or replace them.
    add: bool,
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::needless_range_loop, reason = "without iterator adapters, sums stay in registers")]
mod x86 {
    //! Without closures and iterator adapters in loops: a function without the instructions is not always inlined into one
    //! that has them, and the sums then go through memory.

    use std::arch::x86_64::*;

    use bytemuck::must_cast;

    use super::{PANEL_WIDTH, PanelRow, Piece, Tile};

    const _: () = assert!(PANEL_WIDTH == 32);

    /// How far ahead of their use weights are fetched, in rows of a panel (2 kB).
    const ROWS_AHEAD: usize = 16;

    /// Asks for half of the row of weights that is used [`ROWS_AHEAD`] rows later.
    #[inline(always)]
    fn fetch_ahead(w: &PanelRow, half: usize) {
        let later = std::ptr::from_ref(w).wrapping_add(ROWS_AHEAD).cast::<i8>().wrapping_add(half * 64);
        // SAFETY: this is a hint, which reads nothing and fails at no address. Every x86-64 processor has it.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(later);
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(tile: Tile, y: &mut [Piece]) {
        match y.len() {
            1 => avx512_rows::<1>(tile, y),
            2 => avx512_rows::<2>(tile, y),
            3 => avx512_rows::<3>(tile, y),
            4 => avx512_rows::<4>(tile, y),
            5 => avx512_rows::<5>(tile, y),
            6 => avx512_rows::<6>(tile, y),
            7 => avx512_rows::<7>(tile, y),
            8 => avx512_rows::<8>(tile, y),
            9 => avx512_rows::<9>(tile, y),
            10 => avx512_rows::<10>(tile, y),
            11 => avx512_rows::<11>(tile, y),
            12 => avx512_rows::<12>(tile, y),
            13 => avx512_rows::<13>(tile, y),
            rows => unreachable!("a tile of {rows} rows"),
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512_rows<const ROWS: usize>(tile: Tile, y: &mut [Piece]) {
        let Tile { x, inner, w, add } = tile;
        assert!(x.len() >= (ROWS - 1) * inner + w.len() && y.len() == ROWS);
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (k, w) in w.iter().enumerate() {
            fetch_ahead(w, 0);
            fetch_ahead(w, 1);
            let w: [__m512; 2] = must_cast(*w);
            for row in 0..ROWS {
                // SAFETY: `k` is less than the number of rows of `w`, so the index is less than what was asserted.
                #[allow(unsafe_code)]
                let x = _mm512_set1_ps(unsafe { *x.get_unchecked(row * inner + k) });
                sums[row] = [_mm512_fmadd_ps(x, w[0], sums[row][0]), _mm512_fmadd_ps(x, w[1], sums[row][1])];
            }
        }
        for row in 0..ROWS {
            if add {
                let before: [__m512; 2] = must_cast(*y[row]);
                sums[row] = [_mm512_add_ps(before[0], sums[row][0]), _mm512_add_ps(before[1], sums[row][1])];
            }
            *y[row] = must_cast(sums[row]);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(tile: Tile, y: &mut [Piece]) {
        match y.len() {
            1 => avx2_rows::<1>(tile, y),
            2 => avx2_rows::<2>(tile, y),
            3 => avx2_rows::<3>(tile, y),
            4 => avx2_rows::<4>(tile, y),
            5 => avx2_rows::<5>(tile, y),
            6 => avx2_rows::<6>(tile, y),
            rows => unreachable!("a tile of {rows} rows"),
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2_rows<const ROWS: usize>(tile: Tile, y: &mut [Piece]) {
        let Tile { x, inner, w, add } = tile;
        assert!(x.len() >= (ROWS - 1) * inner + w.len() && y.len() == ROWS);
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for (k, w) in w.iter().enumerate() {
                fetch_ahead(w, half);
                let w: [[__m256; 2]; 2] = must_cast(*w);
                for row in 0..ROWS {
                    // SAFETY: as in the other kernel.
                    #[allow(unsafe_code)]
                    let x = _mm256_set1_ps(unsafe { *x.get_unchecked(row * inner + k) });
                    let [low, high] = w[half];
                    sums[row] = [_mm256_fmadd_ps(x, low, sums[row][0]), _mm256_fmadd_ps(x, high, sums[row][1])];
                }
            }
            for row in 0..ROWS {
                let y = &mut y[row].as_chunks_mut::<16>().0[half];
                if add {
                    let before: [__m256; 2] = must_cast(*y);
                    sums[row] = [_mm256_add_ps(before[0], sums[row][0]), _mm256_add_ps(before[1], sums[row][1])];
                }
                *y = must_cast(sums[row]);
            }
        }
    }
}
