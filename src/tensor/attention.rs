//! Attention as one operation: softmax(q kᵀ / √dh) v, head by head.
//!
//! Composed of Burn's operations it keeps several tensors of `[b, heads, n, s]` for its backward (200 MB for one record of
//! 1,024 tokens and 12 heads), and the time goes into their pages. Here one head's scores live at a time, and backward
//! computes them again.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{Tensor, TensorData};
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::exp;

/// Which keys are padding, `[b, s]` row-major.
pub type Absent = Option<Arc<Vec<bool>>>;

/// The operations on a backend. Packed tensors hold q, k, v (or k, v) one after the other along the last axis.
#[backend_extension(Flex, Autodiff)]
pub trait Attention: Backend {
    /// See [`attend`].
    fn attend(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// Gradient of qkv, of that of the output.
    fn attend_backward(qkv: FloatTensor<Self>, gradient: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// See [`attend_to`].
    fn attend_to(q: FloatTensor<Self>, kv: FloatTensor<Self>, heads: usize, absent: Absent) -> FloatTensor<Self>;

    /// Gradients of q and of kv, of that of the output.
    fn attend_to_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        absent: Absent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// `[b, n, 3d]` (q, k, v) → `[b, n, d]`: every token attends to every token of its record.
pub fn attend(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Attention>::attend(qkv.into_dispatch(), heads))
}

/// q `[b, n, d]`, kv `[b, s, 2d]` → `[b, n, d]`. `absent`: keys that are padding; a record must have one that is not.
pub fn attend_to(q: Tensor<3>, kv: Tensor<3>, heads: usize, absent: Absent) -> Tensor<3> {
    let (q, kv) = (q.into_dispatch(), kv.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Attention>::attend_to(q, kv, heads, absent))
}

type Primitive = FloatTensor<Flex>;

impl Attention for Flex {
    fn attend(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let packed = Packed::new(qkv, 3, heads);
        forward([(&packed, 0), (&packed, 1), (&packed, 2)], None)
    }

    fn attend_backward(qkv: FloatTensor<Self>, gradient: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let packed = Packed::new(qkv, 3, heads);
        let of_heads = backward([(&packed, 0), (&packed, 1), (&packed, 2)], gradient, None);
        gathered(packed.dims(), heads, &of_heads, |[q, k, v], part| [q, k, v][part])
    }

    fn attend_to(q: FloatTensor<Self>, kv: FloatTensor<Self>, heads: usize, absent: Absent) -> FloatTensor<Self> {
        let (q, kv) = (Packed::new(q, 1, heads), Packed::new(kv, 2, heads));
        forward([(&q, 0), (&kv, 0), (&kv, 1)], absent.as_deref())
    }

    fn attend_to_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        absent: Absent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (q, kv) = (Packed::new(q, 1, heads), Packed::new(kv, 2, heads));
        let of_heads = backward([(&q, 0), (&kv, 0), (&kv, 1)], gradient, absent.as_deref());
        let of_q = gathered(q.dims(), heads, &of_heads, |[q, ..], _| q);
        (of_q, gathered(kv.dims(), heads, &of_heads, |[_, k, v], part| [k, v][part]))
    }
}

/// `[b, n, parts · heads · dh]`, seen head by head.
struct Packed {
    /// `[b, n, parts · heads, dh]`.
    values: Primitive,
    heads: usize,
}

impl Packed {
    fn new(x: Primitive, parts: usize, heads: usize) -> Packed {
        let dims = x.layout().shape().to_vec();
        let dh = dims[2] / (parts * heads);
        let values = x.to_contiguous().reshape([dims[0], dims[1], parts * heads, dh].into());
        Packed { values, heads }
    }

    /// b, n, parts · heads, dh.
    fn dims(&self) -> [usize; 4] {
        self.values.layout().shape().to_vec().try_into().expect("four axes")
    }

