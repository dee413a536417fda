//! The reference backend: every operation through dfdx, on any dfdx device.
//!
//! dfdx panics on wrong shapes, even in its `try_` methods, so callers check them first: the weights' shapes come from
//! a checked `config.json`, and `Gpt2` checks token ids and prompt lengths. Only the device itself can still fail here.

use std::ops::Range;

use ::dfdx::prelude::*;
use ndarray::{Array1, Array2, Array3, Ix2, Ix3};

use super::{AttentionOutput, Backend, Heads, split_by_prompt};
use crate::config::ActFn;
use crate::decode::{DecodeBackend, Ranking, TopTokens, TopTokensBuilder, Vectors};
use crate::error::{Error, Result};
use crate::memory::{HostArray, LazyArray};
use crate::weights::LayerNormWeights;

type Vector<D> = Tensor<(usize,), f32, D>;
type Matrix<D> = Tensor<(usize, usize), f32, D>;
type Cube<D> = Tensor<(usize, usize, usize), f32, D>;
/// `z [pos, n_heads d_head]` and the pattern `[n_heads, query_pos, key_pos]` of one prompt.
type ZAndPattern<D> = (Matrix<D>, Cube<D>);

/// Memory limit for logits while decoding, on the device and again on the host.
const DECODE_BYTES: usize = 64 << 20;

/// The dfdx backend on the device `D`.
pub(crate) struct Dfdx<D> {
    device: D,
    name: String,
}

/// A dfdx device that is safe to use from any thread, as are the tensors on it.
///
/// # Safety
/// Neither the device nor its tensors may depend on the thread that uses them.
#[allow(unsafe_code)]
pub(crate) unsafe trait AnyThread: ::dfdx::tensor_ops::Device<f32> {}

// SAFETY: the CPU device and its tensors are `Send` and `Sync`.
#[allow(unsafe_code)]
unsafe impl AnyThread for Cpu {}

// SAFETY: the only part that is not `Send` and `Sync` is the address of a stream, which the driver accepts from any
// thread, and which dfdx uses for gradients only. Memory, cuBLAS and kernels are bound to the calling thread when they
// are used.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
unsafe impl AnyThread for ::dfdx::tensor::Cuda {}

macro_rules! any_thread {
    ($($owner:ident)*) => {
        $(
            // SAFETY: its fields are a device, tensors on one, or `Send` and `Sync` themselves.
            #[allow(unsafe_code)]
            unsafe impl<D: AnyThread> Send for $owner<D> {}
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe impl<D: AnyThread> Sync for $owner<D> {}
        )*
    };
}

any_thread!(Dfdx DfdxEmbedding DfdxLayerNorm DfdxLinear DfdxDecodeTable);

impl Dfdx<Cpu> {
    /// dfdx on the CPU.
    pub(crate) fn cpu() -> Self {
        Self { device: Cpu::default(), name: "dfdx on the CPU".into() }
    }
}

#[cfg(feature = "cuda")]
impl Dfdx<::dfdx::tensor::Cuda> {
    /// dfdx on a CUDA GPU.
    ///
    /// # Errors
    /// Those of [`Cuda::open`](super::Cuda::open).
    pub(crate) fn cuda(ordinal: usize) -> Result<Self> {
        super::cuda::check(ordinal)?;
        let name = format!("dfdx on CUDA device {ordinal}");
        match ::dfdx::tensor::Cuda::try_build(ordinal, 0) {
            Ok(device) => Ok(Self { device, name }),
            Err(error) => Err(Error::device(name, "opening it", format!("{error:?}"))),
        }
    }
}

/// A head's projection; nothing is precomputed from it. Shape: `[d_head, d_model]`.
pub(crate) struct DfdxDecodeTable<D: Storage<f32>>(Matrix<D>);

/// Token and position embeddings.
pub(crate) struct DfdxEmbedding<D: Storage<f32>> {
    /// Shape: `[d_vocab, d_model]`.
    w_e: Matrix<D>,
    /// Shape: `[n_ctx, d_model]`.
    w_pos: Matrix<D>,
}

/// A layer norm, with or without weights.
pub(crate) struct DfdxLayerNorm<D: Storage<f32>> {
    /// Scale and shift. Shape: each `[d_model]`.
    weights: Option<(Vector<D>, Vector<D>)>,
    eps: f64,
}

/// A weight matrix and a bias.
pub(crate) struct DfdxLinear<D: Storage<f32>> {
    /// Shape: `[in, out]`.
    w: Matrix<D>,
    /// Shape: `[out]`.
    b: Vector<D>,
    /// A copy on the host, where decoding adds the bias and ranks the tokens.
    b_host: Array1<f32>,
}

