//! Dropout as one operation: its mask is drawn where it is used, forward and again in backward, and never kept.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use syncytia_shards::draw::{self, DrawKey};

use super::spans::Spans;
use super::values::changed;
use std::sync::Arc;

/// Where a dropout's draws are keyed (`docs/step.md` §3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutDraws {
    /// Probability of a zero.
    pub p: f64,
    /// The run's, for dropout.
    pub key: DrawKey,
    /// Slot of the first record.
    pub first_slot: u32,
    /// Batches consumed before this one.
    pub global_step: u32,
    /// Ordinal of the drawing module.
    pub site: u32,
}

impl DropoutDraws {
    /// Multiplies the elements of a record, the first of which is its element 0, by 0 or 1/(1 − p).
    pub(super) fn apply(&self, record: usize, elements: &mut [f32]) {
        let slot = self.first_slot + record as u32;
        draw::drop_elements(elements, self.p, self.key, [slot, self.global_step, self.site]);
    }

    fn apply_to_all(&self, records: &Spans, values: &mut [f32]) {
        let width = values.len() / records.n_rows().max(1);
        for (record, rows) in records.iter().enumerate() {
            self.apply(record, &mut values[rows.start * width..rows.end * width]);
        }
    }
}

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Drop: Backend {
    /// See [`dropout`].
    fn drop_elements(x: FloatTensor<Self>, records: Arc<Spans>, draws: DropoutDraws) -> FloatTensor<Self>;
}

impl Drop for Flex {
    fn drop_elements(x: FloatTensor<Self>, records: Arc<Spans>, draws: DropoutDraws) -> FloatTensor<Self> {
        changed(x, |values| draws.apply_to_all(&records, values))
    }
}

impl<B: Backend + Drop, C: CheckpointStrategy> Drop for Autodiff<B, C> {
    fn drop_elements(x: FloatTensor<Self>, records: Arc<Spans>, draws: DropoutDraws) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Dropped;
        impl<B: Backend + Drop> Backward<B, 1> for Dropped {
            type State = (Arc<Spans>, DropoutDraws);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (records, draws) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::drop_elements(gradient, records, draws));
            }
        }
        match Dropped.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let out = B::drop_elements(x.into_primitive(), Arc::clone(&records), draws);
                prepared.finish((records, draws), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::drop_elements(x.into_primitive(), records, draws)),
        }
    }
}

/// `x` with elements zeroed and the rest scaled. `records`: rows (all axes but the last) of each record; elements are
/// counted inside of a record.
pub fn dropout<const D: usize>(x: Tensor<D>, records: &Arc<Spans>, draws: DropoutDraws) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Drop>::drop_elements(x.into_dispatch(), Arc::clone(records), draws))
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use syncytia_shards::draw::Purpose;

    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn values_and_gradients_are_those_of_the_drawn_mask_record_by_record() {
        let draws =
            DropoutDraws { p: 0.4, key: DrawKey::new(3, Purpose::Dropout), first_slot: 7, global_step: 2, site: 5 };
        let values: Vec<f32> = (0..9 * 13).map(|i| 1.0 + i as f32).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values.clone(), [9, 13]), &cpu().autodiff()).require_grad();
        let y = dropout(x.clone(), &Arc::new(Spans::new(vec![0, 4, 9])), draws);
        let gradients = (y.clone() * 2.0).sum().backward();
        let mut mask = vec![0.0; 9 * 13];
        let (first, second) = mask.split_at_mut(4 * 13);
        draw::dropout_mask_slots(first, 4 * 13, 0.4, draws.key, 7, 2, 5);
        draw::dropout_mask_slots(second, 5 * 13, 0.4, draws.key, 8, 2, 5);
        let expected: Vec<f32> = values.iter().zip(&mask).map(|(v, m)| v * m).collect();
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), expected);
        let of_x: Vec<f32> = x.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert_eq!(of_x, mask.iter().map(|m| 2.0 * m).collect::<Vec<_>>());
        assert_eq!(x.into_data().try_to_vec::<f32>().unwrap(), values, "the input stays as it was");
    }
}
