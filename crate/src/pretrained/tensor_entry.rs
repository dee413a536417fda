//! The tensors of a safetensors file: its header, checked, and numbers that are read on demand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata};

use crate::error::{Error, Result};
use crate::files::{self, Content};
use crate::memory;

/// The largest header, in bytes. The format allows 100 MB, and reading one takes up to 15 times its size; those of published
/// models have less than 1 MB.
const MAX_HEADER_BYTES: u64 = 16_000_000;
/// The number of values that are read and converted at a time, so that a file is never in memory as a whole.
const CHUNK: usize = 1 << 17;

/// A tensor of a file, as the file's header describes it.
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    /// Shared by all tensors of the file, of which a foreign one can have many.
    pub(crate) path: Arc<Path>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Offset of its first byte in the file.
    start: u64,
}

/// The header of a safetensors file.
pub(crate) struct Header {
    pub(crate) tensors: Vec<TensorEntry>,
    /// The texts that the file's author stored beside the tensors.
    pub(crate) metadata: HashMap<String, String>,
}

/// The tensors and the metadata of a file. Only the header is read.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the file is not safetensors, is truncated, or is longer than its header implies.
pub(crate) fn read_header(path: &Path) -> Result<Header> {
    let format_error = |expected: &str, found: String| Error::Format {
        path: path.into(),
        expected: expected.into(),
        found,
        source: None,
    };
    files::check_kind(path, Content::Safetensors, "a safetensors file")?;
    let mut file = File::open(path).map_err(Error::io(path))?;
    let len = file.metadata().map_err(Error::io(path))?.len();
    let mut header_len = [0; 8];
    if len < 8 {
        return Err(format_error("a safetensors file", format!("a file of {len} bytes")));
    }
    files::read_exact(&mut file, &mut header_len, path)?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > MAX_HEADER_BYTES || header_len > len - 8 {
        let found = format!("a header of {header_len} bytes in a file of {len}");
        return Err(format_error("a safetensors header of at most 16000000 bytes that fits the file", found));
    }
    let mut header = vec![0; header_len as usize];
    files::read_exact(&mut file, &mut header, path)?;
    // Deserializing checks the offsets too: in order, without gaps or overlaps, of the length that shape and dtype
    // imply.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| Error::format(path, "a safetensors header", error))?;
    let data_start = 8 + header_len;
    let data_len = metadata.data_len() as u64;
    if data_start.checked_add(data_len) != Some(len) {
        let found = format!("{} bytes: it is truncated, or something was appended", len - data_start);
        return Err(format_error(&format!("{data_len} bytes of tensor data after the header"), found));
    }
    drop(header);
    let shared: Arc<Path> = path.into();
    let tensors = metadata.tensors().into_iter().map(|(name, info)| TensorEntry {
        name,
        path: shared.clone(),
        dtype: info.dtype,
        shape: info.shape.clone(),
        start: data_start + info.data_offsets.0 as u64,
    });
    Ok(Header { tensors: tensors.collect(), metadata: metadata.metadata().clone().unwrap_or_default() })
}

impl TensorEntry {
    /// [`Error::Tensor`] for this tensor.
    pub(crate) fn error(&self, expected: String, found: String) -> Error {
        Error::Tensor { path: self.path.to_path_buf(), tensor: self.name.clone(), expected, found }
    }

    /// Whether the dtype is one that weights and activations are read from.
    pub(super) fn has_floats(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
    }

    /// The numbers of a vector. Shape: → `[n]`.
    pub(super) fn vector(&self) -> Result<Array1<f32>> {
        Ok(self.values()?.into())
    }

    /// The numbers of a matrix. Shape: → `[rows, columns]`.
    pub(super) fn matrix(&self) -> Result<Array2<f32>> {
        let shape = (self.shape[0], self.shape[1]);
        Ok(Array2::from_shape_vec(shape, self.values()?).expect("as many values as the shape has"))
    }

    /// The transpose of a matrix, in row-major order. Shape: `[rows, columns]` → `[columns, rows]`.
    pub(super) fn transposed_matrix(&self) -> Result<Array2<f32>> {
        /// Rows and columns of a piece that fits the processor's first cache.
        const PIECE: usize = 32;
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let values = memory::zeros(rows * columns);
        let mut transposed = Array2::from_shape_vec((columns, rows), values).expect("as many values as the shape has");
        let stripes: Vec<_> = transposed.axis_chunks_iter_mut(Axis(1), PIECE).enumerate().collect();
        let stripe_of_file = || vec![0.0; PIECE * columns];
        stripes.into_par_iter().try_for_each_init(stripe_of_file, |values, (stripe, mut to)| {
            let values = &mut values[..to.ncols() * columns];
            self.read_finite(stripe * PIECE * columns, values)?;
            let from = ArrayView2::from_shape((to.ncols(), columns), values).expect("as many values as the stripe has");
            for (from, mut to) in from.axis_chunks_iter(Axis(1), PIECE).zip(to.axis_chunks_iter_mut(Axis(0), PIECE)) {
                to.assign(&from.t());
            }
            Ok(())
        })?;
        Ok(transposed)
    }

    /// All numbers, in the order of the file. Shape: → `[n]`.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Tensor`] if one is not finite.
    fn values(&self) -> Result<Vec<f32>> {
        let mut values = memory::zeros(self.shape.iter().product());
        let chunks = values.par_chunks_mut(CHUNK).enumerate();
        chunks.try_for_each(|(chunk, values)| self.read_finite(chunk * CHUNK, values))?;
        Ok(values)
    }

