//! Our operations on a device held against the cores' kernels: values and gradients of the same inputs. What a GPU is asked
//! first (`syncytia parity`).

use std::sync::Arc;

use burn::tensor::DType;
use syncytia_shards::draw::{DrawKey, Purpose};

use super::super::spans::Spans;
use super::super::{
    Device, DropoutDraws, Gradients, Int, RowMap, Tensor, TensorData, add_gated, affine_rows, attend_among, attend_to,
    average_rows, copy_rows, cpu, dropout, flat, gelu, gelu_tanh, halves, layer_norm, layer_norm_by_record, look_up,
    matmul, pack, parameters_first, sum_rows, total, unpack,
};
use crate::elementwise::adamw::Constants;

/// An operation's answers on two devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Its name.
    pub operation: &'static str,
    /// Largest difference of values and gradients, over the largest of them.
    pub worst: f64,
    /// Whether it must have the same bits: integers do, and sums whose order is the cores'; other sums of f32 do not.
    pub exact: bool,
}

/// All of them on `device`.
pub fn against_cores(device: &Device) -> Vec<Held> {
    let mut held: Vec<Held> = OPERATIONS
        .iter()
        .map(|&(operation, run)| Held { operation, worst: farthest(&run(&cpu()), &run(device)), exact: false })
        .collect();
    let exact: [(&'static str, Run); 5] = [
        ("dropout's integers", dropped),
        ("exact sums' integers", quantised),
        ("bf16 between ranks", between),
        ("order of sums of rows", summed),
        ("rows looked up", looked_up),
    ];
    held.extend(exact.map(|(operation, run)| Held {
        operation,
        worst: farthest(&run(&cpu()), &run(device)),
        exact: true,
    }));
    held
}

/// An operation's values and gradients on a device.
type Run = fn(&Device) -> Vec<f64>;

const OPERATIONS: [(&str, Run); 13] = [
    ("product", |device| {
        let (a, b) = (waves([3, 70, 40], device, 0.1), waves([3, 40, 33], device, 2.0));
        through(&[&a, &b], matmul(a.clone(), b.clone()))
    }),
    // 1 + k·2⁻¹² times one: TF32 knows ten bits.
    ("product, of all bits", |device| {
        let fine = |i: usize| 1.0 + (i % 5) as f32 * 2f32.powi(-12);
        let values: Vec<f32> = (0..48 * 48).map(fine).collect();
        let a = Tensor::<2>::from_data(TensorData::new(values, [48, 48]), device);
        let one = Tensor::<2>::eye(48, device);
        matmul(a, one).into_data().iter::<f64>().collect()
    }),
    ("AdamW and average", updated),
    ("affine map", |device| {
        let (x, weight, bias) = (waves([30, 40], device, 0.1), waves([20, 40], device, 2.0), waves([20], device, 4.0));
        let y = affine_rows(x.clone(), weight.clone(), bias.clone());
        through(&[&x, &weight, &bias], parameters_first(y, weight.clone(), bias.clone(), x.clone()))
    }),
    ("gated residual", |device| {
        let (x, y, gate) =
            (waves([3, 5, 12], device, 0.1), waves([3, 5, 12], device, 2.0), waves([3, 1, 12], device, 4.0));
        through(&[&x, &y, &gate], add_gated(x.clone(), y.clone(), gate.clone()))
    }),
    ("attention", |device| {
        let qkv = waves([20, 48], device, 0.1);
        let draws = Some(draws(0.3));
        through(&[&qkv], attend_among(qkv.clone(), 4, &Spans::equal(4, 5).shared(), draws))
    }),
    ("attention, ragged", |device| {
        let qkv = waves([20, 48], device, 0.1);
        through(&[&qkv], attend_among(qkv.clone(), 4, &ragged(), Some(draws(0.3))))
    }),
    ("cross-attention", |device| {
        let (q, kv) = (waves([2, 4, 16], device, 0.1), waves([2, 5, 32], device, 2.0));
        let absent = Some(Arc::new((0..10).map(|i| i % 3 == 1).collect::<Vec<_>>()));
        let mixed = attend_to(q.clone(), kv.clone(), 4, absent);
        through(&[&q, &kv], mixed)
    }),
    ("layer norm", |device| {
        let x = waves([300, 40], device, 0.1);
        let (weight, bias) = (waves([40], device, 2.0), waves([40], device, 4.0));
        let y = layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
        through(&[&x, &weight, &bias], y)
    }),
    ("layer norm by record", |device| {
        let x = waves([3, 5, 12], device, 0.1);
        let (weight, bias) = (waves([3, 1, 12], device, 2.0), waves([3, 1, 12], device, 4.0));
        let y = layer_norm_by_record(x.clone(), weight.clone(), bias.clone(), 1e-6);
        through(&[&x, &weight, &bias], y)
    }),
    ("GELU, exact", |device| {
        let x = waves([4000], device, 0.1);
        through(&[&x], gelu(x.clone().mul_scalar(5.0)))
    }),
    ("GELU, tanh", |device| {
        let x = waves([4000], device, 0.1);
        through(&[&x], gelu_tanh(x.clone().mul_scalar(5.0)))
    }),
    ("rows packed, merged, copied", |device| {
        let (x, z) = (waves([2, 4, 3], device, 0.1), waves([2, 4, 3], device, 0.7));
        let spans = Spans::present(2, &[false, false, true, false, true, true, false, true]).shared();
        let there_and_back = unpack(pack(x.clone(), &spans), &spans, [2, 4]);
        let map = Arc::new(RowMap::new(4, 2, vec![1, 0, 1, 1, 0, 1, 0, 0]));
        let short = average_rows(z.clone(), &map) + sum_rows(z.clone(), &map);
        through(&[&x, &z], there_and_back + copy_rows(short, &map))
    }),
];

fn dropped(device: &Device) -> Vec<f64> {
    let of = |records: Arc<Spans>| {
        let x = waves([20, 1003], device, 0.3);
        through(&[&x], dropout(x.clone(), &records, draws(0.1)))
    };
    [of(Spans::equal(4, 5).shared()), of(ragged())].concat()
}

fn quantised(device: &Device) -> Vec<f64> {
    let values: Vec<f32> = (0..5000).map(|i| (1.37 * i as f32).sin() * 2f32.powi(i % 60 - 50)).collect();
    let gradient = Tensor::<1>::from_data(TensorData::new(values, [5000]), device);
    let (lanes, facts) = (8, flat::Facts::none(3, device));
    // The second adds to the first, beside it, the third has no room: it must leave nothing.
    let mut sums = flat::no_sums(7003, device);
    let mut facts = facts.look(gradient.clone(), 1);
    for at in [3, 2003] {
        sums = flat::add_fixed(sums, gradient.clone(), &facts, flat::Fixed { at, row: 1, shift: 44, lanes });
    }
    let large = gradient.mul_scalar(2f32.powi(20));
    facts = facts.look(large.clone(), 2);
    sums = flat::add_fixed(sums, large, &facts, flat::Fixed { at: 0, row: 2, shift: 44, lanes });
    let back = flat::from_fixed(flat::zeros(7003, device), &sums, 3, 11..5011, 44);
    let back: Vec<f32> = back.into_data().try_to_vec().expect("f32");
    let q: Vec<i64> = sums.into_data().try_to_vec().expect("i64");
    let seen =
        facts.read().expect("every kernel ran").into_iter().flat_map(|(largest, bad)| [f64::from(largest), bad as f64]);
    // Integers of up to 2⁴⁷ are f64s without loss.
    q.into_iter().map(|q| q as f64).chain(back.into_iter().map(f64::from)).chain(seen).collect()
}

/// What three ranks have, rounded, added up and widened.
fn between(device: &Device) -> Vec<f64> {
    let values: Vec<f32> = (0..3001).map(|i| (0.37 * i as f32).sin() * 2f32.powi(i % 60 - 30)).collect();
    let words = halves::narrow(flat::values(values, device), 1503);
    let sum = halves::sum(halves::no_words(501, device), &words, 3);
    let wide: Vec<f32> = halves::widen(sum, 1001).into_data().try_to_vec().expect("f32");
    halves::read(words).into_iter().map(f64::from).chain(wide.into_iter().map(f64::from)).collect()
}

/// The gradient of a bias, of values whose sum has other last bits in another order.
fn summed(device: &Device) -> Vec<f64> {
    let (x, weight, bias) = (waves([1000, 2], device, 0.1), waves([33, 2], device, 2.0), waves([33], device, 4.0));
    let y = parameters_first(affine_rows(x.clone(), weight.clone(), bias.clone()), weight, bias.clone(), x);
    bias.gradient(&total(y.clone() * waves(y.dims(), device, 7.0).detach()).backward())
}

/// A row of the table every other time, others now and then, some never; numbers as they come from the host by default.
fn looked_up(device: &Device) -> Vec<f64> {
    let table = waves([50, 12], device, 0.1);
    let rows: Vec<i64> = (0..700).map(|i| if i % 2 == 0 { 3 } else { i * i % 41 }).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [700]), device);
    through(&[&table], look_up(table.clone(), rows))
}

