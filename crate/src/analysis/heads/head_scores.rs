//! A number for each head: the result of every score of heads.

use ndarray::Array2;

use crate::plot::{Figure, MatrixChart, Table, decimals};

/// A score for each head of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    /// The name of the score, for captions.
    pub name: String,
    /// The scores; NaN where a score is not defined. Shape: `[n_layers, n_heads]`.
    pub values: Array2<f32>,
    /// The score of a head without any preference, where that is known.
    pub chance: Option<f32>,
}

/// The score of one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadScore {
    /// The layer.
    pub layer: usize,
    /// The head of the layer.
    pub head: usize,
    /// Its score.
    pub score: f32,
}

impl HeadScores {
    /// The `n` heads with the highest scores, highest first. Heads without a score are left out.
    pub fn top(&self, n: usize) -> Vec<HeadScore> {
        let defined = self.values.indexed_iter().filter(|(_, score)| !score.is_nan());
        let mut heads: Vec<HeadScore> =
            defined.map(|((layer, head), &score)| HeadScore { layer, head, score }).collect();
        heads.sort_by(|one, other| other.score.total_cmp(&one.score));
        heads.truncate(n);
        heads
    }

    /// A table of the `n` heads with the highest scores.
    pub fn table(&self, n: usize) -> Table {
        let row = |head: HeadScore| vec![format!("{}.{}", head.layer, head.head), decimals(head.score, 3)];
        Table::new(self.title(), &["head", "score"], self.top(n).into_iter().map(row).collect())
    }

    /// The scores as a heat map, layers by heads. If some are negative, 0 is in the middle of the scale: red is above it,
    /// blue below.
    pub fn plot(&self) -> Figure {
        let finite = self.values.iter().filter(|score| score.is_finite());
        let (low, high) = finite.fold((0.0_f32, 0.0_f32), |(low, high), &score| (low.min(score), high.max(score)));
        let largest = high.max(-low);
        let chart = |ends| MatrixChart::of_heads(self.title(), self.values.clone(), ("score".into(), ends));
        if low < 0.0 { chart([-largest, largest]).diverging_figure() } else { chart([low, high]).figure() }
    }

    fn title(&self) -> String {
        match self.chance {
            Some(chance) => format!("{}, chance {chance:.3}", self.name),
            None => self.name.clone(),
        }
    }

    /// Shows the figure in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.plot().evcxr_display();
    }
}
