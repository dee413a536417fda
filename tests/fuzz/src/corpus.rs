//! What earlier runs have found: files that reach code which no other reaches, and those that once were a find. Each kind
//! has one file, `tests/fuzz/corpus/NAME.safetensors`, with a tensor of bytes for each.

use std::collections::BTreeSet;
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

/// How the names of finds begin. A find that is mended reaches nothing new, but has to stay mended.
const FIND: &str = "find-";

/// The files of a target; none for a new one.
pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    named(name).into_iter().map(|(_, file)| file).collect()
}

fn named(name: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(file) = fs::read(path(name)) else { return Vec::new() };
    let tensors = SafeTensors::deserialize(&file).expect("a file that `keep` has written");
    tensors.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect()
}

/// Puts the files of a folder in the place of those of a target, except for the finds of earlier times.
#[allow(dead_code, reason = "the tests only read")]
pub(crate) fn keep(name: &str, folder: &Path) {
    let (mut finds, mut others) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let file = fs::read(entry.path()).expect("read");
        let is_find = entry.file_name().to_string_lossy().starts_with(FIND);
        if is_find {
            finds.insert(file)
        } else {
            others.insert(file)
        };
    }
    finds.extend(named(name).into_iter().filter(|(name, _)| name.starts_with(FIND)).map(|(_, file)| file));
    let finds = finds.iter().enumerate().map(|(index, file)| (format!("{FIND}{index:05}"), file));
    let others = others.iter().enumerate().map(|(index, file)| (format!("{index:05}"), file));
    let views = others.chain(finds).map(|(name, file)| {
        let view = TensorView::new(Dtype::U8, vec![file.len()], file).expect("as many bytes as the shape has");
        (name, view)
    });
    fs::create_dir_all(path(name).parent().expect("a folder")).expect("a folder");
    safetensors::serialize_to_file(views, None, &path(name)).expect("written");
}
