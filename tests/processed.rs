//! Processed weights that are saved and loaded again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use attention_tokens::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::support::{demo, fixture};

const TOKENS: [u32; 5] = [1, 5, 9, 2, 40];

fn load(folder: &Path, processing: Processing) -> Result<Gpt2, Error> {
    Gpt2::from_pretrained(folder.to_str().unwrap(), LoadOptions::default().processing(processing))
}

/// Some of the steps that can be switched off one by one.
fn processings() -> [Processing; 4] {
    let no_refactoring = Processing { refactor_factored_attn_matrices: false, ..Default::default() };
    let fold_ln = Processing { fold_ln: true, ..Processing::none() };
    [Processing::default(), Processing::none(), no_refactoring, fold_ln]
}

#[test]
fn a_saved_model_is_the_same_bit_by_bit() {
    for folder in [fixture("tiny"), fixture("odd")] {
        for processing in processings() {
            let model = load(&folder, processing).unwrap();
            let saved = tempfile::tempdir().unwrap();
            let path = saved.path().join("a new/folder");
            model.save_processed(&path).unwrap();
            let loaded = load(&path, processing).unwrap();
            assert_eq!(loaded.config(), model.config());
            assert_eq!(loaded.processing(), processing);
            assert_eq!(loaded.forward(TOKENS.to_vec()).unwrap(), model.forward(TOKENS.to_vec()).unwrap());
            let (one, other) = (loaded.weights().unwrap(), model.weights().unwrap());
            assert_eq!((one.w_e, one.w_pos, one.w_u, one.b_u), (other.w_e, other.w_pos, other.w_u, other.b_u));
            for (one, other) in one.blocks.iter().zip(&other.blocks) {
                assert_eq!((&one.w_q, &one.b_q, &one.w_k, &one.b_k), (&other.w_q, &other.b_q, &other.w_k, &other.b_k));
                assert_eq!((&one.w_v, &one.b_v, &one.w_o, &one.b_o), (&other.w_v, &other.b_v, &other.w_o, &other.b_o));
                assert_eq!((&one.w_in, &one.b_in), (&other.w_in, &other.b_in));
                assert_eq!((&one.w_out, &one.b_out), (&other.w_out, &other.b_out));
                assert_eq!(one.ln1.is_some(), !processing.fold_ln);
            }
            // A loaded model can be saved again: elsewhere, and where it came from.
            let again = tempfile::tempdir().unwrap();
            loaded.save_processed(again.path()).unwrap();
            let read = |folder: &Path| fs::read(folder.join("processed.safetensors")).unwrap();
            assert!(read(again.path()) == read(&path));
            loaded.save_processed(&path).unwrap();
            assert!(read(again.path()) == read(&path));
            load(&path, processing).unwrap();
        }
    }
}

#[test]
fn a_saved_model_has_its_tokenizer_and_its_device_can_be_another() {
    let model = demo();
    let folder = tempfile::tempdir().unwrap();
    model.save_processed(folder.path()).unwrap();
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".safetensors") || name.ends_with(".tmp"))
        .collect();
    assert_eq!(names, ["processed.safetensors"]);
    let options = LoadOptions::default().device(Device::dfdx_cpu());
    let loaded = Gpt2::from_pretrained(folder.path().to_str().unwrap(), options).unwrap();
    let text = "Monday, Tuesday,";
    assert_eq!(loaded.to_tokens(text).unwrap(), model.to_tokens(text).unwrap());
    let (one, other) = (loaded.forward(text).unwrap().remove(0), model.forward(text).unwrap().remove(0));
    assert!(one.iter().zip(&other).all(|(one, other)| (one - other).abs() < 1e-3));
}

