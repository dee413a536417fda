//! Every operation on a CUDA GPU: cuBLAS for matrix products, ten CUDA [`kernels`] for everything else.
//!
//! [`Dfdx`](super::Dfdx) implements every operation on a GPU too, and is the reference for this backend. It is slower:
//! a layer norm alone is ten of its operations (`docs/gpu.md` counts the calls). No single operation can be replaced,
//! because its tensors do not give access to their memory, and it holds a copy of every uploaded weight on the host.
//!
//! The GPU executes work in the order in which it is issued. Only downloads wait for it ([`DeviceBuffer::download`]).
//! Cached activations stay on the GPU until they are first read ([`cached`]).

mod attention;
mod buffer;
mod cached;
mod decode;
mod device;
mod edits;
mod error;
mod gemm;
mod kernels;
mod libraries;
mod logits;
mod matrix;

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::LaunchAsync;
use ndarray::{Array1, Array2, Ix2, Ix3};

use self::buffer::DeviceBuffer;
use self::decode::DecodeTable;
use self::device::CudaGpu;
pub(super) use self::device::check;
use self::error::CudaError;
use self::gemm::{GemmShape, Operand};
use self::kernels::{Epilogue, block_per_row, thread_per_column, thread_per_element};
use self::matrix::DeviceMatrix;
use super::edits::edit_on_host;
use super::{AttentionOutput, Backend, CellEdits, Edit, Heads};
use crate::config::ActFn;
use crate::decode::{DecodeBackend, Ranking, TopTokens, Vectors};
use crate::error::{Error, Result};
use crate::memory::{HostArray, LazyArray, clear_pool};
use crate::weights::LayerNormWeights;

/// The backend of [`Device::cuda`](crate::Device::cuda).
pub(crate) struct Cuda {
    gpu: Arc<CudaGpu>,
}

impl Cuda {
    /// Opens the GPU with this number, or shares it if it is open already.
    ///
    /// # Errors
    /// [`Error::Cuda`] if the driver, a library or a GPU is missing, [`Error::OutOfRange`] if this GPU does not exist,
    /// [`Error::Device`] if it cannot be opened.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        Ok(Self { gpu: CudaGpu::open(ordinal)? })
    }
}

/// Frees the pool of host memory that downloads reuse, as [`Fused`](super::Fused) does: it is of no use without a
/// model.
impl Drop for Cuda {
    fn drop(&mut self) {
        clear_pool();
    }
}

/// The token and position embeddings.
pub(crate) struct CudaEmbedding {
    /// Shape: `[d_vocab, d_model]`.
    w_e: DeviceMatrix,
    /// Shape: `[n_ctx, d_model]`.
    w_pos: DeviceMatrix,
}

/// A layer norm.
pub(crate) struct CudaLayerNorm {
    /// Scale and shift; `None` only centers and scales. Shape: each `[d_model]`.
    weights: Option<(DeviceBuffer, DeviceBuffer)>,
    eps: f32,
}

/// A weight matrix and a bias.
pub(crate) struct CudaLinear {
    /// Shape: `[in, out]`.
    w: DeviceMatrix,
    /// Shape: `[out]`.
    b: DeviceBuffer,
}

impl Cuda {
    /// Adds the device and the operation to an error.
    fn failed(&self, operation: &'static str) -> impl Fn(CudaError) -> Error {
        self.gpu.failed(operation)
    }

    /// Uploads a vector. Shape: `[n]` → the same.
    fn upload_vector(&self, x: &Array1<f32>) -> Result<DeviceBuffer, CudaError> {
        DeviceBuffer::upload(&self.gpu, x.as_standard_layout().as_slice().expect("the layout is standard"))
    }

    /// `epilogue(x W + b)`. Shape: `[rows, in]` → `[rows, out]`.
    fn linear_epilogue(
        &self,
        linear: &CudaLinear,
        epilogue: Epilogue,
        x: &DeviceMatrix,
    ) -> Result<DeviceMatrix, CudaError> {
        let y = x.matmul(&self.gpu, &linear.w)?;
        self.add_bias(&y.buffer, &linear.b, [y.rows, y.columns], 1, epilogue)?;
        Ok(y)
    }

