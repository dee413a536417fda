//! Readings of a head: against plain `f64`, in other bases of its weights, and on every backend.

use attention_tokens::ndarray::{Array1, Array2, Axis, Ix2, Ix3, s};
use attention_tokens::prelude::*;
use attention_tokens::{Basis, Signs};
use nalgebra::{DMatrix, SymmetricEigen};

use super::support::{Folder, bytes, fixture, floats, prompts, rng};

const SMALL: [&str; 2] = ["tiny", "odd"];

/// A fixture's model on a device.
fn load(name: &str, options: LoadOptions) -> Gpt2 {
    Gpt2::from_pretrained(fixture(name).to_str().unwrap(), options).unwrap()
}

/// Every projection, with and without the bias, normalized and not, and some in another basis.
fn readings() -> Vec<Reading> {
    let mut readings = Vec::new();
    for projection in Projection::ALL {
        for (unembed_bias, normalized) in [(true, false), (true, true), (false, false), (false, true)] {
            readings.push(Reading::from(projection).unembed_bias(unembed_bias).normalized(normalized));
        }
        readings.push(Reading::from(projection).basis(Basis::Reordered(3)));
        readings.push(Reading::from(projection).signs(Signs::Random(4)).unembed_bias(false));
    }
    readings
}

/// The head of one prompt in `f64`: everything that a reading takes.
struct PlainHead {
    q: Array2<f64>,
    k: Array2<f64>,
    v: Array2<f64>,
    attn: Array2<f64>,
    w_v: Array2<f64>,
    w_o: Array2<f64>,
    w_u: Array2<f64>,
    b_u: Array1<f64>,
    /// The coefficients of queries and keys along the singular vectors, and the vectors without the bias's entry.
    matched: (Array2<f64>, Array2<f64>, Array2<f64>),
}

impl PlainHead {
    fn new(model: &Gpt2, cache: &ActivationCache, layer: usize, head: usize) -> Self {
        let weights = model.weights().unwrap();
        let block = &weights.blocks[layer];
        let of_head = |activation| {
            let all = cache.get(activation, layer).unwrap().into_dimensionality::<Ix3>().unwrap();
            all.index_axis_move(Axis(1), head).mapv(f64::from)
        };
        let pattern = cache.get(Activation::Pattern, layer).unwrap().into_dimensionality::<Ix3>().unwrap();
        // The input of the head's weights, with a 1 for the bias.
        let resid = cache.get(Activation::ResidPre, layer).unwrap().into_dimensionality::<Ix2>().unwrap();
        let mut x = resid.mapv(f64::from);
        for mut row in x.outer_iter_mut() {
            let mean = row.mean().unwrap();
            let variance = row.mapv(|x| (x - mean).powi(2)).mean().unwrap();
            row.mapv_inplace(|x| (x - mean) / (variance + 1e-5).sqrt());
            if let Some(ln) = &block.ln1 {
                row.zip_mut_with(&ln.w, |x, w| *x *= f64::from(*w));
                row.zip_mut_with(&ln.b, |x, b| *x += f64::from(*b));
            }
        }
        x.push_column(Array1::ones(x.nrows()).view()).unwrap();
        let with_bias = |w: &attention_tokens::ndarray::Array3<f32>, b: &Array2<f32>| {
            let mut w = w.index_axis(Axis(0), head).mapv(f64::from);
            w.push_row(b.row(head).mapv(f64::from).view()).unwrap();
            w
        };
        let (a, b) = (with_bias(&block.w_q, &block.b_q), with_bias(&block.w_k, &block.b_k));
        let circuit = a.dot(&b.t()); // [d_model + 1, d_model + 1]
        let gram = circuit.t().dot(&circuit);
        let eigen = SymmetricEigen::new(DMatrix::from_fn(gram.nrows(), gram.ncols(), |i, j| gram[[i, j]]));
        let mut order: Vec<usize> = (0..gram.nrows()).collect();
        order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
        order.truncate(a.ncols());
        let largest = eigen.eigenvalues[order[0]];
        order.retain(|&i| eigen.eigenvalues[i] > 1e-12 * largest);
        let directions = Array2::from_shape_fn((gram.nrows(), order.len()), |(i, a)| eigen.eigenvectors[(i, order[a])]);
        let s: Array1<f64> = order.iter().map(|&i| eigen.eigenvalues[i].sqrt()).collect();
        let of_queries = x.dot(&circuit).dot(&directions); // x U S
        let of_keys = x.dot(&directions); // x V
        let d_model = model.config().d_model;
        let matched = (
            of_queries / &s.mapv(f64::sqrt),
            of_keys * &s.mapv(f64::sqrt),
            directions.slice(s![..d_model, ..]).t().to_owned() / &s.mapv(f64::sqrt).insert_axis(Axis(1)),
        );
        Self {
            q: of_head(Activation::Q),
            k: of_head(Activation::K),
            v: of_head(Activation::V),
            attn: pattern.index_axis(Axis(0), head).mapv(f64::from),
            w_v: block.w_v.index_axis(Axis(0), head).mapv(f64::from),
            w_o: block.w_o.index_axis(Axis(0), head).mapv(f64::from),
            w_u: weights.w_u.mapv(f64::from),
            b_u: weights.b_u.mapv(f64::from),
            matched,
        }
    }

