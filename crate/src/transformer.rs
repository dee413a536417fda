//! GPT-2's forward pass and the decoding of a head's vectors, written once over [`Backend`].

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayD, s};

use crate::activation_cache::{Activation, ActivationCache};
use crate::backend::{Attention, Backend, KeepAttention, TopTokens};
use crate::config::{ActFn, Gpt2Config};
use crate::error::Result;
use crate::weights::{BlockWeights, Weights};

/// What a run should compute; everything in it is checked.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) activations: Vec<Activation>,
    pub(crate) layers: Vec<usize>,
    /// Run the blocks below this one only.
    pub(crate) stop_at_layer: usize,
    pub(crate) logits: bool,
}

impl Wanted {
    fn keeps(&self, activation: Activation, layer: usize) -> bool {
        self.activations.contains(&activation) && self.layers.contains(&layer)
    }

    /// The number of blocks that have to run for what is wanted.
    fn n_blocks(&self) -> usize {
        let needed =
            if self.logits { self.stop_at_layer } else { self.layers.iter().max().map_or(0, |&last| last + 1) };
        needed.min(self.stop_at_layer)
    }
}

/// A model on a device, whatever the device is.
pub(crate) trait Engine: Send + Sync {
    /// Runs a batch. Logits, if wanted, are given a prompt each. Shape: `[prompt][pos]` → `[prompt] [pos, d_vocab]`.
    fn run(&self, prompts: Vec<Vec<u32>>, wanted: &Wanted) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)>;
    /// See [`Backend::decode`].
    fn decode(&self, c: Array2<f32>, projection: Array2<f32>, k: usize) -> Result<TopTokens>;
}

/// GPT-2 with its weights on the device of `B`.
pub(crate) struct Transformer<B: Backend> {
    backend: B,
    embedding: B::Embedding,
    blocks: Vec<Block<B>>,
    ln_final: B::LayerNorm,
    unembed: B::Linear,
}

struct Block<B: Backend> {
    n_heads: usize,
    ln1: B::LayerNorm,
    q: B::Linear,
    k: B::Linear,
    v: B::Linear,
    o: B::Linear,
    ln2: B::LayerNorm,
    mlp: Mlp<B>,
}

struct Mlp<B: Backend> {
    act_fn: ActFn,
    w_in: B::Linear,
    w_out: B::Linear,
}

impl<B: Backend> Transformer<B> {
    /// Puts the weights on the device.
    pub(crate) fn new(backend: B, config: &Gpt2Config, weights: &Weights) -> Result<Self> {
        let blocks = weights.blocks.iter().map(|block| Block::new(&backend, config, block)).collect::<Result<_>>()?;
        Ok(Self {
            embedding: backend.embedding(weights.w_e.view(), weights.w_pos.view())?,
            blocks,
            ln_final: backend.layer_norm(weights.ln_final.as_ref(), config.eps)?,
            unembed: backend.linear(weights.w_u.clone(), weights.b_u.clone())?,
            backend,
        })
    }
}

impl<B: Backend> Engine for Transformer<B> {
    fn run(&self, prompts: Vec<Vec<u32>>, wanted: &Wanted) -> Result<(Option<Vec<Array2<f32>>>, ActivationCache)> {
        let backend = &self.backend;
        let tokens = prompts.concat();
        let positions: Vec<usize> = prompts.iter().flat_map(|prompt| 0..prompt.len()).collect();
        let mut recorder = Recorder {
            backend,
            wanted,
            rows: rows_of(&prompts),
            cache: ActivationCache::new(prompts, self.blocks.len()),
        };
        let mut resid = backend.embed(&self.embedding, &tokens, &positions)?; // [rows, d_model]
        for (layer, block) in self.blocks.iter().enumerate().take(wanted.n_blocks()) {
            resid = block.forward(resid, layer, &mut recorder)?;
        }
        let Recorder { rows, cache, .. } = recorder;
        if !wanted.logits {
            return Ok((None, cache));
        }
        let normalized = backend.normalize(&self.ln_final, &resid)?;
        let logits = backend.download(&backend.apply(&self.unembed, &normalized)?)?; // [rows, d_vocab]
        let logits = match rows.len() {
            1 => vec![logits],
            _ => rows.into_iter().map(|rows| logits.slice(s![rows, ..]).to_owned()).collect(),
        };
        Ok((Some(logits), cache))
    }

    fn decode(&self, c: Array2<f32>, projection: Array2<f32>, k: usize) -> Result<TopTokens> {
        self.backend.decode(c, projection, &self.unembed, k)
    }
}

impl<B: Backend> Block<B> {
    fn new(backend: &B, config: &Gpt2Config, weights: &BlockWeights) -> Result<Self> {
        // Heads side by side: [n_heads, d_model, d_head] → [d_model, n_heads d_head]
        let input = |w: &Array3<f32>, b: &Array2<f32>| {
            let w = w.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
            let w = w.into_shape_with_order((config.d_model, config.d_model)).expect("d_model = n_heads d_head");
            backend.linear(w, b.iter().copied().collect())
        };
        // Heads below each other: [n_heads, d_head, d_model] → [n_heads d_head, d_model]
        let w_o = weights.w_o.to_shape((config.d_model, config.d_model)).expect("d_model = n_heads d_head");
        Ok(Self {
            n_heads: config.n_heads,
            ln1: backend.layer_norm(weights.ln1.as_ref(), config.eps)?,
            q: input(&weights.w_q, &weights.b_q)?,
            k: input(&weights.w_k, &weights.b_k)?,
            v: input(&weights.w_v, &weights.b_v)?,
            o: backend.linear(w_o.into_owned(), weights.b_o.clone())?,
            ln2: backend.layer_norm(weights.ln2.as_ref(), config.eps)?,
            mlp: Mlp {
                act_fn: config.act_fn,
                w_in: backend.linear(weights.w_in.clone(), weights.b_in.clone())?,
                w_out: backend.linear(weights.w_out.clone(), weights.b_out.clone())?,
            },
        })
    }

