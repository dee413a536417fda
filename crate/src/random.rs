//! The seeded random number generator of analysis, generation and experiments: ChaCha8.
//!
//! The figures in stored notebooks must be reproducible from their seeds. ChaCha8 is defined by an algorithm, so
//! `rand_chacha` gives the same numbers on every platform and in every version, which `rand`'s `StdRng` and `SmallRng`
//! do not promise. `rand` makes ranges and shuffles of these numbers. It draws a `usize` from 32 bits where they
//! suffice, and may change its methods only in a version that breaks compatibility.

use rand::SeedableRng;

/// The type of the generator. Only this file names ChaCha8.
pub(crate) type SeededRng = rand_chacha::ChaCha8Rng;

/// The generator of a seed: the same seed gives the same numbers.
pub(crate) fn seeded_rng(seed: u64) -> SeededRng {
    SeededRng::seed_from_u64(seed)
}

/// The generator of one of the independent streams of a seed.
pub(crate) fn seeded_stream(seed: u64, stream: u64) -> SeededRng {
    let mut rng = seeded_rng(seed);
    rng.set_stream(stream);
    rng
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;
    use rand::{Rng, RngCore};

    use super::seeded_rng;

    /// The figures of the stored notebooks were made with these numbers.
    #[test]
    fn numbers_of_a_seed_do_not_change() {
        let mut rng = seeded_rng(1);
        assert_eq!([rng.next_u32(), rng.next_u32()], [2_359_561_649, 1_728_662_762]);
        let mut order: Vec<usize> = (0..6).collect();
        order.shuffle(&mut rng);
        assert_eq!(
            (order, rng.random_range(0..1_000_usize), rng.random_bool(0.5)),
            (vec![0, 1, 4, 3, 5, 2], 211, true)
        );
    }
}
