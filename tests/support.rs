use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

pub(crate) fn load(folder: &Path) -> Result<Gpt2, Error> {
    Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default())
}

pub(crate) fn demo() -> Gpt2 {
    Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap()
}

/// A program of `crate/examples`, which cargo builds with the tests.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap(); // target/PROFILE/deps/integration-…
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    Command::new(program.with_extension(std::env::consts::EXE_EXTENSION))
}

/// Fails with the worst index and both values.
#[track_caller]
pub(crate) fn assert_close<'a>(
    got: impl IntoIterator<Item = &'a f32>,
    want: impl IntoIterator<Item = &'a f32>,
    tolerance: f32,
) {
    let (got, want): (Vec<f32>, Vec<f32>) = (got.into_iter().copied().collect(), want.into_iter().copied().collect());
    assert_eq!(got.len(), want.len());
    let magnitude = want.iter().fold(1e-30_f32, |largest, x| largest.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        let off = (got - want).abs() / magnitude;
        assert!(off <= tolerance, "at {index}: got {got}, want {want}, off by {off} of the largest magnitude");
    }
}

/// A model folder that a test may break: a copy of a fixture.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn copy_of(fixture_name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::write(folder.path().join(file), std::fs::read(fixture(fixture_name).join(file)).unwrap()).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn weights(&self) -> PathBuf {
        self.path().join("model.safetensors")
    }

    /// Rewrites the tensors.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Tensors)) {
        let mut tensors = read(&self.weights());
        edit(&mut tensors);
        write(&self.weights(), &tensors);
    }

    /// Replaces a piece of `config.json`.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "config.json has no {from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// What loading says.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        load(self.path()).expect_err("should not load").to_string()
    }
}

/// Tensors by name: dtype, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The bytes of numbers.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers of bytes.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
