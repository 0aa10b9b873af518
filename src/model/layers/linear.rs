//! y = x Wᵀ + b, weight `[out, in]` as in PyTorch: what is in memory is what is in the checkpoint.

use super::{Training, before};
use crate::model::init::{Init, Scope};
use crate::tensor::{DType, Module, Param, Tensor, affine_rows, matmul, parameters_first};

/// An affine map of the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// PyTorch's default initialisation (Kaiming uniform with a = √5, bias by fan-in).
    pub fn new(scope: &Scope, n_in: usize, n_out: usize) -> Self {
        Self::with_init(scope, n_in, n_out, Init::FanIn(n_in), Init::FanIn(n_in))
    }

    /// All zero: a head that starts as the identity of what it is added to.
    pub fn zeros(scope: &Scope, n_in: usize, n_out: usize) -> Self {
        Self::with_init(scope, n_in, n_out, Init::Zeros, Init::Zeros)
    }

    /// With the initialisations named.
    pub fn with_init(scope: &Scope, n_in: usize, n_out: usize, weight: Init, bias: Init) -> Self {
        Self { weight: scope.param("weight", [n_out, n_in], weight), bias: scope.param("bias", [n_out], bias) }
    }

    /// `[rows, in]` → `[rows, out]`.
    pub fn forward2(&self, x: Tensor<2>, training: Option<&Training>) -> Tensor<2> {
        affine(x, &self.weight, &self.bias, training)
    }

    /// `[b, s, in]` → `[b, s, out]`. Rows are flattened first: a broadcast weight would make one gradient per batch item.
    pub fn forward(&self, x: Tensor<3>, training: Option<&Training>) -> Tensor<3> {
        let [b, s, n_in] = x.dims();
        let y = self.forward2(x.reshape([b * s, n_in]), training);
        let n_out = y.dims()[1];
        y.reshape([b, s, n_out])
    }
}

/// x Wᵀ + b for rows `[rows, in]`, weight `[out, in]`, bias `[out]`. Backward tells of both parameters before it computes
/// the gradient of x, behind which the last of them can travel.
pub(super) fn affine(
    x: Tensor<2>,
    weight: &Param<Tensor<2>>,
    bias: &Param<Tensor<1>>,
    training: Option<&Training>,
) -> Tensor<2> {
    let taps = |y| before(training, before(training, y, weight), bias);
    if training.is_some_and(Training::is_narrow) {
        let (narrow, detached) = (x.cast(DType::BF16), weight.val().set_require_grad(false).cast(DType::BF16));
        let y = matmul(narrow.clone(), detached.transpose()).cast(DType::F32);
        let y = taps(y + bias.val().set_require_grad(false).unsqueeze::<2>());
        return parameters_first(y, weight.val(), bias.val(), narrow);
    }
    let (of_weight, of_bias) = (weight.val(), bias.val());
    let y = taps(affine_rows(x.clone(), of_weight.clone(), of_bias.clone()));
    parameters_first(y, of_weight, of_bias, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params;
    use crate::tensor::{Device, Listener, TensorData, cpu};

    fn linear(device: &Device) -> Linear {
        let sites = std::cell::Cell::new(0);
        Linear::new(&Scope::root(7, device, &sites), 48, 40)
    }

    #[test]
    fn both_parameters_are_told_whatever_the_products_are() {
        use std::sync::{Arc, Mutex};

        let device = cpu().autodiff();
        for narrow in [false, true] {
            let (linear, told) = (linear(&device), Arc::new(Mutex::new(Vec::new())));
            let listener = {
                let told = Arc::clone(&told);
                Listener::new(move |place, data| {
                    told.lock().unwrap().push((place, data.shape().num_elements(), data.dtype()))
                })
            };
            let training = Training::new(1, 0, 0).with_listener(listener, params::ids(&linear)).in_bf16(narrow);
            let x = Tensor::<2>::ones([30, 48], &device).require_grad();
            let y = linear.forward2(x, Some(&training));
            y.sum().backward();
            let mut told = told.lock().unwrap().clone();
            told.sort_by_key(|(place, ..)| *place);
            assert_eq!(told, [(0, 40 * 48, DType::F32), (1, 40, DType::F32)], "narrow: {narrow}");
        }
    }

    /// Products in bf16 (8 bits of mantissa) on both ways; what is added up and what a parameter gets is f32.
    #[test]
    fn narrow_products_are_near_the_wide_ones_and_parameters_gradients_stay_f32() {
        let device = cpu().autodiff();
        let through = |narrow: bool| {
            let linear = linear(&device);
            let training = Training::new(1, 0, 0).in_bf16(narrow);
            let values: Vec<f32> = (0..30 * 48).map(|i| (1.37 * i as f32).sin()).collect();
            let x = Tensor::<2>::from_data(TensorData::new(values, [30, 48]), &device).require_grad();
            let y = linear.forward2(x.clone(), Some(&training));
            assert_eq!(y.dtype(), DType::F32);
            let gradients = (y.clone() * y.clone()).sum().backward();
            let of = [linear.weight.val().grad(&gradients), x.grad(&gradients)].map(|g| g.unwrap().into_data());
            let of_bias = linear.bias.val().grad(&gradients).unwrap().into_data();
            [y.into_data(), of[0].clone(), of[1].clone(), of_bias].map(|data| data.try_to_vec::<f32>().unwrap())
        };
        for (wide, narrow) in through(false).iter().zip(&through(true)) {
            let size = wide.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let far = wide.iter().zip(narrow).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // A rounding of 2⁻⁹ per factor, and of the product.
            assert!(far > 0.0 && far <= 2e-2 * size, "{far} of {size}");
        }
    }
}