    /// Fills `values` with the numbers from index `first` on. Shape: `[n]`.
    ///
    /// # Errors
    /// As for [`values`](Self::values).
    fn read_finite(&self, first: usize, values: &mut [f32]) -> Result<()> {
        self.read(first, values)?;
        // Counting compiles to vector instructions; a search for the first would check one number at a time.
        if values.iter().map(|value| u32::from(!value.is_finite())).sum::<u32>() == 0 {
            return Ok(());
        }
        let at = values.iter().position(|value| !value.is_finite()).expect("there is one");
        let found = format!("{} at index {}", values[at], first + at);
        Err(self.error("finite numbers".into(), found))
    }

    /// All numbers of a tensor in which every number `is_allowed`, in the order of the file. Shape: → `[n]`.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Tensor`] for another dtype or a number that is not allowed.
    pub(crate) fn numbers(&self, is_allowed: impl Fn(f32) -> bool) -> Result<Vec<f32>> {
        if !self.has_floats() {
            return Err(self.error("dtype F32, F16, BF16 or F64".into(), format!("{:?}", self.dtype)));
        }
        let mut values = memory::zeros(self.shape.iter().product());
        self.read(0, &mut values)?;
        match values.iter().position(|&value| !is_allowed(value)) {
            Some(at) => Err(self.error("finite numbers".into(), format!("{} at index {at}", values[at]))),
            None => Ok(values),
        }
    }

    /// All numbers of a tensor of dtype I64, which the caller checks. Shape: → `[n]`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn integers(&self) -> Result<Vec<i64>> {
        let mut bytes = vec![0; size_of::<i64>() * self.shape.iter().product::<usize>()];
        let mut file = File::open(&self.path).map_err(Error::io(&*self.path))?;
        file.seek(SeekFrom::Start(self.start)).map_err(Error::io(&*self.path))?;
        files::read_exact(&mut file, &mut bytes, &self.path)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
    }

    /// Whether a tensor has the shape, the dtype and the numbers of another.
    ///
    /// # Errors
    /// As for [`values`](Self::values).
    pub(super) fn has_values_of(&self, other: &Self) -> Result<bool> {
        if self.shape != other.shape || self.dtype != other.dtype {
            return Ok(false);
        }
        let n: usize = self.shape.iter().product();
        let (mut one, mut two) = (vec![0.0; CHUNK.min(n)], vec![0.0; CHUNK.min(n)]);
        for first in (0..n).step_by(CHUNK) {
            let len = CHUNK.min(n - first);
            self.read(first, &mut one[..len])?;
            other.read(first, &mut two[..len])?;
            if one[..len] != two[..len] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `values` with the numbers from index `first` on. Shape: `[n]`.
    fn read(&self, first: usize, values: &mut [f32]) -> Result<()> {
        let width = self.dtype.bitsize() / 8;
        let mut file = File::open(&self.path).map_err(Error::io(&*self.path))?;
        file.seek(SeekFrom::Start(self.start + (first * width) as u64)).map_err(Error::io(&*self.path))?;
        if self.dtype == Dtype::F32 {
            files::read_exact(&mut file, bytemuck::cast_slice_mut(values), &self.path)?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            }
            return Ok(());
        }
        let mut bytes = vec![0; width * values.len()];
        files::read_exact(&mut file, &mut bytes, &self.path)?;
        match self.dtype {
            Dtype::F16 => convert(&bytes, values, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => convert(&bytes, values, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            Dtype::F64 => convert(&bytes, values, |bytes| f64::from_le_bytes(bytes) as f32),
            _ => unreachable!("the callers take no other dtype"),
        }
        Ok(())
    }
}

/// Converts little-endian numbers of `WIDTH` bytes. Shape: `[WIDTH n]` bytes → `[n]`.
fn convert<const WIDTH: usize>(bytes: &[u8], values: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<WIDTH>();
    values.iter_mut().zip(numbers).for_each(|(value, bytes)| *value = number(*bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transpose_has_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for (rows, columns) in [(1, 1), (3, 70), (33, 32), (64, 100), (100, 64)] {
            let w = Array2::from_shape_fn((rows, columns), |(row, column)| (row * 1000 + column) as f32);
            let data = bytemuck::cast_slice(w.as_slice().unwrap());
            let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![rows, columns], data).unwrap();
            safetensors::serialize_to_file([("x", view)], None, &path).unwrap();
            let entry = &read_header(&path).unwrap().tensors[0];
            let transposed = entry.transposed_matrix().unwrap();
            assert!(transposed.is_standard_layout());
            assert_eq!(transposed, w.t());
            assert_eq!(entry.matrix().unwrap(), w);
        }
    }

    #[test]
    fn a_file_that_has_become_shorter_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let data = [0_u8; 32];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I64] {
            let n = data.len() / (dtype.bitsize() / 8);
            let view = safetensors::tensor::TensorView::new(dtype, vec![n], &data).unwrap();
            safetensors::serialize_to_file([("x", view)], None, &path).unwrap();
            let header = read_header(&path).unwrap();
            let len = path.metadata().unwrap().len();
            File::options().write(true).open(&path).unwrap().set_len(len - 3).unwrap();
            let entry = &header.tensors[0];
            let read = if dtype == Dtype::I64 { entry.integers().map(drop) } else { entry.values().map(drop) };
            let message = read.unwrap_err().to_string();
            let expected = "cannot be read: it has become shorter while it was read; try again once it is whole";
            assert_eq!(message, format!("{}: {expected}", path.display()), "{dtype:?}");
        }
    }
}
