//! Exact GELU, x·Φ(x), as one operation. Flex asks libm's scalar `erff` for every element, which was 17 % of a step of
//! SPATIA small on one thread.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, ops::ActivationOps, tensor::FloatTensor};
use burn::tensor::{Tensor, TensorData};

use crate::elementwise::gelu::{slope, value};

/// The activation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait ExactGelu: Backend {
    /// x·Φ(x).
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// gradient·(Φ(x) + x·φ(x)).
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, gradient)
    }
}

impl ExactGelu for Flex {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        match x.as_slice::<f32>() {
            Some(values) => {
                let mut out = vec![0.0; values.len()];
                value(values, &mut out);
                FloatTensor::<Flex>::from_data(TensorData::new(out, x.layout().shape().clone()))
            }
            None => Self::gelu(x),
        }
    }

    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        match (x.as_slice::<f32>(), gradient.as_slice::<f32>()) {
            (Some(values), Some(by)) => {
                let mut out = vec![0.0; values.len()];
                slope(values, by, &mut out);
                FloatTensor::<Flex>::from_data(TensorData::new(out, x.layout().shape().clone()))
            }
            _ => Self::gelu_backward(x, gradient),
        }
    }
}

impl<B: Backend + ExactGelu, C: CheckpointStrategy> ExactGelu for Autodiff<B, C> {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;
        impl<B: Backend + ExactGelu> Backward<B, 1> for Gelu {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let x = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::exact_gelu_backward(x, gradient));
            }
        }
        match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = x.into_primitive();
                prepared.finish(x.clone(), B::exact_gelu(x))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::exact_gelu(x.into_primitive())),
        }
    }
}

/// x·Φ(x), exact to f32.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as ExactGelu>::exact_gelu(x.into_dispatch()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    fn exact(x: f64) -> (f64, f64) {
        let cdf = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        (x * cdf, cdf + x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt())
    }

    #[test]
    fn values_and_slopes_are_exact_to_f32() {
        let xs: Vec<f32> = (-13_000..=13_000).map(|i| i as f32 * 1e-3).chain([0.0, -0.0, 40.0, -40.0, 1e-20]).collect();
        let x = Tensor::<1>::from_data(TensorData::new(xs.clone(), [xs.len()]), &cpu().autodiff()).require_grad();
        let y = gelu(x.clone());
        let values: Vec<f32> = y.clone().into_data().try_to_vec().unwrap();
        let slopes: Vec<f32> = x.grad(&y.sum().backward()).unwrap().into_data().try_to_vec().unwrap();
        for ((x, value), slope) in xs.iter().zip(&values).zip(&slopes) {
            let (exact_value, exact_slope) = exact(f64::from(*x));
            // The fit gives 1.2e-7, two exponentials and four products half a unit (6e-8) or one each: 7e-7 of the value, and
            // of .1 in the tail, where the rounding of x²/2 grows beside a value that vanishes.
            let far = (f64::from(*value) - exact_value).abs();
            assert!(far <= 7e-7 * exact_value.abs().max(0.1), "gelu({x}): {value}, not {exact_value}");
            assert!((f64::from(*slope) - exact_slope).abs() <= 6e-7, "slope at {x}: {slope}, not {exact_slope}");
        }
    }

    #[test]
    fn a_number_that_is_none_stays_none_and_views_are_read_in_their_order() {
        let x = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, f32::NAN, 3.0, 4.0], [2, 2]), &cpu());
        let turned: Vec<f32> = gelu(x.clone().transpose()).into_data().try_to_vec().unwrap();
        let plain: Vec<f32> = gelu(x).into_data().try_to_vec().unwrap();
        assert!(plain[1].is_nan() && turned[2].is_nan());
        assert_eq!([turned[0], turned[1], turned[3]], [plain[0], plain[2], plain[3]]);
    }
}
