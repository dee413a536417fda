//! The vectors to decode.

use std::ops::Range;

use ndarray::Array2;

/// Vectors to decode, each the element-wise product of two rows of a table.
///
/// The vector of a cell is the product of its query and its key; the vector of a position is paired with a row of ones.
/// A head has a vector for each cell but only a few rows for each position, so vectors are computed in ranges, when
/// they are decoded.
pub(crate) struct Vectors {
    /// Shape: `[rows, d_head]`.
    table: Array2<f32>,
    pairs: Vec<[u32; 2]>,
}

impl Vectors {
    /// A vector for each pair of rows. Shape: `table [rows, d_head]`.
    ///
    /// # Panics
    /// If a pair names a row that the table does not have.
    pub(crate) fn new(table: Array2<f32>, pairs: Vec<[u32; 2]>) -> Self {
        let rows = table.nrows() as u32;
        assert!(pairs.iter().flatten().all(|&row| row < rows), "a pair of rows of a table of {rows}");
        Self { table: if table.is_standard_layout() { table } else { table.as_standard_layout().into_owned() }, pairs }
    }

    /// The number of vectors.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The rows that the vectors are products of, in standard layout. Shape: `[rows, d_head]`.
    #[cfg(feature = "cuda")]
    pub(crate) fn table(&self) -> ndarray::ArrayView2<'_, f32> {
        self.table.view()
    }

    /// The two rows of each vector.
    #[cfg(feature = "cuda")]
    pub(crate) fn pairs(&self) -> &[[u32; 2]] {
        &self.pairs
    }

    /// Computes a range of the vectors. Shape: → `[n, d_head]`.
    pub(crate) fn compute(&self, range: Range<usize>) -> Array2<f32> {
        let shape = (range.len(), self.table.ncols());
        let mut vectors = Vec::with_capacity(shape.0 * shape.1);
        let rows = self.table.as_slice().expect("it is in standard layout");
        let row = |index: u32| &rows[index as usize * shape.1..][..shape.1];
        for &[one, other] in &self.pairs[range] {
            vectors.extend(row(one).iter().zip(row(other)).map(|(one, other)| one * other));
        }
        Array2::from_shape_vec(shape, vectors).expect("as many numbers as pairs times d_head")
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn vectors_are_products_of_rows_in_any_memory_layout() {
        let table = arr2(&[[1.0, 2.0], [3.0, -4.0], [1.0, 1.0]]);
        let pairs = vec![[0, 1], [1, 1], [1, 2], [0, 0]];
        for table in [table.clone(), table.reversed_axes().as_standard_layout().into_owned().reversed_axes()] {
            let vectors = Vectors::new(table, pairs.clone());
            assert_eq!(vectors.len(), 4);
            assert_eq!(vectors.compute(0..4), arr2(&[[3.0, -8.0], [9.0, 16.0], [3.0, -4.0], [1.0, 4.0]]));
            assert_eq!(vectors.compute(2..3), arr2(&[[3.0, -4.0]]));
            assert_eq!(vectors.compute(4..4).dim(), (0, 2));
        }
    }

    #[test]
    #[should_panic(expected = "a pair of rows of a table of 1")]
    fn a_pair_beyond_the_table_panics() {
        Vectors::new(arr2(&[[1.0]]), vec![[0, 1]]);
    }
}
