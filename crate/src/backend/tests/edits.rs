//! Edits of matrices and of attention, with random changes of odd shapes.

use ndarray::{Array3, ArrayViewMut2, s};

use super::*;
use crate::backend::{CellEdits, Change, Edit, RowEdits};

/// A change of some rows and columns, as the arguments of [`RowEdits::push`].
struct Block {
    rows: Vec<usize>,
    columns: Vec<usize>,
    change: Change,
    values: Array2<f32>,
}

impl Block {
    /// Rows may be listed more than once. `value` draws a number to set or to add.
    fn random(
        random: &mut fastrand::Rng,
        [n_rows, n_columns]: [usize; 2],
        value: impl Fn(&mut fastrand::Rng) -> f32,
    ) -> Self {
        let rows: Vec<usize> = (0..random.usize(1..=n_rows + 1)).map(|_| random.usize(..n_rows)).collect();
        let n = random.usize(1..=n_columns);
        let columns = random.choose_multiple(0..n_columns, n);
        let change = [Change::Set, Change::Add, Change::Scale][random.usize(..3)];
        let shape = ([1, rows.len()][random.usize(..2)], [1, n][random.usize(..2)]);
        let values = Array2::from_shape_simple_fn(shape, || match change {
            Change::Scale => random.f32() - 0.5,
            _ => value(random),
        });
        Self { rows, columns, change, values }
    }

    /// A whole row at −∞.
    fn mask_row(row: usize, columns: usize) -> Self {
        let values = Array2::from_elem((1, 1), f32::NEG_INFINITY);
        Self { rows: vec![row], columns: (0..columns).collect(), change: Change::Set, values }
    }

    fn apply(&self, mut x: ArrayViewMut2<f32>) {
        let values = self.values.broadcast((self.rows.len(), self.columns.len())).unwrap();
        for (i, &row) in self.rows.iter().enumerate() {
            for (j, &column) in self.columns.iter().enumerate() {
                let (x, value) = (&mut x[[row, column]], values[[i, j]]);
                match self.change {
                    Change::Set => *x = value,
                    Change::Add => *x += value,
                    Change::Scale if x.is_finite() => *x *= value,
                    Change::Scale => {}
                }
            }
        }
    }
}

fn by_row(blocks: &[Block]) -> RowEdits {
    let mut edits = RowEdits::default();
    for Block { rows, columns, change, values } in blocks {
        edits.push(rows.iter().copied(), columns, *change, values.view()).unwrap();
    }
    edits
}

fn noise(random: &mut fastrand::Rng) -> f32 {
    2.0 * random.f32() - 1.0
}

#[test]
fn every_backend_changes_the_same_numbers_of_a_matrix() {
    let random = &mut random();
    for columns in [1, 2, 64, 97, 256, 300, 1000] {
        for rows in [1, 2, random.usize(3..=100)] {
            let mut x = matrix(random, rows, columns);
            x[[random.usize(..rows), random.usize(..columns)]] = f32::NEG_INFINITY;
            let n = random.usize(1..=5);
            let blocks: Vec<Block> = (0..n).map(|_| Block::random(random, [rows, columns], noise)).collect();
            let mut want = x.clone();
            blocks.iter().for_each(|block| block.apply(want.view_mut()));
            let (got, dfdx) = on_every_backend!(|backend| {
                let mut on_host = |mut x: ArrayViewMut2<f32>| {
                    blocks.iter().for_each(|block| block.apply(x.view_mut()));
                    Ok(())
                };
                let by_row = |_: usize| Some(by_row(&blocks));
                let x = upload(backend, &x);
                // A cache that shares the memory must keep its values.
                let all = 0..rows;
                let cached = backend.lazy_rows(&x, std::slice::from_ref(&all)).unwrap().remove(0);
                let edited = backend.edit(x, Edit::on_host(&mut on_host).or_by_row(&by_row)).unwrap();
                let again = backend.edit(upload(backend, &download(backend, &edited)), Edit::on_host(&mut |_| Ok(())));
                (download(backend, &edited), download(backend, &again.unwrap()), cached.compute().unwrap().into_owned())
            });
            for (edited, again, cached) in got.into_iter().chain([dfdx]) {
                assert_eq!(edited, want, "[{rows}, {columns}], {n} changes");
                assert_eq!((again, cached), (want.clone(), x.clone()), "[{rows}, {columns}], {n} changes");
            }
        }
    }
}

#[test]
fn a_column_that_is_listed_twice_is_left_to_the_host() {
    let mut edits = RowEdits::default();
    assert!(edits.push([0], &[3, 1, 3], Change::Add, Array2::ones((1, 1)).view()).is_none());
    assert!(edits.is_empty());
    assert!(edits.push([0, 0], &[3, 1], Change::Add, Array2::ones((1, 1)).view()).is_some());
    let mut row = [0.0; 4];
    assert!(edits.apply(0, &mut row) && !edits.apply(1, &mut row));
    assert_eq!(row, [0.0, 2.0, 0.0, 2.0]);
}

/// Scores may be set to −∞, in a whole row too.
fn random_cell_edits(random: &mut fastrand::Rng, n_heads: usize, pos: usize) -> CellEdits {
    let value = |random: &mut fastrand::Rng| if random.u8(..4) == 0 { f32::NEG_INFINITY } else { 4.0 * noise(random) };
    let shape = [n_heads * pos, pos];
    let mut scores: Vec<Block> = (0..random.usize(..3)).map(|_| Block::random(random, shape, value)).collect();
    if random.bool() {
        scores.push(Block::mask_row(random.usize(..n_heads * pos), pos));
    }
    let pattern: Vec<Block> = (0..random.usize(..3)).map(|_| Block::random(random, shape, noise)).collect();
    CellEdits { scores: by_row(&scores), pattern: by_row(&pattern) }
}

