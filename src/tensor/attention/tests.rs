//! Every attention against its composition of plain operations.

use super::*;
use burn::tensor::TensorData;
use syncytia_shards::draw::{self, DrawKey, Purpose};

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
fn lists_of_their_own_lengths_attend_as_each_would_alone_with_the_dropout_of_its_slot() {
    let draws = |first_slot| DropoutDraws {
        p: 0.3,
        key: DrawKey::new(3, Purpose::Dropout),
        first_slot,
        global_step: 2,
        site: 5,
    };
    let qkv = leaf(10, 3 * D, 0.2); // two records of 10 rows: here 7 and 13
    let rows = || qkv.clone().reshape([20, 3 * D]);
    let together = attend_among(rows(), HEADS, &Arc::new(Spans::new(vec![0, 7, 20])), Some(draws(4)));
    let gradients = weighted(&together.clone().reshape([1, 20, D])).backward();
    let of_together = values(qkv.grad(&gradients).unwrap());
    let together = values(together.reshape([1, 20, D]));
    let mut alone = Vec::new();
    for (record, (first, n)) in [(0, 7), (7, 13)].into_iter().enumerate() {
        let part = |i: usize| rows().narrow(0, first, n).narrow(1, i * D, D).reshape([n, HEADS, DH]).swap_dims(0, 1);
        let scores = part(0).matmul(part(1).swap_dims(1, 2)).div_scalar((DH as f64).sqrt());
        let mut mask = vec![0.0; HEADS * n * n];
        draw::dropout_mask_slots(&mut mask, HEADS * n * n, 0.3, draws(4).key, 4 + record as u32, 2, 5);
        let mask = Tensor::<3>::from_data(TensorData::new(mask, [HEADS, n, n]), &qkv.device());
        let mixed = (composed_softmax(scores, 2) * mask).matmul(part(2));
        alone.push(mixed.swap_dims(0, 1).reshape([1, n, D]));
    }
    let alone = Tensor::cat(alone, 1);
    let gradients = weighted(&alone).backward();
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 3e-6, "{a}, {b}"));
    near(&together, &values(alone));
    near(&of_together, &values(qkv.grad(&gradients).unwrap()));
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
