use std::path::Path;
use std::process::Command;

use crate::support::{Folder, bytes, fixture, floats, read, root, write};

/// Runs `examples/parity.rs`, which cargo builds with the tests, and gives whether it passed and its last line.
fn parity(folder: &Path) -> (bool, String) {
    let test = std::env::current_exe().unwrap(); // target/PROFILE/deps/integration-…
    let program = test.parent().unwrap().parent().unwrap().join("examples/parity");
    let output = Command::new(program.with_extension(std::env::consts::EXE_EXTENSION)).arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), text.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn every_golden_number_of_the_tiny_model() {
    assert_eq!(parity(&fixture("tiny")), (true, "parity: 214 quantities, 0 failed".into()));
}

#[test]
fn every_golden_number_of_the_odd_model() {
    assert_eq!(parity(&fixture("odd")), (true, "parity: 289 quantities, 0 failed".into()));
}

#[test]
fn every_golden_number_of_the_demo_model() {
    assert_eq!(parity(&root().join("crate/demo-model")), (true, "parity: 39 quantities, 0 failed".into()));
}

/// A copy of `tiny` whose golden data is changed must fail, in as many quantities as were changed.
#[test]
fn the_parity_program_notices_what_is_wrong() {
    let folder = Folder::copy_of("tiny");
    let path = folder.path().join("expected.safetensors");
    let original = read(&fixture("tiny").join("expected.safetensors"));

    let mut one_number = original.clone();
    let tensor = one_number.get_mut("prompt0.notebook.resid_mid").unwrap();
    let mut values = floats(&tensor.2);
    values[7] += 1e-3 * values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    tensor.2 = bytes(&values);
    write(&path, &one_number);
    assert_eq!(parity(folder.path()), (false, "parity: 214 quantities, 1 failed".into()));

    let mut one_token = original.clone();
    let tensor = one_token.get_mut("prompt1.raw.attention_tokens.ov.v").unwrap();
    tensor.2[0] ^= 1;
    write(&path, &one_token);
    assert_eq!(parity(folder.path()), (false, "parity: 214 quantities, 1 failed".into()));

    let mut unknown_names = original;
    for name in ["prompt0.raw.resid_posts", "weights.raw.W_X", "something"] {
        unknown_names.insert(name.into(), unknown_names["prompt0.raw.z"].clone());
    }
    write(&path, &unknown_names);
    assert_eq!(parity(folder.path()), (false, "parity: 217 quantities, 3 failed".into()));
}
