//! `Fused`, and with the feature `cuda` also `Cuda`, against `Dfdx<Cpu>`, operation by operation, on fresh random input of odd
//! shapes.

use std::ops::Range;
use std::slice;

use ndarray::{Array1, Array2, Array3, ArrayView, Axis, Dimension, Ix3, s};

use super::{AttentionOutput, Backend, Dfdx, Fused};
use crate::config::ActFn;
use crate::decode::{TopTokens, Vectors};
use crate::memory::LazyArray;
use crate::weights::LayerNormWeights;

type Oracle = Dfdx<::dfdx::tensor::Cpu>;

fn oracle() -> Oracle {
    Dfdx::cpu()
}

/// Another one in every run; a failing test prints its seed, and takes it from the environment.
fn random() -> fastrand::Rng {
    let seed = std::env::var("ATTENTION_TOKENS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ATTENTION_TOKENS_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

fn matrix(random: &mut fastrand::Rng, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || 2.0 * random.f32() - 1.0)
}

fn vector(random: &mut fastrand::Rng, len: usize) -> Array1<f32> {
    matrix(random, 1, len).row(0).to_owned()
}

/// Small whole numbers: sums of their products are exact in any order, and often equal.
fn integers(random: &mut fastrand::Rng, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || random.i32(-2..=2) as f32)
}

/// Within 1e-5 of the largest magnitude, and the same infinities. A sum of many terms may happen to be near zero, and is no
/// more exact for it: `typical` is how large such numbers are.
#[track_caller]
fn assert_close<D: Dimension>(got: ArrayView<f32, D>, want: ArrayView<f32, D>, typical: f32, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let finite = |x: &&f32| x.is_finite();
    let magnitude = want.iter().filter(finite).fold(typical, |largest, x| largest.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got == want || (got - want).abs() <= 1e-5 * magnitude, "{what} at {index}: {got}, not {want}");
    }
}

/// The root mean square of a sum of so many products of `factors` numbers between −1 and 1.
fn typical(terms: usize, factors: i32) -> f32 {
    (terms as f32 / 3_f32.powi(factors)).sqrt()
}

/// Runs with each number of threads, checks that every bit agrees, and gives the result.
#[track_caller]
fn on_any_threads<T: PartialEq + Send>(run: impl Fn() -> T + Sync) -> T {
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&run);
    let one = with(1);
    assert!(with(2) == one && with(3) == one, "the number of threads changes the result");
    one
}

/// One operation on every backend: `run` gets each as `Backend`. Gives what each of the fast ones made of it, and what it should
/// be.
macro_rules! all {
    (|$backend:ident| $run:expr) => {{
        #[allow(unused_mut)]
        let mut got = vec![on_any_threads(|| {
            let $backend = &Fused::new();
            $run
        })];
        #[cfg(feature = "cuda")]
        {
            let $backend = &super::Cuda::open(0).unwrap();
            got.push($run);
        }
        let oracle = oracle();
        let $backend = &oracle;
        (got, $run)
    }};
}

#[test]
fn products_and_activation_functions() {
    let random = &mut random();
    for (inner, columns) in [(1, 1), (1, 97), (20, 64), (64, 65), (97, 200), (300, 130)] {
        for rows in [1, 2, random.usize(3..=100), 257] {
            let what = format!("[{rows}, {inner}] times [{inner}, {columns}]");
            let (x, w) = (matrix(random, rows, inner), matrix(random, inner, columns));
            let b = vector(random, columns);
            let (got, want) = all!(|backend| {
                let linear = backend.upload_linear(w.clone(), b.clone()).unwrap();
                assert_eq!(backend.linear_weights(&linear).unwrap(), (w.clone(), b.clone()), "{what}");
                let x = upload(backend, &x);
                let act_fns = [ActFn::GeluNew, ActFn::Gelu, ActFn::Relu, ActFn::Silu, ActFn::Tanh];
                let act_fns = act_fns.map(|act_fn| backend.linear_act(&linear, act_fn, &x).unwrap());
                let all = [backend.linear(&linear, &x).unwrap()].into_iter().chain(act_fns);
                all.map(|y| backend.download(&y).unwrap().into_owned()).collect::<Vec<_>>()
            });
            for (got, want) in got.iter().flat_map(|got| got.iter().zip(&want)) {
                assert_close(got.view(), want.view(), typical(inner, 2), &what);
            }
        }
    }
}

