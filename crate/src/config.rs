//! The sizes and settings of a GPT-2, read from a Hugging Face `config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::file_kind::{self, Content};

/// The sizes and settings of a GPT-2, named as in TransformerLens, with the key of `config.json` in parentheses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gpt2Config {
    /// Number of transformer blocks (`n_layer`).
    pub n_layers: usize,
    /// Number of attention heads per layer (`n_head`).
    pub n_heads: usize,
    /// Width of the residual stream (`n_embd`).
    pub d_model: usize,
    /// Width of a head: `d_model / n_heads`.
    pub d_head: usize,
    /// Width of the MLP's hidden layer (`n_inner`; `4 d_model` if that is null).
    pub d_mlp: usize,
    /// Size of the vocabulary (`vocab_size`).
    pub d_vocab: usize,
    /// Context length: the largest number of tokens in a prompt (`n_positions`).
    pub n_ctx: usize,
    /// Epsilon of all layer norms (`layer_norm_epsilon`).
    pub eps: f64,
    /// The MLP's activation function (`activation_function`).
    pub act_fn: ActFn,
    /// Whether the unembedding is the transposed embedding (`tie_word_embeddings`).
    pub tie_word_embeddings: bool,
    /// The beginning-of-sequence token (`bos_token_id`).
    pub bos_token_id: u32,
}

/// The activation function of the MLPs; those that Hugging Face's GPT-2 supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActFn {
    /// `gelu_new` (also `gelu_pytorch_tanh`): the tanh approximation of GELU, which GPT-2 uses.
    GeluNew,
    /// `gelu`: exact GELU, with the error function.
    Gelu,
    /// `relu`.
    Relu,
    /// `silu` (also `swish`): x · sigmoid(x).
    Silu,
    /// `tanh`.
    Tanh,
}

/// The keys of `config.json` that change a forward pass. (Dropout, summaries and the like do not.)
#[derive(Deserialize)]
struct HuggingFaceConfig {
    model_type: Option<String>,
    n_layer: Option<u64>,
    n_head: Option<u64>,
    n_embd: Option<u64>,
    n_inner: Option<u64>,
    n_positions: Option<u64>,
    n_ctx: Option<u64>,
    vocab_size: Option<u64>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<String>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<u32>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
}

/// The largest accepted size: far more than any model has, and small enough that products of sizes do not overflow.
const LARGEST_SIZE: u64 = 1 << 24;

impl Gpt2Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not JSON with these types, [`Error::Config`] if a
    /// size is missing, zero or larger than 16777216, or if a setting is one that GPT-2 does not have.
    pub fn from_file(path: &Path) -> Result<Self> {
        file_kind::check_kind(path, Content::Json, "a GPT-2 configuration in JSON")?;
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let raw: HuggingFaceConfig =
            serde_json::from_str(&text).map_err(|error| Error::format(path, "a GPT-2 configuration in JSON", error))?;
        raw.check(path)
    }
}

