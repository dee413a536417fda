//! The sizes and settings of a GPT-2, read from a Hugging Face `config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

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
    /// Whether attention scores are divided by √d_head (`scale_attn_weights`).
    pub use_attn_scale: bool,
    /// Whether attention scores are also divided by the number of the layer, from 1 (`scale_attn_by_inverse_layer_idx`).
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The beginning-of-sequence token (`bos_token_id`).
    pub bos_token_id: u32,
    /// The end-of-sequence tokens (`eos_token_id`, one or a list): GPT-2 has one, which is also its `bos_token_id`.
    pub eos_token_ids: Vec<u32>,
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

/// The keys of `config.json` that change a forward pass, by their names in GPT-2 and in all of transformers. (Dropout,
/// summaries, `reorder_and_upcast_attn` in float32 and the like do not.)
#[derive(Deserialize)]
struct HuggingFaceConfig {
    model_type: Option<String>,
    #[serde(alias = "num_hidden_layers")]
    n_layer: Option<u64>,
    #[serde(alias = "num_attention_heads")]
    n_head: Option<u64>,
    #[serde(alias = "hidden_size")]
    n_embd: Option<u64>,
    n_inner: Option<u64>,
    #[serde(alias = "max_position_embeddings")]
    n_positions: Option<u64>,
    n_ctx: Option<u64>,
    vocab_size: Option<u64>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<String>,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
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

    /// The number that the attention scores `q · k` of a layer are multiplied with: `1 / attn_scale` in TransformerLens.
    pub(crate) fn score_scale(&self, layer: usize) -> f32 {
        let by_d_head = if self.use_attn_scale { (self.d_head as f32).sqrt() } else { 1.0 };
        let by_layer = if self.scale_attn_by_inverse_layer_idx { (layer + 1) as f32 } else { 1.0 };
        1.0 / (by_d_head * by_layer)
    }
}

impl HuggingFaceConfig {
    /// Fills in Hugging Face's defaults and checks every value.
    fn check(self, path: &Path) -> Result<Gpt2Config> {
        fn invalid<T>(path: &Path, field: &'static str, expected: &str, found: String) -> Result<T> {
            Err(Error::Config { path: path.into(), field, expected: expected.into(), found })
        }
        // Without a value, the default of transformers' `GPT2Config`, which is that of GPT-2 small.
        let size = |field, value: Option<u64>, default: u64| match value.unwrap_or(default) {
            value if (1..=LARGEST_SIZE).contains(&value) => Ok(value as usize),
            value => invalid(path, field, "a size from 1 to 16777216", value.to_string()),
        };
        match self.model_type.as_deref() {
            Some("gpt2") | None => {}
            Some(other) => {
                return invalid(path, "model_type", "\"gpt2\"", format!("{other:?}: only GPT-2 is supported"));
            }
        }
        if self.add_cross_attention == Some(true) {
            return invalid(path, "add_cross_attention", "false", "true".into());
        }
        let n_heads = size("n_head", self.n_head, 12)?;
        let d_model = size("n_embd", self.n_embd, 768)?;
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
        let token_id = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        let bos_token_id = match self.bos_token_id {
            None | Some(Value::Null) => 50256,
            Some(value) => match token_id(&value) {
                Some(token) => token,
                None => return invalid(path, "bos_token_id", "a token id", value.to_string()),
            },
        };
        let eos_token_ids = match self.eos_token_id {
            None | Some(Value::Null) => vec![50256],
            Some(value) => {
                let ids = match &value {
                    Value::Array(several) => several.iter().map(token_id).collect(),
                    one => token_id(one).map(|token| vec![token]),
                };
                match ids {
                    Some(ids) => ids,
                    None => return invalid(path, "eos_token_id", "a token id or a list of them", value.to_string()),
                }
            }
        };
        Ok(Gpt2Config {
            n_layers: size("n_layer", self.n_layer, 12)?,
            n_heads,
            d_model,
            d_head: d_model / n_heads,
            d_mlp: self.n_inner.map_or(Ok(4 * d_model), |n_inner| size("n_inner", Some(n_inner), n_inner))?,
            d_vocab: size("vocab_size", self.vocab_size, 50257)?,
            n_ctx: size("n_positions", self.n_positions.or(self.n_ctx), 1024)?,
            eps,
            act_fn,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            use_attn_scale: self.scale_attn_weights.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: self.scale_attn_by_inverse_layer_idx.unwrap_or(false),
            bos_token_id,
            eos_token_ids,
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
        assert_eq!(config.eos_token_ids, [50256]);
        for (value, ids) in [("null", vec![50256]), ("3", vec![3]), ("[1, 2]", vec![1, 2])] {
            assert_eq!(parse(&format!(r#"{{"eos_token_id":{value}}}"#)).unwrap().eos_token_ids, ids);
        }
    }

    #[test]
    fn names_and_defaults_of_transformers() {
        let small = parse("{}").unwrap();
        assert_eq!((small.n_layers, small.n_heads, small.d_model, small.d_mlp), (12, 12, 768, 3072));
        assert_eq!((small.d_vocab, small.n_ctx), (50257, 1024));
        let renamed = r#"{"num_hidden_layers":1,"num_attention_heads":2,"hidden_size":6,"max_position_embeddings":8}"#;
        let config = parse(renamed).unwrap();
        assert_eq!((config.n_layers, config.n_heads, config.d_model, config.n_ctx), (1, 2, 6, 8));
        assert!(serde_json::from_str::<HuggingFaceConfig>(r#"{"n_layer":1,"num_hidden_layers":2}"#).is_err());
    }

    #[test]
    fn scores_are_scaled_by_head_and_layer() {
        let scales = |settings: &str| {
            let config = parse(&format!(r#"{{"n_embd":8,"n_head":2,{settings}}}"#)).unwrap();
            [0, 2].map(|layer| config.score_scale(layer))
        };
        assert_eq!(scales(r#""n_layer":3"#), [0.5, 0.5]);
        assert_eq!(scales(r#""scale_attn_weights":false"#), [1.0, 1.0]);
        assert_eq!(scales(r#""scale_attn_by_inverse_layer_idx":true"#), [0.5, 0.5 / 3.0]);
        assert_eq!(scales(r#""scale_attn_weights":false,"scale_attn_by_inverse_layer_idx":true"#), [1.0, 1.0 / 3.0]);
    }

    #[test]
    fn settings_that_gpt2_does_not_have_are_refused_by_name() {
        let sizes = r#""n_layer":1,"n_head":2,"n_embd":6,"n_positions":8,"vocab_size":5"#;
        for (extra, field) in [
            (r#""model_type":"llama""#, "model_type"),
            (r#""activation_function":"mish""#, "activation_function"),
            (r#""bos_token_id":-1"#, "bos_token_id"),
            (r#""bos_token_id":[1]"#, "bos_token_id"),
            (r#""eos_token_id":[1,"a"]"#, "eos_token_id"),
            (r#""eos_token_id":4294967296"#, "eos_token_id"),
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
