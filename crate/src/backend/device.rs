//! Where a model computes, as a value.

/// Where a model computes. A value of the model, as `device="cuda"` is in Python, and no type that a notebook has to
/// spell out.
///
/// The feature `cuda` brings [`Device::cuda`]; without it, loading a model there is an error that says so.
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
    /// This machine's processors, through the project's own fused operations: the default, and several times as fast
    /// as [`Device::dfdx_cpu`].
    pub fn cpu() -> Self {
        Self(DeviceKind::Cpu)
    }

    /// dfdx on this machine's processors: the plain implementation, which every faster one is held against.
    pub fn dfdx_cpu() -> Self {
        Self(DeviceKind::DfdxCpu)
    }

    /// A CUDA GPU by its number, from 0, as in `device="cuda:0"`: cuBLAS and the project's own kernels, in single precision
    /// (no TF32). Needs the feature `cuda`, NVIDIA's driver, cuBLAS and NVRTC; loading a model says what is missing.
    ///
    /// Activations stay on the GPU until somebody looks at them, in a quarter of its memory at most; what is beyond comes to the
    /// host at once. Logits are made and decoded 64 MiB at a time, of 64 MiB of vectors at a time, and folded projections take what
    /// [`LoadOptions::decode_cache_bytes`](crate::LoadOptions::decode_cache_bytes) allows.
    pub fn cuda(ordinal: usize) -> Self {
        Self(DeviceKind::Cuda(ordinal))
    }

    /// dfdx on a CUDA GPU: the plain implementation there, which [`Device::cuda`] is held against. Needs the feature `cuda`
    /// too.
    pub fn dfdx_cuda(ordinal: usize) -> Self {
        Self(DeviceKind::DfdxCuda(ordinal))
    }

    /// `cuda(0)` if it can be used here, else `cpu()`: Python's `"cuda" if torch.cuda.is_available() else "cpu"`.
    /// [`Gpt2::device`](crate::Gpt2::device) tells which it is, and loading with [`Device::cuda`] why it is not.
    pub fn auto() -> Self {
        match super::cuda_is_available() {
            true => Self::cuda(0),
            false => Self::cpu(),
        }
    }

    pub(crate) fn kind(self) -> DeviceKind {
        self.0
    }
}
