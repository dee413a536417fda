//! One colour for each token of a figure.

use std::collections::HashMap;

use super::panel::HeadPanel;
use crate::plot::style::{FigureStyle, palette};

/// Maximum number of different colours; more could not be told apart anyway.
const MAX_COLORS: usize = 250;

/// The colours of all tokens of a figure's panels, the most different ones for the most frequent tokens.
pub(super) struct TokenColors {
    /// The index of each token's colour, from 1.
    indices: HashMap<u32, usize>,
    pub(super) colors: Vec<[u8; 3]>,
}

impl TokenColors {
    pub(super) fn new<'a>(panels: impl IntoIterator<Item = &'a HeadPanel>, style: FigureStyle) -> Self {
        let ranking = ranking(panels);
        let n = ranking.len();
        let palette = palette();
        // The colours, and the index of each rank's, from 1.
        let (colors, steps): (Vec<[u8; 3]>, Vec<usize>) = if n <= palette.len() && style.color_scale.is_none() {
            (palette[..n].to_vec(), (1..=n).collect())
        } else {
            let n_colors = n.min(MAX_COLORS);
            let (scale, [low, high]) = (style.scale().colors(), style.scale().token_range(style.theme()));
            let share = |step: usize| step as f64 / n_colors.saturating_sub(1).max(1) as f64;
            let colors = (0..n_colors).map(|step| scale(low + (high - low) * share(step))).collect();
            (colors, spread(n).into_iter().map(|place| place * n_colors / n + 1).collect())
        };
        let indices = ranking.iter().map(|&(token, _)| token).zip(steps).collect();
        Self { indices, colors }
    }

    /// The index of a token's colour, from 1; 0 for no token.
    pub(super) fn index(&self, token: Option<u32>) -> usize {
        token.and_then(|token| self.indices.get(&token).copied()).unwrap_or(0)
    }

    /// The colour of a token of the figure.
    pub(super) fn color(&self, token: u32) -> [u8; 3] {
        self.colors[self.indices[&token] - 1]
    }
}

/// The tokens of some panels with their numbers of cells, most frequent first; at a tie by their first appearance.
pub(super) fn ranking<'a>(panels: impl IntoIterator<Item = &'a HeadPanel>) -> Vec<(u32, usize)> {
    by_frequency(panels.into_iter().filter_map(HeadPanel::tokens).flat_map(|tokens| tokens.into_iter().flatten()))
}

/// The distinct tokens with their numbers, most frequent first; at a tie by their first appearance.
pub(crate) fn by_frequency(tokens: impl Iterator<Item = u32>) -> Vec<(u32, usize)> {
    let mut counts: HashMap<u32, (usize, usize)> = HashMap::new(); // count, order of appearance
    for token in tokens {
        let next = counts.len();
        counts.entry(token).or_insert((0, next)).0 += 1;
    }
    let mut ranking: Vec<(u32, (usize, usize))> = counts.into_iter().collect();
    ranking.sort_unstable_by_key(|&(_, (count, order))| (std::cmp::Reverse(count), order));
    ranking.into_iter().map(|(token, (count, _))| (token, count)).collect()
}

/// A place on a scale for each of `n` ranks, such that the first ones are far apart: the order of van der Corput's
/// sequence. Shape: → `[rank]`, a permutation.
fn spread(n: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = (0..n).collect();
    ranks.sort_by_key(|&rank| (rank as u32).reverse_bits());
    let mut places = vec![0; n];
    ranks.into_iter().enumerate().for_each(|(place, rank)| places[rank] = place);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::style::ColorScale;
    use ndarray::arr2;

    #[test]
    fn frequent_tokens_are_far_apart_on_the_scale() {
        assert_eq!(spread(8), [0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(spread(5), [0, 3, 2, 4, 1]);
        let mut places = spread(300);
        places.sort_unstable();
        assert!(places.into_iter().eq(0..300));
    }

    #[test]
    fn few_tokens_have_the_palette_and_a_chosen_scale_is_used_from_end_to_end() {
        let panels = [HeadPanel::new(arr2(&[[5.0, 9.0], [7.0, 7.0]])), HeadPanel::new(arr2(&[[7.0, 9.0], [8.0, 5.0]]))];
        let colors = TokenColors::new(&panels, FigureStyle::default());
        assert_eq!(ranking(&panels), [(7, 3), (5, 2), (8, 1)]);
        assert_eq!((colors.index(Some(7)), colors.index(Some(5)), colors.index(None)), (1, 2, 0));
        assert_eq!(colors.color(8), palette()[2]);
        let style = FigureStyle { color_scale: Some(ColorScale::Viridis), ..FigureStyle::default() };
        let colors = TokenColors::new(&panels, style);
        let scale = ColorScale::Viridis.colors();
        assert_eq!([7, 5, 8].map(|token| colors.color(token)), [scale(0.0), scale(1.0), scale(0.5)]);
    }

    #[test]
    fn many_tokens_share_the_colors_of_the_scale() {
        let pattern = ndarray::Array2::from_shape_fn((1, 1_000), |(_, column)| column as f32);
        let panel = [HeadPanel::new(pattern)];
        let colors = TokenColors::new(&panel, FigureStyle::default());
        assert_eq!((ranking(&panel).len(), colors.colors.len()), (1_000, MAX_COLORS));
        assert!((0..1_000).all(|token| (1..=MAX_COLORS).contains(&colors.index(Some(token)))));
    }
}
