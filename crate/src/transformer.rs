//! GPT-2's forward pass and the decoding of a head's vectors, written once over [`Backend`].

use std::ops::Range;

use ndarray::{ArcArray, ArcArray2, Array1, Array2, Array3, Axis, Ix3, IxDyn};
use rayon::prelude::*;

use crate::activation_cache::{Activation, ActivationCache};
use crate::backend::{Attention, Backend, TopTokens, Vectors};
use crate::config::{ActFn, Gpt2Config};
use crate::error::Result;
use crate::kept_projections::{HeadId, KeptProjections};
use crate::memory::Kept;
use crate::processed::ProcessedCheckpoint;
use crate::projection::Projection;
use crate::weights::{BlockWeights, LayerNormWeights, UnembedWeights, Weights};

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
    /// The `k` most likely tokens of the vectors of some heads of a layer, in the order of `heads`; `vectors` gives a
    /// head's when it is that head's turn.
    fn decode(
        &self,
        layer: usize,
        heads: &[usize],
        projection: Projection,
        k: usize,
        vectors: &(dyn Fn(usize) -> Result<Vectors> + Sync),
    ) -> Result<Vec<TopTokens>>;
    /// The `k` most likely tokens of vectors through a matrix that is not a projection of the model's, and is not kept.
    /// Shape: `p [d_head, d_model]`.
    fn decode_through(&self, p: Array2<f32>, vectors: &Vectors, k: usize) -> Result<TopTokens>;
    /// Copies the weights to the host.
    fn weights(&self) -> Result<Weights>;
    /// Copies the token embedding to the host. Shape: → `[d_vocab, d_model]`.
    fn w_e(&self) -> Result<Array2<f32>>;
    /// Copies the unembedding to the host. Shape: → `[d_model, d_vocab]`.
    fn w_u(&self) -> Result<Array2<f32>>;
    /// Copies the weights of a block to the host.
    fn block_weights(&self, layer: usize) -> Result<BlockWeights>;
    /// Copies `W_V` or `W_O` of a layer to the host. Shape: → `[n_heads, d_model, d_head]`, `[n_heads, d_head, d_model]`.
    fn w_v(&self, layer: usize) -> Result<Array3<f32>>;
    /// See [`w_v`](Self::w_v).
    fn w_o(&self, layer: usize) -> Result<Array3<f32>>;
}

/// GPT-2 with its weights on the device of `B`.
pub(crate) struct Transformer<B: Backend> {
    backend: B,
    embedding: B::Embedding,
    blocks: Vec<Block<B>>,
    ln_final: Norm<B>,
    unembed: B::Unembed,
    projections: KeptProjections<B::Projected>,
}

/// A layer norm on the device, and its few weights on the host.
struct Norm<B: Backend> {
    device: B::LayerNorm,
    weights: Option<LayerNormWeights>,
}

struct Block<B: Backend> {
    n_heads: usize,
    ln1: Norm<B>,
    qkv: [B::Linear; 3],
    o: B::Linear,
    ln2: Norm<B>,
    mlp: Mlp<B>,
}

struct Mlp<B: Backend> {
    act_fn: ActFn,
    w_in: B::Linear,
    w_out: B::Linear,
}

impl<B: Backend> Transformer<B> {
    /// Puts the weights on the device, piece by piece. `folded_bytes` bounds the memory of folded projections that are
    /// kept.
    pub(crate) fn new(
        backend: B,
        config: &Gpt2Config,
        weights: &ProcessedCheckpoint,
        folded_bytes: usize,
    ) -> Result<Self> {
        let UnembedWeights { ln_final, w_u, b_u } = weights.unembed()?;
        let unembed = backend.unembed(w_u, b_u)?;
        let (w_e, w_pos) = weights.embeddings()?;
        let block = |layer| Block::new(&backend, config, weights.block(layer)?);
        Ok(Self {
            embedding: backend.embedding(w_e, w_pos)?,
            blocks: (0..config.n_layers).into_par_iter().map(block).collect::<Result<_>>()?,
            ln_final: Norm::new(&backend, ln_final, config.eps)?,
            unembed,
            projections: KeptProjections::new(folded_bytes),
            backend,
        })
    }
}

impl<B: Backend> Norm<B> {
    fn new(backend: &B, weights: Option<LayerNormWeights>, eps: f64) -> Result<Self> {
        Ok(Self { device: backend.layer_norm(weights.as_ref(), eps)?, weights })
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
        let normalized = backend.normalize(&self.ln_final.device, &resid)?;
        Ok((Some(backend.logits(&self.unembed, &normalized, &rows)?), cache))
    }

