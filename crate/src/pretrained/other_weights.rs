//! Weights in a form that is not read, in a folder or a repository without `model.safetensors`: recognized by their
//! names, since those of a repository are not downloaded.

use std::path::Path;

use super::files::{CONFIG, INDEX, Missing, WEIGHTS, is_plain_name};
use crate::error::{Error, Result};
use crate::files::{CONVERT_PICKLE, FROM_FLAX, FROM_TENSORFLOW, NO_GGUF};

/// A file with weights in another form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherWeights {
    pub(super) name: String,
    /// What it is, and what to do.
    found: String,
    /// Whether it can be used with a `config.json`, so that one without is to be completed.
    needs_config: bool,
}

/// The form of weights, in the order of what is easiest to make use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Unfinished,
    Shard,
    OtherName,
    Adapter,
    Pickle,
    TorchCheckpoint,
    Hdf5,
    Flax,
    TensorFlowCheckpoint,
    Gguf,
    Onnx,
}

/// The most useful file of those with these names, if one has weights in another form.
pub(super) fn find<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<OtherWeights> {
    let forms = names.into_iter().filter(|name| is_plain_name(name)).filter_map(|name| Some((Form::of(name)?, name)));
    let (form, name) = forms.min()?;
    let needs_config = form < Form::Adapter || matches!(form, Form::Pickle | Form::Hdf5 | Form::Flax);
    Some(OtherWeights { name: name.into(), found: form.describe(), needs_config })
}

/// [`find`] among the files of a folder; `None` also if the folder cannot be read.
pub(super) fn find_in(folder: &Path) -> Option<OtherWeights> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let names: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
    find(names.iter().map(String::as_str))
}

/// The error for a file in the place of a model's folder.
pub(super) fn not_a_folder(file: &Path) -> Error {
    let other = file.file_name().and_then(|name| find([name.to_str()?]));
    let found = match other {
        Some(other) if other.name != WEIGHTS => other.found,
        _ => "a file: give the folder that it is in".into(),
    };
    Error::Format { path: file.into(), expected: format!("a folder with {CONFIG} and {WEIGHTS}"), found, source: None }
}

impl OtherWeights {
    /// What there is in place of weights, for the hint that `config.json` is missing; the error that names the file
    /// where a `config.json` would not help. `folder` is that of the file, or the repository.
    pub(super) fn beside_missing(&self, missing: &Missing, folder: &Path) -> Result<String> {
        if *missing == Missing::Config && self.needs_config {
            return Ok(format!("{}, {}", self.name, self.found));
        }
        Err(self.error(folder))
    }

    /// The error for a model without other weights. `folder` is that of the file, or the repository.
    pub(super) fn error(&self, folder: &Path) -> Error {
        let Self { name, found, .. } = self;
        let expected = format!("{WEIGHTS} beside it");
        Error::Format { path: folder.join(name), expected, found: format!("only {found}"), source: None }
    }
}

