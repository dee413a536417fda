//! Every operation on a CUDA gpu: products by cuBLAS, everything around them by a few [`kernels`].
//!
//! [`Dfdx`](super::Dfdx) has every operation there too, and is the plain implementation. But it spends more on a layer norm
//! than on the products around it (`docs/performance.md` counts the calls), its tensors lend their memory to nobody, so that
//! no single operation can be replaced, and they keep a copy of what is uploaded on the host.
//!
//! Work on a gpu is done in the order in which it is asked for, and nothing waits for it but [`Memory::download`]. What a cache
//! keeps stays on the gpu until somebody looks at it ([`cached`]).

mod attention;
mod cached;
mod decode;
mod device;
mod error;
mod gemm;
mod kernels;
mod libraries;
mod logits;
mod memory;

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::LaunchAsync;
use ndarray::{Array1, Array2, ArrayView2, Dim, Ix2, Ix3};

use self::cached::DeviceSlice;
use self::decode::DecodeTable;
use self::device::CudaGpu;
pub(super) use self::device::check;
use self::error::CudaError;
use self::gemm::{Operand, Shape};
use self::kernels::{Epilogue, a_block_each, a_thread_each, a_thread_each_column};
use self::memory::Memory;
use super::{AttentionOutput, Backend};
use crate::config::ActFn;
use crate::decode::{DecodeBackend, TopTokens, Vectors};
use crate::error::{Error, Result};
use crate::memory::{HostArray, LazyArray, clear_pool};
use crate::weights::LayerNormWeights;

/// A CUDA gpu.
pub(crate) struct Cuda {
    gpu: Arc<CudaGpu>,
}

impl Cuda {
    /// # Errors
    /// [`Error::Cuda`] if the driver, a library or a GPU is missing, [`Error::OutOfRange`] if this one is,
    /// [`Error::Device`] if it cannot be opened.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        Ok(Self { gpu: CudaGpu::open(ordinal)? })
    }
}

/// As for [`Fused`](super::Fused): downloads use the memory of dropped activations again, and without a model it is of no use.
impl Drop for Cuda {
    fn drop(&mut self) {
        clear_pool();
    }
}

/// A matrix on the gpu, row by row.
pub(crate) struct DeviceMatrix {
    memory: Memory,
    rows: usize,
    columns: usize,
}

impl DeviceMatrix {
    fn unset(gpu: &Arc<CudaGpu>, rows: usize, columns: usize) -> Result<Self, CudaError> {
        Ok(Self { memory: Memory::unset::<f32>(gpu, rows * columns)?, rows, columns })
    }

    fn upload(gpu: &Arc<CudaGpu>, x: ArrayView2<f32>) -> Result<Self, CudaError> {
        let x = x.as_standard_layout();
        let values = x.as_slice().expect("it is in standard layout");
        Ok(Self { memory: Memory::upload(gpu, values)?, rows: x.nrows(), columns: x.ncols() })
    }

    fn download(&self) -> Result<HostArray<Ix2>, CudaError> {
        let (slice, shape) = self.rows(0..self.rows);
        slice.download(shape)
    }

    /// Some of its rows, and their shape.
    fn rows(&self, rows: Range<usize>) -> (DeviceSlice<'_>, Ix2) {
        let first = rows.start * self.columns;
        (DeviceSlice { memory: &self.memory, first }, Dim((rows.len(), self.columns)))
    }

    fn operand(&self) -> Operand<'_> {
        Operand { memory: &self.memory, first: 0, row: self.columns, next: 0, transposed: false }
    }

    /// The part of each head in the rows of `[rows, n_heads d_head]` from the first on.
    fn heads(&self, first_row: usize, n_heads: usize) -> Operand<'_> {
        Operand { first: first_row * self.columns, next: self.columns / n_heads, ..self.operand() }
    }

    /// `self other`.
    fn product(&self, gpu: &Arc<CudaGpu>, other: &Self) -> Result<Self, CudaError> {
        let y = Self::unset(gpu, self.rows, other.columns)?;
        self.product_of_rows(gpu, 0..self.rows, other, &y)?;
        Ok(y)
    }

    /// Some rows of `self other`, into the first rows of `y`.
    fn product_of_rows(&self, gpu: &Arc<CudaGpu>, rows: Range<usize>, other: &Self, y: &Self) -> Result<(), CudaError> {
        let shape = Shape { rows: rows.len(), inner: self.columns, columns: other.columns, count: 1 };
        let x = Operand { first: rows.start * self.columns, ..self.operand() };
        gpu.products(1.0, x, other.operand(), y.operand(), shape)
    }
}

