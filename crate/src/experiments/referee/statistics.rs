//! The z-scores, p-values and intervals of the merge test.

use super::partition::NothingToMerge;
use super::result::HeadMerge;
use crate::experiments::permutation::{Significance, bootstrap_intervals, permutation_test};
use crate::random::seeded_stream;

/// The stream of the seed that permutations and samples take; the others belong to prompts and heads.
const STREAM: u64 = u64::MAX;

/// A head on a prompt: the mean KL divergence of the run with merged words, and those with random partitions.
#[derive(Clone, Debug)]
pub(super) enum MergedPrompt {
    Nothing(NothingToMerge),
    Merged { words: f64, random: Vec<f64> },
}

impl MergedPrompt {
    /// The divergence with merged words, 0 where nothing is merged.
    pub(super) fn words(&self) -> f64 {
        match self {
            Self::Nothing(_) => 0.0,
            Self::Merged { words, .. } => *words,
        }
    }

    /// The divergences of random partitions.
    pub(super) fn random(&self) -> &[f64] {
        match self {
            Self::Nothing(_) => &[],
            Self::Merged { random, .. } => random,
        }
    }

    pub(super) fn nothing(&self) -> Option<NothingToMerge> {
        match self {
            Self::Nothing(reason) => Some(*reason),
            Self::Merged { .. } => None,
        }
    }

    /// The distance of the words' divergence below the mean of the random ones, in standard deviations of these.
    pub(super) fn z(&self) -> Option<f64> {
        let Self::Merged { words, random } = self else { return None };
        let (mean, deviation) = mean_and_deviation(random);
        // Partitions that all have one divergence, and words that have another, are none of the reasons of
        // `NothingToMerge`; the words' own distance then is the only scale.
        let deviation = if deviation > 0.0 { deviation } else { (mean - words).abs() };
        Some(if deviation > 0.0 { (mean - words) / deviation } else { 0.0 })
    }

    /// The divergences of words and of random partitions with the sign changed, in units of the deviation of all of them: a
    /// scale that treats the words as one of the partitions, as the permutation test does. Shape: → `[1 + n_random]`.
    fn exchangeable(&self, n_random: usize) -> Vec<f64> {
        let Self::Merged { words, random } = self else { return vec![0.0; 1 + n_random] };
        let all: Vec<f64> = std::iter::once(*words).chain(random.iter().copied()).collect();
        let (mean, deviation) = mean_and_deviation(&all);
        all.iter().map(|kl| if deviation > 0.0 { (mean - kl) / deviation } else { 0.0 }).collect()
    }
}

/// Mean and sample standard deviation. Shape: `[n]`.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// The z-scores divided by the root of their number, as the sum of independent ones has.
fn combined(z: &[f64]) -> f64 {
    z.iter().sum::<f64>() / (z.len() as f64).sqrt()
}

/// The tests of the heads of a reading, layer by layer. Shape: `[head] [prompt]` → `[head]`.
pub(super) fn merged_heads(
    merged: &[Vec<MergedPrompt>],
    n_heads: usize,
    resamples: usize,
    seed: u64,
) -> Vec<HeadMerge> {
    let mut rng = seeded_stream(seed, STREAM);
    let n_random = merged.iter().flatten().map(|prompt| prompt.random().len()).max().unwrap_or(0);
    let tested: Vec<usize> =
        (0..merged.len()).filter(|&head| merged[head].iter().any(|p| p.nothing().is_none())).collect();
    // Prompts without anything to merge are rows of zeros, which no exchange changes.
    let rows = |&head: &usize| merged[head].iter().map(|prompt| prompt.exchangeable(n_random)).collect();
    let rows: Vec<Vec<Vec<f64>>> = tested.iter().map(rows).collect();
    let significance = permutation_test_of(&rows, resamples, &mut rng);
    let mut tests = tested.iter().zip(significance).peekable();
    let mut heads = Vec::with_capacity(merged.len());
    for (index, prompts) in merged.iter().enumerate() {
        let significance = tests.next_if(|(head, _)| **head == index).map(|(_, significance)| significance);
        let z_of_prompts: Vec<f64> = prompts.iter().filter_map(MergedPrompt::z).collect();
        let of_merged = |value: fn(&MergedPrompt) -> f64| {
            prompts.iter().filter(|prompt| prompt.nothing().is_none()).map(value).sum::<f64>()
                / z_of_prompts.len() as f64
        };
        heads.push(HeadMerge {
            layer: index / n_heads,
            head: index % n_heads,
            n_prompts: z_of_prompts.len(),
            result: significance.map(|Significance { p, p_corrected, .. }| super::result::HeadResult {
                z: combined(&z_of_prompts),
                interval: interval(&z_of_prompts, resamples, &mut rng),
                p,
                p_corrected,
                kl_words: of_merged(MergedPrompt::words),
                kl_random: of_merged(|prompt| mean_and_deviation(prompt.random()).0),
            }),
            nothing: most_frequent(prompts),
        });
    }
    heads
}

