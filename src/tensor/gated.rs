//! A residual behind a gate of each record's own, x + y · gate, as one operation: composed it is two passes and their outputs, and
//! four backward.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use multiversion::multiversion;

use super::values::{of, slice};

/// The operation on a backend; x and y `[b, n, d]`, gate `[b, 1, d]`. As it stands here it is made of the backend's own.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Gates: Backend {
    /// See [`add_gated`].
    fn add_gated(x: FloatTensor<Self>, y: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, Self::float_mul(y, gate))
    }

    /// Gradients of y and of the gate.
    fn gated_backward(
        y: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let of_gate = Self::float_sum_dim(Self::float_mul(gradient.clone(), y), 1);
        (Self::float_mul(gradient, gate), of_gate)
    }
}

impl Gates for Flex {
    fn add_gated(x: FloatTensor<Self>, y: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, y, gate) = (x.to_contiguous(), y.to_contiguous(), gate.to_contiguous());
        let [_, n, d] = sides(&x);
        let mut out = Vec::with_capacity(slice(&x).len());
        let records = slice(&x).chunks(n * d).zip(slice(&y).chunks(n * d)).zip(slice(&gate).chunks(d));
        records.for_each(|((x, y), gate)| forward(x, y, gate, &mut out));
        of(out, x.layout().shape().clone())
    }

    fn gated_backward(
        y: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (y, gate, gradient) = (y.to_contiguous(), gate.to_contiguous(), gradient.to_contiguous());
        let [_, n, d] = sides(&y);
        let (mut to_y, mut to_gate) = (Vec::with_capacity(slice(&y).len()), vec![0.0; slice(&gate).len()]);
        let records = slice(&y).chunks(n * d).zip(slice(&gate).chunks(d)).zip(slice(&gradient).chunks(n * d));
        for (((y, gate), by), to_gate) in records.zip(to_gate.chunks_mut(d)) {
            backward(y, gate, by, &mut to_y, to_gate);
        }
        (of(to_y, y.layout().shape().clone()), of(to_gate, gate.layout().shape().clone()))
    }
}

fn sides(x: &FloatTensor<Flex>) -> [usize; 3] {
    x.layout().shape().to_vec().try_into().expect("records of rows")
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn forward(x: &[f32], y: &[f32], gate: &[f32], out: &mut Vec<f32>) {
    for (x, y) in x.chunks_exact(gate.len()).zip(y.chunks_exact(gate.len())) {
        out.extend(x.iter().zip(y).zip(gate).map(|((x, y), gate)| x + y * gate));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn backward(y: &[f32], gate: &[f32], by: &[f32], to_y: &mut Vec<f32>, to_gate: &mut [f32]) {
    for (y, by) in y.chunks_exact(gate.len()).zip(by.chunks_exact(gate.len())) {
        to_y.extend(by.iter().zip(gate).map(|(by, gate)| by * gate));
        to_gate.iter_mut().zip(y).zip(by).for_each(|((sum, y), by)| *sum += y * by);
    }
}

impl<B: Backend + Gates, C: CheckpointStrategy> Gates for Autodiff<B, C> {
    fn add_gated(x: FloatTensor<Self>, y: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gated;
        impl<B: Backend + Gates> Backward<B, 3> for Gated {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (y, gate) = ops.state;
                let (of_y, of_gate) = B::gated_backward(y, gate, gradient.clone());
                for (parent, gradient) in ops.parents.into_iter().zip([gradient, of_y, of_gate]) {
                    if let Some(parent) = parent {
                        gradients.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        match Gated.prepare::<C>([x.node(), y.node(), gate.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, gate) = (y.into_primitive(), gate.into_primitive());
                let out = B::add_gated(x.into_primitive(), y.clone(), gate.clone());
                prepared.finish((y, gate), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::add_gated(x.into_primitive(), y.into_primitive(), gate.into_primitive()))
            }
        }
    }
}

/// x + y · gate: x and y `[b, n, d]`, gate `[b, 1, d]`.
pub fn add_gated(x: Tensor<3>, y: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
    let (x, y, gate) = (x.into_dispatch(), y.into_dispatch(), gate.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Gates>::add_gated(x, y, gate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorData, cpu};

    fn leaf(shape: [usize; 3], k: f32) -> Tensor<3> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (k + 1.37 * i as f32).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff()).require_grad()
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_a_sum_and_a_product() {
        for [b, n, d] in [[1, 1, 1], [3, 5, 20], [2, 21, 48]] {
            let (x, y, gate) = (leaf([b, n, d], 0.1), leaf([b, n, d], 2.0), leaf([b, 1, d], 4.0));
            let by = leaf([b, n, d], 7.0).detach();
            let all = |out: Tensor<3>| {
                let gradients = (out.clone() * by.clone()).sum().backward();
                let of = [&x, &y, &gate].map(|t| values(t.grad(&gradients).unwrap()));
                [vec![values(out)], of.to_vec()].concat()
            };
            let ours = all(add_gated(x.clone(), y.clone(), gate.clone()));
            let plain = all(x.clone() + y.clone() * gate.clone());
            for (ours, plain) in ours.iter().zip(&plain) {
                for (a, b) in ours.iter().zip(plain) {
                    assert!((a - b).abs() <= 3e-6 * b.abs().max(1.0), "{a} against {b}"); // sums of a few in another order
                }
            }
        }
    }
}
