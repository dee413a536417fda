use std::path::Path;

use crate::support::{Folder, bytes, example, fixture, floats, read, root, write};

/// Runs `examples/parity.rs`, and returns whether it passed and its last line.
fn parity_on(device: &str, folder: &Path) -> (bool, String) {
    let output = example("parity").arg(folder).arg(device).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), text.lines().last().unwrap_or_default().to_owned())
}

fn parity(folder: &Path) -> (bool, String) {
    parity_on("cpu", folder)
}

#[test]
fn every_golden_number_of_the_tiny_model() {
    assert_eq!(parity(&fixture("tiny")), (true, "parity: 285 quantities, 0 failed, 11 not yet known".into()));
}

#[test]
fn every_golden_number_of_the_odd_model() {
    assert_eq!(parity(&fixture("odd")), (true, "parity: 360 quantities, 0 failed, 11 not yet known".into()));
}

#[test]
fn every_golden_number_of_the_demo_model() {
    assert_eq!(
        parity(&root().join("crate/demo-model")),
        (true, "parity: 110 quantities, 0 failed, 11 not yet known".into())
    );
}

/// dfdx is the reference of the faster backends, so it is compared with the golden data too.
#[test]
fn every_golden_number_on_plain_dfdx() {
    for (name, quantities) in [("tiny", 285), ("odd", 360)] {
        let passed = format!("parity: {quantities} quantities, 0 failed, 11 not yet known");
        assert_eq!(parity_on("dfdx_cpu", &fixture(name)), (true, passed));
    }
}

/// With changed golden data, exactly the changed quantities fail.
#[test]
fn parity_fails_on_wrong_golden_data() {
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
