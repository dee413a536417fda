//! A card, opened once for all models on it, and its memory.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use cudarc::cublas::CudaBlas;
use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys::cublasOperation_t;
use cudarc::driver::sys::{self, CUdevice_attribute, CUdeviceptr};
use cudarc::driver::{CudaDevice, DeviceRepr, DriverError, result};

use super::kernels::Kernels;
use super::libraries;
use crate::error::{Error, Result, check_index};

/// So much memory that nothing uses is kept for the next run instead of being given back to the driver, which takes longer
/// than most kernels run.
const KEPT_BYTES: u64 = 512 << 20;

/// Caches may keep this part of a card's memory; what is beyond comes to the host at once.
const PART_OF_CACHES: usize = 4;

/// What a card or a library said, for a person.
pub(super) struct Problem(pub(super) String);

impl From<DriverError> for Problem {
    fn from(error: DriverError) -> Self {
        Self(match error.0 {
            sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                "the driver is older than NVRTC, and does not know what it makes: install a newer driver, or the toolkit of an \
                 older CUDA"
                    .into()
            }
            status => said_by_driver(status as u32),
        })
    }
}

impl From<CublasError> for Problem {
    fn from(error: CublasError) -> Self {
        let status = error.0 as u32;
        let name = match status {
            1 => {
                "not initialized; a driver older than cuBLAS may be why: `nvidia-smi` shows the newest CUDA that it is for"
            }
            3 => "it could not allocate memory",
            7 => "a size or an address is not allowed",
            8 => "the GPU lacks something that it needs",
            11 => "memory could not be reached",
            13 => "it did not run on the GPU",
            14 => "an internal error",
            15 => "not supported",
            _ => "see cublasStatus_t",
        };
        Self(format!("cuBLAS said {status}, {name}"))
    }
}

