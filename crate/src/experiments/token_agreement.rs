//! How much of what a head says depends on choices that the original does not mention.
//!
//! `q ⊙ k` is written in a basis of the head's queries and keys, and read by `W_V` and `W_O` in a basis of its values. Weight
//! processing chooses both by singular value decompositions, whose vectors are free up to their sign; without that processing,
//! training has chosen them. Attention knows nothing of it:
//!
//! ```text
//! Σ (q_i ⊙ k_j) / √d_head = attn_scores[i, j]      in every basis
//! ```
//!
//! What does depend on it is which entry of `q ⊙ k` meets which column of `W_V`, and with which sign. [`TokenAgreement`] says for how
//! many cells the attention token stays the same when one choice is made otherwise, and for how many it would by chance.

use std::collections::HashMap;

use ndarray::{Array2, Axis, Ix3};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::layers_and_heads;
use crate::attention_tokens::{HeadData, tokens_through};
use crate::decode::Projection;
use crate::error::{Error, Result, check_count};
use crate::model::Gpt2;
use crate::model::{Activation, ActivationCache};
use crate::plot::{Figure, MatrixChart, Table};

/// For how many cells of each head the attention token stays the same under a change.
#[derive(Clone, Debug)]
pub struct TokenAgreement {
    /// What was changed.
    pub change: String,
    /// The share of the cells with key ≤ query whose token is the same. Shape: `[n_layers, n_heads]`.
    pub share: Array2<f32>,
    /// The share that would be the same by chance: if the tokens after the change were dealt to the cells at random. A head that
    /// says one word only keeps it by chance. Shape: `[n_layers, n_heads]`.
    pub chance: Array2<f32>,
}

impl TokenAgreement {
    /// Between two ways to compute the same heads on the same prompts: two projections, or two models that differ in their weight
    /// processing. `change` says in words what differs.
    ///
    /// ```
    /// use attention_tokens::{experiments::TokenAgreement, prelude::*};
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// let with = |projection| all_heads_data(&model, &cache, DecodeOptions { projection, ..Default::default() });
    /// let kept = TokenAgreement::between("output", &with(Projection::Notebook)?, &with(Projection::Output)?)?;
    /// assert_eq!(kept.share.dim(), (4, 8));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEveryHead`] if one is not the heads of a whole model, [`Error::Shape`] or
    /// [`Error::DifferentPrompts`] if they are of different sizes or prompts.
    pub fn between(change: &str, a: &[HeadData], b: &[HeadData]) -> Result<Self> {
        const WHAT: &str = "TokenAgreement::between";
        let shape = layers_and_heads(a, WHAT)?;
        let other = layers_and_heads(b, WHAT)?;
        let size =
            |(n_layers, n_heads): (usize, usize), heads: &[HeadData]| vec![n_layers, n_heads, heads[0].n_prompts()];
        let (expected, found) = (size(shape, a), size(other, b));
        if expected != found {
            let hint = "both lists must hold the same heads on the same prompts";
            return Err(Error::Shape {
                what: WHAT.into(),
                axes: "[n_layers, n_heads, n_prompts]",
                expected,
                found,
                hint,
            });
        }
        let prompts = a[0].prompts().iter().zip(b[0].prompts());
        if let Some(prompt) = prompts.map(|(a, b)| a.input != b.input).position(|differs| differs) {
            return Err(Error::DifferentPrompts { function: WHAT, prompt, first: (0, 0), other: (0, 0) });
        }
        let tokens = |head: &HeadData| -> Vec<u32> {
            head.prompts().iter().flat_map(|data| data.qk.tokens.column(0).to_vec()).collect()
        };
        let kept = a.iter().zip(b).map(|(a, b)| kept(&tokens(a), &[tokens(b)]));
        Ok(Self::from_heads(change.into(), shape, kept.collect()))
    }

