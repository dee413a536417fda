//! Circuits: factored matrices against dense ones, invariance under refactoring, composition, top entries.

use attention_tokens::prelude::*;
use attention_tokens::{CompositionScores, MatrixEntry};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView2, Axis, arr2, s};

use crate::support::{assert_close, demo, fixture, load};

/// Uniform random numbers between −0.5 and 0.5. Shape: → `[rows, columns]`.
fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    Array2::from_shape_simple_fn((rows, columns), || random.f32() - 0.5)
}

fn factored(ldim: usize, mdim: usize, rdim: usize) -> FactoredMatrix {
    FactoredMatrix::new(noise(ldim, mdim, 1), noise(mdim, rdim, 2)).unwrap()
}

/// Shape: → the same.
fn nalgebra(x: ArrayView2<f32>) -> DMatrix<f64> {
    DMatrix::from_fn(x.nrows(), x.ncols(), |row, column| f64::from(x[[row, column]]))
}

/// A product in `f64`. Shape: `[m, k]`, `[k, n]` → `[m, n]`.
fn dot(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f64> {
    a.mapv(f64::from).dot(&b.mapv(f64::from))
}

/// `A M` and `M⁻¹ B`: the same matrix with other factors. Shape: → the same.
fn refactored(matrix: &FactoredMatrix) -> FactoredMatrix {
    let n = matrix.mdim();
    // Far from singular, so that rounding the factors to `f32` changes little.
    let m = nalgebra((noise(n, n, 3) * 0.5 + Array2::<f32>::eye(n) * 2.0).view());
    let inverse = m.clone().try_inverse().unwrap();
    let rounded = |x: DMatrix<f64>| Array2::from_shape_fn(x.shape(), |at| x[at] as f32);
    let a = rounded(nalgebra(matrix.a().view()) * m);
    FactoredMatrix::new(a, rounded(inverse * nalgebra(matrix.b().view()))).unwrap()
}

#[test]
fn refactoring_changes_nothing() {
    let model = demo();
    for matrix in [factored(40, 6, 40), factored(5, 8, 5), model.ov(1, 3).unwrap(), model.qk(2, 5).unwrap()] {
        let other = refactored(&matrix);
        assert!(matrix.a() != other.a());
        assert_close(&other.to_dense().unwrap(), &matrix.to_dense().unwrap(), 1e-5);
        let (got, want) = (other.svd().unwrap(), matrix.svd().unwrap());
        assert_close(&got.s, &want.s, 1e-5);
        // Vectors of neighbouring singular values may turn into each other, so the product is compared.
        assert_close(&(&got.u * &got.s).dot(&got.v.t()), &(&want.u * &want.s).dot(&want.v.t()), 1e-5);
        assert_close(&[other.norm().unwrap()], &[matrix.norm().unwrap()], 1e-5);
        let (got, want) = (other.eigenvalues().unwrap(), matrix.eigenvalues().unwrap());
        assert_close(&[got.copying_score()], &[want.copying_score()], 2e-4);
        assert_close(&got.abs(), &want.abs(), 2e-4);
        assert_close(&other.make_even().unwrap().to_dense().unwrap(), &matrix.to_dense().unwrap(), 1e-5);
        let places = |matrix: &FactoredMatrix| {
            matrix.top_entries(3).unwrap().into_iter().map(|entry| (entry.row, entry.column)).collect::<Vec<_>>()
        };
        assert_eq!(places(&other), places(&matrix));
    }
}

#[test]
fn decompositions_are_those_of_the_dense_matrix() {
    // The inner dimension is the smallest, the largest, between; and a rank below all three.
    let mut deficient = factored(12, 5, 9);
    let (mut a, b) = (deficient.a().clone(), deficient.b().clone());
    let first = a.column(0).to_owned();
    a.column_mut(3).assign(&first);
    deficient = FactoredMatrix::new(a, b).unwrap();
    for matrix in
        [factored(20, 4, 30), factored(7, 20, 9), factored(9, 20, 7), factored(6, 8, 30), factored(1, 1, 1), deficient]
    {
        let dense = matrix.to_dense().unwrap();
        let want = nalgebra(dense.view()).svd(true, true);
        let svd = matrix.svd().unwrap();
        let rank = matrix.ldim().min(matrix.mdim()).min(matrix.rdim());
        assert_eq!((svd.u.dim(), svd.s.len(), svd.v.dim()), ((matrix.ldim(), rank), rank, (matrix.rdim(), rank)));
        let singular_values: Vec<f32> = want.singular_values.iter().map(|&s| s as f32).take(rank).collect();
        assert_close(&svd.s, &singular_values, 1e-5);
        assert_close(&(&svd.u * &svd.s).dot(&svd.v.t()), &dense, 1e-5);
        let norm = dense.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
        assert_close(&[matrix.norm().unwrap()], &[norm], 1e-5);
        let squares = |x: Array2<f32>| (x.iter().map(|x| x * x).sum::<f32>()).sqrt();
        assert_close(&[squares(matrix.collapse_l().unwrap()), squares(matrix.collapse_r().unwrap())], &[norm; 2], 1e-5);
        let even = matrix.make_even().unwrap();
        assert_close(&even.to_dense().unwrap(), &dense, 1e-5);
        let half = |x: Array2<f32>| x.iter().map(|x| x * x).sum::<f32>(); // the sum of all singular values
        assert_close(&[half(even.a().clone())], &[half(even.b().clone())], 1e-4);
    }
    let empty = FactoredMatrix::new(Array2::zeros((3, 0)), Array2::zeros((0, 3))).unwrap();
    assert_eq!(
        (empty.svd().unwrap().s.len(), empty.norm().unwrap(), empty.eigenvalues().unwrap().re.len()),
        (0, 0.0, 0)
    );
}

#[test]
fn eigenvalues_of_known_matrices() {
    // A quarter turn times 2 has the eigenvalues ±2i; then 3 and −1.
    let mut turn = Array2::<f32>::zeros((4, 4));
    turn.slice_mut(s![..2, ..2]).assign(&arr2(&[[0.0, -2.0], [2.0, 0.0]]));
    (turn[[2, 2]], turn[[3, 3]]) = (3.0, -1.0);
    let values = FactoredMatrix::new(turn.clone(), Array2::eye(4)).unwrap().eigenvalues().unwrap();
    assert_close(&values.re, &[3.0, 0.0, 0.0, -1.0], 1e-6);
    assert_close(&values.im, &[0.0, 2.0, -2.0, 0.0], 1e-6);
    assert_close(&[values.copying_score()], &[2.0 / 8.0], 1e-6);

    // Against those of the dense matrix, whose further eigenvalues are zero.
    let matrix = factored(30, 7, 30);
    let mut want: Vec<f32> =
        nalgebra(matrix.to_dense().unwrap().view()).complex_eigenvalues().iter().map(|x| x.norm() as f32).collect();
    want.sort_by(|a, b| b.total_cmp(a));
    assert_close(&matrix.eigenvalues().unwrap().abs(), &want[..7], 1e-5);
    // Copying and its opposite.
    let a = noise(20, 5, 4);
    let copies = FactoredMatrix::new(a.clone(), a.t().to_owned()).unwrap();
    assert_close(&[copies.eigenvalues().unwrap().copying_score()], &[1.0], 1e-6);
    assert_close(&[copies.scale(-2.0).eigenvalues().unwrap().copying_score()], &[-1.0], 1e-6);
    let zero = FactoredMatrix::new(Array2::zeros((3, 2)), Array2::zeros((2, 3))).unwrap();
    assert_eq!(zero.eigenvalues().unwrap().copying_score(), 0.0);
}

#[test]
fn products_and_parts_are_those_of_the_dense_matrix() {
    for matrix in [factored(9, 3, 11), factored(3, 10, 4)] {
        let dense = matrix.to_dense().unwrap();
        assert_close(&matrix.transpose().to_dense().unwrap(), dense.t(), 1e-6);
        assert_close(&matrix.scale(-2.5).to_dense().unwrap(), &(&dense * -2.5), 1e-6);
        let (right, left) = (noise(matrix.rdim(), 6, 5), noise(6, matrix.ldim(), 6));
        let product = matrix.matmul(&right).unwrap();
        assert_close(&product.to_dense().unwrap(), &dense.dot(&right), 1e-5);
        assert_close(&matrix.rmatmul(&left).unwrap().to_dense().unwrap(), &left.dot(&dense), 1e-5);
        for mdim in [2, 12] {
            let other = FactoredMatrix::new(noise(matrix.rdim(), mdim, 7), noise(mdim, 5, 8)).unwrap();
            let product = matrix.matmul_factored(&other).unwrap();
            assert_eq!(product.mdim(), mdim.min(matrix.mdim()));
            assert_close(&product.to_dense().unwrap(), &dense.dot(&other.to_dense().unwrap()), 1e-5);
        }
        let (x, y): (Array1<f32>, Array1<f32>) = (right.column(0).to_owned(), left.row(0).to_owned());
        assert_close(&matrix.matmul_vector(&x).unwrap(), &dense.dot(&x), 1e-5);
        assert_close(&matrix.rmatmul_vector(&y).unwrap(), &y.dot(&dense), 1e-5);
        assert_close(&[matrix.get(2, 1).unwrap()], &[dense[[2, 1]]], 1e-6);
        assert_close(&matrix.row(2).unwrap(), dense.row(2), 1e-6);
        assert_close(&matrix.column(3).unwrap(), dense.column(3), 1e-6);
        assert_close(
            &matrix.select_rows(&[2, 0, 2]).unwrap().to_dense().unwrap(),
            &dense.select(Axis(0), &[2, 0, 2]),
            1e-6,
        );
        assert_close(&matrix.select_columns(&[1]).unwrap().to_dense().unwrap(), dense.slice(s![.., 1..2]), 1e-6);
        assert_close(&matrix.get_corner(2), dense.slice(s![..2, ..2]), 1e-6);
        assert_eq!(matrix.get_corner(100).dim(), dense.dim());
    }
    assert_close(&factored(4, 2, 4).ba().unwrap(), &factored(4, 2, 4).b().dot(factored(4, 2, 4).a()), 1e-6);
    assert_eq!(format!("{:?}", factored(9, 3, 11)), "FactoredMatrix(9 × 3 × 11)");
}

#[test]
fn full_circuits_are_the_products_of_the_weights() {
    for processing in [Processing::default(), Processing::none()] {
        let options = LoadOptions::default().processing(processing);
        let model = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), options).unwrap();
        let weights = model.weights().unwrap();
        let (layer, head) = (2, 1);
        let block = &weights.blocks[layer];
        let of_head = |w: &ndarray::Array3<f32>| w.index_axis(Axis(0), head).to_owned();
        let [w_q, w_k, w_v, w_o] = [&block.w_q, &block.w_k, &block.w_v, &block.w_o].map(of_head);
        assert_eq!((model.w_q(layer, head).unwrap(), model.w_k(layer, head).unwrap()), (w_q.clone(), w_k.clone()));
        let rounded = |x: Array2<f64>| x.mapv(|x| x as f32);
        assert_close(&model.qk(layer, head).unwrap().to_dense().unwrap(), &rounded(dot(w_q.view(), w_k.t())), 1e-6);
        assert_close(&model.ov(layer, head).unwrap().to_dense().unwrap(), &rounded(dot(w_v.view(), w_o.view())), 1e-6);
        let w_e = weights.w_e.mapv(f64::from);
        let scores = w_e.dot(&dot(w_q.view(), w_k.t())).dot(&w_e.t()) / (model.config().d_head as f64).sqrt();
        let logits = w_e.dot(&dot(w_v.view(), w_o.view())).dot(&weights.w_u.mapv(f64::from));
        for (circuit, want) in [
            (model.full_qk(layer, head).unwrap(), rounded(scores)),
            (model.full_ov(layer, head).unwrap(), rounded(logits)),
        ] {
            assert_close(&circuit.matrix.to_dense().unwrap(), &want, 1e-5);
            let mut sorted: Vec<((usize, usize), f32)> = want.indexed_iter().map(|(at, &x)| (at, x)).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let at =
                |entries: &[MatrixEntry]| entries.iter().map(|entry| (entry.row, entry.column)).collect::<Vec<_>>();
            let top = circuit.top_entries(5).unwrap();
            assert_eq!(at(&top.entries), sorted[..5].iter().map(|&(at, _)| at).collect::<Vec<_>>());
            let bottom = circuit.bottom_entries(5).unwrap();
            assert_eq!(at(&bottom.entries), sorted.iter().rev().take(5).map(|&(at, _)| at).collect::<Vec<_>>());
            assert_close(&[bottom.entries[0].value], &[sorted[sorted.len() - 1].1], 1e-5);
            let text = top.table().to_text();
            assert!(
                text.contains("circuit of head 2.1") && text.contains(&format!("#{}", top.entries[0].row)),
                "{text}"
            );
        }
    }
}

