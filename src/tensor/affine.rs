//! An affine map of rows in two operations: x Wᵀ + b, whose backward gives the gradient of x, and an identity behind it whose
//! backward gives those of W and b. Between the two a tap may stand, so that both are told before x's is computed.
//!
//! Burn's product writes its output three times (zeros, a copy of them, the values), its sum with b once more, and a gradient
//! of W made as that of Wᵀ is copied when it is read. Here what is written is written once.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Shape, Tensor};

use super::matmul::Products;
use super::product::{View, add_product, product_of};
use super::values::{of, slice};

/// Rows whose gradients are summed up before they join the others: fixed, so that the order of sums knows no threads.
const ROWS: usize = 128;

/// The operations on a backend; x `[rows, in]`, W `[out, in]`, b `[out]`. As they stand here they are made of the backend's own.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Affine: Products {
    /// See [`affine_rows`].
    fn affine_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let n_out = bias.shape()[0];
        let bias = Self::float_reshape(bias, Shape::from([1, n_out]));
        Self::float_add(Self::product(x, Self::float_transpose(weight)), bias)
    }

    /// Gradient of x.
    fn affine_of_x(gradient: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(gradient, weight)
    }

    /// Gradients of W and b; x may be narrower than the gradient.
    fn affine_of_parameters(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let n_out = gradient.shape()[1];
        let of_weight = weight_gradient::<Self>(gradient.clone(), x);
        (of_weight, Self::float_reshape(Self::float_sum_dim(gradient, 0), Shape::from([n_out])))
    }

    /// `y`; see [`parameters_first`].
    fn parameters_before(
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (weight, bias, x);
        y
    }
}

impl Affine for Flex {
    fn affine_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let ([rows, n_in], n_out) = (sides(&x), bias.layout().shape()[0]);
        let mut out = Vec::with_capacity(rows * n_out);
        (0..rows).for_each(|_| out.extend_from_slice(slice(&bias)));
        add_product(
            &mut out,
            View::whole(slice(&x), rows, n_in),
            View::whole(slice(&weight), n_out, n_in).transposed(),
        );
        of(out, [rows, n_out])
    }

    fn affine_of_x(gradient: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gradient, weight) = (gradient.to_contiguous(), weight.to_contiguous());
        let ([rows, n_out], [_, n_in]) = (sides(&gradient), sides(&weight));
        let by = View::whole(slice(&gradient), rows, n_out);
        of(product_of(by, View::whole(slice(&weight), n_out, n_in)), [rows, n_in])
    }

    fn affine_of_parameters(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gradient, x) = (gradient.to_contiguous(), x.to_contiguous());
        let ([rows, n_out], [_, n_in]) = (sides(&gradient), sides(&x));
        let of_bias = of(column_sums(slice(&gradient), n_out), [n_out]);
        if x.dtype() != gradient.dtype() {
            return (weight_gradient::<Flex>(gradient, x), of_bias);
        }
        let by = View::whole(slice(&gradient), rows, n_out).transposed();
        let of_weight = product_of(by, View::whole(slice(&x), rows, n_in));
        (of(of_weight, [n_out, n_in]), of_bias)
    }
}

/// gradientᵀ · x, in the numbers of x; what comes of it has the numbers of the gradient.
pub(super) fn weight_gradient<B: Products>(gradient: FloatTensor<B>, x: FloatTensor<B>) -> FloatTensor<B> {
    let wide = gradient.dtype();
    let by = as_dtype::<B>(B::float_transpose(gradient), x.dtype());
    as_dtype::<B>(B::product(by, x), wide)
}

fn as_dtype<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

fn sides(x: &FloatTensor<Flex>) -> [usize; 2] {
    x.layout().shape().to_vec().try_into().expect("rows of values")
}

/// Σ over rows of `width` values, [`ROWS`] of them at a time.
fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0.0f32; width];
    let mut part = vec![0.0f32; width];
    for rows in values.chunks(ROWS * width) {
        part.fill(0.0);
        for row in rows.chunks_exact(width) {
            part.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        total.iter_mut().zip(&part).for_each(|(total, part)| *total += part);
    }
    total
}

impl<B: Backend + Affine, C: CheckpointStrategy> Affine for Autodiff<B, C> {
    /// Of `weight` and `bias` no gradient is kept: [`Affine::parameters_before`] does that.
    fn affine_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rows;
        impl<B: Backend + Affine> Backward<B, 1> for Rows {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let weight = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::affine_of_x(gradient, weight));
            }
        }
        let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
        match Rows.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let out = B::affine_rows(x.into_primitive(), weight.clone(), bias);
                prepared.finish(weight, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::affine_rows(x.into_primitive(), weight, bias)),
        }
    }

    fn parameters_before(
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        x: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ParametersFirst;
        impl<B: Backend + Affine> Backward<B, 3> for ParametersFirst {
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let [y, weight, bias] = ops.parents;
                if weight.is_some() || bias.is_some() {
                    let (of_weight, of_bias) = B::affine_of_parameters(gradient.clone(), ops.state);
                    for (parameter, gradient) in [(weight, of_weight), (bias, of_bias)] {
                        if let Some(parameter) = parameter {
                            gradients.register::<B>(parameter.id, gradient);
                        }
                    }
                }
                if let Some(y) = y {
                    gradients.register::<B>(y.id, gradient);
                }
            }
        }
        match ParametersFirst.prepare::<C>([y.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.into_primitive(), y.into_primitive()),
            OpsKind::UnTracked(prepared) => prepared.finish(y.into_primitive()),
        }
    }
}

