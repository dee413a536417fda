//! How much of the vocabulary that heads share is the bias of the unembedding.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use rand::seq::index;

use super::counts::{Component, Source, VocabularyCounts};
use crate::decode::{Projection, Ranking, Vectors};
use crate::error::{Result, check_count};
use crate::model::{Gpt2, Prompts, RunOptions};
use crate::plot::Table;
use crate::random::seeded_rng;

/// The part of the heads' shared vocabulary that the bias of the unembedding, `b_U`, decides.
///
/// **Question.** The original reports tokens that all heads use. But the same `b_U` is added to the logits of every
/// head, so that its largest tokens win wherever a head's own vector is short. Are the shared tokens the heads', or the
/// unembedding's?
///
/// **Statistics.** The same cells are decoded with `b_U` and without it. For each: how many cells have one of the
/// tokens with the largest entries of `b_U`, how many heads use the most shared token, and how many tokens half of the
/// heads use.
///
/// **Control.** The last two by chance: each head's vocabulary is drawn anew, of the same size, from the tokens that any
/// head uses, each being equally likely; the mean of 100 draws.
///
/// **Limits.** As for [`VocabularyCounts`]: a single use makes a token one of a head's, so the numbers of heads depend
/// on the amount of text. The control ignores that some tokens are frequent in every text.
///
/// ```
/// use attention_tokens::{experiments::*, prelude::*};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let prompts = ["The next bus is late.", "The previous bus was early."];
/// let share = UnembedBiasShare::measure(&model, prompts, Projection::Notebook, Component::Qk, 10, 1)?;
/// assert!(share.with_bias.cells_of_largest > share.without_bias.cells_of_largest);
/// share.table()
/// # ;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct UnembedBiasShare {
    /// The component that was counted.
    pub component: Component,
    /// The tokens with the largest entries of `b_U`, largest first, and the entries.
    pub largest: Vec<(u32, f32)>,
    /// What the heads share where `b_U` is part of the logits.
    pub with_bias: SharedVocabulary,
    /// The same without it.
    pub without_bias: SharedVocabulary,
    /// The counts with `b_U`.
    pub counts: VocabularyCounts,
    /// The counts without it.
    pub counts_without_bias: VocabularyCounts,
}

/// The vocabulary that the heads of a model share. See [`UnembedBiasShare`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedVocabulary {
    /// The proportion of cells whose token is one of those with the largest entries of `b_U`, from 0 to 1.
    pub cells_of_largest: f64,
    /// The number of heads that use the most shared token.
    pub heads_of_most_shared: usize,
    /// The same if the heads' vocabularies were drawn at random.
    pub heads_of_most_shared_by_chance: f64,
    /// The number of tokens that at least half of the heads use.
    pub tokens_of_half: usize,
    /// The same if the heads' vocabularies were drawn at random.
    pub tokens_of_half_by_chance: f64,
}

/// Draws of random vocabularies.
const DRAWS: usize = 100;

impl UnembedBiasShare {
    /// Counts the tokens of the prompts with `b_U` and without it. `n_largest` is the number of tokens with large
    /// entries of `b_U` to look for, `seed` that of the control.
    ///
    /// # Errors
    /// As for [`VocabularyCounts::add`], and [`Error::Count`](crate::Error::Count) if `n_largest` is 0 or exceeds the
    /// vocabulary.
    pub fn measure(
        model: &Gpt2,
        prompts: impl Into<Prompts>,
        projection: Projection,
        component: Component,
        n_largest: usize,
        seed: u64,
    ) -> Result<Self> {
        Self::of_prompts(model, prompts.into(), projection, component, n_largest, seed)
    }

    /// [`measure`](Self::measure) without the generic parameter.
    fn of_prompts(
        model: &Gpt2,
        prompts: Prompts,
        projection: Projection,
        component: Component,
        n_largest: usize,
        seed: u64,
    ) -> Result<Self> {
        check_count("UnembedBiasShare", "tokens of b_U", n_largest, 1, Some(model.config().d_vocab))?;
        let (_, cache) = model.run_with_cache_options(prompts, RunOptions::for_head_data())?;
        let mut counts = VocabularyCounts::new(model, projection)?;
        let reading = counts.source.reading.unembed_bias(false);
        let source = Source { reading, ..counts.source.clone() };
        let mut counts_without_bias = VocabularyCounts::empty(source, counts.labels.clone());
        counts.add_run(model, &cache)?;
        counts_without_bias.add_run(model, &cache)?;
        let largest = largest_biases(model, n_largest)?;
        let tokens: BTreeSet<u32> = largest.iter().map(|&(token, _)| token).collect();
        let [with_bias, without_bias] =
            [&counts, &counts_without_bias].map(|counts| SharedVocabulary::of(counts, component, &tokens, seed));
        Ok(Self { component, largest, with_bias, without_bias, counts, counts_without_bias })
    }