/// Parameters, moments and average after three updates, and the norm: f32 may be fused on a device.
fn updated(device: &Device) -> Vec<f64> {
    let wave = |of: f32| -> Vec<f32> { (0..5000).map(|i| (of * i as f32).sin()).collect() };
    let (mut p, mut moments) = (flat::values(wave(0.7), device), flat::zeros(10_000, device));
    let mut average = p.clone() + 0.0;
    let gradient = flat::add(flat::values(wave(1.3), device), flat::values(wave(0.1)[..40].to_vec(), device), 4960);
    let by = Constants {
        clip: 0.5,
        keep: 0.999,
        b1: 0.9,
        one_less_b1: 0.1,
        b2: 0.999,
        one_less_b2: 0.001,
        step: 0.01,
        root_c2: 0.3,
        eps: 1e-8,
    };
    for _ in 0..3 {
        (p, moments) = flat::adamw(p, moments, &gradient, by);
        average = flat::average(average, &p, 0.9, 0.1);
    }
    let norm = flat::norm(&gradient);
    let read = |t: Tensor<1>| -> Vec<f32> { t.into_data().try_to_vec().expect("f32") };
    [p, moments, average].into_iter().flat_map(read).map(f64::from).chain([norm / 50.0]).collect()
}

fn ragged() -> Arc<Spans> {
    Spans::new(vec![0, 4, 10, 11, 20]).shared()
}