/// In a vocabulary of 50,257 tokens: no entry of some hundred rows is larger than the entries found.
#[test]
fn top_entries_over_the_whole_vocabulary() {
    let model = demo();
    let circuit = model.full_ov(3, 0).unwrap();
    assert!(matches!(circuit.matrix.to_dense(), Err(Error::Count { .. })));
    let top = circuit.top_entries(10).unwrap();
    let least = top.entries[9].value;
    for entry in &top.entries {
        assert_close(&[circuit.matrix.get(entry.row, entry.column).unwrap()], &[entry.value], 1e-5);
    }
    let rows: Vec<usize> = (0..50_257).step_by(400).chain(top.entries.iter().map(|entry| entry.row)).collect();
    let dense = circuit.matrix.select_rows(&rows).unwrap().to_dense().unwrap();
    for (&row, values) in rows.iter().zip(dense.rows()) {
        for (column, &value) in values.iter().enumerate().filter(|(_, value)| **value > least * (1.0 + 1e-5)) {
            assert!(
                top.entries.iter().any(|entry| (entry.row, entry.column) == (row, column)),
                "{row} {column} {value}"
            );
        }
    }
    let label = model.to_single_str_token(top.entries[0].column as u32).unwrap();
    assert!(top.table().to_text().contains(&label.replace(' ', "␣")));
}

