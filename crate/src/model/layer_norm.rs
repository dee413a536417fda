//! The number that a layer norm divides by.

use ndarray::ArrayView1;

/// The scale of a layer norm, `√(variance + eps)`, computed in `f64`. Shape: `[d_model]`.
pub(crate) fn layer_norm_scale(row: ArrayView1<f32>, eps: f64) -> f32 {
    let n = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (variance + eps).sqrt() as f32
}