#[test]
fn edited_attention_of_ragged_batches() {
    let random = &mut random();
    for (n_heads, d_head) in [(1, 1), (3, 1), (2, 20), (5, 20), (2, 64)] {
        let len = random.usize(2..=100);
        let batches = [vec![1], vec![len], vec![300], vec![len, 1, 129], vec![len, 3, len, 1, 3, len], vec![2; 300]];
        for lengths in batches {
            let what = format!("{n_heads} heads of {d_head}, prompts of {lengths:?}");
            let (prompts, rows) = consecutive_rows(&lengths);
            let qkv = [(); 3].map(|()| 4.0 * matrix(random, rows, n_heads * d_head));
            let heads = heads(n_heads, d_head);
            let edits: Vec<CellEdits> = lengths.iter().map(|&pos| random_cell_edits(random, n_heads, pos)).collect();
            for keep_pattern in [true, false] {
                let (got, want) = on_every_backend!(|backend| {
                    let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
                    let output = backend.edited_attention([&q, &k, &v], heads, &prompts, keep_pattern, &edits).unwrap();
                    let on_host = |lazy: LazyArray<Ix3>| lazy.compute().unwrap().into_owned();
                    let pattern: Vec<Array3<f32>> = output.pattern.into_iter().map(on_host).collect();
                    (download(backend, &output.z), pattern)
                });
                for (z, pattern) in got {
                    assert_close(z.view(), want.0.view(), 1.0, &what);
                    assert_eq!(pattern.len(), if keep_pattern { prompts.len() } else { 0 }, "{what}");
                    for (got, want) in pattern.iter().zip(&want.1) {
                        assert_close(got.view(), want.view(), 1.0, &what);
                    }
                }
            }
        }
    }
}

/// Without edits, the bits are those of attention.
#[test]
fn attention_with_an_empty_list_of_edits_is_attention() {
    let random = &mut random();
    let (prompts, rows) = consecutive_rows(&[70, 1, 129, 70]);
    let qkv = [(); 3].map(|()| 4.0 * matrix(random, rows, 60));
    let (got, _) = on_every_backend!(|backend| {
        let [q, k, v] = [0, 1, 2].map(|index| upload(backend, &qkv[index]));
        let plain = backend.attention([&q, &k, &v], heads(3, 20), &prompts, false).unwrap();
        let edits = vec![CellEdits::default(); prompts.len()];
        let edited = backend.edited_attention([&q, &k, &v], heads(3, 20), &prompts, false, &edits).unwrap();
        [plain, edited].map(|output| download(backend, &output.z))
    });
    got.into_iter().for_each(|[plain, edited]| assert_eq!(edited, plain));
}

/// Query 1 of 2 has the scores [2, 6]; queries and keys as in `attention_of_two_positions`.
#[test]
fn edits_of_two_positions() {
    let [q, k, v] = [[1.0, 2.0], [1.0, 3.0], [10.0, 20.0]].map(|x| ndarray::arr2(&[x]).reversed_axes()); // [pos, 1]
    let one = |x: f32| Array2::from_elem((1, 1), x);
    let run = |scores: &[Block], pattern: &[Block]| {
        let edits = [CellEdits { scores: by_row(scores), pattern: by_row(pattern) }];
        let (got, dfdx) = on_every_backend!(|backend| {
            let [q, k, v] = [&q, &k, &v].map(|x| upload(backend, x));
            let all = 0..2;
            let output =
                backend.edited_attention([&q, &k, &v], heads(1, 1), std::slice::from_ref(&all), true, &edits).unwrap();
            let pattern = output.pattern[0].compute().unwrap().into_owned();
            (pattern.index_axis(ndarray::Axis(0), 0).to_owned(), download(backend, &output.z))
        });
        got.into_iter().chain([dfdx]).collect::<Vec<_>>()
    };
    let block = |rows: &[usize], columns: &[usize], change, x| Block {
        rows: rows.to_vec(),
        columns: columns.to_vec(),
        change,
        values: one(x),
    };
    // A knocked out cell, then a row of −∞.
    for (pattern, z) in run(&[block(&[1], &[1], Change::Set, f32::NEG_INFINITY)], &[]) {
        assert_eq!(pattern, ndarray::arr2(&[[1.0, 0.0], [1.0, 0.0]]));
        assert_eq!(z, ndarray::arr2(&[[10.0], [10.0]]));
    }
    for (pattern, z) in run(&[Block::mask_row(0, 2), block(&[0, 1], &[0], Change::Scale, 3.0)], &[]) {
        assert_eq!(pattern.row(0).to_vec(), [0.0, 0.0]);
        assert_eq!(z[[0, 0]], 0.0);
        // [6, 6] after the scale.
        assert_close(pattern.row(1), ndarray::arr1(&[0.5, 0.5]).view(), 1.0, "equal scores");
    }
    // Cells with key > query stay masked, and the pattern is not renormalized.
    for (pattern, z) in run(&[], &[block(&[0, 1], &[0, 1], Change::Set, 0.25)]) {
        assert_eq!(pattern, ndarray::arr2(&[[0.25, 0.0], [0.25, 0.25]]));
        assert_eq!(z.slice(s![.., 0]).to_vec(), [2.5, 7.5]);
    }
}