/// `[rows, in]` → `[rows, out]`: x Wᵀ + b, weight `[out, in]`, bias `[out]`, of which it keeps no gradient: see
/// [`parameters_first`].
pub fn affine_rows(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Affine>::affine_rows(x, weight, bias))
}

/// `y` as it is, which must be [`affine_rows`] of these or x Wᵀ + b otherwise, with weight and bias detached and x narrower: backward computes the gradients of weight and bias here, and x's where it
/// comes to `y`.
pub fn parameters_first(y: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, x: Tensor<2>) -> Tensor<2> {
    let (y, weight, bias, x) = (y.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), x.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Affine>::parameters_before(y, weight, bias, x))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tensor::{Listener, TensorData, cpu, tap};

    fn leaf<const D: usize>(shape: [usize; D], k: f32) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (k + 1.37 * i as f32).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff()).require_grad()
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    fn through(x: &Tensor<2>, weight: &Tensor<2>, bias: &Tensor<1>) -> Tensor<2> {
        parameters_first(affine_rows(x.clone(), weight.clone(), bias.clone()), weight.clone(), bias.clone(), x.clone())
    }

    #[test]
    fn values_and_gradients_are_those_of_a_product_and_a_sum() {
        for (rows, n_in, n_out) in [(1, 1, 1), (5, 7, 3), (300, 40, 70), (130, 256, 192)] {
            let (x, weight, bias) = (leaf([rows, n_in], 0.1), leaf([n_out, n_in], 2.0), leaf([n_out], 4.0));
            let by = leaf([rows, n_out], 7.0).detach();
            let all = |y: Tensor<2>| {
                let gradients = (y.clone() * by.clone()).sum().backward();
                let [of_x, of_weight] = [&x, &weight].map(|t| values(t.grad(&gradients).unwrap()));
                [values(y), of_x, of_weight, values(bias.grad(&gradients).unwrap())]
            };
            let plain = all(x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze::<2>());
            for (ours, plain) in all(through(&x, &weight, &bias)).iter().zip(&plain) {
                let size = plain.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (a, b) in ours.iter().zip(plain) {
                    assert!((a - b).abs() <= 3e-6 * size, "{a} against {b}, {rows} of {n_in} → {n_out}"); // f32 sums
                }
            }
        }
    }

    #[test]
    fn no_inputs_leave_the_bias_and_no_rows_nothing() {
        let (x, weight, bias) = (leaf([2, 0], 0.0), leaf([3, 0], 0.0), leaf([3], 4.0));
        let y = values(affine_rows(x, weight, bias.clone()));
        assert_eq!(y, values(bias).repeat(2));
        let none = affine_rows(leaf([0, 4], 0.0), leaf([3, 4], 0.0), leaf([3], 4.0));
        assert_eq!(none.dims(), [0, 3]);
    }

    /// Both parameters are told while x has no gradient yet, and they are told what backward alone would give.
    #[test]
    fn parameters_are_told_before_the_gradient_of_what_they_map() {
        let (x, weight, bias) = (leaf([4, 3], 0.1), leaf([2, 3], 2.0), leaf([2], 4.0));
        let squares = |y: Tensor<2>| (y.clone() * y).sum().backward();
        let plain = squares(through(&x, &weight, &bias));
        type Told = Vec<(usize, Vec<f32>)>;
        let told: Arc<Mutex<Told>> = Arc::default();
        let listener = {
            let told = Arc::clone(&told);
            Listener::new(move |place, data: Tensor<1>| {
                told.lock().unwrap().push((place, data.into_data().try_to_vec().unwrap()));
            })
        };
        let y = affine_rows(x.clone(), weight.clone(), bias.clone());
        let y = tap(tap(y, bias.clone(), 1, Some(&listener)), weight.clone(), 0, Some(&listener));
        let gradients = squares(parameters_first(y, weight.clone(), bias.clone(), x.clone()));
        let expected = [(0, values(weight.grad(&plain).unwrap())), (1, values(bias.grad(&plain).unwrap()))];
        assert_eq!(*told.lock().unwrap(), expected);
        assert_eq!(values(x.grad(&gradients).unwrap()), values(x.grad(&plain).unwrap()));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, weight, bias) = (leaf([500, 256], 0.1), leaf([300, 256], 2.0), leaf([300], 4.0));
        let by = leaf([500, 300], 7.0).detach();
        let with = |threads| -> Vec<u32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let all = pool.install(|| {
                let y = through(&x, &weight, &bias);
                let gradients = (y.clone() * by.clone()).sum().backward();
                let [of_x, of_weight] = [&x, &weight].map(|t| values(t.grad(&gradients).unwrap()));
                [values(y), of_x, of_weight, values(bias.grad(&gradients).unwrap())].concat()
            });
            all.iter().map(|v| v.to_bits()).collect()
        };
        let one = with(1);
        for threads in [2, 7] {
            assert!(with(threads) == one, "{threads} threads");
        }
    }
}
