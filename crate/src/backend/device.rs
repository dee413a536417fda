//! Where a model computes, as a value.

/// Where a model computes. A value of the model, as `device="cuda"` is in Python, and no type that a notebook has to
/// spell out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(DeviceKind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    #[default]
    DfdxCpu,
}

impl Device {
    /// The default on this machine's processors. At present it is [`Device::dfdx_cpu`].
    pub fn cpu() -> Self {
        Self(DeviceKind::DfdxCpu)
    }

    /// dfdx on this machine's processors: the plain implementation, which every faster one is held against.
    pub fn dfdx_cpu() -> Self {
        Self(DeviceKind::DfdxCpu)
    }

    pub(crate) fn kind(self) -> DeviceKind {
        self.0
    }
}