impl Form {
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let begins = |start: &str| name.starts_with(start);
        // What training programs save beside the weights.
        if ["optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args"].into_iter().any(begins) {
            return None;
        }
        let (stem, extension) = name.rsplit_once('.')?;
        Some(match extension {
            "incomplete" | "part" | "partial" | "crdownload" | "download" | "tmp" if stem.contains("safetensors") => {
                Self::Unfinished
            }
            "safetensors" | "bin" if begins("adapter_model") => Self::Adapter,
            "safetensors" if stem.contains("-of-") => Self::Shard,
            "safetensors" => Self::OtherName,
            "bin" if begins("pytorch_model") => Self::Pickle,
            "json" if name == "pytorch_model.bin.index.json" => Self::Pickle,
            "bin" if begins("ggml") => Self::Gguf,
            "gguf" | "ggml" => Self::Gguf,
            "pt" | "pth" | "ckpt" => Self::TorchCheckpoint,
            "h5" | "hdf5" | "keras" => Self::Hdf5,
            "msgpack" => Self::Flax,
            _ if stem.ends_with(".ckpt") || name.contains(".ckpt-") || name.contains(".ckpt.data-") => {
                Self::TensorFlowCheckpoint
            }
            "onnx" => Self::Onnx,
            _ => return None,
        })
    }

    fn describe(self) -> String {
        const NOT_READ: &str = "which can run any code when it is read";
        match self {
            Self::Unfinished => "an unfinished download: download it again".into(),
            Self::Shard => format!("a part of safetensors without {INDEX}, which names all parts: download that too"),
            Self::OtherName => format!("safetensors of another name: if it has all weights, name it {WEIGHTS}"),
            Self::Adapter => "an adapter (LoRA, PEFT): merge it into its model, in Python with \
                              model.merge_and_unload().save_pretrained(FOLDER)"
                .into(),
            Self::Pickle => format!("this pickle, {NOT_READ}; {CONVERT_PICKLE}"),
            Self::TorchCheckpoint => format!(
                "a checkpoint of PyTorch or Lightning, a pickle, {NOT_READ}: load its weights in Python into a \
                 transformers.GPT2LMHeadModel (torch.load with weights_only=True, load_state_dict), then \
                 save_pretrained(FOLDER)"
            ),
            Self::Hdf5 => format!("an HDF5 file (weights of TensorFlow or Keras): {FROM_TENSORFLOW}"),
            Self::Flax => format!("weights of Flax: {FROM_FLAX}"),
            Self::TensorFlowCheckpoint => "a checkpoint of TensorFlow: OpenAI's are on the Hugging Face Hub as gpt2, \
                                           gpt2-medium, gpt2-large and gpt2-xl; transformers 4 converts others"
                .into(),
            Self::Gguf => format!("a GGUF file of llama.cpp, {NO_GGUF}"),
            Self::Onnx => "an ONNX graph: load the model that it was made from, in safetensors".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(names: &[&str]) -> Option<String> {
        let found = find(names.iter().copied())?;
        Some(found.error(Path::new("folder")).to_string().replace('\\', "/"))
    }

    #[test]
    fn weights_in_another_form_are_named() {
        for (name, found, remedy) in [
            ("gpt2.Q4_K_M.gguf", "only a GGUF file of llama.cpp", "load the model that it was made from"),
            ("ggml-model-q4_0.bin", "only a GGUF file of llama.cpp", "load the model that it was made from"),
            ("pytorch_model-00001-of-00002.bin", "only this pickle, which can run any code", "save_pretrained"),
            ("pytorch_model.bin", "only this pickle, which can run any code", "save_pretrained"),
            ("tf_model.h5", "only an HDF5 file", "from_tf=True"),
            ("flax_model.msgpack", "only weights of Flax", "from_flax=True"),
            ("ckpt.pt", "only a checkpoint of PyTorch or Lightning", "load_state_dict"),
            ("epoch=3-step=100.ckpt", "only a checkpoint of PyTorch or Lightning", "load_state_dict"),
            ("model.ckpt.data-00000-of-00001", "only a checkpoint of TensorFlow", "gpt2-medium"),
            ("model.ckpt-10.meta", "only a checkpoint of TensorFlow", "gpt2-medium"),
            ("adapter_model.safetensors", "only an adapter", "merge_and_unload"),
            ("gpt2.safetensors", "only safetensors of another name", "name it model.safetensors"),
            ("model-00001-of-00002.safetensors", "only a part of safetensors", INDEX),
            ("model.safetensors.part", "only an unfinished download", "download it again"),
            ("decoder.onnx", "only an ONNX graph", "in safetensors"),
        ] {
            let message = message(&["zzz.onnx", name, "README.md", "optimizer.pt"]).unwrap();
            let start = format!("folder/{name}: expected model.safetensors beside it, found {found}");
            assert!(message.starts_with(&start) && message.contains(remedy), "{message}");
        }
        for names in [[].as_slice(), &["config.json", "tokenizer.json"], &["onnx/model.onnx", "a\nb.gguf"], &["gguf"]] {
            assert_eq!(message(names), None);
        }
        assert_eq!(message(&["training_args.bin", "optimizer.pt", "rng_state_0.pth", "Scheduler.pt"]), None);
    }

    #[test]
    fn the_most_useful_of_several_is_named() {
        let all = ["a.gguf", "b.gguf", "tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"];
        assert_eq!(find(all).unwrap().name, "pytorch_model.bin");
        assert_eq!(find([all[1], all[0]]).unwrap().name, "a.gguf");
    }
}