    /// A head of a record: `[1, 1, n, dh]`, a view.
    fn head(&self, part: usize, record: usize, head: usize) -> Primitive {
        let of_record = self.values.narrow(0, record, 1);
        of_record.narrow(2, part * self.heads + head, 1).permute(&[0, 2, 1, 3])
    }
}

/// `[b, n, rows · dh]` from each record's and head's `[n, dh]`, picked by part; `dims`: b, n, rows = parts · heads, dh.
fn gathered<T>(
    [b, n, rows, dh]: [usize; 4],
    heads: usize,
    of_heads: &[T],
    pick: impl Fn(&T, usize) -> &Vec<f32>,
) -> Primitive {
    let mut out = vec![0.0; b * n * rows * dh];
    for (i, of_head) in of_heads.iter().enumerate() {
        let (record, head) = (i / heads, i % heads);
        for part in 0..rows / heads {
            let at = (record * n * rows + part * heads + head) * dh;
            for (token, row) in pick(of_head, part).chunks_exact(dh).enumerate() {
                out[at + token * rows * dh..][..dh].copy_from_slice(row);
            }
        }
    }
    Primitive::from_data(TensorData::new(out, [b, n, rows * dh]))
}

/// q, k, v: where each is packed.
type Qkv<'a> = [(&'a Packed, usize); 3];

fn forward(qkv: Qkv<'_>, absent: Option<&Vec<bool>>) -> Primitive {
    let [b, n, _, dh] = qkv[0].0.dims();
    let heads = qkv[0].0.heads;
    let of_heads: Vec<Vec<f32>> = (0..b * heads)
        .into_par_iter()
        .map(|i| {
            let [q, k, v] = qkv.map(|(packed, part)| packed.head(part, i / heads, i % heads));
            values(matmul(weights(q, k, row(absent, i / heads, b)), v))
        })
        .collect();
    gathered([b, n, heads, dh], heads, &of_heads, |of_head, _| of_head)
}

/// Gradients of q, k, v of each record's heads.
fn backward(qkv: Qkv<'_>, gradient: Primitive, absent: Option<&Vec<bool>>) -> Vec<[Vec<f32>; 3]> {
    let [b, _, _, dh] = qkv[0].0.dims();
    let heads = qkv[0].0.heads;
    let gradient = Packed::new(gradient, 1, heads);
    let one = |i: usize| {
        let [q, k, v] = qkv.map(|(packed, part)| packed.head(part, i / heads, i % heads));
        let of_out = gradient.head(0, i / heads, i % heads);
        let p = weights(q.clone(), k.clone(), row(absent, i / heads, b));
        let of_v = matmul(p.transpose(2, 3), of_out.clone());
        let shape = p.layout().shape().clone();
        let mut of_scores = values(matmul(of_out, v.transpose(2, 3)));
        softmax_backward(&mut of_scores, p.as_slice().expect("contiguous f32"), shape[3], scale(dh));
        let of_scores = Primitive::from_data(TensorData::new(of_scores, shape));
        let of_q = matmul(of_scores.clone(), k);
        let of_k = matmul(of_scores.transpose(2, 3), q);
        [values(of_q), values(of_k), values(of_v)]
    };
    (0..b * heads).into_par_iter().map(one).collect()
}

/// softmax(q kᵀ / √dh): `[1, 1, n, s]`.
fn weights(q: Primitive, k: Primitive, absent: Option<&[bool]>) -> Primitive {
    let dh = q.layout().shape()[3];
    let scores = matmul(q, k.transpose(2, 3));
    let shape = scores.layout().shape().clone();
    let mut scores = values(scores);
    if let Some(absent) = absent {
        for row in scores.chunks_exact_mut(shape[3]) {
            row.iter_mut().zip(absent).filter(|(_, absent)| **absent).for_each(|(s, _)| *s = f32::NEG_INFINITY);
        }
    }
    softmax(&mut scores, shape[3], scale(dh));
    Primitive::from_data(TensorData::new(scores, shape))
}

fn row(absent: Option<&Vec<bool>>, record: usize, records: usize) -> Option<&[bool]> {
    absent.map(|absent| &absent[record * (absent.len() / records)..][..absent.len() / records])
}

