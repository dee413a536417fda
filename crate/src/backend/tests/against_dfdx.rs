//! `Fused`, and `Cuda` with the feature `cuda`, against `Dfdx<Cpu>`: every operation on random input of odd shapes.

use ndarray::{Array3, s};

use super::*;

#[test]
fn linear_and_activation_functions() {
    let random = &mut random();
    for (inner, columns) in [(1, 1), (1, 97), (20, 64), (64, 65), (97, 200), (300, 130)] {
        for rows in [1, 2, random.usize(3..=100), 257] {
            let what = format!("[{rows}, {inner}] × [{inner}, {columns}]");
            let (x, w) = (matrix(random, rows, inner), matrix(random, inner, columns));
            let b = vector(random, columns);
            let (got, want) = on_every_backend!(|backend| {
                let linear = backend.upload_linear(w.clone(), b.clone()).unwrap();
                assert_eq!(backend.linear_weights(&linear).unwrap(), (w.clone(), b.clone()), "{what}");
                let x = upload(backend, &x);
                let act_fns = [ActFn::GeluNew, ActFn::Gelu, ActFn::Relu, ActFn::Silu, ActFn::Tanh];
                let act_fns = act_fns.map(|act_fn| backend.linear_act(&linear, act_fn, &x).unwrap());
                let all = [backend.linear(&linear, &x).unwrap()].into_iter().chain(act_fns);
                all.map(|y| download(backend, &y)).collect::<Vec<_>>()
            });
            for (got, want) in got.iter().flat_map(|got| got.iter().zip(&want)) {
                assert_close(got.view(), want.view(), typical(inner, 2), &what);
            }
        }
    }
}

#[test]
fn linear_qkv() {
    let random = &mut random();
    for (d_model, rows) in [(1, 1), (1, 5), (20, 1), (33, random.usize(2..=100)), (64, 13), (300, 257)] {
        let x = matrix(random, rows, d_model);
        let parts = [(); 3].map(|()| (matrix(random, d_model, d_model), vector(random, d_model)));
        let (got, want) = on_every_backend!(|backend| {
            let linears = backend.upload_linear_qkv(parts.clone()).unwrap();
            assert_eq!(linears.each_ref().map(|linear| backend.linear_weights(linear).unwrap()), parts);
            let x = upload(backend, &x);
            let y = backend.linear_qkv(&linears, &x).unwrap();
            let separate = linears.each_ref().map(|linear| backend.linear(linear, &x).unwrap());
            [y, separate].map(|y| y.map(|y| download(backend, &y)))
        });
        for (got, want) in got.iter().flatten().flatten().zip(want.iter().flatten().cycle()) {
            assert_close(got.view(), want.view(), typical(d_model, 2), &format!("{rows} rows, d_model {d_model}"));
        }
    }
}

#[test]
fn embed_add_and_layer_norm() {
    let random = &mut random();
    for d_model in [1, 2, 20, 64, 97, 768] {
        let rows = random.usize(1..=100);
        let (w_e, w_pos) = (matrix(random, 97, d_model), matrix(random, 50, d_model));
        let tokens: Vec<u32> = (0..rows).map(|_| random.u32(0..97)).collect();
        let positions: Vec<usize> = (0..rows).map(|_| random.usize(0..50)).collect();
        let ln = LayerNormWeights { w: vector(random, d_model), b: vector(random, d_model) };
        let (got, want) = on_every_backend!(|backend| {
            let embedding = backend.upload_embedding(w_e.clone(), w_pos.clone()).unwrap();
            assert_eq!(backend.embedding_weights(&embedding).unwrap(), (w_e.clone(), w_pos.clone()));
            let x = backend.embed(&embedding, &tokens, &positions).unwrap();
            let layer_norm =
                |weights| backend.layer_norm(&backend.upload_layer_norm(weights, 1e-5).unwrap(), &x).unwrap();
            let (plain, scaled) = (layer_norm(None), layer_norm(Some(&ln)));
            let sum = backend.add(&plain, &scaled).unwrap();
            [x, plain, scaled, sum].map(|x| download(backend, &x))
        });
        for got in got {
            assert_eq!(got[0], want[0], "an embedding is a single addition, so it is exact");
            for (got, want) in got.iter().zip(&want) {
                assert_close(got.view(), want.view(), 1.0, &format!("d_model {d_model}"));
            }
        }
    }
}

