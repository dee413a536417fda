//! Transitions from IN tokens to OUT tokens, and how close they are to a function.

use std::collections::{BTreeMap, BTreeSet};

/// Counts of transitions from IN tokens to OUT tokens. [`appending()`](super::appending()) defines both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMap {
    /// For each IN token, the count of each OUT token.
    transitions: BTreeMap<u32, BTreeMap<u32, u64>>,
}

impl TokenMap {
    /// A map without transitions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a transition.
    pub fn observe(&mut self, in_token: u32, out_token: u32) {
        *self.transitions.entry(in_token).or_default().entry(out_token).or_default() += 1;
    }

    /// Number of transitions.
    pub fn n_observations(&self) -> u64 {
        self.transitions.values().flat_map(BTreeMap::values).sum()
    }

    /// The proportion of transitions whose OUT token is not the most frequent one of their IN token: 0 if the OUT token
    /// is a function of the IN token.
    ///
    /// ```text
    /// conflict rate = 1 − Σ_in max_out count(in, out) / Σ_in Σ_out count(in, out)
    /// ```
    pub fn conflict_rate(&self) -> f64 {
        let majority: u64 = self.transitions.values().filter_map(|to| to.values().max()).sum();
        self.conflicts_of(majority)
    }

    /// The proportion of transitions whose OUT token is not the most frequent one of all: the conflict rate of a rule
    /// that ignores the IN token. The IN token matters only if [`conflict_rate`](Self::conflict_rate) is well below
    /// this.
    pub fn conflict_rate_without_in(&self) -> f64 {
        let mut to: BTreeMap<u32, u64> = BTreeMap::new();
        self.transitions.values().flatten().for_each(|(&token, count)| *to.entry(token).or_default() += count);
        self.conflicts_of(to.into_values().max().unwrap_or(0))
    }

    /// The proportion of transitions that are not among the `majority` that a rule predicts; 0 without transitions.
    fn conflicts_of(&self, majority: u64) -> f64 {
        match self.n_observations() {
            0 => 0.0,
            all => (all - majority) as f64 / all as f64,
        }
    }

    /// Whether every IN token has a single OUT token.
    pub fn is_function(&self) -> bool {
        self.transitions.values().all(|to| to.len() == 1)
    }

    /// The most frequent OUT token of each IN token. A tie goes to the lower id.
    pub fn most_frequent(&self) -> BTreeMap<u32, u32> {
        let majority = |to: &BTreeMap<u32, u64>| {
            let best = to.iter().max_by_key(|&(&token, &count)| (count, std::cmp::Reverse(token)));
            *best.expect("an IN token has at least one OUT token").0
        };
        self.transitions.iter().map(|(&token, to)| (token, majority(to))).collect()
    }

    /// Whether the most frequent OUT tokens of any two IN tokens differ.
    pub fn is_injective(&self) -> bool {
        let to: BTreeSet<u32> = self.most_frequent().into_values().collect();
        to.len() == self.transitions.len()
    }

    /// The tokens that are their own most frequent OUT token, by id.
    pub fn fixed_points(&self) -> Vec<u32> {
        self.most_frequent().into_iter().filter(|(from, to)| from == to).map(|(token, _)| token).collect()
    }

    /// The IN tokens with their number of transitions.
    pub(super) fn in_counts(&self) -> impl Iterator<Item = (u32, u64)> {
        self.transitions.iter().map(|(&token, to)| (token, to.values().sum()))
    }
}

/// Counts (IN, OUT) transitions.
impl FromIterator<(u32, u32)> for TokenMap {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(transitions: I) -> Self {
        let mut map = Self::new();
        transitions.into_iter().for_each(|(from, to)| map.observe(from, to));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(transitions: &[(u32, u32)]) -> TokenMap {
        transitions.iter().copied().collect()
    }

    #[test]
    fn a_function_has_no_conflicts() {
        let cycle = map(&[(1, 2), (2, 3), (3, 1), (1, 2)]);
        assert!(cycle.is_function() && cycle.is_injective() && cycle.fixed_points().is_empty());
        assert_eq!((cycle.n_observations(), cycle.conflict_rate(), cycle.conflict_rate_without_in()), (4, 0.0, 0.5));
        let constant = map(&[(1, 7), (2, 7), (7, 7)]);
        assert!(constant.is_function() && !constant.is_injective());
        assert_eq!((constant.fixed_points(), constant.conflict_rate_without_in()), (vec![7], 0.0));
    }

    #[test]
    fn conflicts_are_the_transitions_outside_the_majority() {
        let mixed = map(&[(1, 2), (1, 2), (1, 3), (4, 4), (5, 9), (5, 8)]);
        assert!(!mixed.is_function());
        assert_eq!(mixed.conflict_rate(), 2.0 / 6.0);
        assert_eq!(mixed.most_frequent(), BTreeMap::from([(1, 2), (4, 4), (5, 8)])); // 5 has a tie
        assert_eq!((mixed.fixed_points(), mixed.is_injective()), (vec![4], true));
        let nothing = TokenMap::new();
        assert_eq!((nothing.conflict_rate(), nothing.is_function(), nothing.is_injective()), (0.0, true, true));
    }
}