fn scale(dh: usize) -> f32 {
    (1.0 / (dh as f64).sqrt()) as f32
}

fn matmul(a: Primitive, b: Primitive) -> Primitive {
    <Flex as FloatTensorOps<Flex>>::float_matmul(a, b)
}

fn values(x: Primitive) -> Vec<f32> {
    x.into_data().try_into_vec().expect("f32")
}

const LANES: usize = 16;

/// Rows of `scores` · scale as weights, in place. A score of −∞ weighs nothing, exactly.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn softmax(scores: &mut [f32], keys: usize, scale: f32) {
    for row in scores.chunks_exact_mut(keys) {
        let mut most = [f32::NEG_INFINITY; LANES];
        for chunk in row.chunks(LANES) {
            most.iter_mut().zip(chunk).for_each(|(m, &s)| *m = if s > *m { s } else { *m });
        }
        let most = most.iter().fold(f32::NEG_INFINITY, |m, &s| if s > m { s } else { m });
        for s in row.iter_mut() {
            let below = (*s - most) * scale;
            *s = if below < -87.0 { 0.0 } else { exp(below) };
        }
        let mut sums = [0.0f32; LANES];
        for chunk in row.chunks(LANES) {
            sums.iter_mut().zip(chunk).for_each(|(sum, s)| *sum += s);
        }
        let share = 1.0 / sums.iter().sum::<f32>();
        row.iter_mut().for_each(|s| *s *= share);
    }
}

/// Gradients of the weights `p` made gradients of the scores, in place: p · (g − Σ p g) · scale.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn softmax_backward(gradients: &mut [f32], p: &[f32], keys: usize, scale: f32) {
    for (row, p) in gradients.chunks_exact_mut(keys).zip(p.chunks_exact(keys)) {
        let mut sums = [0.0f32; LANES];
        for (g, p) in row.chunks(LANES).zip(p.chunks(LANES)) {
            sums.iter_mut().zip(g.iter().zip(p)).for_each(|(sum, (g, p))| *sum += g * p);
        }
        let mean: f32 = sums.iter().sum();
        row.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean) * scale);
    }
}

