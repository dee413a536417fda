//! The multiplication table of a head: products against plain `f64`, the laws on tables whose answers are known, and closed
//! lists.

use attention_tokens::ActFn;
use attention_tokens::experiments::*;
use attention_tokens::ndarray::{Array1, Array2, ArrayView1, Axis, s};
use attention_tokens::prelude::*;
use attention_tokens::{LayerNormWeights, Signs};
use nalgebra::DMatrix;

use crate::support::{demo, fixture, rng};

/// Every projection with `b_U`, normalized, and without `b_U`.
fn readings() -> Vec<Reading> {
    let of = |projection: Projection| {
        let reading = Reading::from(projection);
        [reading, reading.normalized(true), reading.unembed_bias(false)]
    };
    Projection::ALL.into_iter().flat_map(of).collect()
}

/// `(x − mean) / √(variance + eps) ⊙ w + b`.
fn layer_norm(x: &Array1<f64>, weights: &Option<LayerNormWeights>, eps: f64) -> Array1<f64> {
    let centred = x - x.mean().unwrap();
    let variance = centred.mapv(|x| x * x).mean().unwrap();
    let normalized = centred / (variance + eps).sqrt();
    match weights {
        Some(ln) => normalized * ln.w.mapv(f64::from) + ln.b.mapv(f64::from),
        None => normalized,
    }
}

