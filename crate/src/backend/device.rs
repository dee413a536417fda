//! The device that a model computes on.

/// The device that a model computes on: a value, like `device="cuda"` in Python.
///
/// [`Device::cuda`] and [`Device::dfdx_cuda`] need the feature `cuda`. Without it, loading a model there is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(DeviceKind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    #[default]
    Cpu,
    DfdxCpu,
    Cuda(usize),
    DfdxCuda(usize),
}

impl Device {
    /// The CPU, with the project's own fused operations. This is the default, and several times as fast as
    /// [`Device::dfdx_cpu`].
    pub fn cpu() -> Self {
        Self(DeviceKind::Cpu)
    }

    /// The CPU, with dfdx's operations: the plain implementation that the faster ones are tested against.
    pub fn dfdx_cpu() -> Self {
        Self(DeviceKind::DfdxCpu)
    }

    /// A CUDA GPU by its index, from 0, as in `device="cuda:0"`, with cuBLAS and the project's own kernels in single
    /// precision (no TF32).
    ///
    /// Needs the feature `cuda`, NVIDIA's driver, cuBLAS and NVRTC; loading a model reports which of them is missing.
    ///
    /// Cached activations stay on the GPU until they are first read, in at most a quarter of its memory; any beyond
    /// that are copied to the host at once. Decoding handles 64 MiB of vectors and 64 MiB of logits at a time, and
    /// decode tables take up to [`LoadOptions::decode_cache_bytes`](crate::LoadOptions::decode_cache_bytes).
    pub fn cuda(ordinal: usize) -> Self {
        Self(DeviceKind::Cuda(ordinal))
    }

    /// A CUDA GPU with dfdx's operations: the plain implementation that [`Device::cuda`] is tested against. Needs the
    /// feature `cuda` too.
    pub fn dfdx_cuda(ordinal: usize) -> Self {
        Self(DeviceKind::DfdxCuda(ordinal))
    }

    /// `cuda(0)` if it is available, else `cpu()`, like Python's `"cuda" if torch.cuda.is_available() else "cpu"`.
    ///
    /// [`Gpt2::device`](crate::Gpt2::device) returns the choice; loading with [`Device::cuda`] reports why a GPU is not
    /// available.
    pub fn auto() -> Self {
        if super::cuda_is_available() { Self::cuda(0) } else { Self::cpu() }
    }

    pub(crate) fn kind(self) -> DeviceKind {
        self.0
    }
}
