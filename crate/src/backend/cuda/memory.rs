//! Memory of a gpu.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUdeviceptr};
use cudarc::driver::{DeviceRepr, result};

use super::device::CudaGpu;
use super::error::CudaError;

/// Memory of a gpu, or a part of it, freed in the order of the gpu's work when nobody has a part of it any more.
pub(super) struct Memory {
    pub(super) pointer: CUdeviceptr,
    pub(super) bytes: usize,
    allocation: Arc<Allocation>,
}

struct Allocation {
    pointer: CUdeviceptr,
    bytes: usize,
    /// Whether a cache keeps it; changed under the lock of [`CudaGpu::in_caches`].
    in_cache: AtomicBool,
    gpu: Arc<CudaGpu>,
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
    pub(super) fn unset<T: Pod>(gpu: &Arc<CudaGpu>, n: usize) -> Result<Self, CudaError> {
        let bytes = n * size_of::<T>();
        gpu.device.bind_to_thread()?;
        // SAFETY: the driver gives memory or an error; what is in it may be anything, as `Pod` may be.
        let pointer = unsafe {
            match gpu.pooled {
                true => result::malloc_async(*gpu.device.cu_stream(), bytes.max(1)),
                false => result::malloc_sync(bytes.max(1)),
            }
        };
        let pointer = pointer.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(bytes),
            _ => error.into(),
        })?;
        let allocation = Allocation { pointer, bytes, in_cache: AtomicBool::new(false), gpu: gpu.clone() };
        Ok(Self { pointer, bytes, allocation: Arc::new(allocation) })
    }

    pub(super) fn upload<T: Pod>(gpu: &Arc<CudaGpu>, values: &[T]) -> Result<Self, CudaError> {
        let memory = Self::unset::<T>(gpu, values.len())?;
        memory.write(values)?;
        Ok(memory)
    }

    /// Fills it with as many values as there is room for.
    pub(super) fn write<T: Pod>(&self, values: &[T]) -> Result<(), CudaError> {
        assert_eq!(size_of_val(values), self.bytes, "other values than there is room for");
        if !values.is_empty() {
            self.allocation.gpu.device.bind_to_thread()?;
            // SAFETY: there is room for them, and the call returns when they have been read. It takes its place in the order
            // of the gpu's work, behind what gives the memory.
            unsafe { result::memcpy_htod_sync(self.pointer, values) }?;
        }
        Ok(())
    }

    /// The same memory, for a cache to keep; `None` if caches would then have more than they may.
    pub(super) fn for_cache(&self) -> Option<Self> {
        let Allocation { bytes, in_cache, gpu, .. } = &*self.allocation;
        let mut all = gpu.in_caches();
        if !in_cache.load(Ordering::Relaxed) {
            if *all + bytes > gpu.most_in_caches {
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

    /// The values behind the first so many, once all that was asked of the gpu before is done.
    pub(super) fn download<T: Pod>(&self, first: usize, to: &mut [T]) -> Result<(), CudaError> {
        let offset = first * size_of::<T>();
        assert!(offset + size_of_val(to) <= self.bytes, "more values than there are");
        if !to.is_empty() {
            self.allocation.gpu.device.bind_to_thread()?;
            // SAFETY: the memory has so many bytes, any bytes are a `Pod`, and the call returns when they are there.
            unsafe { result::memcpy_dtoh_sync(to, self.pointer + offset as u64) }?;
        }
        Ok(())
    }
}

/// Says how much there is.
fn out_of_memory(bytes: usize) -> CudaError {
    let mb = |bytes: usize| bytes.div_ceil(1_000_000);
    let free = match result::mem_get_info() {
        Ok((free, total)) => format!("{} of {} MB are free", mb(free), mb(total)),
        Err(error) => CudaError::from(error).0,
    };
    CudaError(format!(
        "out of memory: {} MB were asked for, {free}; drop caches of earlier runs, give it fewer or shorter prompts, load the model \
         with a smaller `decode_cache_bytes`, or close other programs that use the gpu",
        mb(bytes)
    ))
}

impl Drop for Allocation {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if *self.in_cache.get_mut() {
            *self.gpu.in_caches() -= self.bytes;
        }
        // A gpu that has failed cannot free its memory either, and a destructor has nobody to tell.
        if self.gpu.device.bind_to_thread().is_ok() {
            // SAFETY: the memory came from the same pool or call, and nothing has its address any more.
            let _ = unsafe {
                match self.gpu.pooled {
                    true => result::free_async(self.pointer, *self.gpu.device.cu_stream()),
                    false => result::free_sync(self.pointer),
                }
            };
        }
    }
}
