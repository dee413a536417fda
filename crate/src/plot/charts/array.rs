//! Arrays as figures take them: of any rank, with numbers of any type that is exact as `f64`.

use ndarray::{Array1, Array2, ArrayBase, ArrayD, Axis, Data, Dimension, Ix1, Ix2};

use crate::error::{Error, Result, check_count};

/// The numbers of an array, for [`imshow`](crate::imshow), [`line()`](crate::line()) and [`scatter`](crate::scatter). Converts
/// from arrays and views of `f32`, `f64` and whole numbers, from slices, vectors and arrays of Rust; a function that takes
/// it is called with `&array`.
#[derive(Clone, Debug)]
pub struct PlotArray(ArrayD<f64>);

impl<S: Data<Elem: Copy + Into<f64>>, D: Dimension> From<&ArrayBase<S, D>> for PlotArray {
    fn from(array: &ArrayBase<S, D>) -> Self {
        Self(array.mapv(Into::into).into_dyn())
    }
}

impl<S: Data<Elem: Copy + Into<f64>>, D: Dimension> From<ArrayBase<S, D>> for PlotArray {
    fn from(array: ArrayBase<S, D>) -> Self {
        Self::from(&array)
    }
}

impl<T: Copy + Into<f64>> From<&[T]> for PlotArray {
    fn from(numbers: &[T]) -> Self {
        Self(numbers.iter().map(|&x| x.into()).collect::<Array1<f64>>().into_dyn())
    }
}

impl<T: Copy + Into<f64>> From<Vec<T>> for PlotArray {
    fn from(numbers: Vec<T>) -> Self {
        Self::from(numbers.as_slice())
    }
}

impl<T: Copy + Into<f64>> From<&Vec<T>> for PlotArray {
    fn from(numbers: &Vec<T>) -> Self {
        Self::from(numbers.as_slice())
    }
}

impl<T: Copy + Into<f64>, const N: usize> From<[T; N]> for PlotArray {
    fn from(numbers: [T; N]) -> Self {
        Self::from(numbers.as_slice())
    }
}

impl<T: Copy + Into<f64>, const N: usize> From<&[T; N]> for PlotArray {
    fn from(numbers: &[T; N]) -> Self {
        Self::from(numbers.as_slice())
    }
}

impl PlotArray {
    /// The numbers of an array with one axis. `function` is the caller, for the error. Shape: → `[n]`, n at least 1.
    ///
    /// # Errors
    /// [`Error::Count`] for an array of another rank, or without numbers.
    pub(super) fn one_axis(self, function: &'static str, what: &'static str) -> Result<Vec<f64>> {
        self.check_rank(function, what, 1, 1)?;
        let numbers = self.0.into_dimensionality::<Ix1>().expect("the rank was checked").to_vec();
        check_count(function, format!("numbers of {what}"), numbers.len(), 1, None)?;
        Ok(numbers)
    }

    /// The rows of an array with two axes, or the only row of one with one axis. Shape: → `[row, column]`, at least 1 of
    /// both.
    ///
    /// # Errors
    /// As for [`one_axis`](Self::one_axis).
    pub(super) fn rows(self, function: &'static str, what: &'static str) -> Result<Array2<f64>> {
        self.check_rank(function, what, 1, 2)?;
        let rows = if self.0.ndim() == 1 { self.0.insert_axis(Axis(0)) } else { self.0 };
        checked(rows, function, what)
    }

    /// The numbers of an array with two axes. Shape: → `[row, column]`, at least 1 of both.
    ///
    /// # Errors
    /// As for [`one_axis`](Self::one_axis).
    pub(super) fn two_axes(self, function: &'static str, what: &'static str) -> Result<Array2<f64>> {
        self.check_rank(function, what, 2, 2)?;
        checked(self.0, function, what)
    }

    fn check_rank(&self, function: &'static str, what: &'static str, min: usize, max: usize) -> Result<()> {
        let (shape, found) = (self.0.shape(), self.0.ndim());
        if (min..=max).contains(&found) {
            return Ok(());
        }
        let hint = if found > max {
            "take one of the others with index_axis, or their mean with mean_axis"
        } else {
            "add one with insert_axis"
        };
        let what = format!("axes of {what}, whose shape is {shape:?}");
        Err(Error::Count { function, what, found, min, max: Some(max), hint: Some(hint) })
    }
}

fn checked(array: ArrayD<f64>, function: &'static str, what: &'static str) -> Result<Array2<f64>> {
    let array = array.into_dimensionality::<Ix2>().expect("the rank was checked");
    check_count(function, format!("rows of {what}"), array.nrows(), 1, None)?;
    check_count(function, format!("columns of {what}"), array.ncols(), 1, None)?;
    Ok(array)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, arr1, arr2};

    use super::*;

    #[test]
    fn arrays_of_other_ranks_and_without_numbers_are_errors() {
        let two = |array: PlotArray| array.two_axes("imshow", "the array").map_err(|error| error.to_string());
        let shape = Array3::<f32>::zeros((4, 3, 2));
        let axes = "imshow: axes of the array, whose shape is";
        let expected = format!("{axes} [4, 3, 2]: expected 2, found 3; take one of the others with index_axis");
        assert!(two((&shape).into()).unwrap_err().starts_with(&expected));
        assert!(two([1.0, 2.0].into()).unwrap_err().ends_with("[2]: expected 2, found 1; add one with insert_axis"));
        let empty = two((&Array2::<f64>::zeros((0, 3))).into()).unwrap_err();
        assert_eq!(empty, "imshow: rows of the array: expected at least 1, found 0");
        let empty = two((&Array2::<f64>::zeros((3, 0))).into()).unwrap_err();
        assert_eq!(empty, "imshow: columns of the array: expected at least 1, found 0");
        let empty = PlotArray::from(Vec::<f32>::new()).one_axis("scatter", "x").unwrap_err().to_string();
        assert_eq!(empty, "scatter: numbers of x: expected at least 1, found 0");
    }

    #[test]
    fn every_form_of_an_array_has_its_numbers() {
        let array = arr2(&[[1.0_f32, 2.0], [3.0, 4.5]]);
        let two = |array: PlotArray| array.two_axes("imshow", "the array").unwrap();
        let want = arr2(&[[1.0, 2.0], [3.0, 4.5]]);
        assert_eq!(
            [two((&array).into()), two(array.view().into()), two(array.clone().into_dyn().into())],
            [want.clone(), want.clone(), want.clone()]
        );
        assert_eq!(two(array.t().into()), want.t());
        let rows = |array: PlotArray| array.rows("line", "the array").unwrap();
        let row = arr2(&[[1.0, 2.0]]);
        assert_eq!(rows((&arr1(&[1_u32, 2])).into()), row);
        assert_eq!(
            [rows(vec![1.0, 2.0].into()), rows([1_i32, 2].into()), rows((&[1.0_f32, 2.0][..]).into())],
            [row.clone(), row.clone(), row]
        );
    }
}
