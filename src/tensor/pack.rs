//! Padded sequences without their padding, and back: two operations, each the other's backward.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

use super::spans::Spans;
use super::values::{of, slice};

/// The two on a backend, `[long, d]` and `[short, d]`.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Packs: Backend {
    /// The rows that `spans` took.
    fn pack_rows(x: FloatTensor<Self>, spans: Arc<Spans>, long: usize) -> FloatTensor<Self>;

    /// Those rows where they came from, zeros between.
    fn unpack_rows(y: FloatTensor<Self>, spans: Arc<Spans>, long: usize) -> FloatTensor<Self>;
}

impl Packs for Flex {
    fn pack_rows(x: FloatTensor<Self>, spans: Arc<Spans>, _: usize) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let d = x.layout().shape()[1];
        let (values, taken) = (slice(&x), spans.taken().expect("rows were left out"));
        let mut out = Vec::with_capacity(taken.len() * d);
        taken.iter().for_each(|&row| out.extend_from_slice(&values[row as usize * d..][..d]));
        of(out, [taken.len(), d])
    }

    fn unpack_rows(y: FloatTensor<Self>, spans: Arc<Spans>, long: usize) -> FloatTensor<Self> {
        let y = y.to_contiguous();
        let d = y.layout().shape()[1];
        let (values, taken) = (slice(&y), spans.taken().expect("rows were left out"));
        let mut out = vec![0.0; long * d];
        for (values, &row) in values.chunks_exact(d).zip(taken) {
            out[row as usize * d..][..d].copy_from_slice(values);
        }
        of(out, [long, d])
    }
}

impl<B: Backend + Packs, C: CheckpointStrategy> Packs for Autodiff<B, C> {
    fn pack_rows(x: FloatTensor<Self>, spans: Arc<Spans>, long: usize) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Pack;
        impl<B: Backend + Packs> Backward<B, 1> for Pack {
            type State = (Arc<Spans>, usize);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (spans, long) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::unpack_rows(gradient, spans, long));
            }
        }
        match Pack.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((Arc::clone(&spans), long), B::pack_rows(x.into_primitive(), spans, long))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::pack_rows(x.into_primitive(), spans, long)),
        }
    }

    fn unpack_rows(y: FloatTensor<Self>, spans: Arc<Spans>, long: usize) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Unpack;
        impl<B: Backend + Packs> Backward<B, 1> for Unpack {
            type State = (Arc<Spans>, usize);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (spans, long) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::pack_rows(gradient, spans, long));
            }
        }
        match Unpack.prepare::<C>([y.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((Arc::clone(&spans), long), B::unpack_rows(y.into_primitive(), spans, long))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::unpack_rows(y.into_primitive(), spans, long)),
        }
    }
}

/// `[b, n, d]` → `[rows, d]`: the rows that are there, record by record; all where `spans` leaves nothing out.
pub fn pack(x: Tensor<3>, spans: &Arc<Spans>) -> Tensor<2> {
    let [b, n, d] = x.dims();
    let x = x.reshape([b * n, d]);
    match spans.taken() {
        Some(_) => Tensor::from_dispatch(<Dispatch as Packs>::pack_rows(x.into_dispatch(), Arc::clone(spans), b * n)),
        None => x,
    }
}

/// `[rows, d]` → `[b, n, d]`: [`pack`] undone, zeros where rows were left out.
pub fn unpack(y: Tensor<2>, spans: &Arc<Spans>, [b, n]: [usize; 2]) -> Tensor<3> {
    let d = y.dims()[1];
    let y = match spans.taken() {
        Some(_) => Tensor::from_dispatch(<Dispatch as Packs>::unpack_rows(y.into_dispatch(), Arc::clone(spans), b * n)),
        None => y,
    };
    y.reshape([b, n, d])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn what_is_left_out_comes_back_as_zeros_and_has_no_gradient() {
        let values: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let x = Tensor::<3>::from_data(TensorData::new(values, [2, 3, 2]), &cpu().autodiff()).require_grad();
        let spans = Spans::present(2, &[false, false, true, false, true, true]).shared();
        let short = pack(x.clone(), &spans);
        assert_eq!(short.clone().into_data().try_to_vec::<f32>().unwrap(), [1., 2., 3., 4., 7., 8.]);
        assert_eq!(spans.iter().collect::<Vec<_>>(), [0..2, 2..3]);
        let long = unpack(short.clone() * short, &spans, [2, 3]);
        let gradients = long.clone().sum().backward();
        assert_eq!(long.into_data().try_to_vec::<f32>().unwrap(), [1., 4., 9., 16., 0., 0., 49., 64., 0., 0., 0., 0.]);
        let of_x: Vec<f32> = x.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert_eq!(of_x, [2., 4., 6., 8., 0., 0., 14., 16., 0., 0., 0., 0.]);
    }
}
