//! Burn's names, in one place: nothing else in the crate says `burn::`.
//!
//! The device is a value (Burn 0.22): no backend generics anywhere above this folder.

mod affine;
mod ahead;
mod attention;
mod cause;
pub mod composed;
#[cfg(feature = "cube")]
mod cube;
mod dropout;
pub mod flat;
mod gated;
mod gelu;
mod gelu_tanh;
pub mod halves;
mod layer_norm;
mod likeness;
mod look_up;
mod masks;
mod matmul;
mod memory;
mod pack;
mod padding;
mod product;
mod recomputed;
mod rows;
mod softmax_rows;
mod spans;
mod tap;
mod total;
mod values;

pub use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
pub use burn::tensor::activation::{leaky_relu, log_sigmoid, log_softmax, relu, silu, softmax};
pub use burn::tensor::{Bool, DType, Device, Gradients, Int, Tensor, TensorData};

pub use self::affine::{affine_rows, parameters_first};
pub use self::ahead::Values;
pub use self::attention::{attend, attend_among, attend_to};
pub use self::cause::cause;
pub use self::dropout::{DropoutDraws, dropout};
pub use self::gated::add_gated;
pub use self::gelu::gelu;
pub use self::gelu_tanh::gelu_tanh;
pub use self::layer_norm::{layer_norm, layer_norm_by_record};
pub use self::likeness::{largest_of_rows, unit_rows};
pub use self::look_up::look_up;
pub use self::matmul::{allow_tf32, matmul, try_product};
pub use self::memory::keep_free_pages;
pub use self::pack::{pack, unpack};
pub use self::padding::Padding;
#[cfg(test)]
pub(crate) use self::recomputed::RAN_AGAIN;
pub use self::recomputed::{Inputs, recomputed};
pub use self::rows::{RowMap, average_rows, copy_rows, sum_rows};
pub use self::spans::Spans;
pub use self::tap::{Listener, enter, tap};
pub use self::total::total;

/// The GPU of this number, without gradients; none in a build without CUDA. Nothing is asked of it yet: who is not sure
/// that it is there looks first ([`crate::gpu::probe`]).
pub fn cuda(ordinal: usize) -> Option<Device> {
    #[cfg(feature = "cuda")]
    return Some(Device::cuda(ordinal));
    #[cfg(not(feature = "cuda"))]
    {
        let _ = ordinal;
        None
    }
}

/// The device that wgpu takes by itself, and its name; none where no driver shows one or the build has no wgpu.
/// `CUBECL_WGPU_DEFAULT_DEVICE` names another.
pub fn wgpu() -> Option<(Device, String)> {
    #[cfg(feature = "wgpu")]
    {
        use burn::tensor::{DeviceKind, DeviceType};
        if Device::enumerate(DeviceType::Wgpu).is_empty() {
            return None;
        }
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let name = device.identity().map_or_else(|| "?".to_owned(), |identity| identity.name);
        Some((device, name))
    }
    #[cfg(not(feature = "wgpu"))]
    None
}

/// `inner`, of a device without gradients, as a tensor of `device`, which has them.
pub fn with_gradients<const D: usize>(inner: Tensor<D>, device: &Device) -> Tensor<D> {
    match device.gradient_checkpointing_strategy() {
        Some(strategy) => inner.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => inner,
    }
}

/// What our kernels need and a device does not have, in words.
pub fn lacks(device: &Device) -> Option<&'static str> {
    let needs = [(DType::I64, "64-bit integers"), (DType::F64, "64-bit floats"), (DType::U32, "32-bit integers")];
    needs.into_iter().find_map(|(dtype, words)| (!device.supports_dtype(dtype)).then_some(words))
}

/// The CPU device (flex kernels) without gradients.
pub fn cpu() -> Device {
    Device::flex()
}