    /// One batched product for queries, keys and values: those of a single prompt are too small to occupy a GPU one by
    /// one.
    /// Shape: `[rows, d_model]` → each `[rows, n_heads d_head]`.
    fn qkv(&self, linears: &[CudaLinear; 3], x: &DeviceMatrix) -> Result<[DeviceMatrix; 3], CudaError> {
        let (w, b) = (linears.each_ref().map(|linear| &linear.w.buffer), linears.each_ref().map(|linear| &linear.b));
        let (w, b) = (DeviceBuffer::whole(w), DeviceBuffer::whole(b)); // [3, d_model, out], [3, out]
        let [rows, inner, columns] = [x.rows, x.columns, linears[0].w.columns];
        let y = DeviceBuffer::uninit::<f32>(&self.gpu, 3 * rows * columns)?; // [3, rows, out]
        let batch_of = |buffer, rows| Operand {
            buffer,
            offset: 0,
            row_stride: columns,
            matrix_stride: rows * columns,
            transposed: false,
        };
        let shape = GemmShape { rows, inner, columns, count: 3 };
        self.gpu.gemm(1.0, x.operand(), batch_of(&w, inner), batch_of(&y, rows), shape)?;
        self.add_bias(&y, &b, [rows, columns], 3, Epilogue::None)?;
        Ok(y.thirds().map(|buffer| DeviceMatrix { buffer, rows, columns }))
    }

    /// `x = epilogue(x + b)` in place, for `count` matrices with a bias each.
    /// Shape: `x [count, rows, columns]`, `b [count, columns]`.
    #[allow(unsafe_code)]
    fn add_bias(
        &self,
        x: &DeviceBuffer,
        b: &DeviceBuffer,
        [rows, columns]: [usize; 2],
        count: usize,
        epilogue: Epilogue,
    ) -> Result<(), CudaError> {
        let blocks = thread_per_column(count * rows, columns);
        let parameters = (x, b, rows as u32, columns as u32, epilogue as u32);
        // SAFETY: the parameters are those of the kernel; `x` has `count` matrices of these rows and columns, `b` a row
        // for each matrix.
        Ok(unsafe { self.gpu.kernels.add_bias.clone().launch(blocks, parameters) }?)
    }
}

#[allow(unsafe_code)]
impl Backend for Cuda {
    type Tensor = DeviceMatrix;
    type Embedding = CudaEmbedding;
    type LayerNorm = CudaLayerNorm;
    type Linear = CudaLinear;

    fn upload_embedding(&self, w_e: Array2<f32>, w_pos: Array2<f32>) -> Result<CudaEmbedding> {
        let upload = |w: Array2<f32>| DeviceMatrix::upload(&self.gpu, w.view()).map_err(self.failed("an upload"));
        Ok(CudaEmbedding { w_e: upload(w_e)?, w_pos: upload(w_pos)? })
    }

    fn upload_layer_norm(&self, weights: Option<&LayerNormWeights>, eps: f64) -> Result<CudaLayerNorm> {
        let upload = |ln: &LayerNormWeights| Ok((self.upload_vector(&ln.w)?, self.upload_vector(&ln.b)?));
        let weights = weights.map(upload).transpose().map_err(self.failed("an upload"))?;
        Ok(CudaLayerNorm { weights, eps: eps as f32 })
    }

    fn upload_linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<CudaLinear> {
        let upload = || Ok(CudaLinear { w: DeviceMatrix::upload(&self.gpu, w.view())?, b: self.upload_vector(&b)? });
        upload().map_err(self.failed("an upload"))
    }

    /// Uploads the three side by side, so that [`Cuda::qkv`] reads them as one batch.
    fn upload_linear_qkv(&self, parts: [(Array2<f32>, Array1<f32>); 3]) -> Result<[CudaLinear; 3]> {
        let upload = || {
            let (rows, columns) = parts[0].0.dim();
            let w = DeviceBuffer::uninit::<f32>(&self.gpu, 3 * rows * columns)?.thirds();
            let b = DeviceBuffer::uninit::<f32>(&self.gpu, 3 * columns)?.thirds();
            for ((w, b), (host_w, host_b)) in w.iter().zip(&b).zip(&parts) {
                w.write(host_w.as_standard_layout().as_slice().expect("the layout is standard"))?;
                b.write(host_b.as_standard_layout().as_slice().expect("the layout is standard"))?;
            }
            let linear = |(buffer, b)| CudaLinear { w: DeviceMatrix { buffer, rows, columns }, b };
            let ([w_q, w_k, w_v], [b_q, b_k, b_v]) = (w, b);
            Ok([(w_q, b_q), (w_k, b_k), (w_v, b_v)].map(linear))
        };
        upload().map_err(self.failed("an upload"))
    }