/// A status in words, by its number: cudarc's names end with those of CUDA 11.8, and to print another would be undefined.
#[allow(unsafe_code)]
fn said_by_driver(status: u32) -> String {
    unsafe extern "C" {
        fn cuGetErrorString(status: c_uint, text: *mut *const c_char) -> c_uint;
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver writes the address of a text that it never frees, or null for a number that it does not know.
    let text = unsafe {
        cuGetErrorString(status, &mut text);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
    };
    format!("the driver said {status}, {}", text.as_deref().unwrap_or("which it has no words for"))
}

/// A card that is ready. It stays open until the program ends: opening it takes longer than most models do, and closing what
/// has failed would panic in cudarc.
pub(super) struct Card {
    name: String,
    device: Arc<CudaDevice>,
    /// cuBLAS orders what is asked of a handle by one thread.
    blas: Mutex<CudaBlas>,
    pub(super) kernels: Kernels,
    /// Whether memory comes from the driver's pool, in the order of the work, or by calls that wait for all of it.
    pooled: bool,
    /// Bytes that caches keep, of at most so many.
    in_caches: Mutex<usize>,
    most_in_caches: usize,
}

impl Card {
    /// # Errors
    /// [`Error::Cuda`] for what is missing, [`Error::OutOfRange`] for a card that is not there, [`Error::Device`].
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>> {
        static OPEN: Mutex<BTreeMap<usize, Arc<Card>>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = open.get(&ordinal) {
            return Ok(card.clone());
        }
        check(ordinal)?;
        let name = format!("CUDA device {ordinal}");
        let card = Self::new(ordinal, name.clone());
        let card = Arc::new(card.map_err(|Problem(problem)| Error::Device {
            device: name,
            operation: "opening it",
            problem,
        })?);
        open.insert(ordinal, card.clone());
        Ok(card)
    }

    fn new(ordinal: usize, name: String) -> Result<Self, Problem> {
        let device = CudaDevice::new(ordinal)?;
        let pools = device.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
        let blas = CudaBlas::new(device.clone())?;
        let kernels = Kernels::compile(&device)?;
        let (_, total) = result::mem_get_info()?;
        let (in_caches, most_in_caches) = (Mutex::new(0), total / PART_OF_CACHES);
        let blas = Mutex::new(blas);
        let card = Self { name, pooled: pools > 0, blas, kernels, device, in_caches, most_in_caches };
        if card.pooled {
            card.keep_spare_memory()?;
        }
        Ok(card)
    }

    #[allow(unsafe_code)]
    fn keep_spare_memory(&self) -> Result<(), Problem> {
        let mut pool = std::ptr::null_mut();
        let mut bytes = KEPT_BYTES;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the device exists, the pool is its own, and the attribute is a number of 64 bits.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&mut pool, *self.device.cu_device()).result()?;
            sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut bytes).cast()).result()?;
        }
        Ok(())
    }

    fn in_caches(&self) -> MutexGuard<'_, usize> {
        self.in_caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of an operation.
    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(Problem) -> Error {
        move |Problem(problem)| Error::Device { device: self.name.clone(), operation, problem }
    }

    /// `c = factor a b`, a product for each of `count`. cuBLAS reads matrices column by column: to it, ours are transposed,
    /// so it is asked for `cᵀ = bᵀ aᵀ`.
    ///
    /// In single precision: nothing here asks for TF32. (The driver's `NVIDIA_TF32_OVERRIDE=1` does, for every program.)
    #[allow(unsafe_code)]
    pub(super) fn products(
        &self,
        factor: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: Shape,
    ) -> Result<(), Problem> {
        let Shape { rows, inner, columns, count } = shape;
        let reach = |operand: &Operand, [rows, columns]: [usize; 2]| {
            let [rows, columns] = if operand.transposed { [columns, rows] } else { [rows, columns] };
            operand.first + (count - 1) * operand.next + (rows - 1) * operand.row + columns
        };
        for (operand, shape) in [(&a, [rows, inner]), (&b, [inner, columns]), (&c, [rows, columns])] {
            assert!(reach(operand, shape) * size_of::<f32>() <= operand.memory.bytes, "a product beyond its memory");
        }
        let Sizes { m, n, k, lda, ldb, ldc, batch } = Sizes::new([&a, &b, &c], shape)?;
        let blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = *blas.handle();
        self.device.bind_to_thread()?;
        let (pa, pb, pc) =
            (b.address::<f32>() as *const f32, a.address::<f32>() as *const f32, c.address::<f32>() as *mut f32);
        let (opa, opb, beta) = (b.operation(), a.operation(), 0.0);
        // SAFETY: the three operands lie inside their memory, as was just checked; the memory is of this card, and is freed in
        // the order of the card's work, behind this product.
        unsafe {
            if count == 1 {
                cudarc::cublas::result::sgemm(handle, opa, opb, m, n, k, &factor, pa, lda, pb, ldb, &beta, pc, ldc)?;
            } else {
                let (sa, sb, sc) = (b.next as i64, a.next as i64, c.next as i64);
                cudarc::cublas::result::sgemm_strided_batched(
                    handle, opa, opb, m, n, k, &factor, pa, lda, sa, pb, ldb, sb, &beta, pc, ldc, sc, batch,
                )?;
            }
        }
        Ok(())
    }

    /// [`products`](Self::products) of matrices that lie anywhere on the card: an operand's memory has their addresses, and
    /// `first` is the place of the first of them there.
    ///
    /// # Safety
    /// At every address lies a matrix of the shape in memory of this card, once the work that was asked for before is done.
    #[allow(unsafe_code)]
    pub(super) unsafe fn products_of_listed(
        &self,
        factor: f32,
        a: Operand,
        b: Operand,
        c: Operand,
        shape: Shape,
    ) -> Result<(), Problem> {
        for operand in [&a, &b, &c] {
            assert!(
                (operand.first + shape.count) * size_of::<u64>() <= operand.memory.bytes,
                "more matrices than listed"
            );
        }
        let Sizes { m, n, k, lda, ldb, ldc, batch } = Sizes::new([&a, &b, &c], shape)?;
        let blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = *blas.handle();
        self.device.bind_to_thread()?;
        let (pa, pb, pc) =
            (b.address::<u64>() as *const _, a.address::<u64>() as *const _, c.address::<u64>() as *const _);
        let (opa, opb, beta) = (b.operation(), a.operation(), 0.0);
        // SAFETY: the lists are as long as was just checked, and the caller says what is at the addresses.
        unsafe {
            cudarc::cublas::sys::cublasSgemmBatched(
                handle, opa, opb, m, n, k, &factor, pa, lda, pb, ldb, &beta, pc, ldc, batch,
            )
        }
        .result()?;
        Ok(())
    }
}

