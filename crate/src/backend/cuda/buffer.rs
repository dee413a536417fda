//! Memory on the GPU: allocation, uploads, downloads, and the share of it that caches hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUdeviceptr};
use cudarc::driver::{DeviceRepr, result};

use super::device::CudaGpu;
use super::error::CudaError;

/// An allocation of GPU memory, or a part of one. The memory is freed with its last part, after all work issued before.
pub(super) struct DeviceBuffer {
    pub(super) pointer: CUdeviceptr,
    pub(super) bytes: usize,
    allocation: Arc<Allocation>,
}

struct Allocation {
    pointer: CUdeviceptr,
    bytes: usize,
    /// Whether the memory counts in [`CudaGpu::cache_bytes`], whose lock guards changes.
    in_cache: AtomicBool,
    gpu: Arc<CudaGpu>,
}

// SAFETY: a kernel's parameter is the address of the first byte, which is stored here as long as the reference lives.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for &DeviceBuffer {
    fn as_kernel_param(&self) -> *mut std::ffi::c_void {
        (&raw const self.pointer).cast_mut().cast()
    }
}

#[allow(unsafe_code)]
impl DeviceBuffer {
    /// Allocates memory for `n` values, to be written before they are read.
    pub(super) fn uninit<T: Pod>(gpu: &Arc<CudaGpu>, n: usize) -> Result<Self, CudaError> {
        let bytes = n * size_of::<T>();
        gpu.device.bind_to_thread()?;
        // SAFETY: the driver returns memory or an error; any bytes in it are a valid `Pod`.
        let pointer = unsafe {
            if gpu.pooled {
                result::malloc_async(*gpu.device.cu_stream(), bytes.max(1))
            } else {
                result::malloc_sync(bytes.max(1))
            }
        };
        let pointer = pointer.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(bytes),
            _ => error.into(),
        })?;
        let allocation = Allocation { pointer, bytes, in_cache: AtomicBool::new(false), gpu: gpu.clone() };
        Ok(Self { pointer, bytes, allocation: Arc::new(allocation) })
    }

    /// Copies values to new memory on the GPU. Shape: `[n]` → the same.
    pub(super) fn upload<T: Pod>(gpu: &Arc<CudaGpu>, values: &[T]) -> Result<Self, CudaError> {
        let buffer = Self::uninit::<T>(gpu, values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Fills the whole buffer.
    ///
    /// # Panics
    /// If `values` has another size than the buffer.
    pub(super) fn write<T: Pod>(&self, values: &[T]) -> Result<(), CudaError> {
        assert_eq!(size_of_val(values), self.bytes, "the values fill the buffer");
        if !values.is_empty() {
            self.allocation.gpu.device.bind_to_thread()?;
            // SAFETY: the sizes are equal, and the call returns when `values` has been read. The copy runs after the
            // allocation, which was issued before.
            unsafe { result::memcpy_htod_sync(self.pointer, values) }?;
        }
        Ok(())
    }

    /// The same memory, counted as held by a cache; `None` if caches would then hold more than their share.
    pub(super) fn for_cache(&self) -> Option<Self> {
        let Allocation { bytes, in_cache, gpu, .. } = &*self.allocation;
        let mut cache_bytes = gpu.cache_bytes();
        if !in_cache.load(Ordering::Relaxed) {
            if *cache_bytes + bytes > gpu.max_cache_bytes {
                return None;
            }
            *cache_bytes += bytes;
            in_cache.store(true, Ordering::Relaxed);
        }
        Some(self.part(0, self.bytes))
    }

    /// Whether a cache may read the memory later.
    pub(super) fn in_cache(&self) -> bool {
        // Only the run that computes the memory adds it to a cache.
        self.allocation.in_cache.load(Ordering::Relaxed)
    }

    /// A copy, made on the GPU.
    pub(super) fn copy(&self, gpu: &Arc<CudaGpu>) -> Result<Self, CudaError> {
        let copy = Self::uninit::<u8>(gpu, self.bytes)?;
        // SAFETY: both are allocations of these bytes, and the copy runs in stream order, before either is freed.
        unsafe { result::memcpy_dtod_async(copy.pointer, self.pointer, self.bytes, *gpu.device.cu_stream()) }?;
        Ok(copy)
    }

    /// `bytes` bytes that start `offset` bytes into this part.
    fn part(&self, offset: usize, bytes: usize) -> Self {
        Self { pointer: self.pointer + offset as u64, bytes, allocation: self.allocation.clone() }
    }

    /// Three equal parts.
    pub(super) fn thirds(&self) -> [Self; 3] {
        let bytes = self.bytes / 3;
        [0, 1, 2].map(|index| self.part(index * bytes, bytes))
    }

    /// The inverse of [`thirds`](Self::thirds).
    ///
    /// # Panics
    /// If the three are not adjacent parts of one allocation.
    pub(super) fn whole(thirds: [&Self; 3]) -> Self {
        let [first, second, third] = thirds;
        let adjacent = |a: &Self, b: &Self| {
            Arc::ptr_eq(&a.allocation, &b.allocation) && a.pointer + a.bytes as u64 == b.pointer && a.bytes == b.bytes
        };
        assert!(adjacent(first, second) && adjacent(second, third), "thirds of one allocation");
        first.part(0, 3 * first.bytes)
    }

    /// Copies values from `offset` on to the host, after waiting for all work issued before. Shape: `[n]` → the same.
    ///
    /// # Panics
    /// If the buffer ends before `to` is full.
    pub(super) fn download<T: Pod>(&self, offset: usize, to: &mut [T]) -> Result<(), CudaError> {
        let offset = offset * size_of::<T>();
        assert!(offset + size_of_val(to) <= self.bytes, "the values are inside the buffer");
        if !to.is_empty() {
            self.allocation.gpu.device.bind_to_thread()?;
            // SAFETY: the range is inside the allocation, any bytes are a valid `Pod`, and the call returns when they
            // have been copied.
            unsafe { result::memcpy_dtoh_sync(to, self.pointer + offset as u64) }?;
        }
        Ok(())
    }
}

/// The error of an allocation of `bytes`, with the free memory and what to do.
fn out_of_memory(bytes: usize) -> CudaError {
    let mb = |bytes: usize| bytes.div_ceil(1_000_000);
    let free = match result::mem_get_info() {
        Ok((free, total)) => format!("{} of {} MB are free", mb(free), mb(total)),
        Err(error) => CudaError::from(error).0,
    };
    CudaError(format!(
        "out of memory: {} MB requested, {free}; drop caches of earlier runs, run fewer or shorter prompts, load the model \
         with a smaller `decode_cache_bytes`, or close other programs that use the GPU",
        mb(bytes)
    ))
}

impl Drop for Allocation {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if *self.in_cache.get_mut() {
            *self.gpu.cache_bytes() -= self.bytes;
        }
        // Errors are ignored: a GPU that has failed cannot free memory, and a destructor cannot report it.
        if self.gpu.device.bind_to_thread().is_ok() {
            // SAFETY: the memory came from the same pool or call, and no buffer has its address any more.
            let _ = unsafe {
                if self.gpu.pooled {
                    result::free_async(self.pointer, *self.gpu.device.cu_stream())
                } else {
                    result::free_sync(self.pointer)
                }
            };
        }
    }
}
