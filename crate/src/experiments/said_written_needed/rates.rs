//! The agreement of words within the rows of a head, and the correlation of need and attention, each with its control.

use std::collections::HashMap;

/// A number, and what it would be by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WithChance {
    /// The number.
    pub observed: f64,
    /// The same, expected if the words, or the attention, of each row were shuffled among its keys.
    pub by_chance: f64,
}

impl WithChance {
    /// The mean of both numbers; `None` if there are none.
    pub(super) fn mean(all: &[WithChance]) -> Option<WithChance> {
        let n = all.len() as f64;
        let mean = |of: fn(&WithChance) -> f64| all.iter().map(of).sum::<f64>() / n;
        (n > 0.0).then(|| WithChance { observed: mean(|x| x.observed), by_chance: mean(|x| x.by_chance) })
    }
}

/// Cells of rows whose words agree, counted, and expected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreement {
    same: f64,
    expected: f64,
    cells: f64,
}

impl Agreement {
    /// Adds a row. A row of one cell has nothing to shuffle, and is left out.
    /// Shape: each `[key]`.
    pub(super) fn add(&mut self, a: &[u32], b: &[u32]) {
        if a.len() < 2 {
            return;
        }
        let counts = |words: &[u32]| {
            let mut counts: HashMap<u32, u32> = HashMap::new();
            words.iter().for_each(|&word| *counts.entry(word).or_default() += 1);
            counts
        };
        // Whole numbers, because the order of a hash map is random and the last digits of a sum would be too.
        let (of_a, of_b) = (counts(a), counts(b));
        let pairs: u64 =
            of_a.iter().map(|(word, &n)| u64::from(n) * u64::from(of_b.get(word).copied().unwrap_or(0))).sum();
        self.same += a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
        self.expected += pairs as f64 / a.len() as f64;
        self.cells += a.len() as f64;
    }

    /// The share of cells whose words agree; 0 if there are no cells.
    pub(super) fn rate(&self) -> WithChance {
        let share = |n: f64| if self.cells > 0.0 { n / self.cells } else { 0.0 };
        WithChance { observed: share(self.same), by_chance: share(self.expected) }
    }
}

/// Pearson's correlation of two numbers of each cell, and its expected value if the first ones were shuffled within their
/// rows. Rows of one cell, which have nothing to shuffle, are left out. `None` where one of the numbers does not vary, or there
/// are fewer than three cells. Shape: `[row] [key] [2]`.
pub(super) fn correlation(rows: &[Vec<[f32; 2]>]) -> Option<WithChance> {
    let rows = || rows.iter().filter(|row| row.len() > 1);
    let n = rows().map(Vec::len).sum::<usize>();
    if n < 3 {
        return None;
    }
    let mean = [0, 1].map(|of| rows().flatten().map(|cell| f64::from(cell[of])).sum::<f64>() / n as f64);
    let centred = |cell: &[f32; 2]| [0, 1].map(|of| f64::from(cell[of]) - mean[of]);
    let (mut observed, mut expected, mut squares) = (0.0, 0.0, [0.0; 2]);
    for row in rows() {
        let mut sums = [0.0; 2];
        for [a, b] in row.iter().map(centred) {
            observed += a * b;
            (squares[0], squares[1]) = (squares[0] + a * a, squares[1] + b * b);
            (sums[0], sums[1]) = (sums[0] + a, sums[1] + b);
        }
        // Shuffled, each number of a row is its mean on average.
        expected += sums[0] * sums[1] / row.len() as f64;
    }
    let norm = (squares[0] * squares[1]).sqrt(); // 0 for equal numbers: the mean of equal `f32` is exact in `f64`
    (norm > 0.0).then(|| WithChance { observed: observed / norm, by_chance: expected / norm })
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;

    use super::*;
    use crate::random::seeded_rng;

    #[test]
    fn chance_is_the_mean_over_shuffled_rows() {
        let rows: [(Vec<u32>, Vec<u32>); 3] =
            [(vec![1], vec![1]), (vec![1, 1, 2, 3], vec![1, 2, 2, 1]), (vec![5, 5, 5, 6, 7], vec![5, 5, 6, 5, 7])];
        let (mut agreement, mut rng) = (Agreement::default(), seeded_rng(1));
        rows.iter().for_each(|(a, b)| agreement.add(a, b));
        let rate = agreement.rate();
        assert_eq!(rate.observed, (2.0 + 3.0) / 9.0);
        let mut shuffled = 0.0;
        for _ in 0..4_000 {
            let mut agreement = Agreement::default();
            for (a, b) in &rows {
                let mut a = a.clone();
                a.shuffle(&mut rng);
                agreement.add(&a, b);
            }
            shuffled += agreement.rate().observed / 4_000.0;
        }
        assert!((shuffled - rate.by_chance).abs() < 0.01, "{shuffled}, not {}", rate.by_chance);
        assert_eq!(Agreement::default().rate(), WithChance::default());
    }

    #[test]
    fn correlations_are_pearsons_and_chance_keeps_the_rows() {
        let row = |row: &[[f32; 2]]| row.to_vec();
        // A line, whatever its slope, and rows that do not differ.
        let line = [row(&[[0.1, 1.0], [0.9, 41.0]]), row(&[[0.1, 1.0], [0.9, 41.0]])];
        let of_line = correlation(&line).unwrap();
        assert!((of_line.observed - 1.0).abs() < 1e-12 && of_line.by_chance.abs() < 1e-12);
        // By hand: the means are 2 and 4, the products of the differences -1·-3, 0·1 and 1·2.
        let by_hand = correlation(&[row(&[[1.0, 1.0], [2.0, 5.0], [3.0, 6.0]])]).unwrap();
        assert!((by_hand.observed - 5.0 / 28.0_f64.sqrt()).abs() < 1e-12, "{by_hand:?}");
        let with_short_rows = [row(&[[9.0, 9.0]]), row(&[[1.0, 1.0], [2.0, 5.0], [3.0, 6.0]]), Vec::new()];
        assert_eq!(correlation(&with_short_rows), Some(by_hand));
        // All of the correlation is between rows.
        let between = correlation(&[row(&[[0.1, 1.0], [0.1, 1.0]]), row(&[[0.9, 5.0], [0.9, 5.0]])]).unwrap();
        assert!((between.observed - 1.0).abs() < 1e-12 && (between.by_chance - 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[row(&[[0.5, 1.0], [0.5, 2.0], [0.5, 3.0]])]), None);
        assert_eq!(correlation(&[row(&[[0.5, 1.0], [0.6, 2.0]])]), None);
        let mut rng = seeded_rng(2);
        let rows = [row(&[[0.1, 3.0], [0.2, 1.0], [0.7, 9.0]]), row(&[[0.3, 5.0], [0.3, 2.0], [0.4, 7.0], [0.0, 4.0]])];
        let (mut mean, chance) = (0.0, correlation(&rows).unwrap().by_chance);
        for _ in 0..4_000 {
            let shuffled = rows.clone().map(|mut row| {
                let mut first: Vec<f32> = row.iter().map(|cell| cell[0]).collect();
                first.shuffle(&mut rng);
                row.iter_mut().zip(first).for_each(|(cell, x)| cell[0] = x);
                row
            });
            mean += correlation(&shuffled).unwrap().observed / 4_000.0;
        }
        assert!((mean - chance).abs() < 0.02, "{mean}, not {chance}");
    }
}
