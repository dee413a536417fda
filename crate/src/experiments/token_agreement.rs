//! Token agreement: how many attention tokens stay the same in another basis, or through another projection.

use std::collections::HashMap;

use ndarray::Array2;

use super::layers_and_heads;
use crate::attention_tokens::{HeadData, tokens_in_basis};
use crate::decode::{Basis, ColumnChange, Projection, Signs};
use crate::error::{Error, Result, check_count};
use crate::model::{ActivationCache, Gpt2};
use crate::plot::{Figure, MatrixChart, Table};
use crate::random::{SeededRng, seeded_rng};

/// The proportion of each head's cells whose attention token is the same before and after a change.
///
/// **Question.** How far do attention tokens depend on choices that the original does not mention? `q ⊙ k` is written
/// in a basis of the head's queries and keys, and `W_V` and `W_O` read it in a basis of the head's values. Weight
/// processing chooses both bases by singular value decompositions, whose vectors are free up to their sign; without
/// that processing, training has chosen them. The model computes the same in each of them
/// ([`AttentionScoreCheck`](super::AttentionScoreCheck)); attention tokens do not, because the basis decides which
/// entry of `q ⊙ k` meets which column of `W_V`, and with which sign.
///
/// **Statistic.** For each head, over the cells with key ≤ query of all prompts:
///
/// ```text
/// agreement = cells with the same token before and after / cells
/// ```
///
/// **Control.** The agreement to expect if the tokens after the change were assigned to the cells at random:
/// `Σ_token p_before(token) p_after(token)`. A head with a single token agrees with itself by chance.
///
/// **Limits.** Agreement compares two bases with each other; it cannot tell which of them is better.
#[derive(Clone, Debug)]
pub struct TokenAgreement {
    /// The change, in words.
    pub change: String,
    /// The proportion of cells with key ≤ query whose token is the same, from 0 to 1. Shape: `[n_layers, n_heads]`.
    pub agreement: Array2<f32>,
    /// The agreement to expect by chance, from 0 to 1. Shape: `[n_layers, n_heads]`.
    pub agreement_by_chance: Array2<f32>,
}

impl TokenAgreement {
    /// Agreement between two ways to compute the same heads on the same prompts: two projections, or two models that
    /// differ in their weight processing. `change` describes the difference, for titles and tables.
    ///
    /// Shape: `[n_layers n_heads]` heads, twice → agreement `[n_layers, n_heads]`.
    ///
    /// ```
    /// use attention_tokens::{experiments::TokenAgreement, prelude::*};
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
    /// let with = |projection| all_heads_data(&model, &cache, DecodeOptions::default().projection(projection));
    /// let result = TokenAgreement::between("output", &with(Projection::Notebook)?, &with(Projection::Output)?)?;
    /// assert_eq!(result.agreement.dim(), (4, 8));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEveryHead`] if one is not the heads of a whole model, [`Error::Shape`] or
    /// [`Error::DifferentPrompts`] if they are of different sizes or prompts.
    pub fn between(change: &str, a: &[HeadData], b: &[HeadData]) -> Result<Self> {
        const FUNCTION: &str = "TokenAgreement::between";
        let shape = layers_and_heads(a, FUNCTION)?;
        let other = layers_and_heads(b, FUNCTION)?;
        let size =
            |(n_layers, n_heads): (usize, usize), heads: &[HeadData]| vec![n_layers, n_heads, heads[0].n_prompts()];
        let (expected, found) = (size(shape, a), size(other, b));
        if expected != found {
            let hint = "both lists must hold the same heads on the same prompts";
            return Err(Error::Shape {
                what: FUNCTION.into(),
                axes: "[n_layers, n_heads, n_prompts]",
                expected,
                found,
                hint,
            });
        }
        let prompts = a[0].prompts().iter().zip(b[0].prompts());
        if let Some(prompt) = prompts.map(|(a, b)| a.input != b.input).position(|differs| differs) {
            return Err(Error::DifferentPrompts { function: FUNCTION, prompt, first: (0, 0), other: (0, 0) });
        }
        let tokens = |head: &HeadData| -> Vec<u32> {
            head.prompts().iter().flat_map(|data| data.qk.tokens.column(0).to_vec()).collect()
        };
        let heads = a.iter().zip(b).map(|(a, b)| agreement(&tokens(a), &[tokens(b)]));
        Ok(Self::from_heads(change.into(), shape, heads.collect()))
    }