#[test]
fn products_applied_together() {
    let random = &mut random();
    for (d_model, rows) in [(1, 1), (1, 5), (20, 1), (33, random.usize(2..=100)), (64, 13), (300, 257)] {
        let x = matrix(random, rows, d_model);
        let parts = [(); 3].map(|()| (matrix(random, d_model, d_model), vector(random, d_model)));
        let (got, want) = all!(|backend| {
            let linears = backend.upload_linear_qkv(parts.clone()).unwrap();
            assert_eq!(linears.each_ref().map(|linear| backend.linear_weights(linear).unwrap()), parts);
            let x = upload(backend, &x);
            let y = backend.linear_qkv(&linears, &x).unwrap();
            let one_by_one = linears.each_ref().map(|linear| backend.linear(linear, &x).unwrap());
            [y, one_by_one].map(|y| y.map(|y| backend.download(&y).unwrap().into_owned()))
        });
        for (got, want) in got.iter().flatten().flatten().zip(want.iter().flatten().cycle()) {
            assert_close(got.view(), want.view(), typical(d_model, 2), &format!("{rows} rows, d_model {d_model}"));
        }
    }
}

/// A matrix on the device, by way of an embedding that has it as rows.
fn upload<B: Backend>(backend: &B, x: &Array2<f32>) -> B::Tensor {
    let embedding = backend.upload_embedding(x.clone(), Array2::zeros((1, x.ncols()))).unwrap();
    let rows: Vec<u32> = (0..x.nrows() as u32).collect();
    backend.embed(&embedding, &rows, &vec![0; x.nrows()]).unwrap()
}

#[test]
fn embeddings_sums_and_layer_norms() {
    let random = &mut random();
    for d_model in [1, 2, 20, 64, 97, 768] {
        let rows = random.usize(1..=100);
        let (w_e, w_pos) = (matrix(random, 97, d_model), matrix(random, 50, d_model));
        let tokens: Vec<u32> = (0..rows).map(|_| random.u32(0..97)).collect();
        let positions: Vec<usize> = (0..rows).map(|_| random.usize(0..50)).collect();
        let ln = LayerNormWeights { w: vector(random, d_model), b: vector(random, d_model) };
        let (got, want) = all!(|backend| {
            let embedding = backend.upload_embedding(w_e.clone(), w_pos.clone()).unwrap();
            assert_eq!(backend.embedding_weights(&embedding).unwrap(), (w_e.clone(), w_pos.clone()));
            let x = backend.embed(&embedding, &tokens, &positions).unwrap();
            let normalize =
                |weights| backend.layer_norm(&backend.upload_layer_norm(weights, 1e-5).unwrap(), &x).unwrap();
            let (plain, scaled) = (normalize(None), normalize(Some(&ln)));
            let sum = backend.add(&plain, &scaled).unwrap();
            [x, plain, scaled, sum].map(|x| backend.download(&x).unwrap().into_owned())
        });
        for got in got {
            assert_eq!(got[0], want[0], "an embedding is one sum");
            for (got, want) in got.iter().zip(&want) {
                assert_close(got.view(), want.view(), 1.0, &format!("d_model {d_model}"));
            }
        }
    }
}

/// The rows of prompts of these lengths, and how many there are.
fn below_each_other(lengths: &[usize]) -> (Vec<Range<usize>>, usize) {
    let ends = lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    (ends.zip(lengths).map(|(end, len)| end - len..end).collect(), lengths.iter().sum())
}

