//! What earlier runs have found: files that reach code which no other reaches, and those that once were a find. Each kind
//! has one file, `tests/fuzz/corpus/NAME.safetensors`, with a tensor of bytes for each.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// The top of the repository, for the package of the targets and for that of the tests.
pub(crate) fn root() -> &'static Path {
    let is_root = |folder: &&Path| folder.join("xtask").is_dir();
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(is_root).expect("the repository")
}

fn path(name: &str) -> PathBuf {
    root().join("tests/fuzz/corpus").join(name).with_extension("safetensors")
}

/// The files of a target; none for a new one.
pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    let Ok(file) = fs::read(path(name)) else { return Vec::new() };
    let tensors = SafeTensors::deserialize(&file).expect("a file that `keep` has written");
    tensors.tensors().into_iter().map(|(_, tensor)| tensor.data().to_vec()).collect()
}

/// Puts the files of a folder in the place of those of a target.
#[allow(dead_code, reason = "the tests only read")]
pub(crate) fn keep(name: &str, folder: &Path) {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| fs::read(entry.expect("an entry").path()));
    let mut files: Vec<Vec<u8>> = files.map(|file| file.expect("a file")).collect();
    files.sort();
    let views = files.iter().enumerate().map(|(index, file)| {
        let view = TensorView::new(Dtype::U8, vec![file.len()], file).expect("as many bytes as the shape has");
        (format!("{index:05}"), view)
    });
    fs::create_dir_all(path(name).parent().expect("a folder")).expect("a folder");
    safetensors::serialize_to_file(views, None, &path(name)).expect("written");
}
