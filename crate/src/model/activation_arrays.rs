//! The activations of a cache as arrays of two or three axes, by their own names and by TransformerLens' names of hooks.

use ndarray::{Array2, Array3, ArrayD, ArrayView2, ArrayView3, Ix2, Ix3};

use super::activation::Activation;
use super::activation_cache::ActivationCache;
use super::interventions::HookPoint;
use crate::error::{Error, Result};

/// A method for each activation, which returns its array with a fixed number of axes.
macro_rules! arrays {
    ($($method:ident $activation:ident $array:ident $view:ident $shape:literal $what:literal;)*) => {$(
        #[doc = concat!($what, " A copy of [`", stringify!($activation), "`](Activation::", stringify!($activation),
            "), for a cache of one prompt. Shape: → `", $shape, "`.")]
        ///
        /// # Errors
        /// As for [`get`](Self::get).
        pub fn $method(&self, layer: usize) -> Result<$array<f32>> {
            Ok(self.$view(Activation::$activation, layer)?.to_owned())
        }
    )*};
}

impl ActivationCache {
    arrays! {
        pattern Pattern Array3 cube "[n_heads, query_pos, key_pos]" "Where each head attends: rows sum to 1.";
        attn_scores AttnScores Array3 cube "[n_heads, query_pos, key_pos]"
            "The attention scores before the softmax, −∞ where key > query.";
        q Q Array3 cube "[pos, n_heads, d_head]" "The query vectors.";
        k K Array3 cube "[pos, n_heads, d_head]" "The key vectors.";
        v V Array3 cube "[pos, n_heads, d_head]" "The value vectors.";
        z Z Array3 cube "[pos, n_heads, d_head]" "What each head has gathered, `pattern v`.";
        result Result Array3 cube "[pos, n_heads, d_model]" "What each head writes to the residual stream, `z W_O`.";
        attn_out AttnOut Array2 matrix "[pos, d_model]" "What attention adds to the residual stream.";
        mlp_pre MlpPre Array2 matrix "[pos, d_mlp]" "The neurons before the activation function.";
        mlp_post MlpPost Array2 matrix "[pos, d_mlp]" "The neurons after the activation function.";
        mlp_out MlpOut Array2 matrix "[pos, d_model]" "What the MLP adds to the residual stream.";
        resid_pre ResidPre Array2 matrix "[pos, d_model]" "The residual stream before the block.";
        resid_mid ResidMid Array2 matrix "[pos, d_model]" "The residual stream between attention and MLP.";
        resid_post ResidPost Array2 matrix "[pos, d_model]" "The residual stream after the block.";
    }

    /// An activation of the residual stream or of an MLP, without a copy. Shape: → `[pos, d_model]` or `[pos, d_mlp]`.
    pub(crate) fn matrix(&self, activation: Activation, layer: usize) -> Result<ArrayView2<'_, f32>> {
        let x = self.view(activation, layer)?;
        Ok(x.into_dimensionality::<Ix2>().expect("a row for each token"))
    }

    /// An activation of heads, without a copy. Shape: → `[pos, n_heads, d_head]`, `[pos, n_heads, d_model]` or
    /// `[n_heads, query_pos, key_pos]`.
    pub(crate) fn cube(&self, activation: Activation, layer: usize) -> Result<ArrayView3<'_, f32>> {
        let x = self.view(activation, layer)?;
        Ok(x.into_dimensionality::<Ix3>().expect("an array for each head"))
    }

    /// A copy of an activation by TransformerLens' name of its hook, for a cache of one prompt: what
    /// `cache["blocks.0.attn.hook_pattern"]` is there. Shape: → as [`Activation`] lists.
    ///
    /// [`names`](Self::names) lists what the cache holds. The scales of layer norms and the embeddings, which
    /// TransformerLens also caches, need the model: the error for their names says which method computes them.
    ///
    /// ```
    /// use attention_tokens::prelude::*;
    ///
    /// let model = Gpt2::from_pretrained("demo", LoadOptions::default())?;
    /// let (_, cache) = model.run_with_cache("The bus is late.")?;
    /// assert_eq!(cache.get_by_name("blocks.0.attn.hook_pattern")?, cache.pattern(0)?.into_dyn());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that is not that of an [`Activation`], and those of [`get`](Self::get).
    pub fn get_by_name(&self, name: &str) -> Result<ArrayD<f32>> {
        if let Some(call) = computed_by(name) {
            return Err(Error::Setting {
                function: "get_by_name",
                option: "name",
                expected: format!("the name of an activation that runs cache; {call} computes this one"),
                found: format!("{name:?}"),
            });
        }
        let point: HookPoint = name.parse()?;
        self.get(point.activation, point.layer)
    }

    /// TransformerLens' names of the hooks whose activations the cache holds, layer by layer, in the order in which a
    /// block computes them: the keys of its cache.
    pub fn names(&self) -> Vec<String> {
        self.held().into_iter().map(|(layer, activation)| activation.hook_name(layer)).collect()
    }
}

/// The call that computes what TransformerLens caches under a name, where a cache here does not hold it.
fn computed_by(name: &str) -> Option<&'static str> {
    let of_block = || name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')).map(|(_, hook)| hook);
    match of_block().unwrap_or(name) {
        "hook_embed" | "hook_pos_embed" => Some("cache.embeddings(&model)?, which returns both"),
        "ln1.hook_scale" => Some("cache.ln1_scale(&model, layer)?"),
        "ln2.hook_scale" => Some("cache.ln2_scale(&model, layer)?"),
        "ln_final.hook_scale" => Some("cache.ln_final_scale(&model)?"),
        "ln1.hook_normalized" | "ln2.hook_normalized" | "ln_final.hook_normalized" => {
            Some("cache.apply_ln_to_stack(..), which applies the layer norm to components of the residual stream")
        }
        _ => None,
    }
}
