//! The sizes and settings of a GPT-2, read from a Hugging Face `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result, check_index, shortened};
use crate::files::{self, Content, Limit};

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
    /// The beginning-of-sequence token, with which texts and the prompts of experiments begin: the tokenizer's own, else
    /// `bos_token_id`. `None` if neither is a token of the vocabulary.
    pub bos_token_id: Option<u32>,
    /// The end-of-sequence tokens (`eos_token_id`, one or a list): GPT-2 has one, which is also its `bos_token_id`.
    /// Empty if the model has none.
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

/// The largest accepted size: far more than any model has, and small enough that products of sizes do not overflow.
const LARGEST_SIZE: u64 = 1 << 24;

/// The beginning-of-sequence token of a `GPT2Config` whose file does not name one.
const DEFAULT_BOS: u64 = 50256;

/// The end-of-sequence token of such a file.
const DEFAULT_EOS: u32 = 50256;

/// The `bos_token_id` of a `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatedBos {
    /// The file has no such key, which stands for 50256.
    Missing,
    /// The model has none.
    Null,
    /// A token id, which may be beyond the vocabulary.
    Id(u64),
}

impl Gpt2Config {
    /// Reads a `config.json`.
    ///
    /// A size can have GPT-2's name or the one that all models of transformers share (`hidden_size`), or both with the
    /// same value. Of a key that is repeated, the last counts, as in Python. Without a value, a key has the default of
    /// transformers' `GPT2Config`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not a JSON object of at most 16 MB,
    /// [`Error::Config`] if a value is not of its type, a size is zero, larger than 16777216 or not the one under its
    /// other name, or if a setting is one that GPT-2 does not have.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::with_stated_bos(path).map(|(config, _)| config)
    }

    /// [`from_file`](Self::from_file), and the `bos_token_id` as the file has it.
    pub(crate) fn with_stated_bos(path: &Path) -> Result<(Self, StatedBos)> {
        const EXPECTED: &str = "a GPT-2 configuration in JSON";
        let text = files::read_text(path, Content::Json, EXPECTED, Limit::CONFIG)?;
        let values = serde_json::from_str(&text).map_err(|error| Error::format(path, EXPECTED, error))?;
        Keys { path, values }.config()
    }

    /// [`Error::OutOfRange`] for a token id that the vocabulary does not have.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        for &token in tokens {
            check_index("token id", token as usize, "the model's vocabulary", self.d_vocab)?;
        }
        Ok(())
    }

    /// [`Error::OutOfRange`] for a layer, or a head of it, that the model does not have.
    pub(crate) fn check_head(&self, layer: usize, head: usize) -> Result<()> {
        check_index("layer", layer, "the model", self.n_layers)?;
        check_index("head", head, "each layer", self.n_heads).map(drop)
    }

    /// The number that the attention scores `q · k` of a layer are multiplied with: `1 / attn_scale` in TransformerLens.
    pub(crate) fn score_scale(&self, layer: usize) -> f32 {
        let by_d_head = if self.use_attn_scale { (self.d_head as f32).sqrt() } else { 1.0 };
        let by_layer = if self.scale_attn_by_inverse_layer_idx { (layer + 1) as f32 } else { 1.0 };
        1.0 / (by_d_head * by_layer)
    }
}

/// The keys of a `config.json`, with their values. (Dropout, summaries, `reorder_and_upcast_attn` in float32 and the
/// like do not change a forward pass, and are not looked at.)
struct Keys<'a> {
    path: &'a Path,
    values: Map<String, Value>,
}

