//! The sum of all values of a tensor. On a GPU Burn's adds where it comes first, by atomics, so that its last bits are of chance:
//! ours has the order of a shape.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{Shape, Tensor};

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Totals: Backend {
    /// Σ of all values, `[1]`.
    fn total(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(x)
    }
}

impl Totals for Flex {}

impl<B: Backend + Totals, C: CheckpointStrategy> Totals for Autodiff<B, C> {
    fn total(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Total;
        impl<B: Backend + Totals> Backward<B, 1> for Total {
            type State = Shape;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let shape = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
                    let ones = vec![1; shape.num_dims()];
                    B::float_expand(B::float_reshape(gradient, Shape::from(ones)), shape)
                });
            }
        }
        let shape = x.primitive().shape();
        match Total.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(shape, B::total(x.into_primitive())),
            OpsKind::UnTracked(prepared) => prepared.finish(B::total(x.into_primitive())),
        }
    }
}

/// Σ of all values.
pub fn total<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Totals>::total(x.into_dispatch()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorData, cpu};

    #[test]
    fn every_value_counts_once() {
        let values = TensorData::new(vec![1.0f32, 2.0, 4.0, 8.0, 16.0, 32.0], [2, 3]);
        let x = Tensor::<2>::from_data(values, &cpu().autodiff()).require_grad();
        let y = total(x.clone()).mul_scalar(3.0);
        let slopes = x.grad(&y.clone().backward()).expect("it asks for one");
        assert_eq!((y.inner().into_data().try_to_vec::<f32>().unwrap(), slopes.dims()), (vec![189.0], [2, 3]));
        assert_eq!(slopes.into_data().try_to_vec::<f32>().unwrap(), [3.0; 6]);
    }
}