    /// When each singular vector pair of `W_V W_O` has a sign drawn at random: the mean of `draws` times. `W_V W_O`, and with it
    /// the model, stays what it is. (Signs of the queries' and keys' vectors would change nothing: both have the same, and their
    /// product has none.)
    ///
    /// # Errors
    /// As for [`all_heads_data`](crate::all_heads_data), and [`Error::Count`] if `draws` is 0.
    pub fn under_sign_flips(
        model: &Gpt2,
        cache: &ActivationCache,
        projection: Projection,
        draws: usize,
        seed: u64,
    ) -> Result<Self> {
        let flipped = |w_v: &mut Array2<f32>, w_o: &mut Array2<f32>, random: &mut ChaCha8Rng| {
            for (mut v, mut o) in w_v.axis_iter_mut(Axis(1)).zip(w_o.outer_iter_mut()) {
                if random.random_bool(0.5) {
                    v.mapv_inplace(|x| -x);
                    o.mapv_inplace(|x| -x);
                }
            }
        };
        Self::under("random signs", model, cache, projection, draws, seed, flipped)
    }

    /// When the singular vector pairs of `W_V W_O` come in an order drawn at random, instead of by their singular values: the mean
    /// of `draws` times. The vectors of queries and keys keep theirs.
    ///
    /// # Errors
    /// As for [`under_sign_flips`](Self::under_sign_flips).
    pub fn under_reordering(
        model: &Gpt2,
        cache: &ActivationCache,
        projection: Projection,
        draws: usize,
        seed: u64,
    ) -> Result<Self> {
        let reordered = |w_v: &mut Array2<f32>, w_o: &mut Array2<f32>, random: &mut ChaCha8Rng| {
            let mut order: Vec<usize> = (0..w_v.ncols()).collect();
            order.shuffle(random);
            (*w_v, *w_o) = (w_v.select(Axis(1), &order), w_o.select(Axis(0), &order));
        };
        Self::under("random order", model, cache, projection, draws, seed, reordered)
    }

    fn under(
        change: &str,
        model: &Gpt2,
        cache: &ActivationCache,
        projection: Projection,
        draws: usize,
        seed: u64,
        changed: impl Fn(&mut Array2<f32>, &mut Array2<f32>, &mut ChaCha8Rng),
    ) -> Result<Self> {
        check_count("TokenAgreement", "draws", draws, 1, None)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shape @ (n_layers, n_heads) = (model.config().n_layers, model.config().n_heads);
        let mut heads = Vec::with_capacity(n_layers * n_heads);
        for (layer, head) in (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| (layer, head))) {
            let (w_v, w_o) = (model.w_v(layer, head)?, model.w_o(layer, head)?);
            let through = |w_v: &Array2<f32>, w_o: &Array2<f32>| {
                tokens_through(model, cache, [layer, head], projection.matrix(w_v, w_o))
            };
            let before = through(&w_v, &w_o)?;
            let draw = || {
                let (mut w_v, mut w_o) = (w_v.clone(), w_o.clone());
                changed(&mut w_v, &mut w_o, &mut random);
                through(&w_v, &w_o)
            };
            let after: Vec<Vec<u32>> = std::iter::repeat_with(draw).take(draws).collect::<Result<_>>()?;
            heads.push(kept(&before, &after));
        }
        Ok(Self::from_heads(format!("{change}, {}", projection.name()), shape, heads))
    }

    fn from_heads(change: String, shape: (usize, usize), heads: Vec<(f32, f32)>) -> Self {
        let matrix = |values| Array2::from_shape_vec(shape, values).expect("a value for each head");
        let (share, chance) = heads.into_iter().unzip();
        Self { change, share: matrix(share), chance: matrix(chance) }
    }

    /// The share of each head as a heat map.
    pub fn plot(&self) -> Figure {
        let title = format!("Cells that keep their token: {}", self.change);
        MatrixChart::of_heads(title, self.share.clone(), ("share".into(), [0.0, 1.0])).figure()
    }
}

/// Several changes in one table: the share of cells that keep their token, as the mean over heads, beside what chance would give,
/// and the heads that keep the fewest and the most.
pub fn agreement_table(kept: &[TokenAgreement]) -> Table {
    let mean = |values: &Array2<f32>| format!("{:.3}", values.mean().unwrap_or(f32::NAN));
    let row = |kept: &TokenAgreement| {
        let extreme = |better: fn(f32, f32) -> bool| {
            let best =
                kept.share.indexed_iter().reduce(|best, head| if better(*head.1, *best.1) { head } else { best });
            best.map_or(String::new(), |((layer, head), share)| format!("{layer}.{head}: {share:.3}"))
        };
        vec![
            kept.change.clone(),
            mean(&kept.share),
            mean(&kept.chance),
            extreme(|share, best| share < best),
            extreme(|share, best| share > best),
        ]
    };
    let header = ["change", "kept", "by chance", "fewest", "most"];
    Table::new("Share of cells that keep their token, mean over heads", &header, kept.iter().map(row).collect())
}

