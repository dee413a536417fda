//! Arrays as `.npz`, for numpy.

use std::fs::File;
use std::path::Path;

use ndarray::ArrayD;
use ndarray_npy::{NpzWriter, WriteNpzError};

use crate::error::Result;
use crate::files::replace;

/// Writes arrays as numpy's `.npz`; in Python `numpy.load(path)[name]`.
///
/// ```
/// use attention_tokens::{prelude::*, write_npz};
///
/// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
/// let (_, cache) = model.run_with_cache("Monday, Tuesday,")?;
/// let folder = tempfile::tempdir()?;
/// write_npz(folder.path().join("run.npz"), &[("pattern", cache.get(Activation::Pattern, 0)?)])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`](crate::Error::Write), naming the file.
pub fn write_npz(path: impl AsRef<Path>, arrays: &[(&str, ArrayD<f32>)]) -> Result<()> {
    let path = path.as_ref();
    replace(path, |path| npz(path, arrays))
}

fn npz(path: &Path, arrays: &[(&str, ArrayD<f32>)]) -> Result<(), WriteNpzError> {
    let mut npz = NpzWriter::new(File::create(path).map_err(ndarray_npy::WriteNpyError::Io)?);
    for (name, array) in arrays {
        npz.add_array(*name, array)?;
    }
    npz.finish().map(drop)
}
