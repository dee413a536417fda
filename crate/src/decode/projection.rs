//! The three ways of a head's vectors to the residual stream.

use ndarray::{Array2, Axis};

/// How a vector of a head, `c [d_head]`, gets to the residual stream. All three are linear; they differ, and a figure
/// says which one it shows.
///
/// `Notebook` and `Ov` depend on the basis that weight processing chose for the head (the signs and the order of its
/// singular vectors); `Output` does not depend on the basis of `W_V`, but on that of `c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Projection {
    /// `(W_V c) ⊙ Σ_m W_O[m, :]`: what the original notebook computes, whose second einsum sums `W_O` over the head
    /// dimension. It reproduces the original figures.
    #[default]
    Notebook,
    /// `c W_O`: the head's own way out to the residual stream.
    Output,
    /// `(W_V c)ᵀ W_V W_O`: what the original says in words, the OV matrix applied to `c` lifted to the residual stream.
    Ov,
}

impl Projection {
    /// All three.
    pub const ALL: [Projection; 3] = [Projection::Notebook, Projection::Output, Projection::Ov];

    /// `"notebook"`, `"output"` or `"ov"`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Notebook => "notebook",
            Projection::Output => "output",
            Projection::Ov => "ov",
        }
    }

    /// The matrix `P` of a head: `r = c P`. Computed in `f64`, rounded once. The head's weights are
    /// [`Gpt2::w_v`](crate::Gpt2::w_v) and [`Gpt2::w_o`](crate::Gpt2::w_o).
    /// Shape: `w_v [d_model, d_head]`, `w_o [d_head, d_model]` → `[d_head, d_model]`.
    ///
    /// # Panics
    /// If the shapes are others.
    pub fn matrix(self, w_v: &Array2<f32>, w_o: &Array2<f32>) -> Array2<f32> {
        assert_eq!(w_v.dim(), (w_o.ncols(), w_o.nrows()), "W_V is [d_model, d_head] and W_O [d_head, d_model]");
        let (w_v, w_o) = (w_v.mapv(f64::from), w_o.mapv(f64::from));
        let p = match self {
            Projection::Notebook => &w_v.t() * &w_o.sum_axis(Axis(0)),
            Projection::Output => w_o,
            Projection::Ov => w_v.t().dot(&w_v).dot(&w_o),
        };
        p.mapv(|x| x as f32)
    }
}
