//! Tests of the backends: every operation on small numbers computed by hand, and the fast backends against dfdx on
//! random input.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView, Dimension, Ix3};

use super::{AttentionOutput, Backend, Dfdx, Fused, Heads, KeyValues};
use crate::config::ActFn;
use crate::decode::{Ranking, TopTokens, Vectors};
use crate::memory::LazyArray;
use crate::weights::LayerNormWeights;

/// Runs an expression on every backend. Returns the results of the fast backends, and that of dfdx on the CPU.
macro_rules! on_every_backend {
    (|$backend:ident| $run:expr) => {{
        #[allow(unused_mut)]
        let mut got = vec![on_any_number_of_threads(|| {
            let $backend = &Fused::new();
            $run
        })];
        #[cfg(feature = "cuda")]
        {
            let $backend = &$crate::backend::Cuda::open(0).unwrap();
            got.push($run);
        }
        let dfdx: Dfdx<::dfdx::tensor::Cpu> = Dfdx::cpu();
        let $backend = &dfdx;
        (got, $run)
    }};
}

mod against_dfdx;
mod decoding;
mod edits;
mod small_numbers;

/// A generator with a new seed in every run. A failing test prints its seed, and `ATTENTION_TOKENS_TEST_SEED` sets it.
fn random() -> fastrand::Rng {
    let seed = std::env::var("ATTENTION_TOKENS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ATTENTION_TOKENS_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Uniform numbers between −1 and 1. Shape: → `[rows, columns]`.
fn matrix(random: &mut fastrand::Rng, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || 2.0 * random.f32() - 1.0)
}

/// Uniform numbers between −1 and 1. Shape: → `[len]`.
fn vector(random: &mut fastrand::Rng, len: usize) -> Array1<f32> {
    matrix(random, 1, len).row(0).to_owned()
}

/// Small integers, whose sums of products are exact in any order, and often equal. Shape: → `[rows, columns]`.
fn integers(random: &mut fastrand::Rng, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || random.i32(-2..=2) as f32)
}

/// Asserts that values agree within 1e-5 of the largest magnitude, and that infinities are equal. Shape: both the same.
///
/// A sum of many terms may be near zero by chance, and is then no more exact than others: `typical` is the magnitude of
/// such sums, and the least magnitude that the tolerance is relative to.
#[track_caller]
fn assert_close<D: Dimension>(got: ArrayView<f32, D>, want: ArrayView<f32, D>, typical: f32, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let finite = |x: &&f32| x.is_finite();
    let magnitude = want.iter().filter(finite).fold(typical, |largest, x| largest.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got == want || (got - want).abs() <= 1e-5 * magnitude, "{what} at {index}: {got}, not {want}");
    }
}

/// Heads with GPT-2's scale of scores.
fn heads(n_heads: usize, d_head: usize) -> Heads {
    Heads { n_heads, score_scale: 1.0 / (d_head as f32).sqrt() }
}

/// The `k` best tokens, with the bias of the unembedding.
fn with_bias(k: usize) -> Ranking {
    Ranking::new(k, true)
}

/// The root mean square of a sum of `terms` products of `factors` uniform numbers between −1 and 1 each.
fn typical(terms: usize, factors: i32) -> f32 {
    (terms as f32 / 3_f32.powi(factors)).sqrt()
}

/// Returns the result of `run`, and asserts that it is the same on 1, 2 and 3 threads.
#[track_caller]
fn on_any_number_of_threads<T: PartialEq + Send>(run: impl Fn() -> T + Sync) -> T {
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&run);
    let one = with(1);
    assert!(with(2) == one && with(3) == one, "the number of threads changes the result");
    one
}

/// The rows of consecutive prompts of these lengths, and the total number of rows.
fn consecutive_rows(lengths: &[usize]) -> (Vec<Range<usize>>, usize) {
    let ends = lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    (ends.zip(lengths).map(|(end, len)| end - len..end).collect(), lengths.iter().sum())
}

/// Copies a matrix to the device, as the rows of an embedding. Shape: `[rows, columns]` → the same.
fn upload<B: Backend>(backend: &B, x: &Array2<f32>) -> B::Tensor {
    let embedding = backend.upload_embedding(x.clone(), Array2::zeros((1, x.ncols()))).unwrap();
    let rows: Vec<u32> = (0..x.nrows() as u32).collect();
    backend.embed(&embedding, &rows, &vec![0; x.nrows()]).unwrap()
}

/// Copies a matrix to the host. Shape: `[rows, columns]` → the same.
fn download<B: Backend>(backend: &B, x: &B::Tensor) -> Array2<f32> {
    backend.download(x).unwrap().into_owned()
}

/// The rows of `c` as vectors to decode. Shape: `[n, d_head]` → the same.
fn single_vectors(c: &Array2<f32>) -> Vectors {
    let n = c.nrows() as u32;
    let ones = Array2::ones((1, c.ncols()));
    Vectors::new(ndarray::concatenate![ndarray::Axis(0), *c, ones], (0..n).map(|row| [row, n]).collect())
}