    /// The residual stream before the block → after it. Shape: `[rows, d_model]` → the same.
    fn forward(&self, resid_pre: B::Tensor, layer: usize, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let backend = recorder.backend;
        recorder.residual(Activation::ResidPre, layer, &resid_pre)?;
        let attn_out = self.attention(&backend.normalize(&self.ln1, &resid_pre)?, layer, recorder)?;
        recorder.residual(Activation::AttnOut, layer, &attn_out)?;
        let resid_mid = backend.add(&resid_pre, &attn_out)?;
        recorder.residual(Activation::ResidMid, layer, &resid_mid)?;
        let mlp_out = self.mlp.forward(backend, &backend.normalize(&self.ln2, &resid_mid)?)?;
        recorder.residual(Activation::MlpOut, layer, &mlp_out)?;
        let resid_post = backend.add(&resid_mid, &mlp_out)?;
        recorder.residual(Activation::ResidPost, layer, &resid_post)?;
        Ok(resid_post)
    }

    /// Shape: `[rows, d_model]` → the same.
    fn attention(&self, x: &B::Tensor, layer: usize, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let backend = recorder.backend;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| backend.apply(linear, x)); // [rows, n_heads d_head]
        let (q, k, v) = (q?, k?, v?);
        for (activation, tensor) in [(Activation::Q, &q), (Activation::K, &k), (Activation::V, &v)] {
            recorder.heads(activation, layer, self.n_heads, tensor)?;
        }
        let keep = KeepAttention {
            attn_scores: recorder.wanted.keeps(Activation::AttnScores, layer),
            pattern: recorder.wanted.keeps(Activation::Pattern, layer),
        };
        let attention = backend.attention([&q, &k, &v], self.n_heads, &recorder.rows, keep)?;
        let Attention { z, attn_scores, pattern } = attention;
        recorder.squares(Activation::AttnScores, layer, attn_scores);
        recorder.squares(Activation::Pattern, layer, pattern);
        recorder.heads(Activation::Z, layer, self.n_heads, &z)?;
        backend.apply(&self.o, &z)
    }
}

impl<B: Backend> Mlp<B> {
    /// Shape: `[rows, d_model]` → the same.
    fn forward(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let hidden = backend.apply_with_activation(&self.w_in, self.act_fn, x)?; // [rows, d_mlp]
        backend.apply(&self.w_out, &hidden)
    }
}

/// Copies the wanted activations to the host as they are computed, a prompt each.
struct Recorder<'a, B: Backend> {
    backend: &'a B,
    wanted: &'a Wanted,
    rows: Vec<Range<usize>>,
    cache: ActivationCache,
}

impl<B: Backend> Recorder<'_, B> {
    /// Shape: `[rows, d_model]` → `[pos, d_model]` a prompt.
    fn residual(&mut self, activation: Activation, layer: usize, x: &B::Tensor) -> Result<()> {
        self.rows(activation, layer, x, Array2::into_dyn)
    }

    /// Shape: `[rows, n_heads d_head]` → `[pos, n_heads, d_head]` a prompt.
    fn heads(&mut self, activation: Activation, layer: usize, n_heads: usize, x: &B::Tensor) -> Result<()> {
        self.rows(activation, layer, x, |own| {
            let shape = (own.nrows(), n_heads, own.ncols() / n_heads);
            own.into_shape_with_order(shape).expect("as many columns as heads times d_head").into_dyn()
        })
    }

    /// Keeps, if it is wanted, the rows of each prompt in the shape that `reshape` gives them.
    fn rows(
        &mut self,
        activation: Activation,
        layer: usize,
        x: &B::Tensor,
        reshape: impl Fn(Array2<f32>) -> ArrayD<f32>,
    ) -> Result<()> {
        if self.wanted.keeps(activation, layer) {
            let x = self.backend.download(x)?;
            for (prompt, rows) in self.rows.iter().enumerate() {
                let own = x.slice(s![rows.clone(), ..]).to_owned();
                self.cache.insert(prompt, activation, layer, reshape(own));
            }
        }
        Ok(())
    }

    /// Shape: `[n_heads, query_pos, key_pos]` a prompt, as it is; empty if it was not kept.
    fn squares(&mut self, activation: Activation, layer: usize, x: Vec<Array3<f32>>) {
        for (prompt, x) in x.into_iter().enumerate() {
            self.cache.insert(prompt, activation, layer, x.into_dyn());
        }
    }
}

/// Which rows of the batch each prompt has.
fn rows_of(prompts: &[Vec<u32>]) -> Vec<Range<usize>> {
    let ends = prompts.iter().scan(0, |end, prompt| {
        *end += prompt.len();
        Some(*end)
    });
    ends.zip(prompts).map(|(end, prompt)| end - prompt.len()..end).collect()
}
