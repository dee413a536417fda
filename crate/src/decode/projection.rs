//! The maps from a cell of a head, a pair of a query and a key, to the residual stream.

/// The map from a cell (query *i*, key *j*) of a head to a vector `r [d_model]` of the residual stream, whose most likely
/// token is the attention token.
///
/// | projection | r | depends on the basis |
/// |---|---|---|
/// | [`Notebook`](Self::Notebook) | `(W_V c) ⊙ Σ_m W_O[m, :]` | yes |
/// | [`Output`](Self::Output) | `c W_O` | yes |
/// | [`Ov`](Self::Ov) | `(W_V c)ᵀ W_V W_O` | yes |
/// | [`Matched`](Self::Matched) | `Σ_a c_a (V_a · x_j) V_a W_V W_O` | no |
/// | [`Written`](Self::Written) | `A_ij v_j W_O` | no |
///
/// `c = q_i ⊙ k_j`, `A` is the attention pattern, `x_j` the input of the key's weights with a 1 for the bias, and `V_a` are the
/// right singular vectors of the head's QK circuit, with singular values `S_a`. A head computes the same in any basis of its queries and keys and in any basis of its
/// values. The first three projections give other tokens in another basis; weight processing chooses one, and training
/// another. The last two give the same tokens in all of them. Each figure names the projection that it shows.
///
/// The tokens of a position's query, key and value vectors: the first three projections take `q_i`, `k_i` and `v_i` in the
/// place of `c`. The last two, which do not depend on the basis, read a query or a key along the matched directions
/// (`Σ_a k_ia V_a W_V W_O / √S_a`), and a value through `W_O`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Projection {
    /// `(W_V c) ⊙ Σ_m W_O[m, :]`, as in the original notebook, whose second einsum sums `W_O` over the head dimension.
    /// Reproduces the original figures.
    #[default]
    Notebook,
    /// `c W_O`: the head's own output weights.
    Output,
    /// `(W_V c)ᵀ W_V W_O`: the OV matrix applied to `c` lifted to the residual stream, as the original notebook's text
    /// describes it.
    Ov,
    /// `Σ_a c_a (V_a · x_j) V_a W_V W_O`: the key's part along each direction of the QK circuit, weighted by what that
    /// direction adds to the score, sent through the OV circuit.
    ///
    /// With `[W_Q; b_Q] [W_K; b_K]ᵀ = U S Vᵀ`, `c_a` is the product of query and key along the pair `U_a`, `V_a`; the sum
    /// of all `c_a` is the score times `√d_head`. No sign, order or change of basis of the head's weights changes a token:
    /// `V_a` enters twice, and the sum has no order. The entry of `V_a` that belongs to the bias is dropped from the
    /// direction, as it is no direction of the residual stream. It makes no difference whether the model was loaded with
    /// [`refactor_factored_attn_matrices`](crate::Processing::refactor_factored_attn_matrices): the singular vectors are
    /// computed from the weights as they are.
    ///
    /// Equal singular values leave their vectors free, and almost equal ones leave them to rounding.
    /// [`Gpt2::matched_directions`](crate::Gpt2::matched_directions) tells where that is so.
    Matched,
    /// `A_ij v_j W_O`: what the cell writes to the residual stream.
    ///
    /// Attention is not negative, so without the bias of the unembedding the token depends on the key alone, and the query
    /// only scales the logits. (A cell with attention 0 writes nothing: it has the key's token, with logit 0.) The tokens
    /// with the lowest logits, which the cell writes against, are in
    /// [`PromptHeadData::lowest`](crate::PromptHeadData::lowest).
    Written,
}

impl Projection {
    /// All projections.
    pub const ALL: [Projection; 5] =
        [Projection::Notebook, Projection::Output, Projection::Ov, Projection::Matched, Projection::Written];

    /// `"notebook"`, `"output"`, `"ov"`, `"matched"` or `"written"`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Notebook => "notebook",
            Projection::Output => "output",
            Projection::Ov => "ov",
            Projection::Matched => "matched",
            Projection::Written => "written",
        }
    }

    /// Whether the tokens depend on the basis in which the head's weights are written.
    pub fn depends_on_basis(self) -> bool {
        !matches!(self, Projection::Matched | Projection::Written)
    }

    /// The projection in words, for captions: "the original notebook's projection".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Projection::Notebook => "the original notebook's projection",
            Projection::Output => "the head's output weights",
            Projection::Ov => "the head's OV matrix",
            Projection::Matched => "the matched directions of its QK and OV circuits",
            Projection::Written => "its values (what each cell writes)",
        }
    }
}
