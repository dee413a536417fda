//! Circuits: what heads compute, read from their weights (Elhage et al., A Mathematical Framework for Transformer
//! Circuits, 2021).

mod composition;
mod copying;
mod decomposition;
mod factored_matrix;
mod head_circuits;
mod products;
mod top_entries;

pub use composition::{Composition, CompositionScores, RandomBaseline};
pub use decomposition::{Eigenvalues, FactoredSvd};
pub use factored_matrix::FactoredMatrix;
pub use head_circuits::{CircuitEntries, CircuitKind, FullCircuit};
pub use top_entries::MatrixEntry;
