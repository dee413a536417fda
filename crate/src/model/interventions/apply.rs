//! One planned edit of one prompt's activation.

use ndarray::{Array3, ArrayD, ArrayViewMut3, Axis, Ix3, IxDyn};

use super::edit::not_finite;
use super::plan::{How, PlannedEdit};
use super::selection::has_heads;
use crate::error::{Error, Result};
use crate::model::Activation;

impl PlannedEdit {
    /// Edits the rows of one prompt.
    /// Shape: `x [pos, 1, d_model]`, `[pos, n_heads, d_head]`, or for scores and patterns `[heads, query_pos, key_pos]` of
    /// `heads`, which has the edited ones.
    ///
    /// # Errors
    /// [`Error::Intervention`] if a closure returns an array of another shape, or NaN.
    pub(in crate::model) fn apply(&self, mut x: ArrayViewMut3<f32>, heads: &[usize]) -> Result<()> {
        let [a, b, c] = &self.indices;
        let of_cells = self.point.activation.is_of_cells();
        let a: Vec<usize> = if of_cells {
            let place = |head| heads.iter().position(|other| other == head).expect("an edited head");
            a.iter().map(place).collect()
        } else {
            a.clone()
        };
        let shape = IxDyn(&[a.len(), b.len(), c.len()]);
        let masked = |query: usize, key: usize| {
            of_cells
                && (key > query + self.first
                    || self.cells.as_ref().is_some_and(|cells| cells.binary_search(&(query, key)).is_err()))
        };
        let values_of_closure = match &self.how {
            How::Hook(closure, context) => {
                let selected = Array3::from_shape_fn((a.len(), b.len(), c.len()), |(i, j, k)| x[[a[i], b[j], c[k]]]);
                let given = self.public(selected);
                let expected = given.shape().to_vec();
                Some(self.checked(closure(given, context), expected)?)
            }
            _ => None,
        };
        let mut each = |edit: &mut dyn FnMut(&mut f32, [usize; 3])| {
            for (i, &a) in a.iter().enumerate() {
                for (j, &b) in b.iter().enumerate() {
                    for (k, &c) in c.iter().enumerate() {
                        if !masked(b, c) {
                            edit(&mut x[[a, b, c]], [i, j, k]);
                        }
                    }
                }
            }
        };
        match &self.how {
            // A score of −∞ stays, as −∞ · 0 is no number.
            How::Scale(factor) => each(&mut |x, _| *x = if x.is_finite() { *x * factor } else { *x }),
            How::Set(values) | How::Add(values) => {
                let set = matches!(self.how, How::Set(_));
                let values = values.broadcast(shape).expect("the plan checked the shape");
                let values = values.into_dimensionality::<Ix3>().expect("three axes");
                each(&mut |x, index| *x = if set { values[index] } else { *x + values[index] });
            }
            How::LayerNormScale(_) => {} // `rescale` applies it
            How::Hook(..) => {
                let values = values_of_closure.expect("computed above");
                each(&mut |x, index| *x = values[index]);
            }
        }
        Ok(())
    }

    /// Without the axis of heads, where the activation has none.
    fn public(&self, x: Array3<f32>) -> ArrayD<f32> {
        if has_heads(self.point.activation) { x.into_dyn() } else { x.remove_axis(Axis(1)).into_dyn() }
    }

    /// A closure's result with three axes, if it has the right shape and no NaN.
    fn checked(&self, values: ArrayD<f32>, expected: Vec<usize>) -> Result<Array3<f32>> {
        let error =
            |source| Error::Intervention { intervention: self.description.to_string(), source: Box::new(source) };
        if values.shape() != expected {
            return Err(error(Error::Shape {
                what: format!("the closure's result for prompt {}", self.prompt),
                axes: if expected.len() == 2 { "[pos, d_model]" } else { "three axes" },
                expected,
                found: values.shape().to_vec(),
                hint: "a closure returns an array of the shape that it gets",
            }));
        }
        let scores = self.point.activation == Activation::AttnScores;
        if let Some((index, x)) = not_finite(values.view(), scores) {
            return Err(error(Error::Setting {
                function: "Intervention",
                option: "the closure's result",
                expected: if scores { "finite numbers or -inf" } else { "finite numbers" }.into(),
                found: format!("{x} at {index:?} of prompt {}", self.prompt),
            }));
        }
        let values = if values.ndim() == 2 { values.insert_axis(Axis(1)) } else { values };
        Ok(values.into_dimensionality().expect("three axes"))
    }
}
