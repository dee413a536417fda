//! Helpers of the integration tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use attention_tokens::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folder of a fixture in `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// Loads a model folder with default options.
pub(crate) fn load(folder: &Path) -> Result<Gpt2, Error> {
    Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default())
}

/// The demo model.
pub(crate) fn demo() -> Gpt2 {
    Gpt2::from_pretrained("demo", LoadOptions::default()).unwrap()
}

/// A command that runs a program of `crate/examples`, which cargo builds with the tests.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap(); // target/PROFILE/deps/integration-…
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    Command::new(program.with_extension(std::env::consts::EXE_EXTENSION))
}

/// Asserts that values agree within `tolerance`, relative to the largest magnitude of `want`. Reports the worst index
/// and both values.
#[track_caller]
pub(crate) fn assert_close<'a>(
    got: impl IntoIterator<Item = &'a f32>,
    want: impl IntoIterator<Item = &'a f32>,
    tolerance: f32,
) {
    let (got, want): (Vec<f32>, Vec<f32>) = (got.into_iter().copied().collect(), want.into_iter().copied().collect());
    assert_eq!(got.len(), want.len());
    let magnitude = want.iter().fold(1e-30_f32, |largest, x| largest.max(x.abs()));
    let errors = got.iter().zip(&want).map(|(got, want)| (got - want).abs() / magnitude);
    // In this order NaN is above every number.
    if let Some((index, error)) = errors.enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        let (got, want) = (got[index], want[index]);
        assert!(error <= tolerance, "at {index}: got {got}, want {want}, error {error} of the largest magnitude");
    }
}

/// A temporary copy of a fixture's model folder, for tests that change it.
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

    /// Edits the tensors of `model.safetensors`.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Tensors)) {
        let mut tensors = read(&self.weights());
        edit(&mut tensors);
        write(&self.weights(), &tensors);
    }

    /// Replaces text in `config.json`.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "config.json has no {from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// The error message of loading the folder.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        load(self.path()).expect_err("should not load").to_string()
    }
}

/// Tensors by name, each with dtype, shape and bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Reads a `.safetensors` file.
pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

/// Writes a `.safetensors` file.
pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Floats as little-endian bytes.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Little-endian bytes as floats.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// A generator whose seed a failing test prints.
pub(crate) fn rng() -> fastrand::Rng {
    let seed =
        std::env::var("ATTENTION_TOKENS_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("ATTENTION_TOKENS_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Prompts of 2 to `longest` tokens.
pub(crate) fn prompts(rng: &mut fastrand::Rng, model: &Gpt2, n: usize, longest: usize) -> Vec<Vec<u32>> {
    let mut prompt = || {
        let len = rng.usize(2..=longest);
        (0..len).map(|_| rng.u32(..model.config().d_vocab as u32)).collect()
    };
    (0..n).map(|_| prompt()).collect()
}