    /// The statistics with `b_U` and without it, beside chance.
    pub fn table(&self) -> Table {
        let (n_heads, n) = (self.counts.heads(self.component).count(), self.largest.len());
        let both = [&self.with_bias, &self.without_bias];
        let row = |statistic: String, value: &dyn Fn(&SharedVocabulary) -> String| {
            std::iter::once(statistic).chain(both.map(value)).collect::<Vec<String>>()
        };
        let rows = vec![
            row(format!("cells with one of the {n} largest tokens of b_U"), &|shared| {
                format!("{:.1}%", 100.0 * shared.cells_of_largest)
            }),
            row("heads that use the most shared token".into(), &|shared| {
                let SharedVocabulary { heads_of_most_shared, heads_of_most_shared_by_chance, .. } = shared;
                format!("{heads_of_most_shared} of {n_heads} (by chance {heads_of_most_shared_by_chance:.1})")
            }),
            row("tokens that half of the heads use".into(), &|shared| {
                format!("{} (by chance {:.1})", shared.tokens_of_half, shared.tokens_of_half_by_chance)
            }),
        ];
        let caption = format!(
            "What heads share, with and without the bias of the unembedding ({}), {} prompts",
            self.component.name(),
            self.counts.n_prompts()
        );
        Table::new(caption, &["statistic", "with b_U", "without b_U"], rows)
    }

    /// The tokens with the largest entries of `b_U`, beside the number of heads that use each.
    pub fn largest_table(&self) -> Table {
        let heads = |counts: &VocabularyCounts| -> BTreeMap<u32, usize> {
            counts.heads_per_token(self.component).into_iter().collect()
        };
        let (with, without) = (heads(&self.counts), heads(&self.counts_without_bias));
        let row = |&(token, bias): &(u32, f32)| {
            let heads = |of: &BTreeMap<u32, usize>| of.get(&token).copied().unwrap_or_default().to_string();
            vec![self.counts.label(token), format!("{bias:.2}"), heads(&with), heads(&without)]
        };
        let rows = self.largest.iter().map(row).collect();
        let caption = format!("The {} largest entries of b_U", self.largest.len());
        Table::new(caption, &["token", "b_U", "heads that use it", "without b_U"], rows)
    }
}

/// The tokens with the largest entries of `b_U`, largest first: the tokens of a vector of zeros. Shape: → `[n]`.
fn largest_biases(model: &Gpt2, n: usize) -> Result<Vec<(u32, f32)>> {
    let config = model.config();
    let zeros = Vectors::new(Array2::zeros((1, config.d_head)), vec![[0, 0]]);
    let p = Array2::zeros((config.d_head, config.d_model));
    let top = model.on_device().decode_through(p, &zeros, Ranking::new(n, true))?;
    Ok(top.tokens.into_iter().zip(top.logits).collect())
}

impl SharedVocabulary {
    fn of(counts: &VocabularyCounts, component: Component, largest: &BTreeSet<u32>, seed: u64) -> Self {
        let totals = counts.totals(component);
        let cells: u64 = totals.values().sum();
        let of_largest: u64 = totals.iter().filter(|(token, _)| largest.contains(token)).map(|(_, count)| count).sum();
        let sizes: Vec<usize> = counts.heads(component).map(|(_, counts)| counts.len()).collect();
        let heads: Vec<usize> = counts.heads_per_token(component).into_iter().map(|(_, heads)| heads).collect();
        let (heads_of_most_shared, tokens_of_half) = sharing(&heads, sizes.len());
        let mut rng = seeded_rng(seed);
        let (mut most_by_chance, mut half_by_chance) = (0, 0);
        for _ in 0..DRAWS {
            let mut heads = vec![0; totals.len()];
            for &size in &sizes {
                index::sample(&mut rng, totals.len(), size).into_iter().for_each(|token| heads[token] += 1);
            }
            let (most, half) = sharing(&heads, sizes.len());
            most_by_chance += most;
            half_by_chance += half;
        }
        Self {
            cells_of_largest: of_largest as f64 / cells.max(1) as f64,
            heads_of_most_shared,
            heads_of_most_shared_by_chance: most_by_chance as f64 / DRAWS as f64,
            tokens_of_half,
            tokens_of_half_by_chance: half_by_chance as f64 / DRAWS as f64,
        }
    }
}

/// The largest number of heads of a token, and the number of tokens that at least half of the heads have.
fn sharing(heads_per_token: &[usize], n_heads: usize) -> (usize, usize) {
    let most = heads_per_token.iter().copied().max().unwrap_or_default();
    (most, heads_per_token.iter().filter(|&&heads| 2 * heads >= n_heads).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::vocabulary::counts::tests::counts;

    #[test]
    fn shared_tokens_are_counted_and_compared_with_random_vocabularies() {
        // Two heads: token 7 is of both, 5 and 9 of one each.
        let counts = counts([&[(5, 2), (7, 1)], &[(7, 4), (9, 1)]]);
        let shared = SharedVocabulary::of(&counts, Component::Qk, &BTreeSet::from([7, 100]), 1);
        assert_eq!((shared.heads_of_most_shared, shared.tokens_of_half), (2, 3));
        assert_eq!(shared.cells_of_largest, 5.0 / 8.0);
        // Two of three tokens twice: they always share one. Every token of the draw is of at least one of two heads.
        assert_eq!(shared.heads_of_most_shared_by_chance, 2.0);
        assert!((2.0..=3.0).contains(&shared.tokens_of_half_by_chance), "{shared:?}");
    }
}