impl Keys<'_> {
    /// Fills in Hugging Face's defaults and checks every value.
    fn config(self) -> Result<(Gpt2Config, StatedBos)> {
        if let Some(other) = self.text("model_type")?.filter(|&name| name != "gpt2") {
            return self.invalid("model_type", "\"gpt2\"", format!("{:?}: only GPT-2 is supported", shortened(other)));
        }
        if self.flag("add_cross_attention", false)? {
            return self.invalid("add_cross_attention", "false", "true: the decoder of another model".into());
        }
        let n_heads = self.size(["n_head", "num_attention_heads"])?.unwrap_or(12);
        let d_model = self.size(["n_embd", "hidden_size"])?.unwrap_or(768);
        if d_model % n_heads != 0 {
            return self.invalid("n_embd", &format!("a multiple of n_head = {n_heads}"), d_model.to_string());
        }
        let eps = match self.value("layer_norm_epsilon") {
            None => 1e-5,
            Some(value) => match value.as_f64() {
                Some(eps) if eps.is_finite() && eps > 0.0 => eps,
                _ => return self.invalid("layer_norm_epsilon", "a positive number", shown(value)),
            },
        };
        let act_fn = match self.text("activation_function")?.unwrap_or("gelu_new") {
            "gelu_new" | "gelu_pytorch_tanh" => ActFn::GeluNew,
            "gelu" => ActFn::Gelu,
            "relu" => ActFn::Relu,
            "silu" | "swish" => ActFn::Silu,
            "tanh" => ActFn::Tanh,
            other => {
                let expected = "one of gelu_new, gelu_pytorch_tanh, gelu, relu, silu, swish, tanh";
                return self.invalid("activation_function", expected, format!("{:?}", shortened(other)));
            }
        };
        // transformers ignores `n_ctx`; some old files have nothing else.
        let n_ctx = match self.size(["n_positions", "max_position_embeddings"])? {
            Some(n_positions) => n_positions,
            None => self.size(["n_ctx"])?.unwrap_or(1024),
        };
        let d_vocab = self.size(["vocab_size"])?.unwrap_or(50257);
        let stated_bos = self.stated_bos()?;
        let bos_token_id = match stated_bos {
            StatedBos::Missing => Some(DEFAULT_BOS),
            StatedBos::Null => None,
            StatedBos::Id(id) => Some(id),
        };
        let config = Gpt2Config {
            n_layers: self.size(["n_layer", "num_hidden_layers"])?.unwrap_or(12),
            n_heads,
            d_model,
            d_head: d_model / n_heads,
            d_mlp: self.size(["n_inner"])?.unwrap_or(4 * d_model),
            d_vocab,
            n_ctx,
            eps,
            act_fn,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
            use_attn_scale: self.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: self.flag("scale_attn_by_inverse_layer_idx", false)?,
            bos_token_id: bos_token_id.filter(|&id| id < d_vocab as u64).map(|id| id as u32),
            eos_token_ids: self.eos_token_ids()?,
        };
        Ok((config, stated_bos))
    }

    /// The value of a key, unless it is null.
    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// A size, which can have several names; their values must agree.
    fn size<const N: usize>(&self, names: [&'static str; N]) -> Result<Option<usize>> {
        let mut first: Option<(&str, u64)> = None;
        for name in names {
            let Some(value) = self.value(name) else { continue };
            let Some(size) = value.as_u64().filter(|size| (1..=LARGEST_SIZE).contains(size)) else {
                return self.invalid(name, "a size from 1 to 16777216", shown(value));
            };
            match first {
                Some((other, found)) if found != size => {
                    let expected = format!("{size}, because {name} is {size}, or one of the two keys");
                    return self.invalid(names[0], &expected, format!("{other} = {found}"));
                }
                _ => first = Some((name, size)),
            }
        }
        Ok(first.map(|(_, size)| size as usize))
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => self.invalid(key, "true or false", shown(value)),
        }
    }

    fn text(&self, key: &'static str) -> Result<Option<&str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => self.invalid(key, "a text", shown(value)),
        }
    }

    fn stated_bos(&self) -> Result<StatedBos> {
        match self.values.get("bos_token_id") {
            None => Ok(StatedBos::Missing),
            Some(Value::Null) => Ok(StatedBos::Null),
            Some(value) => match value.as_u64() {
                Some(id) => Ok(StatedBos::Id(id)),
                None => self.invalid("bos_token_id", "a token id", shown(value)),
            },
        }
    }

    fn eos_token_ids(&self) -> Result<Vec<u32>> {
        let Some(value) = self.values.get("eos_token_id") else { return Ok(vec![DEFAULT_EOS]) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Null => Some(Vec::new()),
            Value::Array(several) => several.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        match ids {
            Some(ids) => Ok(ids),
            None => self.invalid("eos_token_id", "a token id or a list of them", shown(value)),
        }
    }

    fn invalid<T>(&self, field: &'static str, expected: &str, found: String) -> Result<T> {
        Err(Error::Config { path: self.path.into(), field, expected: expected.into(), found })
    }
}

