//! Products of matrices. On a GPU, Burn takes tensor cores where it can, which read f32 with the 10 bits of mantissa of TF32, or, in a
//! build with `tuned`, whatever was fastest when it was tried. Ours are true f32 unless [`allow_tf32`] says otherwise, and by the same
//! kernel each time; the cores' are Burn's.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Of the process, as PyTorch has it: precision is no matter of a single product.
static TF32: AtomicBool = AtomicBool::new(false);

/// Whether f32 products on a GPU may take tensor cores.
pub fn allow_tf32(allowed: bool) {
    TF32.store(allowed, Ordering::Relaxed);
}

/// Whether they may.
#[cfg(feature = "cube")]
pub(super) fn tf32_is_allowed() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Products: Backend {
    /// `[.., n, k]` · `[.., k, m]`, the same axes before.
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(lhs, rhs)
    }
}

impl Products for Flex {}

impl<B: Backend + Products, C: CheckpointStrategy> Products for Autodiff<B, C> {
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Product;
        impl<B: Backend + Products> Backward<B, 2> for Product {
            /// Each factor where the other asks for a gradient.
            type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

            fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let ([of_lhs, of_rhs], (lhs, rhs)) = (ops.parents, ops.state);
                if let (Some(node), Some(rhs)) = (of_lhs, rhs) {
                    gradients.register::<B>(node.id, B::product(gradient.clone(), B::float_transpose(rhs)));
                }
                if let (Some(node), Some(lhs)) = (of_rhs, lhs) {
                    gradients.register::<B>(node.id, B::product(B::float_transpose(lhs), gradient));
                }
            }
        }
        let tracked = [&lhs, &rhs].map(|factor| factor.is_tracked());
        match Product.prepare::<C>([lhs.node(), rhs.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (lhs, rhs) = (lhs.into_primitive(), rhs.into_primitive());
                let kept = (tracked[1].then(|| lhs.clone()), tracked[0].then(|| rhs.clone()));
                prepared.finish(kept, B::product(lhs, rhs))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::product(lhs.into_primitive(), rhs.into_primitive())),
        }
    }
}

/// Tries a product of f32, or a `narrow` one of bf16, on a device: its kernels are made when they are first asked for.
///
/// # Errors
/// What the device said, or that the product is not right.
pub fn try_product(device: &Device, narrow: bool) -> Result<(), String> {
    const N: usize = 64;
    let dtype = if narrow { DType::BF16 } else { DType::F32 };
    // Small whole numbers are exact in any of them.
    let values: Vec<f32> = (0..N * N).map(|i| (i % 7) as f32 - 3.0).collect();
    let made = || Tensor::<2>::from_data(TensorData::new(values.clone(), [N, N]), device).cast(dtype);
    let read = || {
        let product =
            matmul(made(), made().transpose()).cast(DType::F32).try_into_data().map_err(|e| format!("{e}"))?;
        product.try_to_vec::<f32>().map_err(|e| format!("{e:?}"))
    };
    // What a device's own thread panics with comes up here.
    let product = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(said(&*panic)))?;
    let dot = |i: usize, j: usize| (0..N).map(|k| values[i * N + k] * values[j * N + k]).sum::<f32>();
    // Sums are of up to 576; bf16 rounds them to a 256th.
    let near = |at: usize| (product[at] - dot(at / N, at % N)).abs() <= 4.0;
    let wrong = (0..N * N).find(|&at| !near(at));
    wrong.map_or(Ok(()), |at| Err(format!("{} in place of {}", product[at], dot(at / N, at % N))))
}

fn said(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// `[.., n, k]` · `[.., k, m]`, the same axes before.
pub fn matmul<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    let (before, after) = (lhs.dims(), rhs.dims());
    assert_eq!(before[..D - 2], after[..D - 2], "batches of products are as many on either side");
    Tensor::from_dispatch(<Dispatch as Products>::product(lhs.into_dispatch(), rhs.into_dispatch()))
}
