//! Every composition against the CPU kernel of the same operation: values and gradients on one device, by two ways.

use std::sync::Arc;

use burn::backend::Dispatch;
use syncytia_shards::draw::{DrawKey, Purpose};

use super::super::attention::{Absent, Among, Attention};
use super::super::dropout::dropout;
use super::super::gelu_tanh::GeluTanh;
use super::super::layer_norm::Norms;
use super::super::pack::Packs;
use super::super::rows::{RowMap, Rows};
use super::super::spans::Spans;
use super::super::{DropoutDraws, cpu};
use super::*;

fn waves<const D: usize>(shape: [usize; D], k: f32) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (k + 1.37 * i as f32).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &cpu())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// 3e-6 of the largest: f32 sums in another order.
#[track_caller]
fn close<const D: usize>(composed: Tensor<D>, kernel: Tensor<D>) {
    assert_eq!(composed.dims(), kernel.dims());
    let (composed, kernel) = (values(composed), values(kernel));
    let size = kernel.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in composed.iter().zip(&kernel).enumerate() {
        assert!((a - b).abs() <= 3e-6 * size, "element {i}: {a} composed, {b} by the kernel");
    }
}

fn draws(p: f64) -> DropoutDraws {
    DropoutDraws { p, key: DrawKey::new(3, Purpose::Dropout), first_slot: 4_000_000_007, global_step: 2, site: 5 }
}

fn ragged() -> Arc<Spans> {
    Spans::new(vec![0, 4, 4, 9, 10]).shared()
}

#[test]
fn dropout_has_the_same_integers_and_the_same_bits() {
    for p in [0.1, 0.5] {
        for spans in [Spans::equal(3, 5).shared(), ragged()] {
            let x = waves([spans.n_rows(), 13], 0.3);
            let ours = values(super::dropout(x.clone(), &spans, draws(p)));
            let kernel = values(dropout(x, &spans, draws(p)));
            assert!(ours.contains(&0.0) && ours.iter().any(|v| *v != 0.0));
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(ours), bits(kernel), "p = {p}, {spans:?}");
        }
    }
}

#[test]
fn attention_among_a_records_tokens_and_its_gradient() {
    for spans in [Spans::equal(3, 6).shared(), ragged()] {
        for dropout in [None, Some(draws(0.3))] {
            let among = Among { heads: 3, records: Arc::clone(&spans), dropout };
            let qkv = waves([spans.n_rows(), 45], 0.1);
            let by = waves([spans.n_rows(), 15], 7.0);
            let kernel = Dispatch::attend(qkv.clone().into_dispatch(), among.clone());
            close(attention::attend(qkv.clone(), &among), Tensor::from_dispatch(kernel));
            let (kernel_qkv, kernel_by) = (qkv.clone().into_dispatch(), by.clone().into_dispatch());
            let kernel = Dispatch::attend_backward(kernel_qkv, kernel_by, among.clone());
            close(attention::attend_backward(qkv, by, &among), Tensor::from_dispatch(kernel));
        }
    }
}

#[test]
fn attention_to_others_and_its_gradients() {
    let (b, n, s, heads, d) = (2, 4, 5, 3, 12);
    let absent: Vec<bool> = (0..b * s).map(|i| i % 3 == 1).collect();
    for absent in [None, Some(Arc::new(absent))] as [Absent; 2] {
        let (q, kv, by) = (waves([b, n, d], 0.1), waves([b, s, 2 * d], 2.0), waves([b, n, d], 7.0));
        let raw = |x: &Tensor<3>| x.clone().into_dispatch();
        let kernel = Dispatch::attend_to(raw(&q), raw(&kv), heads, absent.clone());
        close(attention::attend_to(q.clone(), kv.clone(), heads, &absent), Tensor::from_dispatch(kernel));
        let (of_q, of_kv) = Dispatch::attend_to_backward(raw(&q), raw(&kv), raw(&by), heads, absent.clone());
        let (composed_q, composed_kv) = attention::attend_to_backward(q, kv, by, heads, &absent);
        close(composed_q, Tensor::from_dispatch(of_q));
        close(composed_kv, Tensor::from_dispatch(of_kv));
    }
}