/// A value for a message.
fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Gpt2Config> {
        let values = serde_json::from_str(json).unwrap();
        Keys { path: Path::new("config.json"), values }.config().map(|(config, _)| config)
    }

    #[test]
    fn defaults_are_those_of_hugging_face() {
        let config = parse(r#"{"n_layer":1,"n_head":2,"n_embd":6,"n_ctx":8,"vocab_size":5,"n_inner":null}"#).unwrap();
        assert_eq!((config.d_head, config.d_mlp, config.n_ctx, config.tie_word_embeddings), (3, 24, 8, true));
        assert_eq!((config.eps, config.act_fn, config.bos_token_id), (1e-5, ActFn::GeluNew, None));
        assert_eq!(parse("{}").unwrap().bos_token_id, Some(50256));
        assert_eq!(config.eos_token_ids, [50256]);
        for (value, ids) in [("null", vec![]), ("3", vec![3]), ("[1, 2]", vec![1, 2])] {
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
    }

    /// The pairs are `GPT2Config`'s `attribute_map`.
    #[test]
    fn both_names_of_a_size_must_agree() {
        for (name, other) in [
            ("n_layer", "num_hidden_layers"),
            ("n_head", "num_attention_heads"),
            ("n_embd", "hidden_size"),
            ("n_positions", "max_position_embeddings"),
        ] {
            let both = |one: &str, two: &str| parse(&format!(r#"{{"{name}":{one},"{other}":{two}}}"#));
            assert_eq!(both("24", "24").unwrap(), parse(&format!(r#"{{"{name}":24}}"#)).unwrap());
            assert_eq!(both("null", "24").unwrap(), both("24", "null").unwrap());
            let message = both("24", "48").unwrap_err().to_string();
            let expected = format!(
                "config.json: {name}: expected 48, because {other} is 48, or one of the two keys, found {name} = 24"
            );
            assert_eq!(message, expected);
            let message = both("24", "0").unwrap_err().to_string();
            assert_eq!(message, format!("config.json: {other}: expected a size from 1 to 16777216, found 0"));
        }
        // transformers ignores n_ctx.
        assert_eq!(parse(r#"{"n_positions":8,"n_ctx":9}"#).unwrap().n_ctx, 8);
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let config = parse(r#"{"n_layer":1,"n_layer":3,"bos_token_id":"x","bos_token_id":7}"#).unwrap();
        assert_eq!((config.n_layers, config.bos_token_id), (3, Some(7)));
    }

    #[test]
    fn a_bos_token_beyond_the_vocabulary_is_none() {
        let bos = |json: &str| parse(json).unwrap().bos_token_id;
        assert_eq!(bos(r#"{"bos_token_id":0}"#), Some(0));
        assert_eq!(bos(r#"{"bos_token_id":null}"#), None);
        assert_eq!(bos(r#"{"vocab_size":1000}"#), None);
        for id in ["1000", "4294967296", "18446744073709551615"] {
            assert_eq!(bos(&format!(r#"{{"vocab_size":1000,"bos_token_id":{id}}}"#)), None);
        }
    }

    #[test]
    fn values_of_other_types_are_named_with_their_key() {
        for (key, value, expected) in [
            ("n_layer", "\"12\"", "a size from 1 to 16777216"),
            ("n_embd", "768.5", "a size from 1 to 16777216"),
            ("vocab_size", "[]", "a size from 1 to 16777216"),
            ("n_inner", "-1", "a size from 1 to 16777216"),
            ("tie_word_embeddings", "1", "true or false"),
            ("scale_attn_weights", "\"true\"", "true or false"),
            ("model_type", "{}", "a text"),
            ("activation_function", "[\"relu\"]", "a text"),
            ("layer_norm_epsilon", "\"1e-5\"", "a positive number"),
            ("bos_token_id", "50256.5", "a token id"),
        ] {
            let message = parse(&format!(r#"{{"{key}":{value}}}"#)).unwrap_err().to_string();
            assert_eq!(message, format!("config.json: {key}: expected {expected}, found {value}"));
        }
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