/// The composition score of two heads from matrices that are multiplied out.
fn dense_score(model: &Gpt2, mode: Composition, [layer, head, later, later_head]: [usize; 4]) -> f64 {
    let dense = |matrix: FactoredMatrix| dot(matrix.a().view(), matrix.b().view());
    let writes = dense(model.ov(layer, head).unwrap());
    let reads = dense(match mode {
        Composition::Q => model.qk(later, later_head).unwrap(),
        Composition::K => model.qk(later, later_head).unwrap().transpose(),
        Composition::V => model.ov(later, later_head).unwrap(),
    });
    let norm = |x: &Array2<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    norm(&writes.dot(&reads)) / (norm(&writes) * norm(&reads))
}

#[test]
fn composition_scores_are_those_of_dense_matrices() {
    for processing in [Processing::default(), Processing::none()] {
        let options = LoadOptions::default().processing(processing);
        let model = Gpt2::from_pretrained(fixture("odd").to_string_lossy(), options).unwrap();
        for mode in [Composition::Q, Composition::K, Composition::V] {
            let CompositionScores { scores, .. } = model.all_composition_scores(mode).unwrap();
            assert_eq!(scores.dim(), (3, 2, 3, 2));
            for ((layer, head, later, later_head), &score) in scores.indexed_iter() {
                let want = match layer < later {
                    true => dense_score(&model, mode, [layer, head, later, later_head]),
                    false => 0.0,
                };
                assert!(
                    (f64::from(score) - want).abs() < 1e-6,
                    "{mode} {layer}.{head} {later}.{later_head}: {score} {want}"
                );
            }
        }
    }
}

