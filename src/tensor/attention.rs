//! Attention as one operation: softmax(q kᵀ / √dh) v, head by head, with dropout on the weights.
//!
//! Composed of Burn's operations it keeps several tensors of `[b, heads, n, s]` for its backward (200 MB for one record of
//! 1,024 tokens and 12 heads), and the time goes into their pages. Here one head's scores live at a time, and backward
//! computes them, and draws their dropout, again.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::dropout::DropoutDraws;
use super::product::{View, ViewMut, product};
use super::spans::Spans;
use super::values::{Primitive, of, slice};
use crate::elementwise::exp::exp;

/// Which keys are padding, `[b, s]` row-major.
pub type Absent = Option<Arc<Vec<bool>>>;

/// What an attention among a record's own tokens is, beside its input.
#[derive(Debug, Clone)]
pub struct Among {
    pub(super) heads: usize,
    pub(super) records: Arc<Spans>,
    pub(super) dropout: Option<DropoutDraws>,
}

/// The operations on a backend. Packed tensors hold q, k, v (or k, v) one after the other along the last axis.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Attention: Backend {
    /// See [`attend_among`].
    fn attend(qkv: FloatTensor<Self>, among: Among) -> FloatTensor<Self>;

    /// Gradient of qkv, of that of the output.
    fn attend_backward(qkv: FloatTensor<Self>, gradient: FloatTensor<Self>, among: Among) -> FloatTensor<Self>;

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
    let [b, n, width] = qkv.dims();
    let rows = attend_among(qkv.reshape([b * n, width]), heads, &Arc::new(Spans::equal(b, n)), None);
    rows.reshape([b, n, width / 3])
}

/// `[rows, 3d]` (q, k, v) → `[rows, d]`: every token attends to every token of its record. A weight's dropout has the
/// element (head·n + asking)·n + answering of a record of n tokens.
pub fn attend_among(qkv: Tensor<2>, heads: usize, records: &Arc<Spans>, dropout: Option<DropoutDraws>) -> Tensor<2> {
    let among = Among { heads, records: Arc::clone(records), dropout };
    Tensor::from_dispatch(<Dispatch as Attention>::attend(qkv.into_dispatch(), among))
}

/// q `[b, n, d]`, kv `[b, s, 2d]` → `[b, n, d]`. `absent`: keys that are padding; a record must have one that is not.
pub fn attend_to(q: Tensor<3>, kv: Tensor<3>, heads: usize, absent: Absent) -> Tensor<3> {
    let (q, kv) = (q.into_dispatch(), kv.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Attention>::attend_to(q, kv, heads, absent))
}

impl Attention for Flex {
    fn attend(qkv: FloatTensor<Self>, among: Among) -> FloatTensor<Self> {
        let qkv = qkv.to_contiguous();
        let [rows, width] = dims(&qkv);
        let (values, d) = (slice(&qkv), width / 3);
        let mut out = vec![0.0; rows * d];
        let records = cut(&mut out, among.records.iter().map(|rows| rows.len() * d)).into_par_iter();
        let rows: Vec<_> = among.records.iter().collect();
        records.zip(&rows).enumerate().for_each_init(Scratch::default, |scratch, (record, (out, rows))| {
            let n = rows.len();
            let packed = &values[rows.start * width..rows.end * width];
            let shape = Shape { n, s: n, dh: d / among.heads, heads: among.heads };
            let qkv = |head| [0, 1, 2].map(|part| View::new(packed, n, width, shape.columns(part, head)));
            scratch.draw(among.dropout, record, shape);
            forward(qkv, shape, None, scratch, out);
        });
        of(out, [qkv.layout().shape()[0], d])
    }

