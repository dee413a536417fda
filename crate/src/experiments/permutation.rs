//! Permutation p-values with the Westfall-Young correction, and bootstrap intervals, of paired comparisons.
//!
//! `similarities[head][pair]` is a row: the similarity of the pair, then those of its first prompt to the controls. The
//! statistic of a head is the sum over pairs of (similarity of the pair − mean similarity to its controls).
//!
//! **P-value.** Under the null hypothesis the second prompt of a pair is exchangeable with its controls. Each resample
//! draws for each pair which of them takes the second prompt's place; the p-value is the proportion of resamples, the
//! observed one included, whose statistic is at least the observed one.
//!
//! **Correction for the number of heads.** The single-step max-T procedure (Westfall and Young: Resampling-Based
//! Multiple Testing, Wiley, 1993): a head's statistic, in units of its spread, is compared with the largest such
//! statistic of all heads in each resample. A resample makes the same exchange for every head, so the statistics keep
//! their dependence: heads that behave alike count as one, where a Bonferroni correction would count each.

use ndarray::Array2;
use rand::Rng;

use crate::random::SeededRng;

/// One of the similarities minus the mean of the others. Shape: `[1 + controls]` → a number.
pub(super) fn difference(row: &[f64], chosen: usize) -> f64 {
    let others = row.iter().sum::<f64>() - row[chosen];
    row[chosen] - others / (row.len() - 1) as f64
}

/// The level of significance that [`Significance::smallest`] refers to.
pub(super) const LEVEL: f64 = 0.05;

/// The permutation test of one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Significance {
    /// The one-sided p-value.
    pub(super) p: f64,
    /// The p-value, corrected for the number of heads.
    pub(super) p_corrected: f64,
    /// The statistic per pair above which the corrected p-value is at most [`LEVEL`].
    pub(super) smallest: f64,
}

