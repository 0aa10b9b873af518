//! Our operations on Burn's GPU backend: each by its composition ([`super::composed`]), or a kernel of ours in a file beside this.

mod flat;
mod gelu;
mod halves;
mod launch;
mod layer_norm;
mod likeness;
mod look_up;
mod masks;
mod products;
mod row;
mod softmax;
mod sums;

use std::sync::Arc;

use burn::backend::{
    Cube, TensorMetadata,
    ops::{ActivationOps, FloatTensorOps},
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Tensor};

use super::affine::Affine;
use super::attention::{Absent, Among, Attention};
use super::composed::{self, attention, pack, rows};
use super::dropout::{Drop, DropoutDraws};
use super::gated::Gates;
use super::gelu::ExactGelu;
use super::gelu_tanh::GeluTanh;
use super::layer_norm::Norms;
use super::pack::Packs;
use super::rows::{RowMap, Rows};
use super::spans::Spans;
use super::tap::Taps;
use super::total::Totals;

type Primitive = FloatTensor<Cube>;

/// As a tensor of this rank, which it must have.
fn up<const D: usize>(x: Primitive) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(x)
}

fn down<const D: usize>(x: Tensor<D>) -> Primitive {
    x.try_into_primitive::<Cube>().expect("a tensor made of tensors of this backend is one")
}

fn reshaped(x: Primitive, shape: impl Into<Shape>) -> Primitive {
    <Cube as FloatTensorOps<Cube>>::float_reshape(x, shape.into())
}