    fn attend_backward(qkv: FloatTensor<Self>, gradient: FloatTensor<Self>, among: Among) -> FloatTensor<Self> {
        let (qkv, gradient) = (qkv.to_contiguous(), gradient.to_contiguous());
        let [_, width] = dims(&qkv);
        let (values, by, d) = (slice(&qkv), slice(&gradient), width / 3);
        let mut out = vec![0.0; values.len()];
        let records = cut(&mut out, among.records.iter().map(|rows| rows.len() * width)).into_par_iter();
        let rows: Vec<_> = among.records.iter().collect();
        records.zip(&rows).enumerate().for_each_init(Scratch::default, |scratch, (record, (out, rows))| {
            let n = rows.len();
            if n == 0 {
                return;
            }
            let packed = &values[rows.start * width..rows.end * width];
            let by = &by[rows.start * d..rows.end * d];
            let shape = Shape { n, s: n, dh: d / among.heads, heads: among.heads };
            scratch.draw(among.dropout, record, shape);
            for head in 0..shape.heads {
                let qkv = [0, 1, 2].map(|part| View::new(packed, n, width, shape.columns(part, head)));
                let by = View::new(by, n, d, shape.columns(0, head));
                scratch.backward(qkv, by, head, shape, None);
                scratch.of_v(by, shape, ViewMut::new(out, n, width, shape.columns(2, head)));
                scratch.of_q(qkv[1], shape, ViewMut::new(out, n, width, shape.columns(0, head)));
                scratch.of_k(qkv[0], shape, ViewMut::new(out, n, width, shape.columns(1, head)));
            }
        });
        of(out, qkv.layout().shape().clone())
    }

    fn attend_to(q: FloatTensor<Self>, kv: FloatTensor<Self>, heads: usize, absent: Absent) -> FloatTensor<Self> {
        let (q, kv) = (q.to_contiguous(), kv.to_contiguous());
        let ([b, n, d], [_, s, _]) = (dims(&q), dims(&kv));
        let (of_q, of_kv) = (slice(&q), slice(&kv));
        let shape = Shape { n, s, dh: d / heads, heads };
        let mut out = vec![0.0; b * n * d];
        out.par_chunks_mut(n * d).enumerate().for_each_init(Scratch::default, |scratch, (record, out)| {
            let (q, kv) = (&of_q[record * n * d..][..n * d], &of_kv[record * s * 2 * d..][..s * 2 * d]);
            let of_heads = |head| shape.asked(q, kv, head);
            forward(of_heads, shape, of_record(&absent, record, s), scratch, out);
        });
        of(out, [b, n, d])
    }

    fn attend_to_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        absent: Absent,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (q, kv, gradient) = (q.to_contiguous(), kv.to_contiguous(), gradient.to_contiguous());
        let ([b, n, d], [_, s, _]) = (dims(&q), dims(&kv));
        let (of_q, of_kv, by) = (slice(&q), slice(&kv), slice(&gradient));
        let shape = Shape { n, s, dh: d / heads, heads };
        let (mut to_q, mut to_kv) = (vec![0.0; b * n * d], vec![0.0; b * s * 2 * d]);
        let records = to_q.par_chunks_mut(n * d).zip(to_kv.par_chunks_mut(s * 2 * d));
        records.enumerate().for_each_init(Scratch::default, |scratch, (record, (to_q, to_kv))| {
            let (q, kv) = (&of_q[record * n * d..][..n * d], &of_kv[record * s * 2 * d..][..s * 2 * d]);
            let by = &by[record * n * d..][..n * d];
            for head in 0..heads {
                let qkv = shape.asked(q, kv, head);
                let by = View::new(by, n, d, shape.columns(0, head));
                scratch.backward(qkv, by, head, shape, of_record(&absent, record, s));
                scratch.of_v(by, shape, ViewMut::new(to_kv, s, 2 * d, shape.columns(1, head)));
                scratch.of_q(qkv[1], shape, ViewMut::new(to_q, n, d, shape.columns(0, head)));
                scratch.of_k(qkv[0], shape, ViewMut::new(to_kv, s, 2 * d, shape.columns(0, head)));
            }
        });
        (of(to_q, [b, n, d]), of(to_kv, [b, s, 2 * d]))
    }
}

fn dims<const D: usize>(x: &Primitive) -> [usize; D] {
    x.layout().shape().to_vec().try_into().expect("the tensor's rank")
}

