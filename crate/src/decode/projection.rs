//! The three projections from a head's vectors to the residual stream.

use ndarray::{Array2, Axis};

/// The linear map `P` from a head's vector `c [d_head]` to the residual stream, `r = c P [d_model]`.
///
/// The three projections give different tokens, so each figure names the one that it shows. `Notebook` and `Ov` depend
/// on the basis that weight processing chose for the head (the signs and the order of its singular vectors). `Output`
/// does not depend on the basis of `W_V`, but on that of `c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Projection {
    /// `(W_V c) ⊙ Σ_m W_O[m, :]`, as in the original notebook, whose second einsum sums `W_O` over the head dimension.
    /// Reproduces the original figures.
    #[default]
    Notebook,
    /// `c W_O`: the head's own output weights.
    Output,
    /// `(W_V c)ᵀ W_V W_O`: the OV matrix applied to `c` lifted to the residual stream, as the original notebook's text
    /// describes it.
    Ov,
}

impl Projection {
    /// All three projections.
    pub const ALL: [Projection; 3] = [Projection::Notebook, Projection::Output, Projection::Ov];

    /// `"notebook"`, `"output"` or `"ov"`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Notebook => "notebook",
            Projection::Output => "output",
            Projection::Ov => "ov",
        }
    }

    /// The projection in words, for captions: "the original notebook's projection".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Projection::Notebook => "the original notebook's projection",
            Projection::Output => "the head's output weights",
            Projection::Ov => "the head's OV matrix",
        }
    }

    /// The matrix `P` of a head, computed in `f64` and rounded once.
    ///
    /// The head's weights are [`Gpt2::w_v`](crate::Gpt2::w_v) and [`Gpt2::w_o`](crate::Gpt2::w_o).
    /// Shape: `w_v [d_model, d_head]`, `w_o [d_head, d_model]` → `[d_head, d_model]`.
    ///
    /// # Panics
    /// If the shapes differ from these.
    ///
    /// ```
    /// # use attention_tokens::prelude::*;
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let p = Projection::Output.matrix(&model.w_v(0, 1)?, &model.w_o(0, 1)?);
    /// assert_eq!(p, model.w_o(0, 1)?);
    /// # Ok::<(), Error>(())
    /// ```
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

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn matrix_of_a_head_with_d_model_3_and_d_head_2() {
        let w_v = arr2(&[[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]); // [d_model, d_head]
        let w_o = arr2(&[[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]); // [d_head, d_model]
        let p = |projection: Projection| projection.matrix(&w_v, &w_o);
        // Σ_m W_O[m, :] = [1, 3, -1] scales the columns of W_Vᵀ.
        assert_eq!(p(Projection::Notebook), arr2(&[[1.0, 6.0, 0.0], [0.0, 3.0, -3.0]]));
        assert_eq!(p(Projection::Output), w_o);
        // W_Vᵀ W_V = [[5, 2], [2, 10]]
        assert_eq!(p(Projection::Ov), arr2(&[[5.0, 12.0, -2.0], [2.0, 14.0, -10.0]]));
    }
}