/// The sizes of products in cuBLAS's own numbers.
struct Sizes {
    m: i32,
    n: i32,
    k: i32,
    lda: i32,
    ldb: i32,
    ldc: i32,
    batch: i32,
}

impl Sizes {
    /// Of `a`, `b` and `c`, as ours.
    fn new([a, b, c]: [&Operand; 3], Shape { rows, inner, columns, count }: Shape) -> Result<Self, Problem> {
        let int =
            |x: usize| i32::try_from(x).map_err(|_| Problem(format!("a product of size {x}: cuBLAS takes 2³¹ - 1")));
        let (m, n, k) = (int(columns)?, int(rows)?, int(inner)?);
        Ok(Self { m, n, k, lda: int(b.row)?, ldb: int(a.row)?, ldc: int(c.row)?, batch: int(count)? })
    }
}

/// The sizes of `count` products `[rows, inner] [inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
}

/// Where the numbers of a matrix lie, or of several; distances are counted in numbers.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) memory: &'a Memory,
    pub(super) first: usize,
    /// From a row to the next.
    pub(super) row: usize,
    /// From a matrix to the next.
    pub(super) next: usize,
    /// Whether it is the transposed matrix that lies there.
    pub(super) transposed: bool,
}

impl Operand<'_> {
    /// Of the first of the numbers, which are `T`.
    fn address<T>(&self) -> CUdeviceptr {
        self.memory.pointer + (self.first * size_of::<T>()) as u64
    }

    fn operation(&self) -> cublasOperation_t {
        match self.transposed {
            false => cublasOperation_t::CUBLAS_OP_N,
            true => cublasOperation_t::CUBLAS_OP_T,
        }
    }
}

/// Whether there is such a card, and all that it takes to use it.
pub(in crate::backend) fn check(ordinal: usize) -> Result<()> {
    libraries::load()?;
    let no_gpu = |missing: String| Error::Cuda {
        missing,
        hint:
            "`nvidia-smi` says what the driver sees; Device::cpu() needs no GPU, and Device::auto() takes one if it can"
                .into(),
    };
    let unusable = |error| no_gpu(format!("a GPU that the driver can use ({})", Problem::from(error).0));
    result::init().map_err(unusable)?;
    let count = result::device::get_count().map_err(unusable)?;
    if count < 1 {
        return Err(no_gpu("a GPU: the driver lists none".into()));
    }
    check_index("CUDA device", ordinal, "this machine", count as usize).map(drop)
}

/// Memory of a card, or a part of it, freed in the order of the card's work when nobody has a part of it any more.
pub(super) struct Memory {
    pointer: CUdeviceptr,
    bytes: usize,
    allocation: Arc<Allocation>,
}

struct Allocation {
    pointer: CUdeviceptr,
    bytes: usize,
    /// Whether a cache keeps it; changed under the lock of [`Card::in_caches`].
    in_cache: AtomicBool,
    card: Arc<Card>,
}

// SAFETY: a kernel's parameter is the address of its first byte, and it lives as long as the reference.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for &Memory {
    fn as_kernel_param(&self) -> *mut std::ffi::c_void {
        (&raw const self.pointer).cast_mut().cast()
    }
}