fn of_record(absent: &Absent, record: usize, s: usize) -> Option<&[bool]> {
    absent.as_ref().map(|absent| &absent[record * s..][..s])
}

/// `values` in consecutive pieces of these lengths.
fn cut(mut values: &mut [f32], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    lengths.map(|length| values.split_off_mut(..length).expect("lengths sum up to the values")).collect()
}

/// Sizes of a record's attention: n ask s.
#[derive(Debug, Clone, Copy)]
struct Shape {
    n: usize,
    s: usize,
    dh: usize,
    heads: usize,
}

impl Shape {
    /// A head's columns of a part (q, k or v) of packed rows.
    fn columns(self, part: usize, head: usize) -> Range<usize> {
        let at = (part * self.heads + head) * self.dh;
        at..at + self.dh
    }

    /// q, k and v of a head, of a record's q `[n, d]` and kv `[s, 2d]`.
    fn asked<'a>(self, q: &'a [f32], kv: &'a [f32], head: usize) -> [View<'a>; 3] {
        let (n, s, d) = (self.n, self.s, self.heads * self.dh);
        let of_kv = |part| View::new(kv, s, 2 * d, self.columns(part, head));
        [View::new(q, n, d, self.columns(0, head)), of_kv(0), of_kv(1)]
    }
}

/// Buffers of one thread, and the dropout of the record at hand.
#[derive(Default)]
struct Scratch {
    /// `[n, s]`: weights.
    weights: Vec<f32>,
    /// `[n, s]`: gradients of the weights, then of the scores.
    gradients: Vec<f32>,
    /// `[heads, n, s]`: 0 or 1/(1 − p); empty without dropout.
    mask: Vec<f32>,
}

impl Scratch {
    fn draw(&mut self, dropout: Option<DropoutDraws>, record: usize, shape: Shape) {
        self.mask.clear();
        if let Some(draws) = dropout {
            self.mask.resize(shape.heads * shape.n * shape.s, 1.0);
            draws.apply(record, &mut self.mask);
        }
    }

    fn mask(mask: &[f32], head: usize, shape: Shape) -> Option<&[f32]> {
        (!mask.is_empty()).then(|| &mask[head * shape.n * shape.s..][..shape.n * shape.s])
    }

    /// softmax(q kᵀ / √dh) into `weights`.
    fn weigh(&mut self, q: View<'_>, k: View<'_>, shape: Shape, absent: Option<&[bool]>) {
        let Shape { n, s, dh, .. } = shape;
        self.weights.resize(n * s, 0.0);
        product(ViewMut::whole(&mut self.weights, n, s), q, k.transposed());
        if let Some(absent) = absent {
            for row in self.weights.chunks_exact_mut(s) {
                row.iter_mut().zip(absent).filter(|(_, absent)| **absent).for_each(|(s, _)| *s = f32::NEG_INFINITY);
            }
        }
        softmax(&mut self.weights, s, scale(dh));
    }