    fn embedding_weights(&self, embedding: &CudaEmbedding) -> Result<(Array2<f32>, Array2<f32>)> {
        let download = |w: &DeviceMatrix| Ok(w.download().map_err(self.failed("a download"))?.into_owned());
        Ok((download(&embedding.w_e)?, download(&embedding.w_pos)?))
    }

    fn linear_weights(&self, linear: &CudaLinear) -> Result<(Array2<f32>, Array1<f32>)> {
        let mut b = vec![0.0; linear.w.columns];
        linear.b.download(0, &mut b).map_err(self.failed("a download"))?;
        let w = linear.w.download().map_err(self.failed("a download"))?;
        Ok((w.into_owned(), b.into()))
    }

    fn upload(&self, x: Array2<f32>) -> Result<DeviceMatrix> {
        DeviceMatrix::upload(&self.gpu, x.view()).map_err(self.failed("an upload"))
    }

    fn embed(&self, embedding: &CudaEmbedding, tokens: &[u32], positions: &[usize]) -> Result<DeviceMatrix> {
        let run = || {
            let CudaEmbedding { w_e, w_pos } = embedding;
            let positions: Vec<u32> = positions.iter().map(|&position| position as u32).collect();
            let y = DeviceMatrix::uninit(&self.gpu, tokens.len(), w_e.columns)?;
            let tokens = DeviceBuffer::upload(&self.gpu, tokens)?;
            let positions = DeviceBuffer::upload(&self.gpu, &positions)?;
            let parameters = (&tokens, &positions, &w_e.buffer, &w_pos.buffer, &y.buffer, y.columns as u32);
            // SAFETY: the parameters are those of the kernel, which has a block for each row of `y`; the caller has
            // checked the token ids and the positions.
            unsafe { self.gpu.kernels.embed.clone().launch(block_per_row(y.rows), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("the embedding"))
    }

    fn layer_norm(&self, norm: &CudaLayerNorm, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        let run = || {
            let y = DeviceMatrix::uninit(&self.gpu, x.rows, x.columns)?;
            // Without weights the kernel does not read these addresses.
            let (w, b) = norm.weights.as_ref().map_or((&x.buffer, &x.buffer), |(w, b)| (w, b));
            let has_weights = u32::from(norm.weights.is_some());
            let parameters = (&x.buffer, w, b, &y.buffer, x.columns as u32, norm.eps, has_weights);
            // SAFETY: the parameters are those of the kernel, which has a block for each row of `x` and `y`.
            unsafe { self.gpu.kernels.layer_norm.clone().launch(block_per_row(x.rows), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("a layer norm"))
    }

    fn linear(&self, linear: &CudaLinear, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        self.linear_epilogue(linear, Epilogue::None, x).map_err(self.failed("a matrix product"))
    }

    fn linear_qkv(&self, linears: &[CudaLinear; 3], x: &DeviceMatrix) -> Result<[DeviceMatrix; 3]> {
        self.qkv(linears, x).map_err(self.failed("a matrix product"))
    }

    fn linear_act(&self, linear: &CudaLinear, act_fn: ActFn, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        self.linear_epilogue(linear, act_fn.into(), x).map_err(self.failed("a matrix product"))
    }

    /// The last step of [`linear_act`](Self::linear_act), with a bias of zeros.
    fn activate(&self, act_fn: ActFn, x: DeviceMatrix) -> Result<DeviceMatrix> {
        let run = || {
            let x = x.unshared(&self.gpu)?;
            let zeros = DeviceBuffer::upload(&self.gpu, &vec![0.0_f32; x.columns])?;
            self.add_bias(&x.buffer, &zeros, [x.rows, x.columns], 1, act_fn.into())?;
            Ok(x)
        };
        run().map_err(self.failed("an activation function"))
    }

    fn edit(&self, x: DeviceMatrix, edit: Edit) -> Result<DeviceMatrix> {
        match edit.by_row(x.columns) {
            Some(edits) => edits::edit(&self.gpu, x, &edits).map_err(self.failed("an intervention")),
            None => edit_on_host(self, x, edit),
        }
    }

    fn add(&self, a: &DeviceMatrix, b: &DeviceMatrix) -> Result<DeviceMatrix> {
        let run = || {
            let y = DeviceMatrix::uninit(&self.gpu, a.rows, a.columns)?;
            let n = y.rows * y.columns;
            let parameters = (&a.buffer, &b.buffer, &y.buffer, n as u64);
            // SAFETY: the parameters are those of the kernel, and all three matrices have `n` elements.
            unsafe { self.gpu.kernels.add.clone().launch(thread_per_element(n), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("an addition"))
    }

    fn attention(
        &self,
        qkv: [&DeviceMatrix; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<AttentionOutput<DeviceMatrix>> {
        attention::attention(&self.gpu, qkv, heads, prompts, keep_pattern, &[]).map_err(self.failed("attention"))
    }

    fn edited_attention(
        &self,
        qkv: [&DeviceMatrix; 3],
        heads: Heads,
        prompts: &[Range<usize>],
        keep_pattern: bool,
        edits: &[CellEdits],
    ) -> Result<AttentionOutput<DeviceMatrix>> {
        attention::attention(&self.gpu, qkv, heads, prompts, keep_pattern, edits).map_err(self.failed("attention"))
    }

    fn attn_scores(
        &self,
        q: &DeviceMatrix,
        k: &DeviceMatrix,
        heads: Heads,
        rows: Range<usize>,
    ) -> Result<LazyArray<Ix3>> {
        cached::lazy_attn_scores(&self.gpu, [q, k], heads, rows).map_err(self.failed("attention scores"))
    }

    fn download(&self, x: &DeviceMatrix) -> Result<HostArray<Ix2>> {
        x.download().map_err(self.failed("a download"))
    }

    fn lazy_rows(&self, x: &DeviceMatrix, prompts: &[Range<usize>]) -> Result<Vec<LazyArray<Ix2>>> {
        let of_prompt = |rows: &Range<usize>| cached::lazy_rows(&self.gpu, x, rows.clone());
        prompts.iter().map(of_prompt).collect::<Result<_, _>>().map_err(self.failed("a download"))
    }

    fn upload_unembed(&self, w_u: Array2<f32>, b_u: Array1<f32>) -> Result<CudaLinear> {
        self.upload_linear(w_u, b_u)
    }

    fn unembed_weights(&self, unembed: &CudaLinear) -> Result<(Array2<f32>, Array1<f32>)> {
        self.linear_weights(unembed)
    }

    fn logits(&self, unembed: &CudaLinear, x: &DeviceMatrix, prompts: &[Range<usize>]) -> Result<Vec<Array2<f32>>> {
        logits::logits(self, unembed, x, prompts).map_err(self.failed("the logits"))
    }
}

impl DecodeBackend for Cuda {
    type Unembed = CudaLinear;
    type DecodeTable = DecodeTable;

    fn upload_projection(&self, p: Array2<f32>) -> Result<DecodeTable> {
        DecodeTable::upload(&self.gpu, p.view()).map_err(self.failed("an upload"))
    }

    fn decode_table_bytes(table: &DecodeTable, unembed: &CudaLinear) -> usize {
        table.bytes(unembed.w.columns)
    }

    fn decode(&self, c: &Vectors, table: &DecodeTable, unembed: &CudaLinear, ranking: Ranking) -> Result<TopTokens> {
        decode::decode(&self.gpu, c, table, unembed, ranking).map_err(self.failed("decoding"))
    }

    /// Computes the next head's vectors on the host while the GPU decodes.
    fn decode_heads(
        &self,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
        tables: &[Arc<DecodeTable>],
        unembed: &CudaLinear,
        ranking: Ranking,
    ) -> Result<Vec<TopTokens>> {
        let mut next = vectors.next();
        let mut all = Vec::with_capacity(tables.len());
        for table in tables {
            let Some(c) = next.take().transpose()? else { break };
            let (top, following) = rayon::join(|| self.decode(&c, table, unembed, ranking), || vectors.next());
            all.push(top?);
            next = following;
        }
        Ok(all)
    }
}