#[test]
fn logits_and_lazy_rows_of_ragged_batches() {
    let random = &mut random();
    // With the largest vocabulary, a GPU computes the logits of a few rows at a time.
    for (d_model, d_vocab, longest) in [(1, 1, 300), (20, 97, 300), (7, 50257, 300), (2, 300_000, 60)] {
        let (w_u, b_u) = (matrix(random, d_model, d_vocab), vector(random, d_vocab));
        for lengths in [vec![1], vec![longest], vec![random.usize(1..longest), 1, longest / 2, 2, longest / 2]] {
            let what = format!("d_model {d_model}, vocabulary {d_vocab}, prompts of {lengths:?}");
            let (prompts, rows) = consecutive_rows(&lengths);
            let x = matrix(random, rows, d_model);
            let (got, want) = on_every_backend!(|backend| {
                let unembed = backend.upload_unembed(w_u.clone(), b_u.clone()).unwrap();
                let x = upload(backend, &x);
                let rows = backend.lazy_rows(&x, &prompts).unwrap();
                let rows: Vec<_> = rows.into_iter().map(|lazy| lazy.compute().unwrap().into_owned()).collect();
                (backend.logits(&unembed, &x, &prompts).unwrap(), rows)
            });
            for (logits, lazy_rows) in got {
                assert_eq!((logits.len(), lazy_rows.len()), (prompts.len(), prompts.len()), "{what}");
                for (got, want) in logits.iter().zip(&want.0) {
                    assert_close(got.view(), want.view(), typical(d_model, 2), &what);
                }
                for (got, rows) in lazy_rows.iter().zip(&prompts) {
                    assert_eq!(got, x.slice(s![rows.clone(), ..]), "{what}");
                }
            }
        }
    }
}

#[test]
fn attention_of_ragged_batches() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 1), (2, 20), (5, 20), (2, 64)] {
        let len = random.usize(2..=100);
        let batches = [vec![1], vec![len], vec![300], vec![len, 1, 129], vec![len, 3, len, 1, 3, len], vec![2; 300]];
        for lengths in batches {
            let what = format!("{n_heads} heads of {d_head}, prompts of {lengths:?}");
            let (prompts, rows) = consecutive_rows(&lengths);
            let qkv = [(); 3].map(|()| 4.0 * matrix(random, rows, n_heads * d_head));
            let heads = Heads { n_heads, score_scale: [1.0 / (d_head as f32).sqrt(), 0.3][random.usize(..2)] };
            for keep_pattern in [true, false] {
                let (got, want) = on_every_backend!(|backend| {
                    let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
                    let attention = backend.attention([&q, &k, &v], heads, &prompts, keep_pattern).unwrap();
                    let scores = |rows: &Range<usize>| backend.attn_scores(&q, &k, heads, rows.clone()).unwrap();
                    let on_host = |lazy: LazyArray<Ix3>| lazy.compute().unwrap().into_owned();
                    let scores: Vec<Array3<f32>> = prompts.iter().map(scores).map(on_host).collect();
                    let pattern: Vec<Array3<f32>> = attention.pattern.into_iter().map(on_host).collect();
                    (download(backend, &attention.z), scores, pattern)
                });
                for got in got {
                    assert_close(got.0.view(), want.0.view(), 1.0, &what);
                    assert_eq!(got.2.len(), if keep_pattern { prompts.len() } else { 0 });
                    assert_eq!(got.2.len(), want.2.len());
                    for (got, want) in got.1.iter().zip(&want.1) {
                        // q and k are between −4 and 4.
                        assert_close(got.view(), want.view(), 16.0 * typical(1, 2), &what);
                    }
                    for (got, want) in got.2.iter().zip(&want.2) {
                        assert_close(got.view(), want.view(), 1.0, &what);
                    }
                }
            }
        }
    }
}

