//! The files that fuzzing begins with and those that it has found, through the same code: `cargo xtask fuzz` changes them.

#[path = "fuzz/src/corpus.rs"]
mod corpus;
#[path = "fuzz/src/model.rs"]
mod model;
#[path = "fuzz/src/seeds.rs"]
mod seeds;
#[path = "fuzz/src/targets.rs"]
mod targets;

use rayon::prelude::*;

#[test]
fn no_file_that_fuzzing_has_found_panics() {
    targets::KINDS.into_par_iter().for_each(|(name, ..)| {
        let target = targets::Target::new(name).unwrap();
        let found = corpus::of(name);
        assert!(found.len() > 20, "{name}: {} files", found.len());
        seeds::of(&target).iter().chain(&found).for_each(|file| target.run(file));
    });
}