#[test]
fn logits_and_what_is_kept_of_ragged_batches() {
    let random = &mut random();
    // Of large vocabularies a card makes a few rows at a time.
    for (d_model, d_vocab, longest) in [(1, 1, 300), (20, 97, 300), (7, 50257, 300), (2, 300_000, 60)] {
        let (w_u, b_u) = (matrix(random, d_model, d_vocab), vector(random, d_vocab));
        for lengths in [vec![1], vec![longest], vec![random.usize(1..longest), 1, longest / 2, 2, longest / 2]] {
            let what = format!("d_model {d_model}, vocabulary {d_vocab}, prompts of {lengths:?}");
            let (prompts, rows) = below_each_other(&lengths);
            let x = matrix(random, rows, d_model);
            let (got, want) = all!(|backend| {
                let unembed = backend.upload_unembed(w_u.clone(), b_u.clone()).unwrap();
                let x = upload(backend, &x);
                let kept = backend.lazy_rows(&x, &prompts).unwrap();
                let kept: Vec<_> = kept.into_iter().map(|lazy| lazy.compute().unwrap().into_owned()).collect();
                (backend.logits(&unembed, &x, &prompts).unwrap(), kept)
            });
            for (logits, kept) in got {
                assert_eq!((logits.len(), kept.len()), (prompts.len(), prompts.len()), "{what}");
                for (got, want) in logits.iter().zip(&want.0) {
                    assert_close(got.view(), want.view(), typical(d_model, 2), &what);
                }
                for (kept, rows) in kept.iter().zip(&prompts) {
                    assert_eq!(kept, x.slice(s![rows.clone(), ..]), "{what}");
                }
            }
        }
    }
}

#[test]
fn attention_of_ragged_batches() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 1), (2, 20), (5, 20), (2, 64)] {
        let some = random.usize(2..=100);
        let batches =
            [vec![1], vec![some], vec![300], vec![some, 1, 129], vec![some, 3, some, 1, 3, some], vec![2; 300]];
        for lengths in batches {
            let what = format!("{n_heads} heads of {d_head}, prompts of {lengths:?}");
            let (prompts, rows) = below_each_other(&lengths);
            let qkv = [(); 3].map(|()| 4.0 * matrix(random, rows, n_heads * d_head));
            for keep_pattern in [true, false] {
                let (got, want) = all!(|backend| {
                    let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
                    let attention = backend.attention([&q, &k, &v], n_heads, &prompts, keep_pattern).unwrap();
                    let scores = |rows: &Range<usize>| backend.attn_scores(&q, &k, n_heads, rows.clone()).unwrap();
                    let on_host = |lazy: LazyArray<Ix3>| lazy.compute().unwrap().into_owned();
                    let scores: Vec<Array3<f32>> = prompts.iter().map(scores).map(on_host).collect();
                    let pattern: Vec<Array3<f32>> = attention.pattern.into_iter().map(on_host).collect();
                    (backend.download(&attention.z).unwrap().into_owned(), scores, pattern)
                });
                for got in got {
                    assert_close(got.0.view(), want.0.view(), 1.0, &what);
                    assert_eq!(got.2.len(), if keep_pattern { prompts.len() } else { 0 });
                    assert_eq!(got.2.len(), want.2.len());
                    for (got, want) in got.1.iter().zip(&want.1) {
                        assert_close(got.view(), want.view(), 16.0 * typical(1, 2), &what); // numbers between −4 and 4
                    }
                    for (got, want) in got.2.iter().zip(&want.2) {
                        assert_close(got.view(), want.view(), 1.0, &what);
                    }
                }
            }
        }
    }
}