pub(crate) struct CudaEmbedding {
    w_e: DeviceMatrix,
    w_pos: DeviceMatrix,
}

pub(crate) struct CudaLayerNorm {
    /// Scale and shift.
    weights: Option<(Memory, Memory)>,
    eps: f32,
}

pub(crate) struct CudaLinear {
    w: DeviceMatrix,
    b: Memory,
}

impl Cuda {
    fn failed(&self, operation: &'static str) -> impl Fn(CudaError) -> Error {
        self.gpu.failed(operation)
    }

    fn vector(&self, x: &Array1<f32>) -> Result<Memory, CudaError> {
        Memory::upload(&self.gpu, x.as_standard_layout().as_slice().expect("it is in standard layout"))
    }

    fn apply_with(&self, linear: &CudaLinear, function: Epilogue, x: &DeviceMatrix) -> Result<DeviceMatrix, CudaError> {
        let y = x.product(&self.gpu, &linear.w)?;
        self.add_bias(&y.memory, &linear.b, [y.rows, y.columns], 1, function)?;
        Ok(y)
    }

    /// Three products at a time: those of one prompt are too small for a gpu.
    fn qkv(&self, linears: &[CudaLinear; 3], x: &DeviceMatrix) -> Result<[DeviceMatrix; 3], CudaError> {
        let (w, b) = (linears.each_ref().map(|linear| &linear.w.memory), linears.each_ref().map(|linear| &linear.b));
        let (w, b) = (Memory::whole(w), Memory::whole(b));
        let [rows, inner, columns] = [x.rows, x.columns, linears[0].w.columns];
        let y = Memory::unset::<f32>(&self.gpu, 3 * rows * columns)?;
        let of = |memory, rows| Operand { memory, first: 0, row: columns, next: rows * columns, transposed: false };
        self.gpu.products(1.0, x.operand(), of(&w, inner), of(&y, rows), Shape { rows, inner, columns, count: 3 })?;
        self.add_bias(&y, &b, [rows, columns], 3, Epilogue::None)?;
        Ok(y.thirds().map(|memory| DeviceMatrix { memory, rows, columns }))
    }

    /// Adds to each row of each of `count` matrices the matrix's own row of `b`, and applies the function.
    #[allow(unsafe_code)]
    fn add_bias(
        &self,
        x: &Memory,
        b: &Memory,
        [rows, columns]: [usize; 2],
        count: usize,
        function: Epilogue,
    ) -> Result<(), CudaError> {
        let blocks = a_thread_each_column(count * rows, columns);
        let parameters = (x, b, rows as u32, columns as u32, function as u32);
        // SAFETY: the parameters are those of the kernel; `x` has `count` matrices of so many rows and columns, `b` as many
        // rows.
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
        let upload = |ln: &LayerNormWeights| Ok((self.vector(&ln.w)?, self.vector(&ln.b)?));
        let weights = weights.map(upload).transpose().map_err(self.failed("an upload"))?;
        Ok(CudaLayerNorm { weights, eps: eps as f32 })
    }

    fn upload_linear(&self, w: Array2<f32>, b: Array1<f32>) -> Result<CudaLinear> {
        let upload = || Ok(CudaLinear { w: DeviceMatrix::upload(&self.gpu, w.view())?, b: self.vector(&b)? });
        upload().map_err(self.failed("an upload"))
    }