    fn decode(
        &self,
        layer: usize,
        heads: &[usize],
        projection: Projection,
        k: usize,
        vectors: &(dyn Fn(usize) -> Result<Vectors> + Sync),
    ) -> Result<Vec<TopTokens>> {
        let ids: Vec<HeadId> = heads.iter().map(|&head| HeadId { layer, head, projection }).collect();
        let make = |missing: &[HeadId]| {
            let (w_v, w_o) = (self.w_v(layer)?, self.w_o(layer)?);
            let of = |w: &Array3<f32>, head| w.index_axis(Axis(0), head).to_owned();
            let make = |id: &HeadId| {
                let matrix = projection.matrix(&of(&w_v, id.head), &of(&w_o, id.head));
                let projected = self.backend.projected(matrix)?;
                Ok((B::projected_bytes(&projected, &self.unembed), projected))
            };
            missing.iter().map(make).collect()
        };
        let projections = self.projections.get(&ids, make)?;
        // The next head's vectors are made while a card decodes; this machine's processors have enough to do with one thing.
        let mut next = heads.first().map(|&head| vectors(head));
        let mut all = Vec::with_capacity(heads.len());
        for (index, projected) in projections.iter().enumerate() {
            let c = next.take().expect("there are as many projections as heads")?;
            let decode = || self.backend.decode(&c, projected, &self.unembed, k);
            let following = || heads.get(index + 1).map(|&head| vectors(head));
            let (top, following) = match B::IS_A_CARD {
                true => rayon::join(decode, following),
                false => (decode(), following()),
            };
            all.push(top?);
            next = following;
        }
        Ok(all)
    }

    fn decode_through(&self, p: Array2<f32>, vectors: &Vectors, k: usize) -> Result<TopTokens> {
        self.backend.decode(vectors, &self.backend.projected(p)?, &self.unembed, k)
    }

    fn weights(&self) -> Result<Weights> {
        let (w_e, w_pos) = self.backend.embedding_weights(&self.embedding)?;
        let (w_u, b_u) = self.backend.unembed_weights(&self.unembed)?;
        let blocks = self.blocks.iter().map(|block| block.weights(&self.backend)).collect::<Result<_>>()?;
        Ok(Weights { w_e, w_pos, blocks, ln_final: self.ln_final.weights.clone(), w_u, b_u })
    }

    fn w_e(&self) -> Result<Array2<f32>> {
        Ok(self.backend.embedding_weights(&self.embedding)?.0)
    }

    fn w_u(&self) -> Result<Array2<f32>> {
        Ok(self.backend.unembed_weights(&self.unembed)?.0)
    }

    fn block_weights(&self, layer: usize) -> Result<BlockWeights> {
        self.blocks[layer].weights(&self.backend)
    }

    fn w_v(&self, layer: usize) -> Result<Array3<f32>> {
        let block = &self.blocks[layer];
        let [_, _, v] = &block.qkv;
        Ok(block.input_heads(&self.backend, v)?.0)
    }

    fn w_o(&self, layer: usize) -> Result<Array3<f32>> {
        Ok(self.blocks[layer].output_heads(&self.backend)?.0)
    }
}

impl<B: Backend> Block<B> {
    fn new(backend: &B, config: &Gpt2Config, weights: BlockWeights) -> Result<Self> {
        let d_model = config.d_model;
        // Heads side by side: [n_heads, d_model, d_head] → [d_model, n_heads d_head]
        let input = |w: Array3<f32>, b: Array2<f32>| {
            let w = w.permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
            let w = w.into_shape_with_order((d_model, d_model)).expect("d_model = n_heads d_head");
            (w, b.into_iter().collect())
        };
        // Heads below each other: [n_heads, d_head, d_model] → [n_heads d_head, d_model]
        let w_o = weights.w_o.into_shape_with_order((d_model, d_model)).expect("d_model = n_heads d_head");
        Ok(Self {
            n_heads: config.n_heads,
            ln1: Norm::new(backend, weights.ln1, config.eps)?,
            qkv: backend.linears([
                input(weights.w_q, weights.b_q),
                input(weights.w_k, weights.b_k),
                input(weights.w_v, weights.b_v),
            ])?,
            o: backend.linear(w_o, weights.b_o)?,
            ln2: Norm::new(backend, weights.ln2, config.eps)?,
            mlp: Mlp {
                act_fn: config.act_fn,
                w_in: backend.linear(weights.w_in, weights.b_in)?,
                w_out: backend.linear(weights.w_out, weights.b_out)?,
            },
        })
    }

    /// What [`new`](Self::new) was given.
    fn weights(&self, backend: &B) -> Result<BlockWeights> {
        let [q, k, v] = self.qkv.each_ref().map(|linear| self.input_heads(backend, linear));
        let ((w_q, b_q), (w_k, b_k), (w_v, b_v)) = (q?, k?, v?);
        let (w_o, b_o) = self.output_heads(backend)?;
        let (w_in, b_in) = backend.linear_weights(&self.mlp.w_in)?;
        let (w_out, b_out) = backend.linear_weights(&self.mlp.w_out)?;
        let (ln1, ln2) = (self.ln1.weights.clone(), self.ln2.weights.clone());
        Ok(BlockWeights { ln1, w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o, ln2, w_in, b_in, w_out, b_out })
    }

