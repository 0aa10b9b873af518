//! A tensor's memory, lent to a library that sums it where it lies.

use std::any::Any;

use burn::backend::Flex;
use burn::tensor::kind::Basic;
use burn::tensor::{Float, Int, Tensor};

/// Memory of a device that is a tensor's: as long as this lives the device's pool gives it to nobody else.
pub struct Lent {
    address: u64,
    length: usize,
    _held: Box<dyn Any>,
}

impl Lent {
    /// Where it begins, on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Values.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Never gives it back: somebody may still be at it.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

/// Kinds of tensors that can be lent.
pub trait Lendable: Basic + Sized {
    /// The tensor, which must be nobody else's, and its memory, when all that was asked of the device is done; or why not.
    fn lend(tensor: Tensor<1, Self>) -> (Tensor<1, Self>, Result<Lent, String>);
}

macro_rules! lendable {
    ($kind:ty, $element:ty) => {
        impl Lendable for $kind {
            fn lend(tensor: Tensor<1, $kind>) -> (Tensor<1, $kind>, Result<Lent, String>) {
                let length = tensor.dims()[0];
                #[cfg(feature = "cube")]
                if let Ok(primitive) = tensor.clone().try_into_primitive::<burn::backend::Cube>() {
                    let done = tensor.device().sync().map_err(|error| error.to_string());
                    let on_gpu = done.and_then(|()| on_gpu(&primitive));
                    return (tensor, on_gpu.map(|(address, held)| Lent { address, length, _held: held }));
                }
                let mut primitive = tensor.try_into_primitive::<Flex>().expect("the cores' or a GPU's");
                let address = primitive.storage_mut::<$element>().as_mut_ptr() as u64;
                (Tensor::from_primitive::<Flex>(primitive), Ok(Lent { address, length, _held: Box::new(()) }))
            }
        }
    };
}

lendable!(Float, f32);
lendable!(Int, i64);

/// Where a tensor lies on an NVIDIA GPU, and what keeps it there.
#[cfg(feature = "cuda")]
fn on_gpu(tensor: &burn::backend::tensor::FloatTensor<burn::backend::Cube>) -> Result<(u64, Box<dyn Any>), String> {
    use cubecl_runtime::runtime::Runtime;
    type Server = <cubecl_cuda::CudaRuntime as Runtime>::Server;
    let resource = tensor.client.get_resource::<Server>(tensor.handle.clone()).map_err(|error| error.to_string())?;
    Ok((resource.resource().ptr, Box::new(resource)))
}

#[cfg(all(feature = "cube", not(feature = "cuda")))]
fn on_gpu(_: &burn::backend::tensor::FloatTensor<burn::backend::Cube>) -> Result<(u64, Box<dyn Any>), String> {
    Err("its memory has no address".to_owned())
}