fn draws(p: f64) -> DropoutDraws {
    DropoutDraws { p, key: DrawKey::new(3, Purpose::Dropout), first_slot: 7, global_step: 2, site: 5 }
}

fn waves<const D: usize>(shape: [usize; D], device: &Device, k: f32) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (k + 1.37 * i as f32).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device.clone().autodiff()).require_grad()
}

/// The values of `y`, and the gradients of `leaves` where `y`'s are fixed waves.
fn through<const D: usize>(leaves: &[&dyn Leaf], y: Tensor<D>) -> Vec<f64> {
    let by = waves(y.dims(), &y.device(), 7.0).detach();
    let gradients = total(y.clone() * by).backward();
    host(y).into_iter().chain(leaves.iter().flat_map(|leaf| leaf.gradient(&gradients))).collect()
}

/// A leaf of any rank.
trait Leaf {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64>;
}

impl<const L: usize> Leaf for Tensor<L> {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64> {
        host(self.grad(gradients).expect("a leaf that the result is made of"))
    }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    let values: Vec<f32> = x.cast(DType::F32).into_data().try_to_vec().expect("f32");
    values.into_iter().map(f64::from).collect()
}

fn farthest(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "the same operation on two devices");
    let size = ours.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let far = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() / size };
    // A NaN is as far as can be.
    ours.iter().zip(theirs).map(far).fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { v.max(m) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_against_itself_is_no_difference_and_a_wrong_value_is_one() {
        let held = against_cores(&cpu());
        assert!(held.len() == 18 && held.iter().all(|h| h.worst == 0.0), "{held:?}");
        assert_eq!(farthest(&[1.0, -4.0], &[1.0, -4.5]), 0.125);
        assert_eq!(farthest(&[1.0], &[f64::NAN]), f64::INFINITY);
    }
}