    /// `W_Q`, `W_K` or `W_V` and its bias. Shape: → `[n_heads, d_model, d_head]`, `[n_heads, d_head]`.
    fn input_heads(&self, backend: &B, linear: &B::Linear) -> Result<(Array3<f32>, Array2<f32>)> {
        let (w, b) = backend.linear_weights(linear)?;
        let (d_model, n_heads) = (w.nrows(), self.n_heads);
        let heads = "d_model = n_heads d_head";
        let w = w.into_shape_with_order((d_model, n_heads, d_model / n_heads)).expect(heads);
        let b = b.into_shape_with_order((n_heads, d_model / n_heads)).expect(heads);
        Ok((w.permuted_axes([1, 0, 2]).as_standard_layout().into_owned(), b))
    }

    /// `W_O` and `b_O`. Shape: → `[n_heads, d_head, d_model]`, `[d_model]`.
    fn output_heads(&self, backend: &B) -> Result<(Array3<f32>, Array1<f32>)> {
        let (w, b) = backend.linear_weights(&self.o)?;
        let d_model = w.nrows();
        let shape = (self.n_heads, d_model / self.n_heads, d_model);
        Ok((w.into_shape_with_order(shape).expect("d_model = n_heads d_head"), b))
    }

    /// The residual stream before the block → after it. Shape: `[rows, d_model]` → the same.
    fn forward(&self, resid_pre: B::Tensor, layer: usize, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let backend = recorder.backend;
        recorder.residual(Activation::ResidPre, layer, &resid_pre)?;
        let attn_out = self.attention(&backend.normalize(&self.ln1.device, &resid_pre)?, layer, recorder)?;
        recorder.residual(Activation::AttnOut, layer, &attn_out)?;
        let resid_mid = backend.add(&resid_pre, &attn_out)?;
        recorder.residual(Activation::ResidMid, layer, &resid_mid)?;
        let mlp_out = self.mlp.forward(backend, &backend.normalize(&self.ln2.device, &resid_mid)?)?;
        recorder.residual(Activation::MlpOut, layer, &mlp_out)?;
        let resid_post = backend.add(&resid_mid, &mlp_out)?;
        recorder.residual(Activation::ResidPost, layer, &resid_post)?;
        Ok(resid_post)
    }

    /// Shape: `[rows, d_model]` → the same.
    fn attention(&self, x: &B::Tensor, layer: usize, recorder: &mut Recorder<B>) -> Result<B::Tensor> {
        let backend = recorder.backend;
        let [q, k, v] = backend.apply_each(&self.qkv, x)?; // [rows, n_heads d_head]
        for (activation, tensor) in [(Activation::Q, &q), (Activation::K, &k), (Activation::V, &v)] {
            recorder.heads(activation, layer, self.n_heads, tensor)?;
        }
        recorder.attn_scores(layer, &q, &k, self.n_heads)?;
        let keep_pattern = recorder.wanted.keeps(Activation::Pattern, layer);
        let Attention { z, pattern } = backend.attention([&q, &k, &v], self.n_heads, &recorder.rows, keep_pattern)?;
        recorder.pattern(layer, pattern);
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

/// Keeps the wanted activations as they are computed, a prompt each.
struct Recorder<'a, B: Backend> {
    backend: &'a B,
    wanted: &'a Wanted,
    rows: Vec<Range<usize>>,
    cache: ActivationCache,
}

impl<B: Backend> Recorder<'_, B> {
    /// Shape: `[rows, d_model]` → `[pos, d_model]` a prompt.
    fn residual(&mut self, activation: Activation, layer: usize, x: &B::Tensor) -> Result<()> {
        self.rows(activation, layer, x, ArcArray2::into_dyn)
    }

    /// Shape: `[rows, n_heads d_head]` → `[pos, n_heads, d_head]` a prompt.
    fn heads(&mut self, activation: Activation, layer: usize, n_heads: usize, x: &B::Tensor) -> Result<()> {
        self.rows(activation, layer, x, move |own| {
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
        reshape: impl Fn(ArcArray2<f32>) -> ArcArray<f32, IxDyn> + Copy + Send + 'static,
    ) -> Result<()> {
        if self.wanted.keeps(activation, layer) {
            for (prompt, own) in self.backend.keep(x, &self.rows)?.into_iter().enumerate() {
                self.cache.insert(prompt, activation, layer, own.map(reshape));
            }
        }
        Ok(())
    }

    /// Shape: `[n_heads, query_pos, key_pos]` a prompt; empty if it is not wanted.
    fn pattern(&mut self, layer: usize, pattern: Vec<Kept<Ix3>>) {
        for (prompt, pattern) in pattern.into_iter().enumerate() {
            self.cache.insert(prompt, Activation::Pattern, layer, pattern.map(ArcArray::into_dyn));
        }
    }

    /// Shape: `q`, `k` `[rows, n_heads d_head]`.
    fn attn_scores(&mut self, layer: usize, q: &B::Tensor, k: &B::Tensor, n_heads: usize) -> Result<()> {
        if self.wanted.keeps(Activation::AttnScores, layer) {
            for (prompt, rows) in self.rows.iter().enumerate() {
                let scores = self.backend.attn_scores(q, k, n_heads, rows.clone())?;
                self.cache.insert(prompt, Activation::AttnScores, layer, scores.map(ArcArray::into_dyn));
            }
        }
        Ok(())
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
