//! A CUDA GPU, opened once per process and shared by all models on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::CudaBlas;
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{CudaDevice, result};

use super::error::CudaError;
use super::kernels::Kernels;
use super::libraries;
use crate::error::{Error, Result, check_index};

/// The driver's pool keeps this much unused memory for the next run. Freeing it would take longer than most kernels.
const POOL_RELEASE_THRESHOLD: u64 = 512 << 20;

/// Caches hold at most total memory / `CACHE_DIVISOR`; further activations are copied to the host as they are computed.
const CACHE_DIVISOR: usize = 4;

/// An open GPU. It stays open until the process ends: opening it takes longer than most runs of a model, and closing it
/// after a failure would panic in cudarc.
pub(super) struct CudaGpu {
    name: String,
    pub(super) device: Arc<CudaDevice>,
    /// Locked for each call: NVIDIA advises against calls of several threads with one handle.
    blas: Mutex<CudaBlas>,
    pub(super) kernels: Kernels,
    /// Whether memory comes from the driver's pool, in stream order. Allocating without the pool waits for all work.
    pub(super) pooled: bool,
    /// Bytes that caches hold.
    cache_bytes: Mutex<usize>,
    pub(super) max_cache_bytes: usize,
}

impl CudaGpu {
    /// Opens the GPU with this number, or returns the one that is open.
    ///
    /// # Errors
    /// [`Error::Cuda`] if the driver, a library or a GPU is missing, [`Error::OutOfRange`] if this GPU does not exist,
    /// [`Error::Device`] if it cannot be opened.
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>> {
        static OPEN: Mutex<BTreeMap<usize, Arc<CudaGpu>>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = open.get(&ordinal) {
            return Ok(gpu.clone());
        }
        check(ordinal)?;
        let name = format!("CUDA device {ordinal}");
        let gpu = Self::new(ordinal, name.clone());
        let gpu = Arc::new(gpu.map_err(|error| Error::device(name, "opening it", error))?);
        open.insert(ordinal, gpu.clone());
        Ok(gpu)
    }

    fn new(ordinal: usize, name: String) -> Result<Self, CudaError> {
        let device = CudaDevice::new(ordinal)?;
        let pools = device.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?;
        let blas = Mutex::new(CudaBlas::new(device.clone())?);
        let kernels = Kernels::compile(&device)?;
        let (_, total) = result::mem_get_info()?;
        let (cache_bytes, max_cache_bytes) = (Mutex::new(0), total / CACHE_DIVISOR);
        let gpu = Self { name, pooled: pools > 0, blas, kernels, device, cache_bytes, max_cache_bytes };
        if gpu.pooled {
            gpu.set_pool_release_threshold()?;
        }
        Ok(gpu)
    }

    #[allow(unsafe_code)]
    fn set_pool_release_threshold(&self) -> Result<(), CudaError> {
        let mut pool = std::ptr::null_mut();
        let mut bytes = POOL_RELEASE_THRESHOLD;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the device exists, the pool belongs to it, and the attribute is a 64-bit number.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&mut pool, *self.device.cu_device()).result()?;
            sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut bytes).cast()).result()?;
        }
        Ok(())
    }

    /// The cuBLAS handle, locked for the calling thread.
    pub(super) fn blas(&self) -> Result<MutexGuard<'_, CudaBlas>, CudaError> {
        self.device.bind_to_thread()?;
        Ok(self.blas.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of bytes that caches hold, locked.
    pub(super) fn cache_bytes(&self) -> MutexGuard<'_, usize> {
        self.cache_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds this device and the operation to an error.
    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(CudaError) -> Error {
        move |error| Error::device(&self.name, operation, error)
    }
}

/// Checks that NVIDIA's driver, cuBLAS, NVRTC and this GPU are there.
///
/// # Errors
/// [`Error::Cuda`] if the driver, a library or every GPU is missing, [`Error::OutOfRange`] if this GPU does not exist.
pub(in crate::backend) fn check(ordinal: usize) -> Result<()> {
    libraries::load()?;
    let no_gpu = |missing: String| Error::Cuda {
        missing,
        hint:
            "`nvidia-smi` lists what the driver sees; Device::cpu() needs no GPU, and Device::auto() uses one if it can"
                .into(),
    };
    let unusable = |error| no_gpu(format!("a GPU that the driver can use ({})", CudaError::from(error).0));
    result::init().map_err(unusable)?;
    let count = result::device::get_count().map_err(unusable)?;
    if count < 1 {
        return Err(no_gpu("a GPU: the driver lists none".into()));
    }
    check_index("CUDA device", ordinal, "this machine", count as usize).map(drop)
}