    /// Agreement after a random sign for each pair of singular vectors of `W_V W_O`, as the mean of `draws` draws.
    ///
    /// Column *d* of `W_V` and row *d* of `W_O` change sign together, so `W_V W_O`, and with it the model, stays the
    /// same. (Signs of the queries' and keys' vectors change nothing: they come in pairs too, and cancel in `q ⊙ k`.)
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
        Self::under("random signs", model, cache, projection, draws, seed, ColumnChange::random_signs)
    }

    /// Agreement after the pairs of singular vectors of `W_V W_O` are put in a random order, instead of the order of
    /// their singular values, as the mean of `draws` draws. The order of the queries' and keys' vectors does not
    /// change.
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
        Self::under("random order", model, cache, projection, draws, seed, ColumnChange::random_order)
    }

    /// Agreement after a random change of the basis of each head's values, as the mean of `draws` draws. All heads and draws use one generator in turn.
    /// Shape: → agreement `[n_layers, n_heads]`.
    fn under(
        name: &str,
        model: &Gpt2,
        cache: &ActivationCache,
        projection: Projection,
        draws: usize,
        seed: u64,
        change: impl Fn(usize, &mut SeededRng) -> ColumnChange,
    ) -> Result<Self> {
        check_count("TokenAgreement", "draws", draws, 1, None)?;
        let mut rng = seeded_rng(seed);
        let config = model.config();
        let (shape @ (n_layers, n_heads), d_head) = ((config.n_layers, config.n_heads), config.d_head);
        let mut heads = Vec::with_capacity(n_layers * n_heads);
        for (layer, head) in (0..n_layers).flat_map(|layer| (0..n_heads).map(move |head| (layer, head))) {
            let decode = |change: &ColumnChange| tokens_in_basis(model, cache, [layer, head], projection, change);
            let before = decode(&ColumnChange::of_reading([layer, head], Basis::AsLoaded, Signs::AsLoaded, d_head))?;
            let draw = || decode(&change(d_head, &mut rng));
            let after: Vec<Vec<u32>> = std::iter::repeat_with(draw).take(draws).collect::<Result<_>>()?;
            heads.push(agreement(&before, &after));
        }
        Ok(Self::from_heads(format!("{name}, {}", projection.name()), shape, heads))
    }

    /// From each head's agreement and agreement by chance. Shape: `[n_layers n_heads]` → `[n_layers, n_heads]`.
    fn from_heads(change: String, shape: (usize, usize), heads: Vec<(f32, f32)>) -> Self {
        let matrix = |values| Array2::from_shape_vec(shape, values).expect("a value for each head");
        let (agreement, by_chance) = heads.into_iter().unzip();
        Self { change, agreement: matrix(agreement), agreement_by_chance: matrix(by_chance) }
    }

    /// The agreement of each head as a heat map.
    pub fn plot(&self) -> Figure {
        let title = format!("Cells that keep their token: {}", self.change);
        MatrixChart::of_heads(title, self.agreement.clone(), ("share".into(), [0.0, 1.0])).figure()
    }
}

/// A table of several changes: the agreement and the agreement by chance as means over heads, and the heads that agree
/// least and most.
pub fn agreement_table(agreements: &[TokenAgreement]) -> Table {
    let mean = |values: &Array2<f32>| format!("{:.3}", values.mean().unwrap_or(f32::NAN));
    let row = |result: &TokenAgreement| {
        let extreme = |better: fn(f32, f32) -> bool| {
            let heads = result.agreement.indexed_iter();
            let best = heads.reduce(|best, head| if better(*head.1, *best.1) { head } else { best });
            best.map_or(String::new(), |((layer, head), agreement)| format!("{layer}.{head}: {agreement:.3}"))
        };
        vec![
            result.change.clone(),
            mean(&result.agreement),
            mean(&result.agreement_by_chance),
            extreme(|agreement, best| agreement < best),
            extreme(|agreement, best| agreement > best),
        ]
    };
    let header = ["change", "kept", "by chance", "fewest", "most"];
    Table::new("Share of cells that keep their token, mean over heads", &header, agreements.iter().map(row).collect())
}

/// The proportion of cells with the same token, and the proportion to expect by chance, as means over the draws of
/// `after`. Shape: `[cell]`, `[draw] [cell]` → two numbers.
fn agreement(before: &[u32], after: &[Vec<u32>]) -> (f32, f32) {
    let n = before.len().max(1) as f64;
    let count = |tokens: &[u32]| {
        let mut counts: HashMap<u32, f64> = HashMap::new();
        tokens.iter().for_each(|&token| *counts.entry(token).or_default() += 1.0);
        counts
    };
    let counts_before = count(before);
    let mean = |of: &dyn Fn(&Vec<u32>) -> f64| (after.iter().map(of).sum::<f64>() / after.len() as f64) as f32;
    let same = |after: &Vec<u32>| before.iter().zip(after).filter(|(a, b)| a == b).count() as f64 / n;
    let by_chance = |after: &Vec<u32>| {
        // Sorted, because the order of a hash map is random and the last digits of the sum would be too.
        let mut products: Vec<f64> = count(after)
            .into_iter()
            .map(|(token, count)| count / n * counts_before.get(&token).copied().unwrap_or(0.0) / n)
            .collect();
        products.sort_by(f64::total_cmp);
        products.into_iter().sum::<f64>()
    };
    (mean(&same), mean(&by_chance))
}

#[cfg(test)]
mod tests {
    use super::agreement;

    #[test]
    fn agreement_is_the_proportion_of_equal_cells_beside_that_of_random_assignment() {
        assert_eq!(agreement(&[1, 1, 1, 1], &[vec![1, 1, 1, 1]]), (1.0, 1.0));
        // Half 1, half 2 on both sides: half of the cells agree by chance, and here none does.
        assert_eq!(agreement(&[1, 1, 2, 2], &[vec![2, 2, 1, 1]]), (0.0, 0.5));
        assert_eq!(agreement(&[1, 2, 3, 4], &[vec![1, 2, 3, 5], vec![5, 6, 7, 8]]), (0.375, 3.0 / 32.0));
    }
}
