//! Statistics by resampling: permutation p-values and bootstrap intervals of paired comparisons.
//!
//! `rows[head][pair]` is the similarity of a pair, followed by those of its first prompt to the controls.

use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// One of the similarities minus the mean of the others.
pub(super) fn difference(row: &[f64], of: usize) -> f64 {
    let others = row.iter().sum::<f64>() - row[of];
    row[of] - others / (row.len() - 1) as f64
}

/// For each head, the p-value and the corrected one. `rows[head][pair]` has the pair's similarity first.
pub(super) fn permutation_p(rows: &[&Vec<Vec<f64>>], resamples: usize, random: &mut ChaCha8Rng) -> Vec<(f64, f64)> {
    let statistic = |rows: &[Vec<f64>], chosen: &dyn Fn(usize) -> usize| -> f64 {
        rows.iter().enumerate().map(|(pair, row)| difference(row, chosen(pair))).sum()
    };
    let n_heads = rows.len();
    let observed: Vec<f64> = rows.iter().map(|rows| statistic(rows, &|_| 0)).collect();
    let mut permuted = Array2::zeros((resamples, n_heads));
    for mut of_resample in permuted.outer_iter_mut() {
        // The same exchange for every head: how heads depend on each other stays as it is.
        let chosen: Vec<usize> = rows[0].iter().map(|row| random.random_range(0..row.len())).collect();
        for (value, rows) in of_resample.iter_mut().zip(rows) {
            *value = statistic(rows, &|pair| chosen[pair]);
        }
    }
    // Its mean is 0: each of the exchangeable prompts is as likely as the others.
    let spread: Vec<f64> =
        permuted.columns().into_iter().map(|values| values.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let scaled = |value: f64, head: usize| if spread[head] > 0.0 { value / spread[head] } else { 0.0 };
    let largest: Vec<f64> = permuted
        .outer_iter()
        .map(|values| values.iter().enumerate().map(|(head, &value)| scaled(value, head)).fold(f64::MIN, f64::max))
        .collect();
    let share = |at_least: usize| (1 + at_least) as f64 / (1 + resamples) as f64;
    // Sums of the same numbers in another order may differ in the last digit.
    let slack = |value: f64| value - 1e-9 * value.abs().max(1e-9);
    let of_head = |head: usize| {
        let own = permuted.column(head).iter().filter(|&&value| value >= slack(observed[head])).count();
        let limit = slack(scaled(observed[head], head));
        (share(own), share(largest.iter().filter(|&&largest| largest >= limit).count()))
    };
    (0..n_heads).map(of_head).collect()
}

/// For each head, the 95% percentile interval of the mean difference over pairs drawn with replacement.
pub(super) fn bootstrap_intervals(rows: &[&Vec<Vec<f64>>], resamples: usize, random: &mut ChaCha8Rng) -> Vec<[f64; 2]> {
    let n_pairs = rows[0].len();
    let draws: Vec<Vec<usize>> =
        std::iter::repeat_with(|| (0..n_pairs).map(|_| random.random_range(0..n_pairs)).collect())
            .take(resamples)
            .collect();
    let interval = |rows: &&Vec<Vec<f64>>| {
        let differences: Vec<f64> = rows.iter().map(|row| difference(row, 0)).collect();
        let mean = |draw: &Vec<usize>| draw.iter().map(|&pair| differences[pair]).sum::<f64>() / n_pairs as f64;
        let mut means: Vec<f64> = draws.iter().map(mean).collect();
        means.sort_by(f64::total_cmp);
        [0.025, 0.975].map(|share| means[(share * (means.len() - 1) as f64).round() as usize])
    };
    rows.iter().map(interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use rand::SeedableRng;

    fn head<const N: usize>(rows: &[[f64; N]]) -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.to_vec()).collect()
    }

    /// All exchanges can be listed: of n pairs with one control each there are 2ⁿ, and one of them is what was seen.
    #[test]
    fn a_p_value_is_the_share_of_exchanges_that_give_as_much() {
        let clear = head(&[[1.0, 0.0]; 5]);
        let nothing = head(&[[0.5, 0.5]; 5]);
        let against = head(&[[0.0, 1.0]; 5]);
        let p = permutation_p(&[&clear, &nothing, &against], 20_000, &mut ChaCha8Rng::seed_from_u64(1));
        assert!((p[0].0 - 1.0 / 32.0).abs() < 0.005, "{p:?}");
        assert_eq!((p[1], p[2].0, p[2].1), ((1.0, 1.0), 1.0, 1.0));
        // Corrected for the head that goes the other way: either of the two extremes counts.
        assert!((p[0].1 - 2.0 / 32.0).abs() < 0.01, "{p:?}");
    }

    #[test]
    fn correcting_for_equal_heads_costs_nothing_and_for_unrelated_ones_as_much_as_there_are() {
        let one = head(&[[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.7, 0.5, 0.1], [0.9, 0.2, 0.2]]);
        let same = permutation_p(&[&one, &one, &one], 5_000, &mut ChaCha8Rng::seed_from_u64(2));
        assert!(same.iter().all(|(p, corrected)| p == corrected), "{same:?}");
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let noise: Vec<Vec<Vec<f64>>> =
            (0..20).map(|_| (0..8).map(|_| (0..3).map(|_| random.random::<f64>()).collect()).collect()).collect();
        let p = permutation_p(&noise.iter().collect::<Vec<_>>(), 2_000, &mut random);
        let smallest = p.iter().map(|p| p.0).fold(1.0, f64::min);
        let corrected = p.iter().map(|p| p.1).fold(1.0, f64::min);
        let expected = 1.0 - (1.0 - smallest).powi(20);
        assert!((corrected - expected).abs() < 0.15, "{smallest} {corrected} {expected}");
    }

    #[test]
    fn intervals_hold_the_mean_and_are_points_where_pairs_agree() {
        let equal = head(&[[0.75, 0.25]; 6]);
        let mixed = head(&[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let interval = |rows| bootstrap_intervals(&[rows], 2_000, &mut ChaCha8Rng::seed_from_u64(4))[0];
        assert_eq!(interval(&equal), [0.5, 0.5]);
        // Of means of 4 draws of 0 or 1, one in sixteen is 0, and one is 1.
        assert_eq!(interval(&mixed), [0.0, 1.0]);
    }
}