/// The share of cells with the same token, and the share to expect by chance, as means over what they are compared with.
fn kept(before: &[u32], after: &[Vec<u32>]) -> (f32, f32) {
    let n = before.len().max(1) as f64;
    let counts = |tokens: &[u32]| {
        let mut counts: HashMap<u32, f64> = HashMap::new();
        tokens.iter().for_each(|&token| *counts.entry(token).or_default() += 1.0);
        counts
    };
    let counted = counts(before);
    let mean = |of: &dyn Fn(&Vec<u32>) -> f64| (after.iter().map(of).sum::<f64>() / after.len() as f64) as f32;
    let same = |after: &Vec<u32>| before.iter().zip(after).filter(|(a, b)| a == b).count() as f64 / n;
    let by_chance = |after: &Vec<u32>| {
        // In order, so that the sum is the same each time.
        let mut products: Vec<f64> = counts(after)
            .into_iter()
            .map(|(token, count)| count / n * counted.get(&token).copied().unwrap_or(0.0) / n)
            .collect();
        products.sort_by(f64::total_cmp);
        products.into_iter().sum::<f64>()
    };
    (mean(&same), mean(&by_chance))
}

/// How well `Σ (q ⊙ k) / √d_head` gives the attention scores: what ties attention tokens to attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionScoreCheck {
    /// The largest difference between the sum and the score, of all cells with key ≤ query of all heads and prompts.
    pub largest_difference: f32,
    /// The largest score in magnitude, to compare it with.
    pub largest_score: f32,
}

impl AttentionScoreCheck {
    /// Of everything in a cache, which must hold `Q`, `K` and `AttnScores`.
    ///
    /// # Errors
    /// [`Error::NotCached`] if an activation is not in the cache.
    pub fn new(cache: &ActivationCache) -> Result<Self> {
        let mut check = Self { largest_difference: 0.0, largest_score: 0.0 };
        for (prompt, layer) in
            (0..cache.n_prompts()).flat_map(|prompt| (0..cache.n_layers()).map(move |layer| (prompt, layer)))
        {
            let of = |activation| -> Result<_> {
                let view = cache.view_of_prompt(prompt, activation, layer)?;
                Ok(view.into_dimensionality::<Ix3>().expect("q, k and attn_scores have three axes"))
            };
            let (q, k) = (of(Activation::Q)?, of(Activation::K)?); // [pos, n_heads, d_head]
            let scores = of(Activation::AttnScores)?; // [n_heads, query_pos, key_pos]
            let scale = (q.dim().2 as f32).sqrt();
            for ((head, query, key), &score) in scores.indexed_iter().filter(|((_, query, key), _)| key <= query) {
                let (q, k) = (q.index_axis(Axis(0), query), k.index_axis(Axis(0), key)); // [n_heads, d_head]
                let product: f32 = q.row(head).iter().zip(k.row(head)).map(|(q, k)| q * k).sum();
                check.largest_difference = check.largest_difference.max((product / scale - score).abs());
                check.largest_score = check.largest_score.max(score.abs());
            }
        }
        Ok(check)
    }
}

#[cfg(test)]
mod tests {
    use super::kept;

    #[test]
    fn shares_are_counted_and_chance_is_what_dealing_gives() {
        assert_eq!(kept(&[1, 1, 1, 1], &[vec![1, 1, 1, 1]]), (1.0, 1.0));
        // Half 1, half 2 on both sides: every second cell by chance, though here none is.
        assert_eq!(kept(&[1, 1, 2, 2], &[vec![2, 2, 1, 1]]), (0.0, 0.5));
        assert_eq!(kept(&[1, 2, 3, 4], &[vec![1, 2, 3, 5], vec![5, 6, 7, 8]]), (0.375, 3.0 / 32.0));
    }
}