#[test]
fn layer_norm_by_one_weight_and_by_each_records_and_their_gradients() {
    for parts in [1, 3] {
        let (x, weight, bias) = (waves([12, 20], 0.1), waves([parts, 20], 2.0), waves([parts, 20], 4.0));
        let by = waves([12, 20], 7.0);
        let raw = |x: &Tensor<2>| x.clone().into_dispatch();
        let kernel = Dispatch::norm_rows(raw(&x), raw(&weight), raw(&bias), 1e-5);
        close(layer_norm::norm_rows(x.clone(), weight.clone(), bias, 1e-5), Tensor::from_dispatch(kernel));
        let kernel = Dispatch::norm_rows_backward(raw(&x), raw(&weight), raw(&by), 1e-5);
        let composed = layer_norm::norm_rows_backward(x, weight, by, 1e-5);
        close(composed.0, Tensor::from_dispatch(kernel.0));
        close(composed.1, Tensor::from_dispatch(kernel.1));
        close(composed.2, Tensor::from_dispatch(kernel.2));
    }
}

#[test]
fn gelu_tanh_and_its_slope_also_far_out() {
    let x: Vec<f32> = (-600..=600).map(|i| i as f32 / 50.0).chain([-60.0, 60.0, -1e4, 1e4]).collect();
    let x = Tensor::<1>::from_data(TensorData::new(x.clone(), [x.len()]), &cpu());
    let by = waves(x.dims(), 0.4);
    // of what is 1e4 each way, a relative error shows as well
    for (ours, kernel) in [
        (gelu_tanh(x.clone()), Dispatch::gelu_tanh(x.clone().into_dispatch())),
        (
            gelu_tanh_backward(x.clone(), by.clone()),
            Dispatch::gelu_tanh_backward(x.clone().into_dispatch(), by.into_dispatch()),
        ),
    ] {
        let (ours, kernel) = (values(ours), values(Tensor::<1>::from_dispatch(kernel)));
        for ((a, b), x) in ours.iter().zip(&kernel).zip(values(x.clone())) {
            assert!((a - b).abs() <= 3e-6 * b.abs().max(1.0), "at {x}: {a} composed, {b} by the kernel");
        }
    }
}

#[test]
fn rows_are_packed_merged_and_copied_to_the_same_places() {
    let absent = [false, false, true, false, true, true, false, true];
    let spans = Spans::present(2, &absent).shared();
    let (long, short) = (waves([8, 3], 0.1), waves([4, 3], 2.0));
    let kernel = Dispatch::pack_rows(long.clone().into_dispatch(), Arc::clone(&spans), 8);
    assert_eq!(values(pack::pack_rows(long, &spans)), values(Tensor::<2>::from_dispatch(kernel)));
    let kernel = Dispatch::unpack_rows(short.clone().into_dispatch(), Arc::clone(&spans), 8);
    assert_eq!(values(pack::unpack_rows(short, &spans, 8)), values(Tensor::<2>::from_dispatch(kernel)));

    let map = Arc::new(RowMap::new(4, 2, vec![1, 0, 1, 1, 0, 1, 0, 0]));
    for mean in [false, true] {
        let (long, short) = (waves([2, 4, 3], 0.1), waves([2, 2, 3], 2.0));
        let kernel = Dispatch::sum_rows(long.clone().into_dispatch(), Arc::clone(&map), mean);
        close(rows::sum_rows(long, &map, mean), Tensor::from_dispatch(kernel));
        let kernel = Dispatch::spread_rows(short.clone().into_dispatch(), Arc::clone(&map), mean);
        close(rows::spread_rows(short, &map, mean), Tensor::from_dispatch(kernel));
    }
}
