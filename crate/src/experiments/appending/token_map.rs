//! Steps from token to token, and how near they are to a map.

use std::collections::{BTreeMap, BTreeSet};

/// Steps from IN tokens to OUT tokens, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMap {
    /// How often each IN token went to each OUT token.
    steps: BTreeMap<u32, BTreeMap<u32, u64>>,
}

impl TokenMap {
    /// No steps yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a step.
    pub fn observe(&mut self, in_token: u32, out_token: u32) {
        *self.steps.entry(in_token).or_default().entry(out_token).or_default() += 1;
    }

    /// Number of steps.
    pub fn n_observations(&self) -> u64 {
        self.steps.values().flat_map(BTreeMap::values).sum()
    }

    /// The share of steps that do not go where most of the same IN token go: 0 if the map is a function of the IN token.
    pub fn conflict_rate(&self) -> f64 {
        let kept: u64 = self.steps.values().filter_map(|to| to.values().max()).sum();
        self.share_of_others(kept)
    }

    /// The share of steps that do not go where most steps go, whatever their IN token: the conflict rate of a map that does not look
    /// at it. Only a conflict rate well below says that the IN token matters.
    pub fn conflict_rate_without_in(&self) -> f64 {
        let mut to: BTreeMap<u32, u64> = BTreeMap::new();
        self.steps.values().flatten().for_each(|(&token, count)| *to.entry(token).or_default() += count);
        self.share_of_others(to.into_values().max().unwrap_or(0))
    }

    fn share_of_others(&self, kept: u64) -> f64 {
        match self.n_observations() {
            0 => 0.0,
            all => (all - kept) as f64 / all as f64,
        }
    }

    /// Whether every IN token always went to the same OUT token.
    pub fn is_function(&self) -> bool {
        self.steps.values().all(|to| to.len() == 1)
    }

    /// Where each IN token went most often; the lower id of equals.
    pub fn most_frequent(&self) -> BTreeMap<u32, u32> {
        let most = |to: &BTreeMap<u32, u64>| {
            let best = to.iter().max_by_key(|&(&token, &count)| (count, std::cmp::Reverse(token)));
            *best.expect("an IN token went somewhere").0
        };
        self.steps.iter().map(|(&token, to)| (token, most(to))).collect()
    }

    /// Whether no two IN tokens went most often to the same OUT token.
    pub fn is_injective(&self) -> bool {
        let to: BTreeSet<u32> = self.most_frequent().into_values().collect();
        to.len() == self.steps.len()
    }

    /// The tokens that most often stayed what they were.
    pub fn fixed_points(&self) -> Vec<u32> {
        self.most_frequent().into_iter().filter(|(from, to)| from == to).map(|(token, _)| token).collect()
    }

    /// The IN tokens, with how often each is in a step.
    pub(super) fn in_counts(&self) -> impl Iterator<Item = (u32, u64)> {
        self.steps.iter().map(|(&token, to)| (token, to.values().sum()))
    }
}

/// Counts steps from IN tokens to OUT tokens.
impl FromIterator<(u32, u32)> for TokenMap {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(steps: I) -> Self {
        let mut map = Self::new();
        steps.into_iter().for_each(|(from, to)| map.observe(from, to));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(steps: &[(u32, u32)]) -> TokenMap {
        steps.iter().copied().collect()
    }

    #[test]
    fn a_function_has_no_conflicts() {
        let turn = map(&[(1, 2), (2, 3), (3, 1), (1, 2)]);
        assert!(turn.is_function() && turn.is_injective() && turn.fixed_points().is_empty());
        assert_eq!((turn.n_observations(), turn.conflict_rate(), turn.conflict_rate_without_in()), (4, 0.0, 0.5));
        let constant = map(&[(1, 7), (2, 7), (7, 7)]);
        assert!(constant.is_function() && !constant.is_injective());
        assert_eq!((constant.fixed_points(), constant.conflict_rate_without_in()), (vec![7], 0.0));
    }

    #[test]
    fn conflicts_are_counted_and_the_majority_decides() {
        let mixed = map(&[(1, 2), (1, 2), (1, 3), (4, 4), (5, 9), (5, 8)]);
        assert!(!mixed.is_function());
        assert_eq!(mixed.conflict_rate(), 2.0 / 6.0);
        assert_eq!(mixed.most_frequent(), BTreeMap::from([(1, 2), (4, 4), (5, 8)])); // of equals, the lower id
        assert_eq!((mixed.fixed_points(), mixed.is_injective()), (vec![4], true));
        let nothing = TokenMap::new();
        assert_eq!((nothing.conflict_rate(), nothing.is_function(), nothing.is_injective()), (0.0, true, true));
    }
}
