//! Layer normalisation and its gradients; sums are of f32 whatever the values are.

use burn::tensor::DType;

use super::super::Tensor;

/// `x` `[rows, d]`; `weight`, `bias` `[parts, d]` for as many equal parts of the rows.
pub fn norm_rows(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<2>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let shape = x.dims();
    let (x, weight, bias) = parts(x, weight, bias);
    let (unit, _) = unit(x, eps);
    (unit * weight + bias).reshape(shape).cast(dtype)
}

/// Gradients of x, weight and bias. With x̂ the normalised row and h = g·w: scale·(h − mean(h) − x̂·mean(h·x̂)).
pub fn norm_rows_backward(
    x: Tensor<2>,
    weight: Tensor<2>,
    gradient: Tensor<2>,
    eps: f64,
) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let (dtype, of_weight, shape, parameters) = (x.dtype(), weight.dtype(), x.dims(), weight.dims());
    let (x, weight, _) = parts(x, weight.clone(), weight);
    let gradient = gradient.cast(DType::F32).reshape(x.dims());
    let (unit, scale) = unit(x, eps);
    let h = gradient.clone() * weight;
    let along = (h.clone() * unit.clone()).mean_dim(2);
    let plain = h.clone().mean_dim(2);
    let to_x = scale * (h - plain - unit.clone() * along);
    let to_weight = (gradient.clone() * unit).sum_dim(1).reshape(parameters);
    let to_bias = gradient.sum_dim(1).reshape(parameters);
    (to_x.reshape(shape).cast(dtype), to_weight.cast(of_weight), to_bias.cast(of_weight))
}

/// `[parts, rows, d]`, and of each part its weight and bias.
fn parts(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<2>) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let ([rows, d], [parts, _]) = (x.dims(), weight.dims());
    let of_parts = |parameter: Tensor<2>| parameter.cast(DType::F32).reshape([parts, 1, d]);
    (x.cast(DType::F32).reshape([parts, rows / parts, d]), of_parts(weight), of_parts(bias))
}

/// Rows less their mean over √(var + eps), and 1 over that root.
fn unit(x: Tensor<3>, eps: f64) -> (Tensor<3>, Tensor<3>) {
    let centred = x.clone() - x.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    let scale = variance.add_scalar(eps).sqrt().recip();
    (centred * scale.clone(), scale)
}