    /// What `vector` of a projection writes to the residual stream.
    fn project(&self, projection: Projection, c: &Array1<f64>) -> Array1<f64> {
        match projection {
            Projection::Notebook => self.w_v.dot(c) * self.w_o.sum_axis(Axis(0)),
            Projection::Output => c.dot(&self.w_o),
            Projection::Ov => self.w_v.dot(c).dot(&self.w_v).dot(&self.w_o),
            _ => unreachable!("these have vectors of their own"),
        }
    }

    fn matched(&self, coefficients: &Array1<f64>) -> Array1<f64> {
        coefficients.dot(&self.matched.2).dot(&self.w_v).dot(&self.w_o)
    }

    fn cell(&self, projection: Projection, query: usize, key: usize) -> Array1<f64> {
        match projection {
            Projection::Matched => {
                let (q, k, _) = &self.matched;
                self.matched(&(&q.row(query) * &k.row(key) * k.row(key)))
            }
            Projection::Written => self.v.row(key).dot(&self.w_o) * self.attn[[query, key]],
            _ => self.project(projection, &(&self.q.row(query) * &self.k.row(key))),
        }
    }

    /// The vectors of a position's query, key and value.
    fn position(&self, projection: Projection, pos: usize) -> [Array1<f64>; 3] {
        if projection.depends_on_basis() {
            return [&self.q, &self.k, &self.v].map(|x| self.project(projection, &x.row(pos).to_owned()));
        }
        let (q, k, _) = &self.matched;
        [self.matched(&q.row(pos).to_owned()), self.matched(&k.row(pos).to_owned()), self.v.row(pos).dot(&self.w_o)]
    }

    fn logits(&self, reading: Reading, mut r: Array1<f64>) -> Array1<f64> {
        if reading.normalized {
            let mean = r.mean().unwrap();
            r -= mean;
            let variance = r.mapv(|x| x * x).mean().unwrap();
            r /= variance.sqrt();
        }
        let logits = r.dot(&self.w_u);
        if reading.unembed_bias { logits + &self.b_u } else { logits }
    }
}

/// Asserts that a token has the highest logit within rounding, or the lowest, and that its logit is the stated one. Returns
/// whether the token is certain.
fn check(logits: &Array1<f64>, token: u32, logit: f32, margin: f32, sign: f64, what: &str) -> bool {
    let logits = logits * sign;
    let scale = logits.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let tolerance = 1e-4 * scale;
    let own = logits[token as usize];
    assert!((own - sign * f64::from(logit)).abs() < tolerance, "{what}: logit {logit}, not {}", own * sign);
    assert!(sorted[0] - own < tolerance, "{what}: token {token} of logit {own}, the best is {}", sorted[0]);
    assert!((sorted[0] - sorted[1] - f64::from(margin)).abs() < 2.0 * tolerance, "{what}: margin {margin}");
    sorted[0] - sorted[1] > 2.0 * tolerance
}