fn gelu_new(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// A head on single tokens, in `f64`.
struct PlainHead {
    /// The input of the head for each token, after the layer norm. Shape: `[n, d_model]`.
    x: Array2<f64>,
    q: Array2<f64>,
    k: Array2<f64>,
    v: Array2<f64>,
    w_v: Array2<f64>,
    w_o: Array2<f64>,
    w_u: Array2<f64>,
    b_u: Array1<f64>,
    /// The singular vectors of `[W_Q; b_Q] [W_K; b_K]ᵀ` in columns, and the values.
    circuit: (DMatrix<f64>, Vec<f64>, DMatrix<f64>),
}

impl PlainHead {
    fn new(model: &Gpt2, layer: usize, head: usize, tokens: &[u32]) -> Self {
        let weights = model.weights().unwrap();
        let config = model.config();
        assert_eq!(config.act_fn, ActFn::GeluNew);
        let eps = config.eps;
        let mean_position = weights.w_pos.mapv(f64::from).mean_axis(Axis(0)).unwrap();
        let block = &weights.blocks[layer];
        let mut x = Array2::zeros((tokens.len(), config.d_model));
        for (&token, mut row) in tokens.iter().zip(x.outer_iter_mut()) {
            let mut resid = weights.w_e.row(token as usize).mapv(f64::from) + &mean_position;
            if layer > 0 {
                let first = &weights.blocks[0];
                let pre = layer_norm(&resid, &first.ln2, eps).dot(&first.w_in.mapv(f64::from));
                let post = (pre + first.b_in.mapv(f64::from)).mapv(gelu_new);
                resid = resid + post.dot(&first.w_out.mapv(f64::from)) + first.b_out.mapv(f64::from);
            }
            row.assign(&layer_norm(&resid, &block.ln1, eps));
        }
        let part = |w: &attention_tokens::ndarray::Array3<f32>, b: &Array2<f32>| {
            (w.index_axis(Axis(0), head).mapv(f64::from), b.row(head).mapv(f64::from))
        };
        let (w_q, b_q) = part(&block.w_q, &block.b_q);
        let (w_k, b_k) = part(&block.w_k, &block.b_k);
        let (w_v, b_v) = part(&block.w_v, &block.b_v);
        let with_bias = |w: &Array2<f64>, b: &Array1<f64>| {
            let mut w = w.clone();
            w.push_row(b.view()).unwrap();
            w
        };
        let circuit = with_bias(&w_q, &b_q).dot(&with_bias(&w_k, &b_k).t());
        let svd = DMatrix::from_fn(circuit.nrows(), circuit.ncols(), |i, j| circuit[[i, j]]).svd(true, true);
        let values = svd.singular_values.iter().copied().collect();
        Self {
            q: x.dot(&w_q) + b_q,
            k: x.dot(&w_k) + b_k,
            v: x.dot(&w_v) + b_v,
            x,
            w_v,
            w_o: block.w_o.index_axis(Axis(0), head).mapv(f64::from),
            w_u: weights.w_u.mapv(f64::from),
            b_u: weights.b_u.mapv(f64::from),
            circuit: (svd.u.unwrap(), values, svd.v_t.unwrap().transpose()),
        }
    }

    /// What the pair writes to the residual stream.
    fn pair(&self, projection: Projection, a: usize, b: usize) -> Array1<f64> {
        let c = &self.q.row(a) * &self.k.row(b);
        match projection {
            Projection::Notebook => self.w_v.dot(&c) * self.w_o.sum_axis(Axis(0)),
            Projection::Output => c.dot(&self.w_o),
            Projection::Ov => self.w_v.dot(&c).dot(&self.w_v).dot(&self.w_o),
            Projection::Written => self.v.row(b).dot(&self.w_o),
            Projection::Matched => {
                let (u, values, v) = &self.circuit;
                let d_model = self.x.ncols();
                let along = |x: ArrayView1<f64>, directions: &DMatrix<f64>, index: usize| {
                    (0..d_model).map(|i| x[i] * directions[(i, index)]).sum::<f64>() + directions[(d_model, index)]
                };
                let mut sum = Array1::zeros(d_model);
                for index in (0..values.len()).filter(|&index| values[index] > 1e-6 * values[0]) {
                    let of_key = along(self.x.row(b), v, index);
                    let weight = values[index] * along(self.x.row(a), u, index) * of_key * of_key;
                    sum += &(Array1::from_shape_fn(d_model, |i| v[(i, index)]) * weight);
                }
                sum.dot(&self.w_v).dot(&self.w_o)
            }
        }
    }

    fn logits(&self, reading: Reading, a: usize, b: usize) -> Array1<f64> {
        let mut r = self.pair(reading.projection, a, b);
        if reading.normalized {
            r -= r.mean().unwrap();
            r /= r.mapv(|x| x * x).mean().unwrap().sqrt();
        }
        let logits = r.dot(&self.w_u);
        if reading.unembed_bias { logits + &self.b_u } else { logits }
    }
}

#[test]
fn products_agree_with_plain_f64() {
    let mut rng = rng();
    let folder = |name: &str| fixture(name).to_str().unwrap().to_owned();
    for (name, device) in [
        (folder("tiny"), Device::cpu()),
        (folder("odd"), Device::dfdx_cpu()),
        (folder("odd"), Device::cpu()),
        ("demo".to_owned(), Device::cpu()),
    ] {
        for processed in [true, false] {
            if name == "demo" && !processed {
                continue; // the reference takes long, and the small models have both
            }
            let options = LoadOptions::default().device(device);
            let options = if processed { options } else { options.no_processing() };
            let model = Gpt2::from_pretrained(&name, options).unwrap();
            let mut vocabulary: Vec<u32> = (0..model.config().d_vocab as u32).collect();
            rng.shuffle(&mut vocabulary);
            // The reference takes long over a large vocabulary.
            let tokens = &vocabulary[..if name == "demo" { 3 } else { 5 }];
            for layer in [0, model.config().n_layers - 1] {
                let head = rng.usize(..model.config().n_heads);
                let plain = PlainHead::new(&model, layer, head, tokens);
                let (mut certain, mut all) = (0, 0);
                for reading in readings() {
                    let table = multiplication_table(&model, layer, head, tokens, reading).unwrap();
                    assert_eq!((table.n_given, table.products.tokens()), (tokens.len(), tokens));
                    for ((a, b), &product) in table.products.products().indexed_iter() {
                        let logits = plain.logits(reading, a, b);
                        let [best, second] = logits.iter().fold([f64::MIN; 2], |[best, second], &logit| {
                            if logit > best { [logit, best] } else { [best, second.max(logit)] }
                        });
                        let tolerance = 1e-4 * logits.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
                        let what = format!("{name} {layer}.{head}, {reading}, {a} ∘ {b}");
                        let behind = best - logits[product as usize];
                        assert!(behind < tolerance, "{what}: {product} is {behind} behind the best");
                        let margin = f64::from(table.margins[[a, b]]);
                        assert!((best - second - margin).abs() < 2.0 * tolerance, "{what}: margin {margin}");
                        certain += usize::from(best - second > 2.0 * tolerance);
                        all += 1;
                    }
                }
                assert!(
                    certain * 10 > all * 9,
                    "{name} {layer}.{head}: {certain} of {all} have a margin above rounding"
                );
            }
        }
    }
}

/// Pairs of a list are pairs of any other list, and random signs change a projection that depends on them.
#[test]
fn a_product_does_not_depend_on_the_list() {
    let model = demo();
    let list: Vec<u32> = (100..140).collect();
    let large = multiplication_table(&model, 2, 3, &list, Projection::Ov).unwrap().products;
    let small = multiplication_table(&model, 2, 3, &list[10..14], Projection::Ov).unwrap().products;
    assert_eq!(small.products(), large.products().slice(s![10..14, 10..14]));
    let signs = Reading::OV.signs(Signs::Random(1));
    let other = multiplication_table(&model, 2, 3, &list, signs).unwrap().products;
    assert_ne!(other.products(), large.products());
    // A list may be longer than the context.
    let tiny = Gpt2::from_pretrained(fixture("tiny").to_str().unwrap(), LoadOptions::default()).unwrap();
    assert_eq!(tiny.config().n_ctx, 32);
    let list: Vec<u32> = (10..90).collect();
    let large = multiplication_table(&tiny, 1, 2, &list, Reading::MATCHED).unwrap().products;
    let small = multiplication_table(&tiny, 1, 2, &list[40..60], Reading::MATCHED).unwrap().products;
    assert_eq!(small.products(), large.products().slice(s![40..60, 40..60]));
    let list = &list[..30];
    // What a key writes does not depend on the query, and an intervention of the model changes no weights.
    let hooked = model.hooked(&[Intervention::zero(Activation::MlpOut.at(0))]).unwrap();
    let [written, with_hook] =
        [&model, &hooked].map(|model| multiplication_table(model, 2, 3, list, Reading::WRITTEN).unwrap().products);
    assert_eq!(written, with_hook);
    assert_eq!(written.value(TableProperty::RightAlone), Some(1.0));
}

/// The table of an operation on `0..n`, as tokens from 100.
fn table(n: u32, operation: impl Fn(u32, u32) -> u32) -> ProductTable {
    let product = |(a, b): (usize, usize)| 100 + operation(a as u32, b as u32);
    ProductTable::new((100..100 + n).collect(), Array2::from_shape_fn((n as usize, n as usize), product)).unwrap()
}

/// The properties in the order of their definition.
fn values(table: &ProductTable) -> [Option<f64>; 10] {
    TableProperty::ALL.map(|property| table.value(property))
}

#[test]
fn laws_of_known_tables() {
    let shares = |shares: [f64; 10]| shares.map(Some);
    let cyclic = table(5, |a, b| (a + b) % 5);
    assert_eq!(values(&cyclic), shares([1.0, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2]));
    assert!(cyclic.is_group() && cyclic.is_closed() && cyclic.outside().is_empty());
    assert_eq!((cyclic.left_identities(), cyclic.right_identities()), (vec![100], vec![100]));
    assert_eq!(cyclic.groups(), [Group { identity: 0, elements: (0..5).collect(), abelian: true }]);

    // The left-zero band: a ∘ b = a. Every token is a right identity.
    let band = table(4, |a, _| a);
    assert_eq!(values(&band), shares([1.0, 1.0, 0.0, 1.0, 0.25, 1.0, 0.0, 1.0, 1.0, 0.25]));
    assert!(!band.is_group() && band.groups().len() == 4 && band.left_identities().is_empty());
    assert_eq!(band.idempotents(), [100, 101, 102, 103]);

    // A constant.
    let constant = table(4, |_, _| 2);
    assert_eq!(values(&constant), shares([1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.0, 0.0, 1.0, 1.0]));
    assert_eq!(constant.groups(), [Group { identity: 2, elements: vec![2], abelian: true }]);

    // Subtraction: a Latin square that is neither associative nor commutative, with a right identity alone.
    // (a − b) − c = a − (b − c) if 2 c = 0: for one c of five.
    let minus = table(5, |a, b| (5 + a - b) % 5);
    assert_eq!(values(&minus), shares([1.0, 0.2, 0.0, 0.2, 0.2, 1.0, 1.0, 1.0, 0.2, 0.2]));
    assert!(!minus.is_group() && minus.left_identities().is_empty() && minus.right_identities() == [100]);

    // The symmetries of a triangle, x → r + s x with s = ±1: two tokens generate them.
    let s3 = table(6, |a, b| {
        let ((r, s), (t, u)) = ((a % 3, a / 3), (b % 3, b / 3));
        (if s == 0 { r + t } else { 3 + r - t }) % 3 + 3 * (s ^ u)
    });
    assert!(s3.is_group() && s3.value(TableProperty::Commutativity) < Some(1.0));
    assert_eq!(s3.groups(), [Group { identity: 0, elements: (0..6).collect(), abelian: false }]);

    // Addition without the last number: 0 + 0 … 2 + 2 = 4 are not all in the list of 0, 1, 2.
    let open = table(3, |a, b| a + b);
    assert!(!open.is_closed() && !open.is_group());
    assert_eq!(open.outside(), [103, 104]);
    assert_eq!(open.value(TableProperty::Closure), Some(6.0 / 9.0));
    // a + b ≤ 2 and b + c ≤ 2: 9 + 4 + 1 triples, all of them associative.
    assert_eq!(open.n_counted(TableProperty::Associativity), 14);
    assert_eq!(open.value(TableProperty::Associativity), Some(1.0));
    assert_eq!(open.groups(), [Group { identity: 0, elements: vec![0], abelian: true }]);
}

/// A table without structure is like its shuffled tables; the laws of a group are far from them.
#[test]
fn shuffled_tables_are_what_chance_gives() {
    let cyclic = table(7, |a, b| (a + b) % 7).test(999, 1).unwrap();
    assert_eq!((cyclic.n_tokens, cyclic.n_shuffles), (7, 999));
    for property in [TableProperty::Associativity, TableProperty::Commutativity, TableProperty::LeftCancellation] {
        let result = cyclic.result(property);
        let shuffled = result.shuffled.unwrap();
        assert!(result.value == Some(1.0) && shuffled.p == 0.001 && shuffled.n == 999, "{result:?}");
        assert!(shuffled.quantiles[0] <= shuffled.mean && shuffled.mean <= shuffled.quantiles[1]);
    }
    // By chance two of seven equally frequent products are the same with probability 6/48: commuting pairs; and 1/8 of
    // pairs in a row do not cancel.
    assert!((cyclic.result(TableProperty::Commutativity).shuffled.unwrap().mean - 0.125).abs() < 0.01);
    assert!((cyclic.result(TableProperty::LeftCancellation).shuffled.unwrap().mean - 0.875).abs() < 0.01);
    assert_eq!(cyclic.result(TableProperty::Closure).shuffled, None);
    // All shuffled tables of a constant are the same.
    let constant = table(3, |_, _| 0).test(9, 1).unwrap();
    let shuffled = constant.result(TableProperty::Associativity).shuffled.unwrap();
    assert_eq!((shuffled.mean, shuffled.quantiles, shuffled.p), (1.0, [1.0, 1.0], 1.0));

    // p-values of random tables are uniform: 5% of them are at most 0.05.
    let mut rng = fastrand::Rng::with_seed(3);
    let mut small = 0;
    for _ in 0..400 {
        let products: Vec<u32> = (0..36).map(|_| rng.u32(0..6)).collect();
        let random = table(6, |a, b| products[(6 * a + b) as usize]);
        let test = random.test(99, rng.u64(..)).unwrap();
        small += usize::from(test.result(TableProperty::Associativity).shuffled.unwrap().p <= 0.05);
    }
    assert!((4..=36).contains(&small), "{small} of 400");
    // The same seed gives the same shuffles.
    let test = |seed| table(5, |a, b| (a * b) % 5).test(50, seed).unwrap();
    assert_eq!(test(1), test(1));
    assert_ne!(test(1), test(2));
}

#[test]
fn degenerate_lists_are_errors_or_have_documented_values() {
    let model = demo();
    let error = |tokens: &[u32]| multiplication_table(&model, 0, 0, tokens, Reading::OV).unwrap_err().to_string();
    assert_eq!(error(&[]), "multiplication_table: tokens: expected at least 1, found 0");
    assert_eq!(error(&[3, 5, 3]), "multiplication_table: tokens: expected each token once, found token 3 twice");
    assert!(error(&[3, 1 << 30]).contains("token id 1073741824 out of range: the model's vocabulary has"));
    let many: Vec<u32> = (0..2_001).collect();
    assert_eq!(error(&many), "multiplication_table: tokens: expected 1 to 2000, found 2001");
    let head = |layer, head| multiplication_table(&model, layer, head, &[1], Reading::OV).unwrap_err().to_string();
    assert!(head(4, 0).contains("layer 4 out of range") && head(0, 8).contains("head 8 out of range"));
    let limit = |n| closed_multiplication_table(&model, 0, 0, &[1, 2, 3], Reading::OV, n).unwrap_err().to_string();
    assert!(limit(2).contains("max_tokens: expected 3 to 2000, found 2") && limit(2_001).contains("found 2001"));
    assert!(ProductTable::new(vec![1, 2], Array2::zeros((2, 3))).is_err());
    assert!(ProductTable::new(Vec::new(), Array2::zeros((0, 0))).is_err());
    assert!(table(2, |a, _| a).test(0, 1).is_err());

    // One token that is its own product is a group; pairs of different tokens there are none.
    let one = table(1, |_, _| 0);
    let one_of = |share| if share { Some(1.0) } else { None };
    let expected = [true, true, false, true, true, true, false, false, true, true].map(one_of);
    assert_eq!(values(&one), expected);
    assert!(one.is_group());
    // With a product outside of the list, no triple has both sides.
    let outside = table(1, |_, _| 7);
    let none = [Some(0.0), None, None, Some(0.0), Some(0.0), Some(0.0), None, None, Some(1.0), Some(1.0)];
    assert_eq!(values(&outside), none);
    assert!(outside.groups().is_empty() && !outside.is_group());
    let test = outside.test(9, 1).unwrap();
    assert_eq!(test.result(TableProperty::Associativity).shuffled, None);
    assert!(test.table().to_text().contains("associative triples"), "{}", test.table());
}

/// The closure has the products of every pair of its tokens, as a table of them all, and grows no further than allowed.
#[test]
fn a_closed_table_has_the_products_of_all_its_tokens() {
    let model = demo();
    let start = [" Monday", " Tuesday"].map(|word| model.to_single_token(word).unwrap());
    let mut closed_ones = 0;
    for (layer, head) in [(0, 1), (1, 2), (2, 5), (3, 0)] {
        for reading in [Reading::MATCHED, Reading::OV.unembed_bias(false), Reading::WRITTEN.normalized(true)] {
            let closed = closed_multiplication_table(&model, layer, head, &start, reading, 16).unwrap();
            let tokens = closed.products.tokens().to_vec();
            assert_eq!((closed.n_given, &tokens[..2]), (2, &start[..]));
            assert!(closed.products.is_closed() || tokens.len() == 16);
            let all = multiplication_table(&model, layer, head, &tokens, reading).unwrap();
            assert_eq!(all.products, closed.products);
            let monoid = closed.monoid(200);
            assert_eq!(monoid.is_ok(), closed.products.is_closed());
            if let Ok(monoid) = monoid {
                closed_ones += 1;
                // Where multiplication is associative, maps of tokens compose to maps of tokens.
                if closed.products.value(TableProperty::Associativity) == Some(1.0) {
                    assert!(monoid.len() <= tokens.len() + 1);
                }
            }
        }
    }
    assert!(closed_ones > 0, "{closed_ones}");
    let open = multiplication_table(&model, 0, 1, &start, Reading::OV.unembed_bias(false)).unwrap();
    assert!(!open.products.is_closed());
    assert!(open.monoid(10).unwrap_err().to_string().contains("products outside of the list"));
}