impl<D: ::dfdx::tensor_ops::Device<f32>> Dfdx<D> {
    fn failed<E: std::fmt::Debug>(&self, operation: &'static str) -> impl Fn(E) -> Error {
        // dfdx's error types need not implement `Error`.
        move |error| Error::device(&self.name, operation, format!("{error:?}"))
    }

    /// Uploads a vector. Shape: `[n]` → the same.
    fn vector(&self, x: Vec<f32>) -> Result<Vector<D>> {
        let shape = (x.len(),);
        self.device.try_tensor_from_vec(x, shape).map_err(self.failed("an upload"))
    }

    /// Uploads a matrix. Shape: `[rows, columns]` → the same.
    fn matrix(&self, x: Array2<f32>) -> Result<Matrix<D>> {
        let shape = x.dim();
        let x = if x.is_standard_layout() { x } else { x.as_standard_layout().into_owned() };
        let (values, offset) = x.into_raw_vec_and_offset();
        debug_assert_eq!(offset.unwrap_or(0), 0, "an owned array in standard layout starts at its first element");
        self.device.try_tensor_from_vec(values, shape).map_err(self.failed("an upload"))
    }

    /// Uploads the indices of a gather. Shape: `[n]` → the same.
    fn indices(&self, x: impl IntoIterator<Item = usize>) -> Result<Tensor<(usize,), usize, D>> {
        let x: Vec<usize> = x.into_iter().collect();
        let shape = (x.len(),);
        self.device.try_tensor_from_vec(x, shape).map_err(self.failed("an upload"))
    }

    /// Copies a matrix to the host. Shape: `[rows, columns]` → the same.
    fn download_matrix(&self, x: &Matrix<D>) -> Array2<f32> {
        Array2::from_shape_vec(*x.shape(), x.as_vec()).expect("a tensor has as many values as its shape")
    }

    /// Copies a pattern or scores to the host at once. Shape: `[n_heads, query_pos, key_pos]` → the same.
    fn download_cube(&self, x: &Cube<D>) -> LazyArray<Ix3> {
        let x = Array3::from_shape_vec(*x.shape(), x.as_vec()).expect("a tensor has as many values as its shape");
        HostArray::from(x).into()
    }

    /// The rows of one prompt, by head. Shape: `[rows, n_heads d_head]` → `[n_heads, pos, d_head]`.
    fn split_heads(&self, x: &Matrix<D>, rows: &Range<usize>, n_heads: usize) -> Result<Cube<D>, D::Err> {
        let pos = rows.len();
        let d_head = x.shape().1 / n_heads;
        let rows: Matrix<D> = x.clone().try_slice((rows.clone(), ..))?; // [pos, n_heads d_head]
        rows.try_reshape_like(&(pos, n_heads, d_head))?.try_permute::<_, Axes3<1, 0, 2>>()
    }

    /// Masked attention scores of one prompt.
    /// Shape: `q`, `k` each `[rows, n_heads d_head]` → `[n_heads, query_pos, key_pos]`.
    fn scores(&self, q: &Matrix<D>, k: &Matrix<D>, heads: Heads, rows: &Range<usize>) -> Result<Cube<D>, D::Err> {
        let Heads { n_heads, score_scale } = heads;
        let pos = rows.len();
        let mask = Array2::from_shape_fn((pos, pos), |(query, key)| if key <= query { 0.0 } else { f32::NEG_INFINITY });
        let mask: Matrix<D> = self.device.try_tensor_from_vec(mask.into_raw_vec_and_offset().0, (pos, pos))?;
        let mask: Cube<D> = mask.try_broadcast_like::<_, Axis<0>>(&(n_heads, pos, pos))?;
        // [n_heads, d_head, key_pos]
        let k: Cube<D> = self.split_heads(k, rows, n_heads)?.try_permute::<_, Axes3<0, 2, 1>>()?;
        let scores = self.split_heads(q, rows, n_heads)?.try_matmul(k)?;
        scores.try_mul(score_scale)?.try_add(mask)
    }