#[test]
fn readings_agree_with_plain_f64() {
    let mut rng = rng();
    for name in SMALL {
        for options in [LoadOptions::default(), LoadOptions::default().no_processing()] {
            let model = load(name, options);
            let prompt = prompts(&mut rng, &model, 1, 9).remove(0);
            let (_, cache) = model.run_with_cache(prompt).unwrap();
            let (layer, head) = (rng.usize(..model.config().n_layers), rng.usize(..model.config().n_heads));
            let plain = PlainHead::new(&model, &cache, layer, head);
            let (mut certain, mut all) = (0, 0);
            for reading in readings().into_iter().filter(|reading| {
                let as_loaded = reading.basis == Basis::AsLoaded && reading.signs == Signs::AsLoaded;
                as_loaded || !reading.projection.depends_on_basis()
            }) {
                let options = DecodeOptions::from(reading);
                let data = head_data(&model, &cache, layer, head, options).unwrap().prompt(0).unwrap();
                assert_eq!(data.lowest.is_some(), reading.projection == Projection::Written);
                for query in 0..data.n_pos() {
                    for key in 0..=query {
                        let what = format!("{name} {layer}.{head}, {reading}, query {query}, key {key}");
                        let logits = plain.logits(reading, plain.cell(reading.projection, query, key));
                        let row = data.cell(query, key).unwrap();
                        let top = &data.qk;
                        let (token, logit) = (top.tokens[[row, 0]], top.logits[[row, 0]]);
                        certain += usize::from(check(&logits, token, logit, top.margin[row], 1.0, &what));
                        all += 1;
                        if let Some(top) = &data.lowest {
                            let (token, logit) = (top.tokens[[row, 0]], top.logits[[row, 0]]);
                            check(&logits, token, logit, top.margin[row], -1.0, &format!("{what}, lowest"));
                        }
                    }
                    let vectors = plain.position(reading.projection, query);
                    for (top, r) in [&data.q, &data.k, &data.v].into_iter().zip(vectors) {
                        let what = format!("{name} {layer}.{head}, {reading}, position {query}");
                        let logits = plain.logits(reading, r);
                        check(&logits, top.tokens[[query, 0]], top.logits[[query, 0]], top.margin[query], 1.0, &what);
                    }
                }
            }
            assert!(certain * 10 > all * 9, "{certain} of {all} cells have a margin above rounding");
        }
    }
}

/// Signs, an order and an invertible matrix of moderate condition, and its inverse. Shape: → each `[n, n]`.
fn invertible(rng: &mut fastrand::Rng, n: usize) -> (DMatrix<f64>, DMatrix<f64>) {
    let mut order: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut order);
    let signs: Vec<f64> = (0..n).map(|_| if rng.bool() { -1.0 } else { 1.0 }).collect();
    let size = 0.6 / (n as f64).sqrt();
    let m = DMatrix::from_fn(n, n, |row, column| {
        signs[column] * f64::from(u8::from(order[column] == row)) + size * (2.0 * rng.f64() - 1.0)
    });
    let inverse = m.clone().try_inverse().unwrap();
    (m, inverse)
}

