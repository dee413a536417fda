//! The QK and OV circuits of a head, in the residual stream and over the vocabulary.

use super::factored_matrix::FactoredMatrix;
use super::products::{product, standard};
use super::top_entries::MatrixEntry;
use crate::error::Result;
use crate::model::Gpt2;
use crate::plot::{Table, decimals};
use crate::tokenizer::TokenLabels;

/// The circuits of heads. TransformerLens' `model.QK` and `model.OV`, and the full circuits that its users build of
/// them.
///
/// **Layer norm.** A head reads the residual stream through a layer norm. With weights folded
/// ([`fold_ln`](crate::Processing::fold_ln), the default), its scale and shift are part of the circuits, and only
/// centering and the division by the scale of each position are left out, as in TransformerLens. Without folding, the
/// weights of the layer norm are left out too. Biases are no part of a circuit. The full circuits send the embedding
/// of a token into the head, as if no position embedding and no other layer came before: a good description of heads of
/// the first layer, an incomplete one of others.
impl Gpt2 {
    /// The QK circuit of a head, `W_Q W_Kᵀ`: the score of a pair is `x_query W_Q W_Kᵀ x_keyᵀ`, times 1/√d_head. Queries
    /// are rows, as in TransformerLens. Shape: → `[d_model, d_model]`, through `d_head`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a layer or head that the model does not have,
    /// [`Error::Device`](crate::Error::Device).
    pub fn qk(&self, layer: usize, head: usize) -> Result<FactoredMatrix> {
        FactoredMatrix::new(self.w_q(layer, head)?, standard(self.w_k(layer, head)?.t()))
    }

    /// The OV circuit of a head, `W_V W_O`: what the head adds to the residual stream where it attends to `x` is
    /// `x W_V W_O`. Shape: → `[d_model, d_model]`, through `d_head`.
    ///
    /// # Errors
    /// As for [`qk`](Self::qk).
    pub fn ov(&self, layer: usize, head: usize) -> Result<FactoredMatrix> {
        FactoredMatrix::new(self.w_v(layer, head)?, self.w_o(layer, head)?)
    }

    /// The QK circuit of a head over the vocabulary, `W_E W_Q W_Kᵀ W_Eᵀ / √d_head`: the score between the embeddings of
    /// a query token (row) and a key token (column). Shape: → `[d_vocab, d_vocab]`, through `d_head`.
    ///
    /// # Errors
    /// As for [`qk`](Self::qk).
    pub fn full_qk(&self, layer: usize, head: usize) -> Result<FullCircuit> {
        let (w_q, w_k, w_e) = (self.w_q(layer, head)?, self.w_k(layer, head)?, self.w_e()?);
        let scale = self.config().score_scale(layer);
        let queries = product(w_e.view(), (w_q * scale).view()); // [d_vocab, d_head]
        let keys = product(w_e.view(), w_k.view()); // [d_vocab, d_head]
        let matrix = FactoredMatrix::new(queries, standard(keys.t()))?;
        Ok(FullCircuit { kind: CircuitKind::Qk, layer, head, matrix, labels: self.token_labels() })
    }

    /// The OV circuit of a head over the vocabulary, `W_E W_V W_O W_U`: the logits that the head adds for each token
    /// (column) where it attends to the embedding of a token (row). Shape: → `[d_vocab, d_vocab]`, through `d_head`.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let top = model.full_ov(3, 0)?.top_entries(20)?;
    /// assert_eq!(top.entries.len(), 20); // of 50,257 × 50,257
    /// top.table()
    /// # ;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`qk`](Self::qk).
    pub fn full_ov(&self, layer: usize, head: usize) -> Result<FullCircuit> {
        let (w_v, w_o) = (self.w_v(layer, head)?, self.w_o(layer, head)?);
        let values = product(self.w_e()?.view(), w_v.view()); // [d_vocab, d_head]
        let outputs = product(w_o.view(), self.w_u()?.view()); // [d_head, d_vocab]
        let matrix = FactoredMatrix::new(values, outputs)?;
        Ok(FullCircuit { kind: CircuitKind::Ov, layer, head, matrix, labels: self.token_labels() })
    }
}

/// The two circuits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitKind {
    /// Where the head attends: query tokens are rows, key tokens are columns.
    Qk,
    /// What the head writes: attended tokens are rows, output tokens are columns.
    Ov,
}

/// A circuit over the vocabulary, with the labels of the tokens. See [`Gpt2::full_qk`] and [`Gpt2::full_ov`].
#[derive(Clone, Debug)]
pub struct FullCircuit {
    /// Which of the two circuits it is.
    pub kind: CircuitKind,
    /// The layer.
    pub layer: usize,
    /// The head of the layer.
    pub head: usize,
    /// The circuit. Shape: `[d_vocab, d_vocab]`, through `d_head`.
    pub matrix: FactoredMatrix,
    labels: TokenLabels,
}

impl FullCircuit {
    /// The `k` largest entries, found without the matrix. See [`FactoredMatrix::top_entries`].
    ///
    /// # Errors
    /// As for [`FactoredMatrix::top_entries`].
    pub fn top_entries(&self, k: usize) -> Result<CircuitEntries> {
        Ok(self.entries("Largest", self.matrix.top_entries(k)?))
    }

    /// The `k` smallest entries, the smallest first: the pairs that a head avoids.
    ///
    /// # Errors
    /// As for [`FactoredMatrix::top_entries`].
    pub fn bottom_entries(&self, k: usize) -> Result<CircuitEntries> {
        let mut entries = self.matrix.scale(-1.0).top_entries(k)?;
        entries.iter_mut().for_each(|entry| entry.value = -entry.value);
        Ok(self.entries("Smallest", entries))
    }

    fn entries(&self, which: &str, entries: Vec<MatrixEntry>) -> CircuitEntries {
        let name = match self.kind {
            CircuitKind::Qk => "QK",
            CircuitKind::Ov => "OV",
        };
        let caption = format!("{which} entries of the full {name} circuit of head {}.{}", self.layer, self.head);
        CircuitEntries { caption, kind: self.kind, entries, labels: self.labels.clone() }
    }

    /// Shows the ten largest entries in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        match self.top_entries(10) {
            Ok(entries) => entries.evcxr_display(),
            Err(error) => crate::evcxr::show(&[("text/plain", &error.to_string())]),
        }
    }
}

/// Entries of a circuit over the vocabulary: rows and columns are token ids.
#[derive(Clone, Debug)]
pub struct CircuitEntries {
    /// The entries, in order.
    pub entries: Vec<MatrixEntry>,
    caption: String,
    kind: CircuitKind,
    labels: TokenLabels,
}

impl CircuitEntries {
    /// A table with the labels of the tokens.
    pub fn table(&self) -> Table {
        let header = match self.kind {
            CircuitKind::Qk => ["query token", "key token", "score"],
            CircuitKind::Ov => ["attended token", "output token", "logit"],
        };
        let label = |token: usize| self.labels.label(token as u32);
        let row = |entry: &MatrixEntry| vec![label(entry.row), label(entry.column), decimals(entry.value, 3)];
        Table::new(self.caption.clone(), &header, self.entries.iter().map(row).collect())
    }

    /// Shows the table in a notebook; evcxr calls this for a cell's last expression.
    #[doc(hidden)] // not offered as a completion
    pub fn evcxr_display(&self) {
        self.table().evcxr_display();
    }
}