    /// Attention within one prompt.
    /// Shape: `q`, `k`, `v` each `[rows, n_heads d_head]` → `[pos, n_heads d_head]`, `[n_heads, query_pos, key_pos]`.
    fn attend(&self, [q, k, v]: [&Matrix<D>; 3], heads: Heads, rows: &Range<usize>) -> Result<ZAndPattern<D>, D::Err> {
        let n_heads = heads.n_heads;
        let pattern = self.scores(q, k, heads, rows)?.try_softmax::<Axis<2>>()?;
        let v = self.split_heads(v, rows, n_heads)?;
        let z: Cube<D> = pattern.clone().try_matmul(v)?; // [n_heads, query_pos, d_head]
        // Gathers the heads of each row side by side. (To reshape a permuted tensor, dfdx compiles a kernel at run
        // time, from sources that exist only on the machine that compiled dfdx, and panics elsewhere.)
        let (pos, columns) = (rows.len(), q.shape().1);
        let order = (0..pos).flat_map(|query| (0..n_heads).map(move |head| head * pos + query)).collect();
        let order: Tensor<(usize,), usize, D> = self.device.try_tensor_from_vec(order, (n_heads * pos,))?;
        let z: Matrix<D> = z.try_reshape_like(&(n_heads * pos, columns / n_heads))?.try_gather(order)?;
        Ok((z.try_reshape_like(&(pos, columns))?, pattern))
    }
}

impl<D: AnyThread> Backend for Dfdx<D> {
    type Tensor = Matrix<D>;
    type Embedding = DfdxEmbedding<D>;
    type LayerNorm = DfdxLayerNorm<D>;
    type Linear = DfdxLinear<D>;

    fn upload_embedding(&self, w_e: Array2<f32>, w_pos: Array2<f32>) -> Result<Self::Embedding> {
        Ok(DfdxEmbedding { w_e: self.matrix(w_e)?, w_pos: self.matrix(w_pos)? })
    }

    fn upload_layer_norm(&self, weights: Option<&LayerNormWeights>, eps: f64) -> Result<Self::LayerNorm> {
        let upload = |ln: &LayerNormWeights| Ok((self.vector(ln.w.to_vec())?, self.vector(ln.b.to_vec())?));
        Ok(DfdxLayerNorm { weights: weights.map(upload).transpose()?, eps })
    }

    fn upload_linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<Self::Linear> {
        Ok(DfdxLinear { w: self.matrix(w)?, b: self.vector(b.to_vec())?, b_host: b })
    }

    fn embedding_weights(&self, embedding: &Self::Embedding) -> Result<(Array2<f32>, Array2<f32>)> {
        Ok((self.download_matrix(&embedding.w_e), self.download_matrix(&embedding.w_pos)))
    }

    fn linear_weights(&self, linear: &Self::Linear) -> Result<(Array2<f32>, Array1<f32>)> {
        Ok((self.download_matrix(&linear.w), linear.b_host.clone()))
    }

    fn upload(&self, x: Array2<f32>) -> Result<Self::Tensor> {
        self.matrix(x)
    }

    fn embed(&self, embedding: &Self::Embedding, tokens: &[u32], positions: &[usize]) -> Result<Matrix<D>> {
        let failed = self.failed("the embedding");
        let tokens = self.indices(tokens.iter().map(|&token| token as usize))?;
        let positions = self.indices(positions.iter().copied())?;
        let token: Matrix<D> = embedding.w_e.clone().try_gather(tokens).map_err(&failed)?;
        let position: Matrix<D> = embedding.w_pos.clone().try_gather(positions).map_err(&failed)?;
        token.try_add(position).map_err(failed)
    }

    fn layer_norm(&self, norm: &Self::LayerNorm, x: &Matrix<D>) -> Result<Matrix<D>> {
        let run = || {
            let x = x.clone().try_normalize::<Axis<1>>(norm.eps)?;
            let Some((w, b)) = &norm.weights else { return Ok(x) };
            let shape = *x.shape();
            x.try_mul(w.clone().try_broadcast_like::<_, Axis<0>>(&shape)?)?
                .try_add(b.clone().try_broadcast_like::<_, Axis<0>>(&shape)?)
        };
        run().map_err(self.failed::<D::Err>("a layer norm"))
    }

    fn linear(&self, linear: &Self::Linear, x: &Matrix<D>) -> Result<Matrix<D>> {
        let run = || {
            let y: Matrix<D> = x.clone().try_matmul(linear.w.clone())?;
            let shape = *y.shape();
            y.try_add(linear.b.clone().try_broadcast_like::<_, Axis<0>>(&shape)?)
        };
        run().map_err(self.failed::<D::Err>("a matrix product"))
    }

    fn linear_act(&self, linear: &Self::Linear, act_fn: ActFn, x: &Matrix<D>) -> Result<Matrix<D>> {
        let y = self.linear(linear, x)?;
        let y = match act_fn {
            ActFn::GeluNew => y.try_fast_gelu(),
            ActFn::Gelu => y.try_accurate_gelu(),
            ActFn::Relu => y.try_relu(),
            ActFn::Silu => y.clone().try_sigmoid().and_then(|gate| y.try_mul(gate)),
            ActFn::Tanh => y.try_tanh(),
        };
        y.map_err(self.failed("an activation function"))
    }