/// Random weights compose as random matrices do; a trained model has pairs that stand out.
#[test]
fn random_weights_score_as_the_baseline() {
    let random = load(&fixture("odd")).unwrap().all_composition_scores(Composition::K).unwrap();
    let expected = 1.0 / (40.0_f32).sqrt(); // d_model = 40
    assert!((random.baseline.mean / expected - 1.0).abs() < 0.5, "{:?}", random.baseline);
    let later = random.scores.indexed_iter().filter(|((layer, _, later, _), _)| layer < later);
    let scores: Vec<f32> = later.map(|(_, &score)| score).collect();
    let mean = scores.iter().sum::<f32>() / scores.len() as f32;
    assert!((mean - random.baseline.mean).abs() < 3.0 * random.baseline.std, "{mean} {:?}", random.baseline);

    let model = demo();
    let trained = model.all_composition_scores(Composition::K).unwrap();
    let largest = trained.scores.iter().fold(0.0_f32, |largest, &x| largest.max(x));
    assert!(largest > trained.baseline.mean + 10.0 * trained.baseline.std, "{largest} {:?}", trained.baseline);
    assert_eq!(model.random_composition(32, 0).unwrap(), trained.baseline);
    assert!(model.random_composition(32, 1).unwrap() != trained.baseline);
    assert_eq!(trained.table(3).rows().len(), 3);
    let figure: serde_json::Value = serde_json::from_str(&trained.plot().to_json()).unwrap();
    assert_eq!(figure["data"][0]["z"].as_array().unwrap().len(), 32);
    assert!(trained.plot_layers(0, 1).unwrap().to_svg().unwrap().contains("0.7"));
}

