//! GELU in its tanh form as one operation: Burn composes it of eight, and the C library's tanh is one number at a time.
//!
//! x · σ(2u) with u = √(2/π)·(x + .044715 x³), which is x · (1 + tanh u) / 2. The exponential is our own polynomial, so
//! the bits do not depend on the host's library.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use multiversion::multiversion;

use super::values::{changed, of, slice};
use crate::elementwise::exp::exp;

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait GeluTanh: Backend {
    /// See [`gelu_tanh`].
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of x, of that of the output.
    fn gelu_tanh_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GeluTanh for Flex {
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let mut out = vec![0.0; slice(&x).len()];
        forward(slice(&x), &mut out);
        of(out, x.layout().shape().clone())
    }

    fn gelu_tanh_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        changed(gradient, |values| backward(values, slice(&x)))
    }
}

impl<B: Backend + GeluTanh, C: CheckpointStrategy> GeluTanh for Autodiff<B, C> {
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;
        impl<B: Backend + GeluTanh> Backward<B, 1> for Gelu {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let x = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::gelu_tanh_backward(x, gradient));
            }
        }
        match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = x.into_primitive();
                prepared.finish(x.clone(), B::gelu_tanh(x))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gelu_tanh(x.into_primitive())),
        }
    }

    fn gelu_tanh_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("no second derivative is asked for")
    }
}

/// x · (1 + tanh(√(2/π)(x + .044715 x³))) / 2, element by element.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GeluTanh>::gelu_tanh(x.into_dispatch()))
}

const CUBIC: f32 = 0.044_715;
/// 2·√(2/π).
const SLOPE: f32 = 1.595_769_2;

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn forward(values: &[f32], out: &mut [f32]) {
    for (&x, out) in values.iter().zip(out) {
        *out = x / (1.0 + exp(-SLOPE * (x + CUBIC * x * x * x)));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn backward(gradients: &mut [f32], values: &[f32]) {
    for (gradient, &x) in gradients.iter_mut().zip(values) {
        let e = exp(-SLOPE * (x + CUBIC * x * x * x));
        let s = 1.0 / (1.0 + e); // σ; 1 − σ is e·s, where a subtraction would lose what is left of it
        *gradient *= s + x * s * (e * s) * SLOPE * (1.0 + 3.0 * CUBIC * x * x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorData, cpu};

    fn reference(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    }

    fn inputs() -> Vec<f32> {
        (-1200..=1200).map(|i| i as f32 / 100.0).chain([-1e4, -60.0, 60.0, 1e4]).collect()
    }

    /// 1e-6 of the value, or of 1 where it is small: a dozen f32 roundings.
    fn close(ours: f32, expected: f64, x: f32) {
        let off = (f64::from(ours) - expected).abs();
        assert!(off <= 1e-6 * expected.abs().max(1.0), "at {x}: {ours} against {expected}");
    }

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        let x = inputs();
        let leaf = Tensor::<1>::from_data(TensorData::new(x.clone(), [x.len()]), &cpu().autodiff()).require_grad();
        let y = gelu_tanh(leaf.clone());
        let gradients = y.clone().sum().backward();
        let slopes: Vec<f32> = leaf.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
        for ((&x, y), slope) in x.iter().zip(y).zip(slopes) {
            let at = f64::from(x);
            close(y, reference(at), x);
            let h = 1e-5;
            close(slope, (reference(at + h) - reference(at - h)) / (2.0 * h), x);
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut values = [0.0; 2];
        forward(&[f32::NAN, f32::INFINITY], &mut values);
        assert!(values[0].is_nan() && values[1] == f32::INFINITY);
    }
}
