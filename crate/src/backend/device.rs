//! Where a model computes, as a value.

/// Where a model computes. A value of the model, as `device="cuda"` is in Python, and no type that a notebook has to
/// spell out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(DeviceKind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    #[default]
    Cpu,
    DfdxCpu,
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

    pub(crate) fn kind(self) -> DeviceKind {
        self.0
    }
}