/// The names are those of TransformerLens' state dict for folded layer norms.
#[test]
fn tensors_have_the_names_and_shapes_of_transformer_lens() {
    let folder = tempfile::tempdir().unwrap();
    demo().save_processed(folder.path()).unwrap();
    let file = fs::read(folder.path().join("processed.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.len(), 4 + 12 * 4);
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("embed.W_E"), [50257, 128]);
    assert_eq!(shape("pos_embed.W_pos"), [256, 128]);
    assert_eq!(shape("blocks.3.attn.W_Q"), [8, 128, 16]);
    assert_eq!(shape("blocks.3.attn.b_K"), [8, 16]);
    assert_eq!(shape("blocks.3.attn.W_O"), [8, 16, 128]);
    assert_eq!(shape("blocks.3.mlp.W_in"), [128, 512]);
    assert_eq!(shape("unembed.W_U"), [128, 50257]);
    assert_eq!(shape("unembed.b_U"), [50257]);
}

/// Changes the tensors of a saved file.
fn edit(folder: &Path, metadata: Option<&str>, change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<u8>)>)) {
    let path = folder.join("processed.safetensors");
    let file = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut all: BTreeMap<_, _> = tensors
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    change(&mut all);
    let views =
        all.iter().map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    let metadata = metadata.map(|steps| [("processing".to_owned(), steps.to_owned())].into());
    fs::write(path, serialize(views, metadata).unwrap()).unwrap();
}

#[test]
fn other_steps_and_broken_files_are_errors_that_say_what_is_wrong() {
    const ALL: &str = "fold_ln,center_writing_weights,center_unembed,fold_value_biases,refactor_factored_attn_matrices";
    let error_of = |change: &dyn Fn(&Path), processing| {
        let folder = tempfile::tempdir().unwrap();
        load(&fixture("tiny"), Processing::default()).unwrap().save_processed(folder.path()).unwrap();
        change(folder.path());
        load(folder.path(), processing).unwrap_err().to_string()
    };
    let all = Processing::default();
    let none = error_of(&|_| (), Processing::none());
    assert!(none.contains("weights with no processing, which LoadOptions ask for"), "{none}");
    assert!(none.contains("fold_ln, center_writing_weights"), "{none}");
    let unknown = error_of(&|folder| edit(folder, Some("fold_ln,fold_ln"), |_| ()), all);
    assert!(unknown.contains("\"fold_ln,fold_ln\""), "{unknown}");
    let unnamed = error_of(&|folder| edit(folder, None, |_| ()), all);
    assert!(unnamed.contains("\"processing\" in its metadata"), "{unnamed}");
    let missing = error_of(&|folder| edit(folder, Some(ALL), |all| drop(all.remove("unembed.b_U"))), all);
    assert!(missing.contains("unembed.b_U") && missing.contains("no such tensor"), "{missing}");
    let further = error_of(
        &|folder| edit(folder, Some(ALL), |all| drop(all.insert("blocks.99.mlp.b_in".into(), (vec![1], vec![0; 4])))),
        all,
    );
    assert!(further.contains("blocks.99.mlp.b_in"), "{further}");
    let reshaped =
        error_of(&|folder| edit(folder, Some(ALL), |all| all.get_mut("embed.W_E").unwrap().0.reverse()), all);
    assert!(reshaped.contains("embed.W_E") && reshaped.contains("as config.json says"), "{reshaped}");
    // No name of a tensor is made for these layers: it would take gigabytes.
    let deep = error_of(
        &|folder| {
            let config = fs::read_to_string(folder.join("config.json")).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
            config["n_layer"] = (1 << 24).into();
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        },
        all,
    );
    assert!(deep.contains("the tensors of 16777216 layers") && deep.contains("found"), "{deep}");
    let infinite = error_of(
        &|folder| {
            edit(folder, Some(ALL), |all| {
                all.get_mut("blocks.0.attn.W_V").unwrap().1[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
            })
        },
        all,
    );
    assert!(infinite.contains("blocks.0.attn.W_V") && infinite.contains("inf at index 0"), "{infinite}");
}

#[test]
fn a_folder_of_another_model_is_left_alone() {
    let model = load(&fixture("tiny"), Processing::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "mine").unwrap();
    let error = model.save_processed(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    assert!(error.to_string().contains("it holds another model"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("config.json")).unwrap(), "mine");
    assert!(!folder.path().join("processed.safetensors").exists());
    // A tokenizer alone, which would be replaced by that of the model.
    let of_the_user = tempfile::tempdir().unwrap();
    fs::write(of_the_user.path().join("tokenizer.json"), "mine").unwrap();
    let error = demo().save_processed(of_the_user.path()).unwrap_err();
    assert!(error.to_string().contains("it holds another model, of which is"), "{error}");
    assert_eq!(fs::read_dir(of_the_user.path()).unwrap().count(), 1);
    // A file in the place of the folder.
    let error = model.save_processed(folder.path().join("config.json")).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
}
