//! Decoding by `Fused`, and by `Cuda` with the feature `cuda`, against `Dfdx<Cpu>`: random input, ties, and numbers
//! that are not finite.

use std::slice;

use ndarray::{arr1, arr2};

use super::*;

/// Decodes vectors of each projection several times, and asserts that every time gives the same bits.
/// Shape: `projections` each `[d_head, d_model]`, `w_u [d_model, d_vocab]`, `b_u [d_vocab]`, `c [n, d_head]` → each
/// `[n, k]`.
fn decode<B: Backend>(
    backend: &B,
    projections: &[Array2<f32>],
    (w_u, b_u): (&Array2<f32>, &Array1<f32>),
    c: &Vectors,
    ranking: Ranking,
) -> Vec<TopTokens> {
    let unembed = backend.upload_unembed(w_u.clone(), b_u.clone()).unwrap();
    let decode = |projection: &Array2<f32>| {
        let table = backend.upload_projection(projection.clone()).unwrap();
        let decode = || backend.decode(c, &table, &unembed, ranking).unwrap();
        let first = decode();
        // After enough vectors, a backend may switch to a faster way of decoding.
        let bits = |top: &TopTokens| (top.tokens.clone(), top.logits.mapv(f32::to_bits));
        (0..3).for_each(|_| assert_eq!(bits(&decode()), bits(&first)));
        first
    };
    projections.iter().map(decode).collect()
}

/// [`decode`] with one projection. Shape: `projection [d_head, d_model]` → `[n, k]`.
fn decode_one<B: Backend>(
    backend: &B,
    projection: &Array2<f32>,
    unembed: (&Array2<f32>, &Array1<f32>),
    c: &Vectors,
    ranking: Ranking,
) -> TopTokens {
    decode(backend, slice::from_ref(projection), unembed, c, ranking).remove(0)
}

/// Numbers of vectors to decode: more than fit one pass over the vocabulary only if it is small.
fn vector_counts(random: &mut fastrand::Rng, d_vocab: usize) -> [usize; 3] {
    match d_vocab {
        50257 => [1, 2, random.usize(3..=300)],
        _ => [1, random.usize(2..=230), 4500],
    }
}

#[test]
fn top_tokens_of_random_vectors() {
    let random = &mut random();
    for (d_head, d_model, d_vocab) in
        [(1, 1, 1), (1, 7, 97), (20, 40, 97), (64, 70, 1), (20, 20, 50257), (64, 65, 50257), (4200, 2, 5)]
    {
        let (w_u, b_u) = (matrix(random, d_model, d_vocab), vector(random, d_vocab));
        for n in vector_counts(random, d_vocab) {
            let rows = random.u32(1..=100);
            let pairs = (0..n).map(|_| [random.u32(0..rows), random.u32(0..rows)]).collect();
            let c = Vectors::new(matrix(random, rows as usize, d_head), pairs);
            let projections: Vec<_> = (0..random.usize(1..=3)).map(|_| matrix(random, d_head, d_model)).collect();
            let ranking = Ranking::new(random.usize(1..=4), random.bool());
            let ranking = if random.bool() { ranking.negated() } else { ranking };
            let (got, want) = on_every_backend!(|backend| decode(backend, &projections, (&w_u, &b_u), &c, ranking));
            let what = format!("{n} vectors of {d_head}, vocabulary {d_vocab}, {ranking:?}");
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
fn vectors_and_weights_that_are_not_finite() {
    let random = &mut random();
    let (d_head, d_model, d_vocab) = (20, 30, 1000);
    let (projection, b_u) = (matrix(random, d_head, d_model), vector(random, d_vocab));
    let mut c = matrix(random, 120, d_head);
    c[[0, 3]] = f32::NAN;
    c[[1, 4]] = f32::INFINITY;
    c.row_mut(2).fill(f32::MAX);
    c.row_mut(3).fill(0.0);
    c.row_mut(4).fill(1e-42);
    let finite = matrix(random, d_model, d_vocab);
    let mut with_nan = finite.clone();
    with_nan[[2, 500]] = f32::NAN;
    for w_u in [finite, with_nan] {
        let (got, want) = on_every_backend!(|backend| decode_one(
            backend,
            &projection,
            (&w_u, &b_u),
            &single_vectors(&c),
            with_bias(3)
        )
        .tokens);
        for (got, row) in got.iter().flat_map(|got| (0..c.nrows()).map(move |row| (got, row))) {
            assert_eq!(got.row(row), want.row(row), "vector {row}");
        }
    }
}

#[test]
fn ties_go_to_the_lowest_id() {
    let random = &mut random();
    for (d_head, d_model, d_vocab) in [(1, 1, 1), (1, 3, 97), (20, 3, 97), (20, 2, 50257), (64, 1, 50257)] {
        let (mut w_u, mut b_u) = (integers(random, d_model, d_vocab), integers(random, 1, d_vocab).row(0).to_owned());
        b_u.mapv_inplace(|b| if b == 0.0 && random.bool() { -0.0 } else { b }); // −0 = 0
        if random.bool() {
            // Makes the scale of every column too coarse for its other entries.
            w_u.row_mut(random.usize(..d_model)).mapv_inplace(|w| 1024.0 * w);
        }
        for n in vector_counts(random, d_vocab) {
            let (c, projection) = (integers(random, n, d_head), integers(random, d_head, d_model));
            let mut logits = c.dot(&projection).dot(&w_u) + 0.0; // exact, and no negative zero
            let unembed_bias = random.u8(..) > 50;
            let ranking = Ranking::new(random.usize(1..=5), unembed_bias);
            if unembed_bias {
                logits = logits + &b_u + 0.0;
            }
            let (got, want) = on_every_backend!(|backend| decode_one(
                backend,
                &projection,
                (&w_u, &b_u),
                &single_vectors(&c),
                ranking
            ));
            for got in got {
                assert_eq!(got, want);
            }
            for (logits, tokens) in logits.outer_iter().zip(want.tokens.outer_iter()) {
                let mut sorted: Vec<u32> = (0..d_vocab as u32).collect();
                sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                assert_eq!(tokens.to_vec(), sorted[..ranking.k.min(d_vocab)]);
                if d_vocab > 97 {
                    break; // sorting more rows would be slow; all rows are compared with `want`
                }
            }
        }
    }
}

#[test]
fn negative_zero_ties_with_zero() {
    let w_u = arr2(&[[-1.0, 1.0, -1.0, 1.0, 0.0, -1.0]]);
    let b_u = arr1(&[-0.0, -0.0, 0.0, 0.0, -0.0, -0.0]);
    let (c, projection) = (arr2(&[[0.0], [-0.0]]), arr2(&[[1.0]]));
    let (got, want) =
        on_every_backend!(
            |backend| decode_one(backend, &projection, (&w_u, &b_u), &single_vectors(&c), with_bias(6)).tokens
        );
    assert_eq!(want, arr2(&[[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]));
    got.into_iter().for_each(|got| assert_eq!(got, want));
}
