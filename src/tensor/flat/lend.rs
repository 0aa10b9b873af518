//! A tensor's memory, lent to a library that sums it where it lies.
//!
//! It is lent by the thread that made the tensor, and another may wait until it holds what it should: on a GPU that is a wait for an
//! event behind the kernels that were asked for until then, not for what the first thread goes on to ask for. Burn's stream is
//! private; its `sync` is such an event for who does not wait for it at once.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;

use burn::backend::Flex;
use burn::tensor::kind::Basic;
use burn::tensor::{DType, Float, Int, Tensor, read_sync};

#[cfg(any(feature = "cuda", all(feature = "cube", test)))]
use crate::tensor::cause;

/// When a device has come so far; or what it could not do.
type Later = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Memory of a device that is a tensor's: as long as this lives the device's pool gives it to nobody else.
pub struct Lent {
    address: u64,
    length: usize,
    ready: Option<Later>,
    _held: Box<dyn Any + Send>,
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

    /// Returns when all that had been asked of the device before it was lent is done.
    ///
    /// # Errors
    /// The device's words for what it could not do.
    pub fn wait(&mut self) -> Result<(), String> {
        self.ready.take().map_or(Ok(()), read_sync)
    }

    /// As it is, and ready when `ready` says so.
    #[cfg(test)]
    pub fn until(self, ready: impl Future<Output = Result<(), String>> + Send + 'static) -> Lent {
        Lent { ready: Some(Box::pin(ready)), ..self }
    }

    /// Never gives it back: somebody may still be at it.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

/// Kinds of tensors that can be lent.
pub trait Lendable: Basic + Sized {
    /// The tensor, which must be nobody else's, and its memory; or why not. What is asked of the device is not done yet: see
    /// [`Lent::wait`].
    fn lend(tensor: Tensor<1, Self>) -> (Tensor<1, Self>, Result<Lent, String>);
}

macro_rules! lendable {
    ($kind:ty) => {
        impl Lendable for $kind {
            fn lend(tensor: Tensor<1, $kind>) -> (Tensor<1, $kind>, Result<Lent, String>) {
                let length = tensor.dims()[0];
                #[cfg(feature = "cube")]
                if let Ok(primitive) = tensor.clone().try_into_primitive::<burn::backend::Cube>() {
                    let on_gpu = on_gpu(&primitive);
                    return (tensor, on_gpu.map(|(address, ready, held)| Lent { address, length, ready, _held: held }));
                }
                let mut primitive = tensor.try_into_primitive::<Flex>().expect("the cores' or a GPU's");
                let address = match primitive.dtype() {
                    DType::F32 => primitive.storage_mut::<f32>().as_mut_ptr() as u64,
                    DType::I64 => primitive.storage_mut::<i64>().as_mut_ptr() as u64,
                    DType::U32 => primitive.storage_mut::<u32>().as_mut_ptr() as u64,
                    other => {
                        return (Tensor::from_primitive::<Flex>(primitive), Err(format!("{other:?} is not summed")));
                    }
                };
                let lent = Lent { address, length, ready: None, _held: Box::new(()) };
                (Tensor::from_primitive::<Flex>(primitive), Ok(lent))
            }
        }
    };
}

lendable!(Float);
lendable!(Int);

/// An address, when it holds what it should, and what keeps it.
#[cfg(feature = "cube")]
type OnGpu = (u64, Option<Later>, Box<dyn Any + Send>);

/// Where a tensor lies on an NVIDIA GPU.
#[cfg(feature = "cuda")]
fn on_gpu(tensor: &burn::backend::tensor::FloatTensor<burn::backend::Cube>) -> Result<OnGpu, String> {
    use cubecl_runtime::runtime::Runtime;
    type Server = <cubecl_cuda::CudaRuntime as Runtime>::Server;
    let resource =
        tensor.client.get_resource::<Server>(tensor.handle.clone()).map_err(|error| cause(&error.to_string()))?;
    Ok((resource.resource().ptr, Some(made(tensor)), Box::new(resource)))
}

/// An event on this thread's stream, behind the kernels that were launched there; it also tells of those that could not be.
#[cfg(any(feature = "cuda", all(feature = "cube", test)))]
fn made(tensor: &burn::backend::tensor::FloatTensor<burn::backend::Cube>) -> Later {
    let behind = tensor.client.sync_buffers([&tensor.handle]);
    Box::pin(async { behind.await.map_err(|error| cause(&error.to_string())) })
}

#[cfg(all(feature = "cube", not(feature = "cuda")))]
fn on_gpu(_: &burn::backend::tensor::FloatTensor<burn::backend::Cube>) -> Result<OnGpu, String> {
    Err("its memory has no address".to_owned())
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::tensor::flat;

    /// What NCCL's thread does, less the address: the event is of the thread that launched the kernels, which goes on; another waits for
    /// it, and that ends. (That nothing is summed before it ends: `train::there`.)
    #[test]
    fn another_thread_may_wait_until_a_sum_is_made() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan's");
        let n = 1 << 20;
        let (mut sum, one) = (flat::zeros(n, &device), flat::values(vec![1.0; n], &device));
        for _ in 0..20 {
            sum = flat::add(sum, one.clone(), 0);
        }
        let made = made(&sum.clone().try_into_primitive::<burn::backend::Cube>().unwrap());
        let waiting = std::thread::spawn(move || read_sync(made));
        let meanwhile = flat::add(flat::zeros(n, &device), one, 0);
        assert_eq!(waiting.join().unwrap(), Ok(()));
        let values = |sum: Tensor<1>| sum.into_data().try_to_vec::<f32>().unwrap();
        assert!(values(sum).iter().all(|v| *v == 20.0) && values(meanwhile).iter().all(|v| *v == 1.0));
    }
}