/// [`permutation_test`] of no heads too.
fn permutation_test_of(
    rows: &[Vec<Vec<f64>>],
    resamples: usize,
    rng: &mut crate::random::SeededRng,
) -> Vec<Significance> {
    if rows.is_empty() { Vec::new() } else { permutation_test(&rows.iter().collect::<Vec<_>>(), resamples, rng) }
}

/// The 95% bootstrap interval of the combined z-score over prompts. Shape: `[prompt]`, at least one.
pub(super) fn interval(z: &[f64], resamples: usize, rng: &mut crate::random::SeededRng) -> [f64; 2] {
    // The difference of each pair is its z-score.
    let rows: Vec<Vec<f64>> = z.iter().map(|&z| vec![z, 0.0]).collect();
    bootstrap_intervals(&[&rows], resamples, rng)[0].map(|mean| mean * (z.len() as f64).sqrt())
}

/// The reason of most of the prompts that have one.
fn most_frequent(prompts: &[MergedPrompt]) -> Option<NothingToMerge> {
    let reasons: Vec<NothingToMerge> = prompts.iter().filter_map(MergedPrompt::nothing).collect();
    let count = |reason: &NothingToMerge| reasons.iter().filter(|other| *other == reason).count();
    reasons.iter().rev().max_by_key(|reason| count(reason)).copied()
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::random::seeded_rng;

    #[test]
    fn heads_with_an_effect_are_found_and_heads_of_chance_are_not() {
        let mut rng = seeded_rng(7);
        let mut prompt = |shift: f64| {
            let random: Vec<f64> = (0..60).map(|_| rng.random::<f64>() + 1.0).collect();
            MergedPrompt::Merged { words: rng.random::<f64>() + 1.0 - shift, random }
        };
        let mut heads: Vec<Vec<MergedPrompt>> = (0..20).map(|_| (0..10).map(|_| prompt(0.0)).collect()).collect();
        heads[3] = (0..10).map(|_| prompt(0.5)).collect();
        heads[5] = vec![MergedPrompt::Nothing(NothingToMerge::OneWord); 10];
        heads[6] = (0..9).map(|_| MergedPrompt::Nothing(NothingToMerge::AllDifferent)).chain([prompt(0.0)]).collect();
        heads[7] = (0..10).map(|_| prompt(-0.5)).collect();
        let tested = merged_heads(&heads, 4, 999, 1);
        for (index, head) in tested.iter().enumerate() {
            assert_eq!((head.layer, head.head), (index / 4, index % 4));
            match head.result {
                None => assert_eq!((index, head.nothing, head.n_prompts), (5, Some(NothingToMerge::OneWord), 0)),
                Some(result) => assert_eq!(result.p_corrected <= 0.05, index == 3, "{index}: {head:?}"),
            }
        }
        assert_eq!((tested[6].n_prompts, tested[6].nothing), (1, Some(NothingToMerge::AllDifferent)));
        assert!(tested[7].result.unwrap().z < -3.0);
        let squares: Vec<f64> =
            [0, 1, 2, 4, 8, 9, 10, 11, 12, 13].map(|head: usize| tested[head].result.unwrap().z.powi(2)).to_vec();
        assert!(squares.iter().sum::<f64>() / 10.0 < 3.0, "{squares:?}");
    }
}