/// Through `f` as `[rows, last axis]`, and back in its own shape.
fn by_rows(x: Primitive, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Primitive {
    let shape = x.shape();
    reshaped(down(f(up(flat_rows(x)))), shape)
}

fn flat_rows(x: Primitive) -> Primitive {
    let shape = x.shape();
    let last = shape[shape.num_dims() - 1];
    reshaped(x, [shape.num_elements() / last.max(1), last])
}

/// Through `f` as a row of values, and back in its own shape.
fn by_values(x: Primitive, f: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Primitive {
    let shape = x.shape();
    let n = shape.num_elements();
    reshaped(down(f(up(reshaped(x, [n])))), shape)
}

impl Attention for Cube {
    fn attend(qkv: Primitive, among: Among) -> Primitive {
        down(attention::attend(up(qkv), &among))
    }

    fn attend_backward(qkv: Primitive, gradient: Primitive, among: Among) -> Primitive {
        down(attention::attend_backward(up(qkv), up(gradient), &among))
    }

    fn attend_to(q: Primitive, kv: Primitive, heads: usize, absent: Absent) -> Primitive {
        down(attention::attend_to(up(q), up(kv), heads, &absent))
    }

    fn attend_to_backward(
        q: Primitive,
        kv: Primitive,
        gradient: Primitive,
        heads: usize,
        absent: Absent,
    ) -> (Primitive, Primitive) {
        let (q, kv) = attention::attend_to_backward(up(q), up(kv), up(gradient), heads, &absent);
        (down(q), down(kv))
    }
}

impl Drop for Cube {
    fn drop_elements(x: Primitive, records: Arc<Spans>, draws: DropoutDraws) -> Primitive {
        // Rows of the records, whatever axes they have behind them.
        let shape = x.shape();
        let rows = records.n_rows();
        let x = reshaped(x, [rows, shape.num_elements() / rows.max(1)]);
        reshaped(down(composed::dropout(up(x), &records, draws)), shape)
    }
}

impl Norms for Cube {
    fn norm_rows(x: Primitive, weight: Primitive, bias: Primitive, eps: f64) -> Primitive {
        if let Some(y) = layer_norm::norm_rows(&x, &weight, &bias, eps) {
            return reshaped(y, x.shape());
        }
        let (weight, bias) = (up(flat_rows(weight)), up(flat_rows(bias)));
        by_rows(x, |x| composed::layer_norm::norm_rows(x, weight, bias, eps))
    }

    fn norm_rows_backward(
        x: Primitive,
        weight: Primitive,
        gradient: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive, Primitive) {
        let (shape, of_parameters) = (x.shape(), weight.shape());
        let [to_x, to_weight, to_bias] =
            layer_norm::norm_rows_backward(&x, &weight, &gradient, eps).unwrap_or_else(|| {
                let [x, weight, gradient] = [x, weight, gradient].map(|tensor| up(flat_rows(tensor)));
                let (x, weight, bias) = composed::layer_norm::norm_rows_backward(x, weight, gradient, eps);
                [x, weight, bias].map(down)
            });
        let parameter = |p: Primitive| reshaped(p, of_parameters.clone());
        (reshaped(to_x, shape), parameter(to_weight), parameter(to_bias))
    }
}

impl Packs for Cube {
    fn pack_rows(x: Primitive, spans: Arc<Spans>, _: usize) -> Primitive {
        down(pack::pack_rows(up(x), &spans))
    }

    fn unpack_rows(y: Primitive, spans: Arc<Spans>, long: usize) -> Primitive {
        down(pack::unpack_rows(up(y), &spans, long))
    }
}

impl Rows for Cube {
    fn sum_rows(x: Primitive, map: Arc<RowMap>, mean: bool) -> Primitive {
        down(rows::sum_rows(up(x), &map, mean))
    }

    fn spread_rows(y: Primitive, map: Arc<RowMap>, mean: bool) -> Primitive {
        down(rows::spread_rows(up(y), &map, mean))
    }
}

impl GeluTanh for Cube {
    fn gelu_tanh(x: Primitive) -> Primitive {
        by_values(x, composed::gelu_tanh)
    }

    fn gelu_tanh_backward(x: Primitive, gradient: Primitive) -> Primitive {
        let n = gradient.shape().num_elements();
        let gradient = up(reshaped(gradient, [n]));
        by_values(x, |x| composed::gelu_tanh_backward(x, gradient))
    }
}

impl ExactGelu for Cube {
    fn exact_gelu(x: Primitive) -> Primitive {
        by_values(x, |x| {
            gelu::exact_gelu(x.clone()).unwrap_or_else(|| up(<Cube as ActivationOps<Cube>>::gelu(down(x))))
        })
    }

    fn exact_gelu_backward(x: Primitive, gradient: Primitive) -> Primitive {
        let n = gradient.shape().num_elements();
        let gradient: Tensor<1> = up(reshaped(gradient, [n]));
        by_values(x, |x| {
            gelu::exact_gelu_backward(x.clone(), gradient.clone())
                .unwrap_or_else(|| up(<Cube as ActivationOps<Cube>>::gelu_backward(down(x), down(gradient))))
        })
    }
}

impl Taps for Cube {}

impl Affine for Cube {
    fn affine_of_parameters(gradient: Primitive, x: Primitive) -> (Primitive, Primitive) {
        let n_out = gradient.shape()[1];
        let of_weight = products::over_rows(gradient.clone(), x);
        (of_weight, reshaped(sum_of_rows(gradient, 1, n_out), [n_out]))
    }
}

impl Gates for Cube {
    fn gated_backward(y: Primitive, gate: Primitive, gradient: Primitive) -> (Primitive, Primitive) {
        let (of_gate, [b, d]) = (gate.shape(), [gate.shape()[0], gate.shape()[2]]);
        let sums = sum_of_rows(Self::float_mul(gradient.clone(), y), b, d);
        (Self::float_mul(gradient, gate), reshaped(sums, of_gate))
    }
}

impl Totals for Cube {
    fn total(x: Primitive) -> Primitive {
        sum_of_rows(x, 1, 1)
    }
}

/// Sums over the rows of each of `parts` equal parts, in an order of ours where there is a kernel for it.
fn sum_of_rows(x: Primitive, parts: usize, width: usize) -> Primitive {
    sums::of_rows(x.clone(), parts, width).unwrap_or_else(|| {
        let rows = x.shape().num_elements() / (parts * width).max(1);
        Cube::float_sum_dim(reshaped(x, [parts, rows, width]), 1)
    })
}
