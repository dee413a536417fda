//! Products of 8-bit integers that stay in registers until they are compared.
//!
//! A product of a head's vectors has an inner size of only `d_head`, so writing each sum to memory and reading it again
//! takes longer than computing it. These kernels compute the sums of 8 vectors and 32 tokens, add the error bounds, and
//! return one bit for each: whether the token can be among the best.

use rten_gemm::GemmExecutor;

/// Matrix products of unsigned and signed 8-bit integers, summed in 32 bits.
pub(super) type Int8Gemm = GemmExecutor<u8, i8, i32>;

/// Vectors of a tile.
pub(super) const ROWS: usize = 8;
/// Tokens of a block.
pub(super) const TOKENS: usize = 32;
/// Neighbors along the inner dimension that one instruction multiplies and sums.
pub(super) const GROUP: usize = 4;

/// How this processor multiplies 8-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// `rten-gemm`, which writes products to memory.
    Library,
    /// [`Tile`], with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Found),
    /// [`Tile`], with AVX-512, whose VNNI multiplies and sums in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Found),
}

/// The processor has the instructions of a kernel. Only [`Kernel::available`] makes it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found(());

impl Kernel {
    /// The kernels that this processor can run, the fastest last.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Library];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Self::Avx2(Found(())));
            }
            let has_avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if has_avx512 && is_x86_feature_detected!("avx512vnni") {
                kernels.push(Self::Avx512Vnni(Found(())));
            }
        }
        kernels
    }

    /// The fastest kernel of this processor.
    pub(crate) fn fastest() -> Self {
        Self::available().pop().expect("the library's runs anywhere")
    }

    /// The integer that represents zero in a quantized vector.
    ///
    /// Some processors add the products of two neighbors in 16 bits. There, vectors use 7 bits, and no sum saturates.
    pub(super) fn zero_point(self) -> i32 {
        let may_saturate = match self {
            Self::Library => Int8Gemm::new().may_saturate(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => false,
        };
        if may_saturate { 64 } else { 128 }
    }
}

/// A block of tokens: four integers of each of 32 columns.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Group(pub(super) [[i8; 16 * GROUP]; 2]);

/// What turns the sums of a block of tokens into bounds.
#[derive(Clone)]
pub(super) struct TokenParams {
    /// What removes the zero point of `x̂` from a sum: minus the zero point times the sum of the column's integers.
    pub(super) correction: [i32; TOKENS],
    /// `ŵ` is this times integers.
    pub(super) scale: [f32; TOKENS],
    /// The error of a product, relative to `‖x‖`, that is due to `w`.
    pub(super) error: [f32; TOKENS],
    /// At least `‖ŵ‖`.
    pub(super) norm: [f32; TOKENS],
}

/// What turns the sums of a tile of vectors into bounds.
#[derive(Clone)]
pub(super) struct RowParams {
    /// `x̂` is this times integers.
    pub(super) scale: [f32; ROWS],
    /// At least `‖x − x̂‖ / ‖x‖`.
    pub(super) relative_error: [f32; ROWS],
    /// At least `‖x‖`.
    pub(super) norm: [f32; ROWS],
    /// A token whose upper bound is below it cannot be among the best.
    pub(super) threshold: [f32; ROWS],
}

/// Eight vectors and 32 tokens.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no kernel computes tiles"))]
pub(super) struct Tile<'a> {
    /// Four integers of each vector, whose zero is [`Kernel::zero_point`]. Shape: `[inner / 4]`.
    pub(super) x: &'a [[[u8; GROUP]; ROWS]],
    /// Shape: `[inner / 4]`.
    pub(super) w: &'a [Group],
    pub(super) rows: &'a RowParams,
    pub(super) tokens: &'a TokenParams,
    /// NaN for a token that is none.
    pub(super) bias: &'a [f32; TOKENS],
}

