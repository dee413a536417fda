//! A gpu, opened once for all models on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::CudaBlas;
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{CudaDevice, result};

use super::error::CudaError;
use super::kernels::Kernels;
use super::libraries;
use crate::error::{Error, Result, check_index};

/// So much memory that nothing uses is kept for the next run instead of being given back to the driver, which takes longer
/// than most kernels run.
const KEPT_BYTES: u64 = 512 << 20;

/// Caches may keep this part of a gpu's memory; what is beyond comes to the host at once.
const PART_OF_CACHES: usize = 4;

/// A gpu that is ready. It stays open until the program ends: opening it takes longer than most models do, and closing what
/// has failed would panic in cudarc.
pub(super) struct CudaGpu {
    name: String,
    pub(super) device: Arc<CudaDevice>,
    /// cuBLAS orders what is asked of a handle by one thread.
    blas: Mutex<CudaBlas>,
    pub(super) kernels: Kernels,
    /// Whether memory comes from the driver's pool, in the order of the work, or by calls that wait for all of it.
    pub(super) pooled: bool,
    /// Bytes that caches keep, of at most so many.
    in_caches: Mutex<usize>,
    pub(super) most_in_caches: usize,
}

impl CudaGpu {
    /// # Errors
    /// [`Error::Cuda`] for what is missing, [`Error::OutOfRange`] for a gpu that is not there, [`Error::Device`].
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
        let blas = CudaBlas::new(device.clone())?;
        let kernels = Kernels::compile(&device)?;
        let (_, total) = result::mem_get_info()?;
        let (in_caches, most_in_caches) = (Mutex::new(0), total / PART_OF_CACHES);
        let blas = Mutex::new(blas);
        let gpu = Self { name, pooled: pools > 0, blas, kernels, device, in_caches, most_in_caches };
        if gpu.pooled {
            gpu.keep_spare_memory()?;
        }
        Ok(gpu)
    }

    #[allow(unsafe_code)]
    fn keep_spare_memory(&self) -> Result<(), CudaError> {
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

    /// cuBLAS, for this thread alone.
    pub(super) fn blas(&self) -> Result<MutexGuard<'_, CudaBlas>, CudaError> {
        self.device.bind_to_thread()?;
        Ok(self.blas.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes that caches keep.
    pub(super) fn in_caches(&self) -> MutexGuard<'_, usize> {
        self.in_caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of an operation.
    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(CudaError) -> Error {
        move |error| Error::device(&self.name, operation, error)
    }
}

/// Whether there is such a gpu, and all that it takes to use it.
pub(in crate::backend) fn check(ordinal: usize) -> Result<()> {
    libraries::load()?;
    let no_gpu = |missing: String| Error::Cuda {
        missing,
        hint:
            "`nvidia-smi` says what the driver sees; Device::cpu() needs no GPU, and Device::auto() takes one if it can"
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