impl HuggingFaceConfig {
    /// Fills in Hugging Face's defaults and checks every value.
    fn check(self, path: &Path) -> Result<Gpt2Config> {
        fn invalid<T>(path: &Path, field: &'static str, expected: &str, found: String) -> Result<T> {
            Err(Error::Config { path: path.into(), field, expected: expected.into(), found })
        }
        let size = |field, value: Option<u64>| match value {
            Some(value) if (1..=LARGEST_SIZE).contains(&value) => Ok(value as usize),
            Some(value) => invalid(path, field, "a size from 1 to 16777216", value.to_string()),
            None => invalid(path, field, "a size", "nothing".into()),
        };
        match self.model_type.as_deref() {
            Some("gpt2") | None => {}
            Some(other) => {
                return invalid(path, "model_type", "\"gpt2\"", format!("{other:?}: only GPT-2 is supported"));
            }
        }
        // Options that change the mathematics, and that no golden data covers.
        if self.scale_attn_weights == Some(false) {
            return invalid(path, "scale_attn_weights", "true (scores are divided by √d_head)", "false".into());
        }
        if self.scale_attn_by_inverse_layer_idx == Some(true) {
            return invalid(path, "scale_attn_by_inverse_layer_idx", "false", "true".into());
        }
        if self.add_cross_attention == Some(true) {
            return invalid(path, "add_cross_attention", "false", "true".into());
        }
        let n_heads = size("n_head", self.n_head)?;
        let d_model = size("n_embd", self.n_embd)?;
        if d_model % n_heads != 0 {
            return invalid(path, "n_embd", &format!("a multiple of n_head = {n_heads}"), d_model.to_string());
        }
        let eps = self.layer_norm_epsilon.unwrap_or(1e-5);
        if !(eps.is_finite() && eps > 0.0) {
            return invalid(path, "layer_norm_epsilon", "a positive number", eps.to_string());
        }
        let act_fn = match self.activation_function.as_deref().unwrap_or("gelu_new") {
            "gelu_new" | "gelu_pytorch_tanh" => ActFn::GeluNew,
            "gelu" => ActFn::Gelu,
            "relu" => ActFn::Relu,
            "silu" | "swish" => ActFn::Silu,
            "tanh" => ActFn::Tanh,
            other => {
                let expected = "one of gelu_new, gelu_pytorch_tanh, gelu, relu, silu, swish, tanh";
                return invalid(path, "activation_function", expected, format!("{other:?}"));
            }
        };
        Ok(Gpt2Config {
            n_layers: size("n_layer", self.n_layer)?,
            n_heads,
            d_model,
            d_head: d_model / n_heads,
            d_mlp: self.n_inner.map_or(Ok(4 * d_model), |n_inner| size("n_inner", Some(n_inner)))?,
            d_vocab: size("vocab_size", self.vocab_size)?,
            n_ctx: size("n_positions", self.n_positions.or(self.n_ctx))?,
            eps,
            act_fn,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            bos_token_id: self.bos_token_id.unwrap_or(50256),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Gpt2Config> {
        serde_json::from_str::<HuggingFaceConfig>(json).unwrap().check(Path::new("config.json"))
    }

    #[test]
    fn defaults_are_those_of_hugging_face() {
        let config = parse(r#"{"n_layer":1,"n_head":2,"n_embd":6,"n_ctx":8,"vocab_size":5,"n_inner":null}"#).unwrap();
        assert_eq!((config.d_head, config.d_mlp, config.n_ctx, config.tie_word_embeddings), (3, 24, 8, true));
        assert_eq!((config.eps, config.act_fn, config.bos_token_id), (1e-5, ActFn::GeluNew, 50256));
    }

    #[test]
    fn settings_that_gpt2_does_not_have_are_refused_by_name() {
        let sizes = r#""n_layer":1,"n_head":2,"n_embd":6,"n_positions":8,"vocab_size":5"#;
        for (extra, field) in [
            (r#""model_type":"llama""#, "model_type"),
            (r#""activation_function":"mish""#, "activation_function"),
            (r#""scale_attn_by_inverse_layer_idx":true"#, "scale_attn_by_inverse_layer_idx"),
            (r#""scale_attn_weights":false"#, "scale_attn_weights"),
            (r#""add_cross_attention":true"#, "add_cross_attention"),
            (r#""layer_norm_epsilon":-1"#, "layer_norm_epsilon"),
            (r#""n_inner":0"#, "n_inner"),
        ] {
            let message = parse(&format!("{{{sizes},{extra}}}")).unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: {field}: expected ")), "{message}");
        }
        let message = parse(&format!("{{{}}}", sizes.replace("6", "7"))).unwrap_err().to_string();
        assert_eq!(message, "config.json: n_embd: expected a multiple of n_head = 2, found 7");
        assert!(parse(&format!("{{{}}}", sizes.replace("8", "99999999999"))).is_err());
    }
}