    fn add(&self, a: &Matrix<D>, b: &Matrix<D>) -> Result<Matrix<D>> {
        a.clone().try_add(b.clone()).map_err(self.failed("an addition"))
    }

    fn attention(
        &self,
        qkv: [&Matrix<D>; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<AttentionOutput<Matrix<D>>> {
        let failed = self.failed::<D::Err>("attention");
        if let [rows] = prompts {
            let (z, pattern) = self.attend(qkv, heads, rows).map_err(failed)?;
            let pattern = if keep_pattern { vec![self.download_cube(&pattern)] } else { Vec::new() };
            return Ok(AttentionOutput { z, pattern });
        }
        // Concatenated on the host, because dfdx compiles a kernel at run time for this too.
        let (mut all, mut patterns) = (Vec::new(), Vec::new());
        for rows in prompts {
            let (z, pattern) = self.attend(qkv, heads, rows).map_err(&failed)?;
            all.extend(z.as_vec());
            if keep_pattern {
                patterns.push(self.download_cube(&pattern));
            }
        }
        let z = self.device.try_tensor_from_vec(all, *qkv[0].shape()).map_err(&failed)?;
        Ok(AttentionOutput { z, pattern: patterns })
    }

    fn attn_scores(&self, q: &Matrix<D>, k: &Matrix<D>, heads: Heads, rows: Range<usize>) -> Result<LazyArray<Ix3>> {
        let scores = self.scores(q, k, heads, &rows).map_err(self.failed::<D::Err>("attention scores"))?;
        Ok(self.download_cube(&scores))
    }

    fn download(&self, x: &Matrix<D>) -> Result<HostArray<Ix2>> {
        Ok(self.download_matrix(x).into())
    }

    fn upload_unembed(&self, w_u: Array2<f32>, b_u: Array1<f32>) -> Result<DfdxLinear<D>> {
        self.upload_linear(w_u, b_u)
    }

    fn unembed_weights(&self, unembed: &DfdxLinear<D>) -> Result<(Array2<f32>, Array1<f32>)> {
        self.linear_weights(unembed)
    }

    fn logits(&self, unembed: &DfdxLinear<D>, x: &Matrix<D>, prompts: &[Range<usize>]) -> Result<Vec<Array2<f32>>> {
        Ok(split_by_prompt(self.download(&self.linear(unembed, x)?)?, prompts))
    }
}

impl<D: AnyThread> DecodeBackend for Dfdx<D> {
    type Unembed = DfdxLinear<D>;
    type DecodeTable = DfdxDecodeTable<D>;

    fn upload_projection(&self, p: Array2<f32>) -> Result<DfdxDecodeTable<D>> {
        self.matrix(p).map(DfdxDecodeTable)
    }

    fn decode_table_bytes(DfdxDecodeTable(p): &DfdxDecodeTable<D>, _: &DfdxLinear<D>) -> usize {
        size_of::<f32>() * p.shape().0 * p.shape().1
    }

    fn decode(
        &self,
        c: &Vectors,
        DfdxDecodeTable(projection): &DfdxDecodeTable<D>,
        unembed: &DfdxLinear<D>,
        ranking: Ranking,
    ) -> Result<TopTokens> {
        let failed = self.failed("decoding");
        let d_vocab = unembed.b_host.len();
        let bias = ranking.bias(unembed.b_host.as_slice().expect("a bias is contiguous"));
        let mut top = TopTokensBuilder::new(c.len(), ranking.k, d_vocab);
        let rows_at_once = (DECODE_BYTES / (size_of::<f32>() * d_vocab)).clamp(1, c.len().max(1));
        let mut logits = vec![0.0; rows_at_once * d_vocab];
        for start in (0..c.len()).step_by(rows_at_once) {
            let rows = start..(start + rows_at_once).min(c.len());
            let c = self.matrix(c.compute(rows))?; // [rows, d_head]
            let r = c.try_matmul(projection.clone()).map_err(&failed)?; // [rows, d_model]
            let product: Matrix<D> = r.try_matmul(unembed.w.clone()).map_err(&failed)?; // [rows, d_vocab]
            // A new product is contiguous, as `copy_into` requires; `as_vec` would compute an index per element.
            let logits = &mut logits[..product.shape().0 * d_vocab];
            product.copy_into(logits);
            for (row, logits) in logits.chunks_exact(d_vocab).enumerate() {
                top.push(start + row, 0, logits, &bias);
            }
        }
        Ok(top.finish())
    }
}
