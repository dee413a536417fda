//! A head's tokens as a pattern: equal tokens have equal numbers.

use std::collections::HashMap;

use ndarray::Array2;

/// Replaces each value by the order of its first appearance, from 0, reading row by row. The −1 of masked cells is a
/// value like any other. Shape: `[rows, columns]` → the same.
///
/// ```
/// use attention_tokens::prelude::*;
/// use ndarray::arr2;
///
/// let tokens = arr2(&[[7.0, -1.0], [3.0, 7.0]]);
/// assert_eq!(unique_index_pattern(&tokens), arr2(&[[0.0, 1.0], [2.0, 0.0]]));
/// ```
pub fn unique_index_pattern(feature: &Array2<f32>) -> Array2<f32> {
    let mut order = HashMap::new();
    feature.mapv(|value| {
        // By bits, so that NaN is a value too; −0 is 0.
        let next = order.len();
        *order.entry((value + 0.0).to_bits()).or_insert(next) as f32
    })
}
