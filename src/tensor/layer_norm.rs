//! Layer normalisation as one operation. Composed it is eight passes over the tensor and some fifteen backward.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::values::{Primitive, of, slice};

/// Rows that one task normalises, and whose parts of the parameters' gradients are summed first: a constant, so that the
/// order of sums knows no number of threads.
const ROWS: usize = 128;

/// The operation on a backend. `weight`, `bias`: `[d]`, or `[records, d]` for as many equal parts of the rows.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Norms: Backend {
    /// See [`layer_norm`].
    fn norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    /// Gradients of x, weight and bias, of that of the output.
    fn norm_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl Norms for Flex {
    fn norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let (values, d) = (slice(&x), last(&x));
        let of_record = values.len() / (slice(&weight).len() / d);
        let mut out = vec![0.0; values.len()];
        let records = out.par_chunks_mut(of_record).zip(values.par_chunks(of_record));
        let parameters = slice(&weight).par_chunks(d).zip(slice(&bias).par_chunks(d));
        records.zip(parameters).for_each(|((out, x), (weight, bias))| {
            let blocks = out.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d));
            blocks.for_each(|(out, x)| forward(x, weight, bias, eps as f32, out));
        });
        of(out, x.layout().shape().clone())
    }

    fn norm_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, weight, gradient) = (x.to_contiguous(), weight.to_contiguous(), gradient.to_contiguous());
        let (values, w, by, d) = (slice(&x), slice(&weight), slice(&gradient), last(&x));
        let of_record = values.len() / (w.len() / d);
        let mut out = vec![0.0; values.len()];
        let (mut of_weight, mut of_bias) = (vec![0.0f32; w.len()], vec![0.0f32; w.len()]);
        let records = out.par_chunks_mut(of_record).zip(values.par_chunks(of_record)).zip(by.par_chunks(of_record));
        let parameters = w.par_chunks(d).zip(of_weight.par_chunks_mut(d)).zip(of_bias.par_chunks_mut(d));
        records.zip(parameters).for_each(|(((out, x), by), ((w, of_weight), of_bias))| {
            let blocks = out.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(by.par_chunks(ROWS * d));
            let part = |((out, x), by): ((&mut [f32], &[f32]), &[f32])| {
                let mut sums = vec![0.0; 2 * d];
                backward(x, w, by, eps as f32, out, &mut sums);
                sums
            };
            for sums in blocks.map(part).collect::<Vec<_>>() {
                of_weight.iter_mut().zip(&sums[..d]).for_each(|(total, part)| *total += part);
                of_bias.iter_mut().zip(&sums[d..]).for_each(|(total, part)| *total += part);
            }
        });
        let shape = weight.layout().shape().clone();
        (of(out, x.layout().shape().clone()), of(of_weight, shape.clone()), of(of_bias, shape))
    }
}

fn last(x: &Primitive) -> usize {
    let shape = x.layout().shape();
    shape[shape.num_dims() - 1]
}

const LANES: usize = 16;

/// Mean and 1/√(var + eps) of a row.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let mean = sum(row, |x| x) / row.len() as f32;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / row.len() as f32;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&x| f(x)).sum();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += f(chunk[i]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn forward(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let d = weight.len();
    for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
        let (mean, scale) = moments(x, eps);
        for (out, ((x, w), b)) in out.iter_mut().zip(x.iter().zip(weight).zip(bias)) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

/// `sums`: gradient of the weight, then of the bias, added to. With x̂ = (x − mean)·scale and h = g·w:
/// scale·(h − mean(h) − x̂·mean(h·x̂)).
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn backward(x: &[f32], weight: &[f32], by: &[f32], eps: f32, out: &mut [f32], sums: &mut [f32]) {
    let d = weight.len();
    let (of_weight, of_bias) = sums.split_at_mut(d);
    for ((x, by), out) in x.chunks_exact(d).zip(by.chunks_exact(d)).zip(out.chunks_exact_mut(d)) {
        let (mean, scale) = moments(x, eps);
        let (mut plain, mut along) = ([0.0f32; LANES], [0.0f32; LANES]);
        let mut add = |at: Range<usize>| {
            let (x, by, weight) = (&x[at.clone()], &by[at.clone()], &weight[at.clone()]);
            let (of_weight, of_bias) = (&mut of_weight[at.clone()], &mut of_bias[at.clone()]);
            for i in 0..at.len() {
                let unit = (x[i] - mean) * scale;
                let h = by[i] * weight[i];
                plain[i] += h;
                along[i] += h * unit;
                of_weight[i] += by[i] * unit;
                of_bias[i] += by[i];
            }
        };
        // The length is a constant of the loop, so that the compiler vectorises.
        let whole = d / LANES * LANES;
        (0..whole).step_by(LANES).for_each(|at| add(at..at + LANES));
        add(whole..d);
        let plain = plain.iter().sum::<f32>() / d as f32;
        let along = along.iter().sum::<f32>() / d as f32;
        for (out, ((x, by), w)) in out.iter_mut().zip(x.iter().zip(by).zip(weight)) {
            let unit = (x - mean) * scale;
            *out = scale * (by * w - plain - unit * along);
        }
    }
}