/// Changes the basis of every head's queries and keys, and that of its values, in the files of a model.
fn change_basis(folder: &Folder, prefix: &str, [n_layers, n_heads, d_model]: [usize; 3], rng: &mut fastrand::Rng) {
    let d_head = d_model / n_heads;
    folder.edit(|tensors| {
        for layer in 0..n_layers {
            let part = |name: &str, rows: usize| {
                let (_, _, data) = &tensors[&format!("{prefix}h.{layer}.attn.{name}")];
                let values: Vec<f64> = floats(data).into_iter().map(f64::from).collect();
                let columns = values.len() / rows;
                DMatrix::from_row_slice(rows, columns, &values)
            };
            let mut qkv = part("c_attn.weight", d_model);
            let mut biases = part("c_attn.bias", 1);
            let mut output = part("c_proj.weight", d_model);
            for head in 0..n_heads {
                let (m, m_inverse) = invertible(rng, d_head);
                let (n, n_inverse) = invertible(rng, d_head);
                for (third, change) in [&m, &m_inverse.transpose(), &n].into_iter().enumerate() {
                    let first = third * d_model + head * d_head;
                    for x in [&mut qkv, &mut biases] {
                        let changed = x.columns(first, d_head) * change;
                        x.columns_mut(first, d_head).copy_from(&changed);
                    }
                }
                let changed = n_inverse * output.rows(head * d_head, d_head);
                output.rows_mut(head * d_head, d_head).copy_from(&changed);
            }
            for (name, values) in [("c_attn.weight", qkv), ("c_attn.bias", biases), ("c_proj.weight", output)] {
                let tensor = tensors.get_mut(&format!("{prefix}h.{layer}.attn.{name}")).unwrap();
                let row_by_row: Vec<f32> = values.transpose().iter().map(|&x| x as f32).collect();
                tensor.2 = bytes(&row_by_row);
            }
        }
    });
}

/// The share of cells, and of position tokens, that differ although both margins are above rounding; and the share of those.
fn changed(a: &[HeadData], b: &[HeadData]) -> (f64, f64) {
    let (mut different, mut certain, mut all) = (0, 0, 0);
    for (a, b) in a.iter().zip(b).flat_map(|(a, b)| a.prompts.iter().zip(&b.prompts)) {
        let lowest = a.lowest.iter().zip(&b.lowest);
        for (a, b) in [(&a.qk, &b.qk), (&a.q, &b.q), (&a.k, &b.k), (&a.v, &b.v)].into_iter().chain(lowest) {
            for row in 0..a.margin.len() {
                let scale = a.logits[[row, 0]].abs().max(b.logits[[row, 0]].abs());
                all += 1;
                if a.margin[row].min(b.margin[row]) > 2e-3 * scale {
                    certain += 1;
                    different += usize::from(a.tokens[[row, 0]] != b.tokens[[row, 0]]);
                }
            }
        }
    }
    (f64::from(different as u32) / f64::from(certain as u32), f64::from(certain as u32) / f64::from(all as u32))
}

#[test]
fn no_change_of_basis_changes_a_token_of_the_matched_and_the_written_reading() {
    let mut rng = rng();
    for (name, prefix) in SMALL.into_iter().zip(["", "transformer."]) {
        let original = load(name, LoadOptions::default());
        let config = original.config().clone();
        let folder = Folder::copy_of(name);
        change_basis(&folder, prefix, [config.n_layers, config.n_heads, config.d_model], &mut rng);
        for processing in [Processing::none(), Processing::default()] {
            let options = LoadOptions::default().processing(processing);
            let before = load(name, options.clone());
            let after = Gpt2::from_pretrained(folder.path().to_str().unwrap(), options).unwrap();
            let prompts = prompts(&mut rng, &before, 3, 12);
            let caches = [&before, &after].map(|model| model.run_with_cache(prompts.clone()).unwrap().1);
            let decoded = |reading: Reading| {
                let of = |(model, cache)| all_heads_data(model, cache, reading.into()).unwrap();
                let [a, b] = [(&before, &caches[0]), (&after, &caches[1])].map(of);
                changed(&a, &b)
            };
            for reading in readings().into_iter().filter(|reading| !reading.projection.depends_on_basis()) {
                let (different, certain) = decoded(reading);
                assert!(certain > 0.8, "{name}, {reading}: {certain} of the margins are above rounding");
                assert_eq!(different, 0.0, "{name}, {reading}, {processing:?}");
            }
            if processing == Processing::none() {
                // The control: the other projections read other tokens.
                for projection in [Projection::Notebook, Projection::Output, Projection::Ov] {
                    let (different, _) = decoded(projection.into());
                    assert!(different > 0.2, "{name}, {projection:?}: {different}");
                }
            }
        }
    }
}