#[test]
fn errors_name_what_does_not_fit() {
    let matrix = factored(4, 2, 5);
    let mut broken = noise(4, 2, 1);
    broken[[3, 1]] = f32::NAN;
    let broken = FactoredMatrix::new(broken, noise(2, 4, 2)).unwrap();
    let model = demo();
    let ones = Array1::<f32>::ones(3);
    let texts = [
        FactoredMatrix::new(noise(4, 2, 1), noise(3, 5, 2)).map(drop),
        matrix.matmul(&noise(4, 2, 1)).map(drop),
        matrix.rmatmul(&noise(4, 2, 1)).map(drop),
        matrix.matmul_factored(&matrix).map(drop),
        matrix.matmul_vector(&ones).map(drop),
        matrix.rmatmul_vector(&ones).map(drop),
        matrix.eigenvalues().map(drop),
        matrix.get(4, 0).map(drop),
        matrix.select_columns(&[1, 5]).map(drop),
        matrix.top_entries(0).map(drop),
        broken.svd().map(drop),
        broken.norm().map(drop),
        broken.eigenvalues().map(drop),
        broken.top_entries(1).map(drop),
        model.qk(4, 0).map(drop),
        model.full_ov(0, 8).map(drop),
        model.random_composition(0, 0).map(drop),
        model.all_composition_scores(Composition::Q).unwrap().plot_layers(0, 4).map(drop),
    ]
    .map(|result| result.unwrap_err().to_string());
    let nan = ["NaN in row 3, column 1", "left"];
    let parts = [
        ["[2, 5]", "[3, 5]"],
        ["[5, 2]", "[4, 2]"],
        ["[4, 4]", "[4, 2]"],
        ["[5, 5]", "[4, 5]"],
        ["[5]", "[3]"],
        ["[4]", "[3]"],
        ["[4, 4]", "[4, 5]"],
        ["row 4", "0 to 3"],
        ["column 5", "0 to 4"],
        ["k", "found 0"],
        nan,
        nan,
        nan,
        nan,
        ["layer 4", "0 to 3"],
        ["head 8", "0 to 7"],
        ["n_samples", "found 0"],
        ["layer 4", "0 to 3"],
    ];
    for (text, parts) in texts.iter().zip(parts) {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}: {parts:?}");
    }
}