impl<B: Backend + Norms, C: CheckpointStrategy> Norms for Autodiff<B, C> {
    fn norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Norm;
        impl<B: Backend + Norms> Backward<B, 3> for Norm {
            type State = (FloatTensor<B>, FloatTensor<B>, f64);

            fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (x, weight, eps) = ops.state;
                let (of_x, of_weight, of_bias) = B::norm_rows_backward(x, weight, gradient, eps);
                for (parent, gradient) in ops.parents.into_iter().zip([of_x, of_weight, of_bias]) {
                    if let Some(parent) = parent {
                        gradients.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        match Norm.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (x, weight) = (x.into_primitive(), weight.into_primitive());
                let out = B::norm_rows(x.clone(), weight.clone(), bias.into_primitive(), eps);
                prepared.finish((x, weight, eps), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::norm_rows(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), eps))
            }
        }
    }

    fn norm_rows_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("no second derivative is asked for")
    }
}

/// (x − mean) / √(var + eps) · weight + bias over the last axis, biased variance; `weight`, `bias`: `[d]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Norms>::norm_rows(x, weight, bias, eps))
}

/// The same with a weight and a bias of each record's own: `x` `[b, n, d]`, `weight` and `bias` `[b, 1, d]`.
pub fn layer_norm_by_record(x: Tensor<3>, weight: Tensor<3>, bias: Tensor<3>, eps: f64) -> Tensor<3> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Norms>::norm_rows(x, weight, bias, eps))
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::tensor::cpu;

    fn leaf<const D: usize>(shape: [usize; D], k: f32) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (k + 1.37 * i as f32).sin() + 0.2).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu().autodiff()).require_grad()
    }

    fn composed(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        centred / variance.add_scalar(eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_the_composed_norm() {
        for (rows, d) in [(1, 3), (5, 16), (300, 40)] {
            let (x, weight, bias) = (leaf([rows, d], 0.1), leaf([d], 2.0), leaf([d], 4.0));
            let by = leaf([rows, d], 7.0).detach();
            let through = |y: Tensor<2>| {
                let gradients = (y.clone() * by.clone()).sum().backward();
                let of = [values(x.grad(&gradients).unwrap()), values(weight.grad(&gradients).unwrap())];
                let [of_x, of_weight] = of;
                [values(y), of_x, of_weight, values(bias.grad(&gradients).unwrap())]
            };
            let ours = through(layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5));
            let other = through(composed(x.clone(), weight.clone(), bias.clone(), 1e-5));
            for (ours, other) in ours.iter().zip(&other) {
                let size = other.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (a, b) in ours.iter().zip(other) {
                    assert!((a - b).abs() <= 3e-6 * size, "{a} against {b}, {rows} rows of {d}"); // sums in another order
                }
            }
        }
    }

    #[test]
    fn each_record_is_normalised_with_its_own_weight_and_bias() {
        let (x, weight, bias) = (leaf([3, 5, 12], 0.1), leaf([3, 1, 12], 2.0), leaf([3, 1, 12], 4.0));
        let by = leaf([3, 5, 12], 7.0).detach();
        let together = layer_norm_by_record(x.clone(), weight.clone(), bias.clone(), 1e-6);
        let gradients = (together.clone() * by.clone()).sum().backward();
        let [of_x, of_weight, of_bias] = [&x, &weight, &bias].map(|t| values(t.grad(&gradients).unwrap()));
        let together = values(together);
        for record in 0..3 {
            let own = |t: &Tensor<3>| t.clone().narrow(0, record, 1);
            let y = layer_norm(own(&x), own(&weight).reshape([12]), own(&bias).reshape([12]), 1e-6);
            let gradients = (y.clone() * own(&by)).sum().backward();
            assert_eq!(together[record * 60..][..60], values(y));
            let part = |t: &Tensor<3>| values(t.grad(&gradients).unwrap().narrow(0, record, 1));
            assert_eq!(of_x[record * 60..][..60], part(&x));
            assert_eq!(of_weight[record * 12..][..12], part(&weight));
            assert_eq!(of_bias[record * 12..][..12], part(&bias));
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, weight, bias) = (leaf([1000, 24], 0.1), leaf([24], 2.0), leaf([24], 4.0));
        let by = leaf([1000, 24], 7.0).detach();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
                let gradients = (y.clone() * by.clone()).sum().backward();
                [values(y), values(x.grad(&gradients).unwrap()), values(weight.grad(&gradients).unwrap())].concat()
            })
        };
        let one: Vec<u32> = with(1).iter().map(|v| v.to_bits()).collect();
        for threads in [2, 7] {
            assert_eq!(with(threads).iter().map(|v| v.to_bits()).collect::<Vec<_>>(), one);
        }
    }
}