/// Scores that are whole numbers, hundreds apart: e to their power alone would overflow, and so would the sum.
#[test]
fn attention_with_large_scores() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 4), (2, 64)] {
        let lengths = [random.usize(2..=300), 300, 1, 64];
        let (prompts, rows) = below_each_other(&lengths);
        let mut qkv = [16.0, 16.0, 1.0].map(|scale| scale * integers(random, rows, n_heads * d_head));
        // One key outweighs all others, wherever it is.
        let keys = prompts.iter().map(|rows| random.usize(rows.clone())).collect::<Vec<_>>();
        keys.iter().for_each(|&key| qkv[1].row_mut(key).mapv_inplace(|k| 16.0 * k));
        let what = format!("{n_heads} heads of {d_head}, prompts of {lengths:?}, keys {keys:?}");
        let (got, want) = all!(|backend| {
            let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
            let AttentionOutput { z, pattern } = backend.attention([&q, &k, &v], n_heads, &prompts, true).unwrap();
            let pattern: Vec<_> = pattern.into_iter().map(|lazy| lazy.compute().unwrap().into_owned()).collect();
            (backend.download(&z).unwrap().into_owned(), pattern)
        });
        for (z, pattern) in got {
            assert_close(z.view(), want.0.view(), 1.0, &what);
            for (got, want) in pattern.iter().zip(&want.1) {
                assert_close(got.view(), want.view(), 1.0, &what);
            }
        }
    }
}

fn decode<B: Backend>(
    backend: &B,
    projections: &[Array2<f32>],
    (w_u, b_u): (&Array2<f32>, &Array1<f32>),
    c: &Vectors,
    k: usize,
) -> Vec<TopTokens> {
    let unembed = backend.upload_unembed(w_u.clone(), b_u.clone()).unwrap();
    let decode = |projection: &Array2<f32>| {
        let projected = backend.upload_projection(projection.clone()).unwrap();
        let decode = || backend.decode(c, &projected, &unembed, k).unwrap();
        let first = decode();
        // By now, or soon, there are vectors enough to make something of the projection that is faster.
        let bits = |top: &TopTokens| (top.tokens.clone(), top.logits.mapv(f32::to_bits));
        (0..3).for_each(|_| assert_eq!(bits(&decode()), bits(&first)));
        first
    };
    projections.iter().map(decode).collect()
}

/// The rows of a matrix as vectors.
fn as_they_are(c: &Array2<f32>) -> Vectors {
    let n = c.nrows() as u32;
    let ones = Array2::ones((1, c.ncols()));
    Vectors::new(ndarray::concatenate![Axis(0), *c, ones], (0..n).map(|row| [row, n]).collect())
}

/// How many vectors to decode: more than one pass of them only where that is quick.
fn vectors(random: &mut fastrand::Rng, d_vocab: usize) -> [usize; 3] {
    match d_vocab {
        50257 => [1, 2, random.usize(3..=300)],
        _ => [1, random.usize(2..=230), 4500],
    }
}

