//! Attention and its gradients. Scores of one call live at a time; backward computes them, and draws their dropout, again.

use burn::tensor::DType;

use super::super::attention::{Absent, Among};
use super::super::masks::{dropout_mask, weights_mask};
use super::super::softmax_rows::{softmax_rows, softmax_rows_backward};
use super::super::{Bool, Device, Tensor, TensorData, matmul};
use super::pack::Padded;

/// `[rows, 3d]` → `[rows, d]`.
pub fn attend(qkv: Tensor<2>, among: &Among) -> Tensor<2> {
    let padded = Padded::new(&among.records, &qkv.device());
    let ([b, n], d) = (padded.shape(), qkv.dims()[1] / 3);
    if b * n == 0 {
        return Tensor::zeros([0, d], (&qkv.device(), qkv.dtype()));
    }
    let asked = Asked::among(&qkv, among, &padded);
    padded.unpad(merged(asked.forward()).reshape([b * n, d]))
}

/// Gradient of qkv.
pub fn attend_backward(qkv: Tensor<2>, gradient: Tensor<2>, among: &Among) -> Tensor<2> {
    let padded = Padded::new(&among.records, &qkv.device());
    let ([b, n], [_, width]) = (padded.shape(), qkv.dims());
    if b * n == 0 {
        return qkv;
    }
    let asked = Asked::among(&qkv, among, &padded);
    let gradient = padded.pad(gradient);
    let gradient = match padded.there() {
        Some(there) => {
            let there = there.into_iter().map(|there| f32::from(u8::from(there))).collect::<Vec<_>>();
            let options = (&gradient.device(), gradient.dtype());
            gradient * Tensor::from_data(TensorData::new(there, [b * n, 1]), options)
        }
        None => gradient,
    };
    let of = asked.backward(split(gradient.reshape([b, n, width / 3]), among.heads));
    padded.unpad(Tensor::cat(of.map(merged).to_vec(), 2).reshape([b * n, width]))
}

/// q `[b, n, d]`, kv `[b, s, 2d]` → `[b, n, d]`.
pub fn attend_to(q: Tensor<3>, kv: Tensor<3>, heads: usize, absent: &Absent) -> Tensor<3> {
    merged(Asked::of(q, kv, heads, absent).forward())
}

/// Gradients of q and of kv.
pub fn attend_to_backward(
    q: Tensor<3>,
    kv: Tensor<3>,
    gradient: Tensor<3>,
    heads: usize,
    absent: &Absent,
) -> (Tensor<3>, Tensor<3>) {
    let [q, k, v] = Asked::of(q, kv, heads, absent).backward(split(gradient, heads));
    (merged(q), Tensor::cat(vec![merged(k), merged(v)], 2))
}

/// One call's heads: q `[b, heads, n, dh]`, k and v `[b, heads, s, dh]`.
struct Asked {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    /// Keys that are padding, `[b, heads, n, s]`.
    absent: Option<Tensor<4, Bool>>,
    /// `[b, heads, n, s]`: 0 or 1/(1 − p).
    mask: Option<Tensor<4>>,
}

impl Asked {
    fn among(qkv: &Tensor<2>, among: &Among, padded: &Padded) -> Asked {
        let ([b, n], d, heads) = (padded.shape(), qkv.dims()[1] / 3, among.heads);
        let device = qkv.device();
        let qkv = padded.pad(qkv.clone()).reshape([b, n, 3 * d]);
        let [q, k, v] = [0, 1, 2].map(|part| split(qkv.clone().narrow(2, part * d, d), heads));
        let absent = padded.there().map(|there| {
            let absent: Vec<bool> = there.into_iter().map(|there| !there).collect();
            expanded(&absent, [b, heads, n, n], &device)
        });
        let mask = among.dropout.map(|draws| match padded.lengths() {
            Some(lengths) => weights_mask(draws, lengths, heads, &device),
            None => dropout_mask(draws, b, heads * n * n, &device).reshape([b, heads, n, n]),
        });
        Asked { q, k, v, absent, mask }
    }

    fn of(q: Tensor<3>, kv: Tensor<3>, heads: usize, absent: &Absent) -> Asked {
        let ([b, n, d], [_, s, _]) = (q.dims(), kv.dims());
        let absent = absent.as_ref().map(|absent| expanded(absent, [b, heads, n, s], &q.device()));
        let [k, v] = [0, 1].map(|part| split(kv.clone().narrow(2, part * d, d), heads));
        Asked { q: split(q, heads), k, v, absent, mask: None }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.q.dims()[3] as f64).sqrt()
    }

    /// Before dropout, `[b, heads, n, s]`; sums and exponentials are of f32.
    fn weights(&self) -> Tensor<4> {
        let scores = matmul(self.q.clone(), self.k.clone().swap_dims(2, 3));
        let scores = match &self.absent {
            Some(absent) => scores.mask_fill(absent.clone(), f32::NEG_INFINITY),
            None => scores,
        };
        softmax_rows(scores, self.scale())
    }

    fn dropped(&self, weights: Tensor<4>) -> Tensor<4> {
        match &self.mask {
            Some(mask) => weights * mask.clone().cast(DType::F32),
            None => weights,
        }
    }

    fn forward(&self) -> Tensor<4> {
        matmul(self.dropped(self.weights()).cast(self.v.dtype()), self.v.clone())
    }

    /// Gradients of q, k and v.
    fn backward(&self, by: Tensor<4>) -> [Tensor<4>; 3] {
        let dtype = self.q.dtype();
        let weights = self.weights();
        let of_weights = self.dropped(matmul(by.clone(), self.v.clone().swap_dims(2, 3)).cast(DType::F32));
        let of_scores = softmax_rows_backward(weights.clone(), of_weights, self.scale()).cast(dtype);
        let of_v = matmul(self.dropped(weights).cast(dtype).swap_dims(2, 3), by);
        let of_q = matmul(of_scores.clone(), self.k.clone());
        let of_k = matmul(of_scores.swap_dims(2, 3), self.q.clone());
        [of_q, of_k, of_v]
    }
}

/// `[b, s]` → `[b, heads, n, s]`.
fn expanded(absent: &[bool], [b, heads, n, s]: [usize; 4], device: &Device) -> Tensor<4, Bool> {
    let absent = Tensor::<4, Bool>::from_data(TensorData::new(absent.to_vec(), [b, 1, 1, s]), device);
    absent.expand([b, heads, n, s])
}

/// `[b, n, heads·dh]` → `[b, heads, n, dh]`.
fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, n, d] = x.dims();
    x.reshape([b, n, heads, d / heads]).swap_dims(1, 2)
}

/// `[b, heads, n, dh]` → `[b, n, heads·dh]`.
fn merged(x: Tensor<4>) -> Tensor<3> {
    let [b, heads, n, dh] = x.dims();
    x.swap_dims(1, 2).reshape([b, n, heads * dh])
}