impl Tile<'_> {
    /// For each vector a bit for each token, the first one the lowest: whether its upper bound reaches the threshold.
    #[inline(always)]
    pub(super) fn tokens_above(self, kernel: Kernel) -> [u32; ROWS] {
        match kernel {
            Kernel::Library => unreachable!("the library's products are not computed in tiles"),
            // SAFETY: `available` has found the instructions. The function needs nothing else: it reads arrays by value.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kernel::Avx2(_) => unsafe { x86::avx2(self) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kernel::Avx512Vnni(_) => unsafe { x86::avx512_vnni(self) },
        }
    }

    /// The sums of one vector and all tokens of the block, without the zero point of `x̂`.
    pub(super) fn sums(self, kernel: Kernel, row: usize) -> [i32; TOKENS] {
        match kernel {
            Kernel::Library => unreachable!("the library's products are not computed in tiles"),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kernel::Avx2(_) => unsafe { x86::avx2_sums(self, row) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kernel::Avx512Vnni(_) => unsafe { x86::avx512_vnni_sums(self, row) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Without closures and iterator adapters: a function without the instructions is not always inlined into one that has
    //! them, and the sums then go through memory.

    use std::arch::x86_64::*;

    use bytemuck::must_cast;

    use super::{Group, ROWS, TOKENS, Tile};

    const _: () = assert!(TOKENS == 32);

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn avx512_vnni(tile: Tile) -> [u32; ROWS] {
        let Tile { x, w, rows, tokens, bias } = tile;
        let correction: [__m512i; 2] = must_cast(tokens.correction);
        let mut sums = [correction; ROWS];
        for (x, Group(w)) in x.iter().zip(w) {
            let w: [__m512i; 2] = must_cast(*w);
            for row in 0..ROWS {
                let x = _mm512_set1_epi32(i32::from_ne_bytes(x[row]));
                sums[row] = [_mm512_dpbusd_epi32(sums[row][0], x, w[0]), _mm512_dpbusd_epi32(sums[row][1], x, w[1])];
            }
        }
        let scale: [__m512; 2] = must_cast(tokens.scale);
        let error: [__m512; 2] = must_cast(tokens.error);
        let norm: [__m512; 2] = must_cast(tokens.norm);
        let bias: [__m512; 2] = must_cast(*bias);
        let mut above = [0; ROWS];
        for half in 0..2 {
            for row in 0..ROWS {
                let relative_error = _mm512_set1_ps(rows.relative_error[row]);
                let relative_bound = _mm512_fmadd_ps(norm[half], relative_error, error[half]);
                let bound_and_bias = _mm512_fmadd_ps(relative_bound, _mm512_set1_ps(rows.norm[row]), bias[half]);
                let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[row][half]), scale[half]);
                let high = _mm512_fmadd_ps(product, _mm512_set1_ps(rows.scale[row]), bound_and_bias);
                let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(high, _mm512_set1_ps(rows.threshold[row]));
                above[row] |= (mask as u32) << (16 * half);
            }
        }
        above
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn avx512_vnni_sums(tile: Tile, row: usize) -> [i32; TOKENS] {
        let mut sums: [__m512i; 2] = must_cast(tile.tokens.correction);
        for (x, Group(w)) in tile.x.iter().zip(tile.w) {
            let w: [__m512i; 2] = must_cast(*w);
            let x = _mm512_set1_epi32(i32::from_ne_bytes(x[row]));
            sums = [_mm512_dpbusd_epi32(sums[0], x, w[0]), _mm512_dpbusd_epi32(sums[1], x, w[1])];
        }
        must_cast(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2_sums(tile: Tile, row: usize) -> [i32; TOKENS] {
        let mut sums: [__m256i; 4] = must_cast(tile.tokens.correction);
        let ones = _mm256_set1_epi16(1);
        for (x, Group(w)) in tile.x.iter().zip(tile.w) {
            let w: [__m256i; 4] = must_cast(*w);
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x[row]));
            for part in 0..4 {
                let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(x, w[part]), ones);
                sums[part] = _mm256_add_epi32(sums[part], pairs);
            }
        }
        must_cast(sums)
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(tile: Tile) -> [u32; ROWS] {
        /// With 4 × 2 sums, all of them, and what they are computed from, fit the 16 registers.
        const ROWS_AT_ONCE: usize = 4;
        let Tile { x, w, rows, tokens, bias } = tile;
        let correction: [__m256i; 4] = must_cast(tokens.correction);
        let scale: [__m256; 4] = must_cast(tokens.scale);
        let error: [__m256; 4] = must_cast(tokens.error);
        let norm: [__m256; 4] = must_cast(tokens.norm);
        let bias: [__m256; 4] = must_cast(*bias);
        let ones = _mm256_set1_epi16(1);
        let mut above = [0; ROWS];
        for half in 0..2 {
            for first in (0..ROWS).step_by(ROWS_AT_ONCE) {
                let mut sums = [[correction[2 * half], correction[2 * half + 1]]; ROWS_AT_ONCE];
                for (x, Group(w)) in x.iter().zip(w) {
                    let w: [__m256i; 2] = must_cast(w[half]);
                    for row in 0..ROWS_AT_ONCE {
                        let x = _mm256_set1_epi32(i32::from_ne_bytes(x[first + row]));
                        for part in 0..2 {
                            let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(x, w[part]), ones);
                            sums[row][part] = _mm256_add_epi32(sums[row][part], pairs);
                        }
                    }
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    let to = first + row;
                    for (part, sum) in sums.into_iter().enumerate() {
                        let at = 2 * half + part;
                        let relative_error = _mm256_set1_ps(rows.relative_error[to]);
                        let relative_bound = _mm256_fmadd_ps(norm[at], relative_error, error[at]);
                        let bound_and_bias = _mm256_fmadd_ps(relative_bound, _mm256_set1_ps(rows.norm[to]), bias[at]);
                        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale[at]);
                        let high = _mm256_fmadd_ps(product, _mm256_set1_ps(rows.scale[to]), bound_and_bias);
                        let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(high, _mm256_set1_ps(rows.threshold[to]));
                        above[to] |= (_mm256_movemask_ps(reached) as u32) << (8 * at);
                    }
                }
            }
        }
        above
    }
}