#[test]
fn backends_agree_on_every_reading() {
    let mut rng = rng();
    for name in SMALL {
        for options in [LoadOptions::default(), LoadOptions::default().no_processing()] {
            let cpu = load(name, options.clone());
            let dfdx = load(name, options.device(Device::dfdx_cpu()));
            let prompts = prompts(&mut rng, &cpu, 3, 17);
            let (_, cache) = cpu.run_with_cache(prompts).unwrap();
            for reading in readings() {
                let decode = |model: &Gpt2| {
                    all_heads_data(model, &cache, DecodeOptions { reading, top_k: 1 + cache.n_prompts() % 3 }).unwrap()
                };
                // Twice, as the fused backend decodes differently after enough vectors.
                for _ in 0..2 {
                    let (a, b) = (decode(&cpu), decode(&dfdx));
                    let (different, certain) = changed(&a, &b);
                    assert!(different == 0.0 && certain > 0.8, "{name}, {reading}: {different} of {certain}");
                    for (a, b) in a.iter().zip(&b).flat_map(|(a, b)| a.prompts.iter().zip(&b.prompts)) {
                        let scale = b.qk.logits.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                        let pairs = [(&a.qk, &b.qk)].into_iter().chain(a.lowest.iter().zip(&b.lowest));
                        for (a, b) in pairs {
                            let off = (&a.logits - &b.logits).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
                            assert!(off < 1e-4 * scale, "{name}, {reading}: {off} of {scale}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn signs_and_order_change_the_tokens_of_the_projections_that_depend_on_them() {
    let model = load("tiny", LoadOptions::default());
    let (_, cache) = model.run_with_cache(vec![vec![5_u32, 9, 60, 2, 44, 7]]).unwrap();
    let tokens = |reading: Reading| -> Vec<u32> {
        let heads = all_heads_data(&model, &cache, reading.into()).unwrap();
        heads.iter().flat_map(|head| head.prompts[0].qk.tokens.column(0).to_vec()).collect()
    };
    for projection in Projection::ALL {
        let reading = Reading::from(projection).unembed_bias(false);
        let as_loaded = tokens(reading);
        for other in [reading.signs(Signs::Random(1)), reading.basis(Basis::Reordered(1))] {
            assert_eq!(tokens(other), tokens(other), "{other} is one choice");
            assert_eq!(tokens(other) == as_loaded, !projection.depends_on_basis(), "{other}");
        }
        assert_ne!(
            tokens(reading.signs(Signs::Random(1))) == tokens(reading.signs(Signs::Random(2))),
            projection.depends_on_basis()
        );
        // Without the bias, a length changes no token.
        assert_eq!(tokens(reading.normalized(true)), as_loaded, "{projection:?}");
    }
}

#[test]
fn an_edited_pattern_with_negative_attention_writes_the_opposite() {
    let model = load("odd", LoadOptions::default());
    let edits = [Intervention::scale(Activation::Pattern.at(1), -2.0)];
    let options = RunOptions::default().hooks(&edits);
    let (_, edited) = model.run_with_cache_options(vec![vec![5_u32, 9, 60, 2]], options).unwrap();
    let (_, clean) = model.run_with_cache(vec![vec![5_u32, 9, 60, 2]]).unwrap();
    let written = |cache: &ActivationCache| {
        let reading = Reading::WRITTEN.unembed_bias(false);
        head_data(&model, cache, 1, 0, reading.into()).unwrap().prompt(0).unwrap()
    };
    let (edited, clean) = (written(&edited), written(&clean));
    assert_eq!(edited.qk.tokens, clean.lowest.unwrap().tokens);
    assert_eq!(edited.lowest.unwrap().tokens, clean.qk.tokens);
    for (edited, clean) in edited.qk.margin.iter().zip(&clean.qk.margin) {
        assert!(*edited >= 0.0 && *clean >= 0.0);
    }
}

#[test]
fn equal_singular_values_are_reported() {
    let folder = Folder::copy_of("tiny");
    // The keys of head 0.1 are its queries, which are orthonormal columns: all singular values are 1.
    folder.edit(|tensors| {
        let (_, shape, data) = tensors.get_mut("h.0.attn.c_attn.weight").unwrap();
        let (columns, mut values) = (shape[1], floats(data));
        for row in 0..48 {
            for column in 0..16 {
                let value = f32::from(u8::from(row == column));
                values[row * columns + 16 + column] = value;
                values[row * columns + 48 + 16 + column] = value;
            }
        }
        *data = bytes(&values);
        let (_, _, data) = tensors.get_mut("h.0.attn.c_attn.bias").unwrap();
        *data = bytes(&[0.0; 144]);
    });
    let model = Gpt2::from_pretrained(folder.path().to_str().unwrap(), LoadOptions::default().no_processing()).unwrap();
    let directions = model.matched_directions(0, 1).unwrap();
    assert_eq!(directions.free(1e-6), vec![0..16]);
    assert!(model.matched_directions(0, 0).unwrap().free(1e-6).is_empty());
    assert!(matches!(model.matched_directions(0, 3), Err(Error::OutOfRange { .. })));
    assert!(matches!(model.reading_matrix(2, 0, Projection::Matched), Err(Error::OutOfRange { .. })));
}

#[test]
fn exports_and_captions_name_the_reading() {
    let model = super::support::demo();
    let run = attention_tokens::notebook::run_prompts(&model, "Monday, Tuesday,").unwrap();
    let reading = Reading::WRITTEN.signs(Signs::Random(7)).unembed_bias(false);
    let data = attention_tokens::notebook::calculate_attns_with(&run, 3, 1, reading).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.csv");
    data.write_csv(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let header = rows.headers().unwrap().clone();
    let row = rows.records().nth(4).unwrap().unwrap(); // query 2, key 1
    let field = |name: &str| row[header.iter().position(|column| column == name).unwrap()].to_owned();
    assert_eq!(
        ["projection", "unembed_bias", "basis", "signs", "normalized", "query", "key"].map(field),
        ["written", "false", "as loaded", "random, seed 7", "false", "2", "1"]
    );
    let lowest = data.prompts[0].lowest.as_ref().unwrap();
    assert_eq!(field("lowest_id"), lowest.tokens[[4, 0]].to_string());
    assert!(field("lowest_logit").parse::<f32>().unwrap() < 0.0);

    let path = folder.path().join("head.npz");
    data.write_npz(&path).unwrap();
    let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let name: Array1<u8> = npz.by_name("reading").unwrap();
    assert_eq!(String::from_utf8(name.to_vec()).unwrap(), reading.to_string());
    let tokens: attention_tokens::ndarray::Array4<i64> = npz.by_name("lowest_tokens").unwrap();
    assert_eq!((tokens[[0, 2, 1, 0]], tokens[[0, 1, 2, 0]]), (i64::from(lowest.tokens[[4, 0]]), -1));

    // Tables and hover texts have what a cell writes against.
    let [written, against] = [&data.prompts[0].qk, lowest].map(|top| data.prompts[0].token_label(top.tokens[[4, 0]]));
    let table = attention_tokens::notebook::attention_table(&data.prompts[0]);
    assert_eq!(table.rows()[2][2], format!("{written} ¦ −{against}"));
    let figure = attention_tokens::notebook::plot_head(&data.prompts[0]).to_json();
    let n = data.prompts[0].n_pos();
    assert_eq!(figure.matches("against ").count(), n * (n + 1) / 2);

    let table = table.to_text();
    assert!(
        table.contains("through its values (what each cell writes), random signs of seed 7, without b_U"),
        "{table}"
    );
}