#[allow(unsafe_code)]
impl Memory {
    /// Room for `n` values, which are to be written before they are read.
    pub(super) fn unset<T: Pod>(card: &Arc<Card>, n: usize) -> Result<Self, Problem> {
        let bytes = n * size_of::<T>();
        card.device.bind_to_thread()?;
        // SAFETY: the driver gives memory or an error; what is in it may be anything, as `Pod` may be.
        let pointer = unsafe {
            match card.pooled {
                true => result::malloc_async(*card.device.cu_stream(), bytes.max(1)),
                false => result::malloc_sync(bytes.max(1)),
            }
        };
        let pointer = pointer.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(bytes),
            _ => error.into(),
        })?;
        let allocation = Allocation { pointer, bytes, in_cache: AtomicBool::new(false), card: card.clone() };
        Ok(Self { pointer, bytes, allocation: Arc::new(allocation) })
    }

    pub(super) fn upload<T: Pod>(card: &Arc<Card>, values: &[T]) -> Result<Self, Problem> {
        let memory = Self::unset::<T>(card, values.len())?;
        memory.write(values)?;
        Ok(memory)
    }

    /// Fills it with as many values as there is room for.
    pub(super) fn write<T: Pod>(&self, values: &[T]) -> Result<(), Problem> {
        assert_eq!(size_of_val(values), self.bytes, "other values than there is room for");
        if !values.is_empty() {
            self.allocation.card.device.bind_to_thread()?;
            // SAFETY: there is room for them, and the call returns when they have been read. It takes its place in the order
            // of the card's work, behind what gives the memory.
            unsafe { result::memcpy_htod_sync(self.pointer, values) }?;
        }
        Ok(())
    }

    /// The same memory, for a cache to keep; `None` if caches would then have more than they may.
    pub(super) fn for_cache(&self) -> Option<Self> {
        let Allocation { bytes, in_cache, card, .. } = &*self.allocation;
        let mut all = card.in_caches();
        if !in_cache.load(Ordering::Relaxed) {
            if *all + bytes > card.most_in_caches {
                return None;
            }
            *all += bytes;
            in_cache.store(true, Ordering::Relaxed);
        }
        Some(self.part(0, self.bytes))
    }

    /// So many bytes of it, behind the first so many.
    fn part(&self, first: usize, bytes: usize) -> Self {
        Self { pointer: self.pointer + first as u64, bytes, allocation: self.allocation.clone() }
    }

    /// Its three equal parts.
    pub(super) fn thirds(&self) -> [Self; 3] {
        let bytes = self.bytes / 3;
        [0, 1, 2].map(|index| self.part(index * bytes, bytes))
    }

    /// The memory of which these are the [`thirds`](Self::thirds).
    pub(super) fn whole(thirds: [&Self; 3]) -> Self {
        let [first, second, third] = thirds;
        let follows = |a: &Self, b: &Self| {
            Arc::ptr_eq(&a.allocation, &b.allocation) && a.pointer + a.bytes as u64 == b.pointer && a.bytes == b.bytes
        };
        assert!(follows(first, second) && follows(second, third), "thirds of other memory");
        first.part(0, 3 * first.bytes)
    }

    /// The values behind the first so many, once all that was asked of the card before is done.
    pub(super) fn download<T: Pod>(&self, first: usize, to: &mut [T]) -> Result<(), Problem> {
        let offset = first * size_of::<T>();
        assert!(offset + size_of_val(to) <= self.bytes, "more values than there are");
        if !to.is_empty() {
            self.allocation.card.device.bind_to_thread()?;
            // SAFETY: the memory has so many bytes, any bytes are a `Pod`, and the call returns when they are there.
            unsafe { result::memcpy_dtoh_sync(to, self.pointer + offset as u64) }?;
        }
        Ok(())
    }
}

/// Says how much there is.
fn out_of_memory(bytes: usize) -> Problem {
    let mb = |bytes: usize| bytes.div_ceil(1_000_000);
    let free = match result::mem_get_info() {
        Ok((free, total)) => format!("{} of {} MB are free", mb(free), mb(total)),
        Err(error) => Problem::from(error).0,
    };
    Problem(format!(
        "out of memory: {} MB were asked for, {free}; drop caches of earlier runs, give it fewer or shorter prompts, load the model \
         with a smaller `folded_bytes`, or close other programs that use the card",
        mb(bytes)
    ))
}

impl Drop for Allocation {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if *self.in_cache.get_mut() {
            *self.card.in_caches() -= self.bytes;
        }
        // A card that has failed cannot free its memory either, and a destructor has nobody to tell.
        if self.card.device.bind_to_thread().is_ok() {
            // SAFETY: the memory came from the same pool or call, and nothing has its address any more.
            let _ = unsafe {
                match self.card.pooled {
                    true => result::free_async(self.pointer, *self.card.device.cu_stream()),
                    false => result::free_sync(self.pointer),
                }
            };
        }
    }
}
