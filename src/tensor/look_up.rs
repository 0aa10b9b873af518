//! Rows of a table by number, whose backward adds up the gradient of a row in the order of the positions that read it.
//!
//! Burn's backward on a GPU is one unit per column that goes through all positions; `cube` has one that does not.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Tensor};

/// The operation on a backend. As it stands here it is made of the backend's own.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait LookUp: Backend {
    /// See [`look_up`].
    fn look_up(table: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(table, 0, rows)
    }

    /// Gradient of a table of `n_rows`: of each row the sum where it was read, in that order.
    fn look_up_backward(gradient: FloatTensor<Self>, rows: IntTensor<Self>, n_rows: usize) -> FloatTensor<Self> {
        assigned::<Self>(gradient, rows, n_rows)
    }
}

impl LookUp for Flex {}

/// Zeros to which the backend adds position by position.
pub(super) fn assigned<B: Backend>(gradient: FloatTensor<B>, rows: IntTensor<B>, n_rows: usize) -> FloatTensor<B> {
    let shape = Shape::from([n_rows, gradient.shape()[1]]);
    let zeros = B::float_zeros(shape, &gradient.device(), gradient.dtype().into());
    B::float_select_assign(zeros, 0, rows, gradient, IndexingUpdateOp::Add)
}

impl<B: Backend + LookUp, C: CheckpointStrategy> LookUp for Autodiff<B, C> {
    fn look_up(table: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Looked;
        impl<B: Backend + LookUp> Backward<B, 1> for Looked {
            type State = (IntTensor<B>, usize);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (rows, n_rows) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::look_up_backward(gradient, rows, n_rows));
            }
        }
        match Looked.prepare::<C>([table.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let table = table.into_primitive();
                let kept = (rows.clone(), table.shape()[0]);
                prepared.finish(kept, B::look_up(table, rows))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::look_up(table.into_primitive(), rows)),
        }
    }
}

/// `[rows, d]`, `[n]` → `[n, d]`: the rows of these numbers, each below `rows`. The gradient of a row is added up in the order of the
/// positions that read it.
pub fn look_up(table: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as LookUp>::look_up(table.into_dispatch(), rows.into_dispatch()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorData, cpu};

    fn numbers(rows: &[i64]) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len()]), &cpu())
    }

    /// Values whose sums depend on the order: from 2⁻²⁰ to 2¹⁹.
    fn table(shape: [usize; 2], k: f32) -> Tensor<2> {
        let value = |i: usize| (k + 1.37 * i as f32).sin() * 2f32.powi((i * 7 % 40) as i32 - 20);
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff())
    }

    fn bits(x: Tensor<2>) -> Vec<u32> {
        x.into_data().try_to_vec::<f32>().expect("f32").into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn values_and_gradients_are_the_bits_of_select() {
        let often: Vec<i64> = (0..300).map(|i| i * i % 7 + 1).collect(); // of nine rows 1, 2, 3 and 5
        for (rows, d) in [(often, 5), (vec![3, 3, 0], 1), (vec![8], 4), (vec![], 3)] {
            let (all, by) = (table([9, d], 0.1).require_grad(), table([rows.len(), d], 7.0));
            let told = |read: Tensor<2>| {
                let gradients = (read.clone() * by.clone()).sum().backward();
                [bits(read), bits(all.grad(&gradients).expect("it trains"))]
            };
            let ours = told(look_up(all.clone(), numbers(&rows)));
            assert_eq!(ours, told(all.clone().select(0, numbers(&rows))), "{rows:?}");
            let unused = (0..9).find(|row| !rows.contains(row)).expect("there are nine") as usize;
            assert_eq!(ours[1][unused * d..][..d], vec![0; d]);
        }
    }

    /// Only what has no history may become a leaf: of a table that does not train, the rows have none.
    #[test]
    fn nothing_is_asked_of_a_table_that_does_not_train() {
        let frozen = table([4, 3], 0.1);
        let read = look_up(frozen.clone(), numbers(&[2, 0, 2])).require_grad();
        let gradients = read.clone().sum().backward();
        assert!(frozen.grad(&gradients).is_none());
        assert_eq!(bits(read.grad(&gradients).expect("a leaf")), [1f32.to_bits(); 9]);
    }
}