/// The permutation test of each head. Shape: `[head] [pair] [1 + controls]` → `[head]`.
pub(super) fn permutation_test(
    similarities: &[&Vec<Vec<f64>>],
    resamples: usize,
    rng: &mut SeededRng,
) -> Vec<Significance> {
    let statistic = |rows: &[Vec<f64>], chosen: &dyn Fn(usize) -> usize| -> f64 {
        rows.iter().enumerate().map(|(pair, row)| difference(row, chosen(pair))).sum()
    };
    let n_heads = similarities.len();
    let observed: Vec<f64> = similarities.iter().map(|rows| statistic(rows, &|_| 0)).collect();
    let mut permuted = Array2::zeros((resamples, n_heads)); // [resample, head]
    for mut statistics in permuted.outer_iter_mut() {
        let chosen: Vec<usize> = similarities[0].iter().map(|row| rng.random_range(0..row.len())).collect();
        for (value, rows) in statistics.iter_mut().zip(similarities) {
            *value = statistic(rows, &|pair| chosen[pair]);
        }
    }
    // The root of the sum of squares: the expected value is 0, for each exchangeable prompt is chosen equally often.
    let spread: Vec<f64> =
        permuted.columns().into_iter().map(|values| values.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let scaled = |value: f64, head: usize| if spread[head] > 0.0 { value / spread[head] } else { 0.0 };
    let largest: Vec<f64> = permuted
        .outer_iter()
        .map(|values| values.iter().enumerate().map(|(head, &value)| scaled(value, head)).fold(f64::MIN, f64::max))
        .collect();
    // The observed assignment is one of the possible ones, so p is never 0.
    let p_value = |at_least: usize| (1 + at_least) as f64 / (1 + resamples) as f64;
    // A tie must count, and sums of the same numbers in another order may differ in the last digit.
    let less_rounding = |value: f64| value - 1e-9 * value.abs().max(1e-9);
    let mut ascending = largest.clone();
    ascending.sort_by(f64::total_cmp);
    // At most this many resamples may reach a significant statistic.
    let may_reach = (LEVEL * (1 + resamples) as f64).floor() as usize;
    let critical = may_reach.checked_sub(1).and_then(|n| ascending.len().checked_sub(n + 1)).map(|at| ascending[at]);
    let n_pairs = similarities.first().map_or(1, |rows| rows.len()) as f64;
    let of_head = |head: usize| {
        let threshold = less_rounding(observed[head]);
        let own = permuted.column(head).iter().filter(|&&value| value >= threshold).count();
        let threshold = less_rounding(scaled(observed[head], head));
        let of_all = largest.iter().filter(|&&largest| largest >= threshold).count();
        let smallest = critical.map_or(f64::INFINITY, |critical| critical * spread[head] / n_pairs);
        Significance { p: p_value(own), p_corrected: p_value(of_all), smallest }
    };
    (0..n_heads).map(of_head).collect()
}

/// For each head, the 95% bootstrap percentile interval of the mean difference: pairs are drawn with replacement, the
/// same ones for every head. Shape: `[head] [pair] [1 + controls]` → `[head]`.
pub(super) fn bootstrap_intervals(
    similarities: &[&Vec<Vec<f64>>],
    resamples: usize,
    rng: &mut SeededRng,
) -> Vec<[f64; 2]> {
    let n_pairs = similarities[0].len();
    let draws: Vec<Vec<usize>> =
        std::iter::repeat_with(|| (0..n_pairs).map(|_| rng.random_range(0..n_pairs)).collect())
            .take(resamples)
            .collect();
    let interval = |rows: &&Vec<Vec<f64>>| {
        let differences: Vec<f64> = rows.iter().map(|row| difference(row, 0)).collect();
        let mean = |draw: &Vec<usize>| draw.iter().map(|&pair| differences[pair]).sum::<f64>() / n_pairs as f64;
        let mut means: Vec<f64> = draws.iter().map(mean).collect();
        means.sort_by(f64::total_cmp);
        [0.025, 0.975].map(|quantile| means[(quantile * (means.len() - 1) as f64).round() as usize])
    };
    similarities.iter().map(interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded_rng;

    /// The rows of one head. Shape: `[pair, 1 + controls]` → `[pair] [1 + controls]`.
    fn head<const N: usize>(rows: &[[f64; N]]) -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.to_vec()).collect()
    }

    /// The p-value and the corrected one of each head.
    fn tested(similarities: &[&Vec<Vec<f64>>], resamples: usize, seed: u64) -> Vec<(f64, f64)> {
        let tests = permutation_test(similarities, resamples, &mut seeded_rng(seed));
        tests.into_iter().map(|test| (test.p, test.p_corrected)).collect()
    }

    /// *n* pairs with one control each have 2ⁿ exchanges, and one of them is the observed assignment.
    #[test]
    fn p_value_is_the_proportion_of_exchanges_with_as_large_a_statistic() {
        let clear = head(&[[1.0, 0.0]; 5]);
        let nothing = head(&[[0.5, 0.5]; 5]);
        let against = head(&[[0.0, 1.0]; 5]);
        let p = tested(&[&clear, &nothing, &against], 20_000, 1);
        assert!((p[0].0 - 1.0 / 32.0).abs() < 0.005, "{p:?}");
        assert_eq!((p[1], p[2].0, p[2].1), ((1.0, 1.0), 1.0, 1.0));
        // The head with the opposite sign is as extreme in one more of the 32 exchanges.
        assert!((p[0].1 - 2.0 / 32.0).abs() < 0.01, "{p:?}");
    }

    #[test]
    fn correction_is_free_for_equal_heads_and_that_of_sidak_for_independent_ones() {
        let one = head(&[[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.7, 0.5, 0.1], [0.9, 0.2, 0.2]]);
        let same = tested(&[&one, &one, &one], 5_000, 2);
        assert!(same.iter().all(|(p, corrected)| p == corrected), "{same:?}");
        let mut rng = seeded_rng(3);
        let noise: Vec<Vec<Vec<f64>>> =
            (0..20).map(|_| (0..8).map(|_| (0..3).map(|_| rng.random::<f64>()).collect()).collect()).collect();
        let p = tested(&noise.iter().collect::<Vec<_>>(), 2_000, 4);
        let smallest = p.iter().map(|p| p.0).fold(1.0, f64::min);
        let corrected = p.iter().map(|p| p.1).fold(1.0, f64::min);
        // Šidák's formula for 20 independent tests.
        let expected = 1.0 - (1.0 - smallest).powi(20);
        assert!((corrected - expected).abs() < 0.15, "{smallest} {corrected} {expected}");
    }

    #[test]
    fn heads_above_the_smallest_significant_difference_are_the_significant_ones() {
        let mut rng = seeded_rng(5);
        let mut noise = |shift: f64| -> Vec<Vec<f64>> {
            (0..12).map(|_| [rng.random::<f64>() + shift, rng.random(), rng.random()].to_vec()).collect()
        };
        let heads: Vec<Vec<Vec<f64>>> = (0..30).map(|index| noise(0.02 * f64::from(index))).collect();
        let rows: Vec<&Vec<Vec<f64>>> = heads.iter().collect();
        for resamples in [19, 999] {
            let tests = permutation_test(&rows, resamples, &mut seeded_rng(6));
            for (rows, test) in rows.iter().zip(&tests) {
                let mean = rows.iter().map(|row| difference(row, 0)).sum::<f64>() / rows.len() as f64;
                assert_eq!(mean > test.smallest, test.p_corrected <= LEVEL, "{mean} {test:?}");
            }
            let found = tests.iter().filter(|test| test.p_corrected <= LEVEL).count();
            assert!(found > 0 && found < 30, "{found}");
        }
        let too_few = permutation_test(&rows, 18, &mut seeded_rng(6));
        assert!(too_few.iter().all(|test| test.smallest.is_infinite() && test.p_corrected > LEVEL));
    }

    #[test]
    fn intervals_contain_the_mean_and_are_points_where_pairs_agree() {
        let equal = head(&[[0.75, 0.25]; 6]);
        let mixed = head(&[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let interval = |rows| bootstrap_intervals(&[rows], 2_000, &mut seeded_rng(4))[0];
        assert_eq!(interval(&equal), [0.5, 0.5]);
        // The mean of 4 draws of 0 or 1 is 0 with probability 1/16, and 1 as often: more than 2.5% each.
        assert_eq!(interval(&mixed), [0.0, 1.0]);
    }
}