/// Integer scores, hundreds apart: their exponentials overflow unless the largest score of a row is subtracted first.
#[test]
fn attention_with_large_scores() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 4), (2, 64)] {
        let lengths = [random.usize(2..=300), 300, 1, 64];
        let (prompts, rows) = consecutive_rows(&lengths);
        let mut qkv = [16.0, 16.0, 1.0].map(|scale| scale * integers(random, rows, n_heads * d_head));
        // A key at a random position of each prompt outweighs all others.
        let keys = prompts.iter().map(|rows| random.usize(rows.clone())).collect::<Vec<_>>();
        keys.iter().for_each(|&key| qkv[1].row_mut(key).mapv_inplace(|k| 16.0 * k));
        let what = format!("{n_heads} heads of {d_head}, prompts of {lengths:?}, keys {keys:?}");
        let (got, want) = on_every_backend!(|backend| {
            let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
            let AttentionOutput { z, pattern } =
                backend.attention([&q, &k, &v], heads(n_heads, d_head), &prompts, true).unwrap();
            let pattern: Vec<_> = pattern.into_iter().map(|lazy| lazy.compute().unwrap().into_owned()).collect();
            (download(backend, &z), pattern)
        });
        for (z, pattern) in got {
            assert_close(z.view(), want.0.view(), 1.0, &what);
            for (got, want) in pattern.iter().zip(&want.1) {
                assert_close(got.view(), want.view(), 1.0, &what);
            }
        }
    }
}

/// Rows that continue earlier runs get the attention that they get in one run over all positions.
#[test]
fn attention_with_past() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 1), (2, 20), (5, 20), (2, 64)] {
        // The lengths of each prompt's pieces, run by run. A prompt may begin later, or not be longer than one piece.
        let runs = [vec![random.usize(1..=100), 1, 130], vec![1, 1, 1], vec![3, random.usize(1..=9), 1], vec![1, 2, 1]];
        let what = format!("{n_heads} heads of {d_head}, runs of {runs:?}");
        let totals: Vec<usize> = (0..3).map(|prompt| runs.iter().map(|run| run[prompt]).sum()).collect();
        let (prompts, rows) = consecutive_rows(&totals);
        let qkv = [(); 3].map(|()| 4.0 * matrix(random, rows, n_heads * d_head));
        let heads = heads(n_heads, d_head);
        let (got, want) = on_every_backend!(|backend| {
            let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
            let at_once = download(backend, &backend.attention([&q, &k, &v], heads, &prompts, false).unwrap().z);
            let mut past: Vec<KeyValues> = (0..3).map(|_| KeyValues::new(n_heads * d_head)).collect();
            let mut in_pieces = Array2::zeros(at_once.dim());
            for run in &runs {
                let (new, _) = consecutive_rows(run);
                let place = |prompt: usize, past: &KeyValues| {
                    let first = prompts[prompt].start + past.len();
                    first..first + run[prompt]
                };
                let places: Vec<_> = past.iter().enumerate().map(|(prompt, past)| place(prompt, past)).collect();
                let piece = |x: &Array2<f32>| {
                    let views: Vec<_> = places.iter().map(|rows| x.slice(s![rows.clone(), ..])).collect();
                    upload(backend, &ndarray::concatenate(ndarray::Axis(0), &views).unwrap())
                };
                let [q, k, v] = qkv.each_ref().map(piece);
                let z = backend.attention_with_past([&q, &k, &v], heads, &new, &mut past).unwrap();
                let z = download(backend, &z);
                for (place, new) in places.into_iter().zip(new) {
                    in_pieces.slice_mut(s![place, ..]).assign(&z.slice(s![new, ..]));
                }
            }
            assert_close(in_pieces.view(), at_once.view(), 1.0, &what);
            assert!(past.iter().zip(&totals).all(|(past, &total)| past.len() == total));
            in_pieces
        });
        got.iter().for_each(|got| assert_close(got.view(), want.view(), 1.0, &what));
    }
}
