//! The golden data in `expected.safetensors`.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};

use super::Result;

/// The tensors of `expected.safetensors`.
pub(super) struct Expected<'a>(pub(super) BTreeMap<String, safetensors::tensor::TensorView<'a>>);

impl<'a> Expected<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self(SafeTensors::deserialize(bytes)?.tensors().into_iter().collect()))
    }

    /// The token ids of a prompt. Shape: → `[pos]`.
    pub(super) fn tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        let tokens = self.integers(&format!("{prompt}.tokens"))?;
        Ok(tokens.iter().map(|&token| u32::try_from(token)).collect::<std::result::Result<_, _>>()?)
    }

    /// A tensor of integers. Shape: as in the file.
    pub(super) fn integers(&self, name: &str) -> Result<ArrayD<i64>> {
        self.read_as(name, |dtype, bytes| match dtype {
            Dtype::I32 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
            Dtype::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
            _ => None,
        })
    }

    /// A tensor of floats. Shape: as in the file.
    pub(super) fn numbers(&self, name: &str) -> Result<ArrayD<f32>> {
        self.read_as(name, |dtype, bytes| match dtype {
            Dtype::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            Dtype::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as f32),
            _ => None,
        })
    }

    /// A tensor whose elements `read` converts; it returns `None` for an unexpected dtype. Shape: as in the file.
    fn read_as<T>(&self, name: &str, read: impl Fn(Dtype, &[u8]) -> Option<T>) -> Result<ArrayD<T>> {
        let tensor = self.0.get(name).ok_or_else(|| format!("there is no {name}"))?;
        let width = tensor.dtype().bitsize() / 8;
        let values: Option<Vec<T>> =
            tensor.data().chunks_exact(width.max(1)).map(|bytes| read(tensor.dtype(), bytes)).collect();
        let values = values.ok_or_else(|| format!("{name} has dtype {:?}", tensor.dtype()))?;
        Ok(ArrayD::from_shape_vec(tensor.shape(), values)?)
    }
}