#[test]
fn decoding() {
    let random = &mut random();
    for (d_head, d_model, d_vocab) in
        [(1, 1, 1), (1, 7, 97), (20, 40, 97), (64, 70, 1), (20, 20, 50257), (64, 65, 50257), (4200, 2, 5)]
    {
        let (w_u, b_u) = (matrix(random, d_model, d_vocab), vector(random, d_vocab));
        for n in vectors(random, d_vocab) {
            let rows = random.u32(1..=100);
            let pairs = (0..n).map(|_| [random.u32(0..rows), random.u32(0..rows)]).collect();
            let c = Vectors::new(matrix(random, rows as usize, d_head), pairs);
            let projections: Vec<_> = (0..random.usize(1..=3)).map(|_| matrix(random, d_head, d_model)).collect();
            let k = random.usize(1..=4);
            let (got, want) = all!(|backend| decode(backend, &projections, (&w_u, &b_u), &c, k));
            let what = format!("{n} vectors of {d_head}, vocabulary {d_vocab}, the best {k}");
            for (got, want) in got.iter().flat_map(|got| got.iter().zip(&want)) {
                let typical = typical(d_head * d_model, 4);
                assert_close(got.logits.view(), want.logits.view(), typical, &what);
                let largest = want.logits.iter().fold(typical, |largest, x| largest.max(x.abs()));
                for row in 0..n {
                    let clear = want.margin[row] > 4e-5 * largest;
                    assert!(!clear || got.tokens[[row, 0]] == want.tokens[[row, 0]], "{what}, vector {row}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_decodes_as_in_the_plain_way() {
    let random = &mut random();
    let (d_head, d_model, d_vocab) = (20, 30, 1000);
    let (projection, b_u) = (matrix(random, d_head, d_model), vector(random, d_vocab));
    let mut c = matrix(random, 120, d_head);
    c[[0, 3]] = f32::NAN;
    c[[1, 4]] = f32::INFINITY;
    c.row_mut(2).fill(f32::MAX);
    c.row_mut(3).fill(0.0);
    c.row_mut(4).fill(1e-42);
    let whole = matrix(random, d_model, d_vocab);
    let mut broken = whole.clone();
    broken[[2, 500]] = f32::NAN;
    for w_u in [whole, broken] {
        let (got, want) =
            all!(|backend| decode(backend, slice::from_ref(&projection), (&w_u, &b_u), &as_they_are(&c), 3)
                .remove(0)
                .tokens);
        for (got, row) in got.iter().flat_map(|got| (0..c.nrows()).map(move |row| (got, row))) {
            assert_eq!(got.row(row), want.row(row), "vector {row}");
        }
    }
}

#[test]
fn ties_of_decoding_go_to_the_lowest_id() {
    let random = &mut random();
    for (d_head, d_model, d_vocab) in [(1, 1, 1), (1, 3, 97), (20, 3, 97), (20, 2, 50257), (64, 1, 50257)] {
        let (mut w_u, mut b_u) = (integers(random, d_model, d_vocab), integers(random, 1, d_vocab).row(0).to_owned());
        b_u.mapv_inplace(|b| if b == 0.0 && random.bool() { -0.0 } else { b }); // equal to zero
        if random.bool() {
            w_u.row_mut(random.usize(..d_model)).mapv_inplace(|w| 1024.0 * w); // rounding the others loses them
        }
        for n in vectors(random, d_vocab) {
            let (c, projection) = (integers(random, n, d_head), integers(random, d_head, d_model));
            let logits = c.dot(&projection).dot(&w_u) + &b_u + 0.0; // exact, and no negative zero
            let k = random.usize(1..=5);
            let (got, want) =
                all!(|backend| decode(backend, slice::from_ref(&projection), (&w_u, &b_u), &as_they_are(&c), k)
                    .remove(0));
            for got in got {
                assert_eq!(got, want);
            }
            for (logits, tokens) in logits.outer_iter().zip(want.tokens.outer_iter()) {
                let mut sorted: Vec<u32> = (0..d_vocab as u32).collect();
                sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                assert_eq!(tokens.to_vec(), sorted[..k.min(d_vocab)]);
                if d_vocab > 97 {
                    break; // sorting them all would take long, and `want` is the same
                }
            }
        }
    }
}

#[test]
fn a_negative_zero_is_as_good_as_zero() {
    let w_u = ndarray::arr2(&[[-1.0, 1.0, -1.0, 1.0, 0.0, -1.0]]);
    let b_u = ndarray::arr1(&[-0.0, -0.0, 0.0, 0.0, -0.0, -0.0]);
    let (c, projection) = (ndarray::arr2(&[[0.0], [-0.0]]), ndarray::arr2(&[[1.0]]));
    let (got, want) = all!(|backend| decode(backend, slice::from_ref(&projection), (&w_u, &b_u), &as_they_are(&c), 6)
        .remove(0)
        .tokens);
    assert_eq!(want, ndarray::arr2(&[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]));
    got.into_iter().for_each(|got| assert_eq!(got, want));
}