    fn upload_linear_qkv(&self, parts: [(Array2<f32>, Array1<f32>); 3]) -> Result<[CudaLinear; 3]> {
        let upload = || {
            let (rows, columns) = parts[0].0.dim();
            let w = Memory::unset::<f32>(&self.gpu, 3 * rows * columns)?.thirds();
            let b = Memory::unset::<f32>(&self.gpu, 3 * columns)?.thirds();
            for ((w, b), (own_w, own_b)) in w.iter().zip(&b).zip(&parts) {
                w.write(own_w.as_standard_layout().as_slice().expect("it is in standard layout"))?;
                b.write(own_b.as_standard_layout().as_slice().expect("it is in standard layout"))?;
            }
            let linear = |(memory, b)| CudaLinear { w: DeviceMatrix { memory, rows, columns }, b };
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

    fn embed(&self, embedding: &CudaEmbedding, tokens: &[u32], positions: &[usize]) -> Result<DeviceMatrix> {
        let run = || {
            let CudaEmbedding { w_e, w_pos } = embedding;
            let positions: Vec<u32> = positions.iter().map(|&position| position as u32).collect();
            let y = DeviceMatrix::unset(&self.gpu, tokens.len(), w_e.columns)?;
            let (tokens, positions) = (Memory::upload(&self.gpu, tokens)?, Memory::upload(&self.gpu, &positions)?);
            let parameters = (&tokens, &positions, &w_e.memory, &w_pos.memory, &y.memory, y.columns as u32);
            // SAFETY: the parameters are those of the kernel, which has a block for each row of `y`; the caller has checked
            // that there are such tokens and positions.
            unsafe { self.gpu.kernels.embed.clone().launch(a_block_each(y.rows), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("the embedding"))
    }

    fn layer_norm(&self, norm: &CudaLayerNorm, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        let run = || {
            let y = DeviceMatrix::unset(&self.gpu, x.rows, x.columns)?;
            // Without weights the kernel reads none, whatever their address.
            let (w, b) = norm.weights.as_ref().map_or((&x.memory, &x.memory), |(w, b)| (w, b));
            let has_weights = u32::from(norm.weights.is_some());
            let parameters = (&x.memory, w, b, &y.memory, x.columns as u32, norm.eps, has_weights);
            // SAFETY: the parameters are those of the kernel, which has a block for each row of `x` and `y`.
            unsafe { self.gpu.kernels.layer_norm.clone().launch(a_block_each(x.rows), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("a layer norm"))
    }

    fn linear(&self, linear: &CudaLinear, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        self.apply_with(linear, Epilogue::None, x).map_err(self.failed("a matrix product"))
    }

    fn linear_qkv(&self, linears: &[CudaLinear; 3], x: &DeviceMatrix) -> Result<[DeviceMatrix; 3]> {
        self.qkv(linears, x).map_err(self.failed("a matrix product"))
    }

    fn linear_act(&self, linear: &CudaLinear, act_fn: ActFn, x: &DeviceMatrix) -> Result<DeviceMatrix> {
        self.apply_with(linear, act_fn.into(), x).map_err(self.failed("a matrix product"))
    }

    fn add(&self, a: &DeviceMatrix, b: &DeviceMatrix) -> Result<DeviceMatrix> {
        let run = || {
            let y = DeviceMatrix::unset(&self.gpu, a.rows, a.columns)?;
            let n = y.rows * y.columns;
            let parameters = (&a.memory, &b.memory, &y.memory, n as u64);
            // SAFETY: the parameters are those of the kernel, and all three matrices have n numbers.
            unsafe { self.gpu.kernels.add.clone().launch(a_thread_each(n), parameters) }?;
            Ok(y)
        };
        run().map_err(self.failed("an addition"))
    }

    fn attention(
        &self,
        qkv: [&DeviceMatrix; 3],
        n_heads: usize,
        prompts: &[Range<usize>],
        keep_pattern: bool,
    ) -> Result<AttentionOutput<DeviceMatrix>> {
        attention::attention(&self.gpu, qkv, n_heads, prompts, keep_pattern).map_err(self.failed("attention"))
    }

    fn attn_scores(
        &self,
        q: &DeviceMatrix,
        k: &DeviceMatrix,
        n_heads: usize,
        rows: Range<usize>,
    ) -> Result<LazyArray<Ix3>> {
        cached::attn_scores(&self.gpu, [q, k], n_heads, rows).map_err(self.failed("attention scores"))
    }

    fn download(&self, x: &DeviceMatrix) -> Result<HostArray<Ix2>> {
        x.download().map_err(self.failed("a download"))
    }

    fn lazy_rows(&self, x: &DeviceMatrix, prompts: &[Range<usize>]) -> Result<Vec<LazyArray<Ix2>>> {
        let keep = |rows: &Range<usize>| cached::rows(&self.gpu, x, rows.clone());
        prompts.iter().map(keep).collect::<Result<_, _>>().map_err(self.failed("a download"))
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

    fn decode(&self, c: &Vectors, table: &DecodeTable, unembed: &CudaLinear, k: usize) -> Result<TopTokens> {
        decode::decode(&self.gpu, c, table, unembed, k).map_err(self.failed("decoding"))
    }

    /// Computes the next head's vectors on the host while the GPU decodes.
    fn decode_heads(
        &self,
        vectors: &mut (dyn Iterator<Item = Result<Vectors>> + Send),
        tables: &[Arc<DecodeTable>],
        unembed: &CudaLinear,
        k: usize,
    ) -> Result<Vec<TopTokens>> {
        let mut next = vectors.next();
        let mut all = Vec::with_capacity(tables.len());
        for table in tables {
            let Some(c) = next.take().transpose()? else { break };
            let (top, following) = rayon::join(|| self.decode(&c, table, unembed, k), || vectors.next());
            all.push(top?);
            next = following;
        }
        Ok(all)
    }
}