    /// Leaves the dropped weights in `weights` and the gradients of the scores in `gradients`.
    fn backward(&mut self, [q, k, v]: [View<'_>; 3], by: View<'_>, head: usize, shape: Shape, absent: Option<&[bool]>) {
        let Shape { n, s, dh, .. } = shape;
        self.weigh(q, k, shape, absent);
        self.gradients.resize(n * s, 0.0);
        product(ViewMut::whole(&mut self.gradients, n, s), by, v.transposed());
        if let Some(mask) = Self::mask(&self.mask, head, shape) {
            multiply(&mut self.gradients, mask);
        }
        softmax_backward(&mut self.gradients, &self.weights, s, scale(dh));
        if let Some(mask) = Self::mask(&self.mask, head, shape) {
            multiply(&mut self.weights, mask);
        }
    }

    fn of_v(&self, by: View<'_>, Shape { n, s, .. }: Shape, out: ViewMut<'_>) {
        product(out, View::whole(&self.weights, n, s).transposed(), by);
    }

    fn of_q(&self, k: View<'_>, Shape { n, s, .. }: Shape, out: ViewMut<'_>) {
        product(out, View::whole(&self.gradients, n, s), k);
    }

    fn of_k(&self, q: View<'_>, Shape { n, s, .. }: Shape, out: ViewMut<'_>) {
        product(out, View::whole(&self.gradients, n, s).transposed(), q);
    }
}

/// A record's output, `[n, heads·dh]`.
fn forward<'a>(
    qkv: impl Fn(usize) -> [View<'a>; 3],
    shape: Shape,
    absent: Option<&[bool]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Shape { n, s, dh, heads } = shape;
    if n == 0 {
        return;
    }
    for head in 0..heads {
        let [q, k, v] = qkv(head);
        scratch.weigh(q, k, shape, absent);
        if let Some(mask) = Scratch::mask(&scratch.mask, head, shape) {
            multiply(&mut scratch.weights, mask);
        }
        let out = ViewMut::new(out, n, heads * dh, shape.columns(0, head));
        product(out, View::whole(&scratch.weights, n, s), v);
    }
}

fn multiply(values: &mut [f32], by: &[f32]) {
    values.iter_mut().zip(by).for_each(|(v, by)| *v *= by);
}

fn scale(dh: usize) -> f32 {
    (1.0 / (dh as f64).sqrt()) as f32
}

const LANES: usize = 16;

/// Scores whose exponentials are taken at once, where rows are shorter: the end of a short row is no multiple of what a
/// processor takes at a time.
const AT_ONCE: usize = 1024;

/// Rows of `scores` · scale as weights, in place. A score of −∞ weighs nothing, exactly.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn softmax(scores: &mut [f32], keys: usize, scale: f32) {
    for rows in scores.chunks_mut((AT_ONCE / keys).max(1) * keys) {
        for row in rows.chunks_exact_mut(keys) {
            let larger = |m: f32, s: f32| if s > m { s } else { m };
            let most = folded(row, f32::NEG_INFINITY, |m, i| larger(m, row[i]), larger);
            row.iter_mut().for_each(|s| *s = (*s - most) * scale);
        }
        rows.iter_mut().for_each(|below| *below = if *below < -87.0 { 0.0 } else { exp(*below) });
        for row in rows.chunks_exact_mut(keys) {
            let share = 1.0 / folded(row, 0.0, |sum, i| sum + row[i], |a, b| a + b);
            row.iter_mut().for_each(|s| *s *= share);
        }
    }
}

/// Gradients of the weights `p` made gradients of the scores, in place: p · (g − Σ p g) · scale.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn softmax_backward(gradients: &mut [f32], p: &[f32], keys: usize, scale: f32) {
    for (row, p) in gradients.chunks_exact_mut(keys).zip(p.chunks_exact(keys)) {
        let mean = folded(row, 0.0, |sum, i| sum + row[i] * p[i], |a, b| a + b);
        row.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean) * scale);
    }
}

/// Over the places of a row in [`LANES`] strands, so that the compiler vectorises; their order is part of the result.
#[inline(always)]
fn folded(row: &[f32], start: f32, with: impl Fn(f32, usize) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut strands = [start; LANES];
    let whole = row.len() / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (lane, strand) in strands.iter_mut().enumerate() {
            *strand = with(*strand, first + lane);
        }
    }
    let rest = (whole..row.len()).fold(start, &with);
    join(strands.into_iter().fold(start, &join), rest)
}

impl<B: Backend + Attention, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn attend(qkv: FloatTensor<Self>, among: Among) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attend;
        impl<B: Backend + Attention> Backward<B, 1> for Attend {
            type State = (FloatTensor<B>, Among);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (qkv, among) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::attend_backward(qkv, gradient, among));
            }
        }
        match Attend.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let qkv = qkv.into_primitive();
                prepared.finish((qkv.clone(), among.clone()), B::attend(qkv, among))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::attend(qkv.into_primitive(), among)),
        }
    }

    fn attend_backward(_: FloatTensor<Self>, _: FloatTensor<Self>, _: Among) -> FloatTensor<Self> {
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
mod tests;