impl<B: Backend + Attention, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn attend(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attend;
        impl<B: Backend + Attention> Backward<B, 1> for Attend {
            type State = (FloatTensor<B>, usize);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (qkv, heads) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::attend_backward(qkv, gradient, heads));
            }
        }
        match Attend.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let qkv = qkv.into_primitive();
                prepared.finish((qkv.clone(), heads), B::attend(qkv, heads))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::attend(qkv.into_primitive(), heads)),
        }
    }

    fn attend_backward(_: FloatTensor<Self>, _: FloatTensor<Self>, _: usize) -> FloatTensor<Self> {
        unreachable!("no second derivative is asked for")
    }

    fn attend_to(q: FloatTensor<Self>, kv: FloatTensor<Self>, heads: usize, absent: Absent) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AttendTo;
        impl<B: Backend + Attention> Backward<B, 2> for AttendTo {
            type State = (FloatTensor<B>, FloatTensor<B>, usize, Absent);

            fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (q, kv, heads, absent) = ops.state;
                let (of_q, of_kv) = B::attend_to_backward(q, kv, gradient, heads, absent);
                for (parent, gradient) in ops.parents.into_iter().zip([of_q, of_kv]) {
                    if let Some(parent) = parent {
                        gradients.register::<B>(parent.id, gradient);
                    }
                }
            }
        }
        match AttendTo.prepare::<C>([q.node(), kv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (q, kv) = (q.into_primitive(), kv.into_primitive());
                let out = B::attend_to(q.clone(), kv.clone(), heads, absent.clone());
                prepared.finish((q, kv, heads, absent), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::attend_to(q.into_primitive(), kv.into_primitive(), heads, absent))
            }
        }
    }

    fn attend_to_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: usize,
        _: Absent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("no second derivative is asked for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Bool, cpu, softmax as composed_softmax};

    const B: usize = 2;
    const HEADS: usize = 3;
    const DH: usize = 5;
    const D: usize = HEADS * DH;

    fn leaf(n: usize, width: usize, k: f32) -> Tensor<3> {
        let values: Vec<f32> = (0..B * n * width).map(|i| (k + 1.37 * i as f32).sin()).collect();
        Tensor::from_data(TensorData::new(values, [B, n, width]), &cpu().autodiff()).require_grad()
    }

    /// Of Burn's operations.
    fn composed(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, absent: Option<&[bool]>) -> Tensor<3> {
        let [_, n, _] = q.dims();
        let [_, s, _] = k.dims();
        let heads = |x: Tensor<3>, n| x.reshape([B, n, HEADS, DH]).swap_dims(1, 2);
        let scores = heads(q, n).matmul(heads(k, s).swap_dims(2, 3)).div_scalar((DH as f64).sqrt());
        let scores = match absent {
            Some(absent) => {
                let mask = Tensor::<2, Bool>::from_data(TensorData::new(absent.to_vec(), [B, s]), &scores.device());
                scores.mask_fill(mask.reshape([B, 1, 1, s]).expand([B, HEADS, n, s]), f32::NEG_INFINITY)
            }
            None => scores,
        };
        composed_softmax(scores, 3).matmul(heads(v, s)).swap_dims(1, 2).reshape([B, n, D])
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    /// 3e-6: f32 sums in another order.
    fn close(ours: Tensor<3>, other: Tensor<3>) {
        let (ours, other) = (values(ours), values(other));
        assert_eq!(ours.len(), other.len());
        ours.iter().zip(&other).for_each(|(a, b)| assert!((a - b).abs() < 3e-6, "{a} against {b}"));
    }

    fn weighted(x: &Tensor<3>) -> Tensor<1> {
        let [b, n, d] = x.dims();
        let weights: Vec<f32> = (0..b * n * d).map(|i| (0.3 + 0.7 * i as f32).cos()).collect();
        (x.clone() * Tensor::from_data(TensorData::new(weights, [b, n, d]), &x.device())).sum()
    }

    #[test]
    fn self_attention_and_its_gradient_are_those_of_the_composed_one() {
        for n in [1, 7, 40] {
            let qkv = leaf(n, 3 * D, 0.2);
            let part = |i: usize| qkv.clone().narrow(2, i * D, D);
            let (ours, other) = (attend(qkv.clone(), HEADS), composed(part(0), part(1), part(2), None));
            close(ours.clone(), other.clone());
            let gradient = |out: &Tensor<3>| qkv.grad(&weighted(out).backward()).unwrap();
            close(gradient(&ours), gradient(&other));
        }
    }

    #[test]
    fn attention_to_others_with_padding_is_that_of_the_composed_one() {
        let (n, s) = (6, 19);
        let (q, kv) = (leaf(n, D, 0.2), leaf(s, 2 * D, 0.9));
        let absent: Vec<bool> = (0..B * s).map(|i| i % 3 == 1).collect();
        let part = |i: usize| kv.clone().narrow(2, i * D, D);
        for absent in [None, Some(absent)] {
            let other = composed(q.clone(), part(0), part(1), absent.as_deref());
            let ours = attend_to(q.clone(), kv.clone(), HEADS, absent.map(Arc::new));
            close(ours.clone(), other.clone());
            let (a, b) = (weighted(&ours).backward(), weighted(&other).backward());
            close(q.grad(&a).unwrap(), q.grad(&b).unwrap());
            close(kv.grad(&a).unwrap(), kv.grad(&b).unwrap());
        }
    }

    /// Above the kernels' parallel thresholds: 96 tokens, 2 records, 3 heads of 64.
    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let qkv = leaf(256, 3 * 192, 0.2);
                let out = attend(qkv.clone(), HEADS);
                let gradient = qkv.grad(&weighted(&out).backward()).unwrap();
                (values(out), values(gradient))
            })
        };
        let one = bits(1);
        for threads in [2, 4, 7] {
            assert_eq!(bits(threads), one, "{threads} threads");
        }
    }
}
