//! Dropout's integers where the tensor is: Philox4x32-10 on integer tensors, the same words as
//! [`syncytia_shards::draw`]. Some 220 operations per mask of n/8 blocks: right, and the first thing to become a kernel.

use std::sync::Arc;

use burn::tensor::DType;

use super::super::spans::Spans;
use super::super::{Device, DropoutDraws, Int, Tensor};
use super::pack::Padded;

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
const WORD: i64 = 0xffff_ffff;

/// `[records, elements]` of 0 or 1/(1 − p): the masks of consecutive slots, element by element (`docs/step.md` §3).
pub fn dropout_mask(draws: DropoutDraws, records: usize, elements: usize, device: &Device) -> Tensor<2> {
    let halves = halves(draws, records, elements.div_ceil(8), device).narrow(1, 0, elements);
    let t = (draws.p * 65_536.0) as u32;
    assert!(t < 65_536, "dropout must keep something");
    let scale = (1.0 / (1.0 - f64::from(t) / 65_536.0)) as f32;
    halves.greater_equal_elem(t).float().mul_scalar(scale)
}

/// `x` `[rows, width]` with elements dropped, counted inside of a record.
pub fn dropout(x: Tensor<2>, records: &Arc<Spans>, draws: DropoutDraws) -> Tensor<2> {
    let ([_, width], device) = (x.dims(), x.device());
    let padded = Padded::new(records, &device);
    let [b, n] = padded.shape();
    let mask = dropout_mask(draws, b, n * width, &device).reshape([b * n, width]);
    x.clone() * padded.unpad(mask).cast(x.dtype())
}

/// `[records, 8 · blocks]`: 16-bit halves, words of a block in order, low half first.
fn halves(draws: DropoutDraws, records: usize, blocks: usize, device: &Device) -> Tensor<2, Int> {
    let counting = |n: usize| Tensor::<1, Int>::arange(0..n as i64, (device, DType::I64));
    let zeros = Tensor::<2, Int>::zeros([records, blocks], (device, DType::I64));
    let slots = counting(records).add_scalar(i64::from(draws.first_slot)).reshape([records, 1]);
    let counter = [
        zeros.clone() + counting(blocks).reshape([1, blocks]),
        zeros.clone() + slots,
        zeros.clone().add_scalar(i64::from(draws.global_step)),
        zeros.add_scalar(i64::from(draws.site)),
    ];
    let words = philox(counter, draws.key.words());
    let halves = words.into_iter().flat_map(|w| [w.clone().bitwise_and_scalar(0xffff_i64), shifted(w)]);
    Tensor::stack::<3>(halves.collect(), 2).reshape([records, 8 * blocks])
}

fn shifted<const D: usize>(word: Tensor<D, Int>) -> Tensor<D, Int> {
    word.bitwise_right_shift_scalar(16_i64)
}

/// Philox4x32-10 of every counter; words are 0..2³² in 64-bit integers.
pub fn philox<const D: usize>(counter: [Tensor<D, Int>; 4], key: [u32; 2]) -> [Tensor<D, Int>; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let ((high0, low0), (high1, low1)) = (product(a, M0), product(c, M1));
        (a, b, c, d) = (
            high1.bitwise_xor(b).bitwise_xor_scalar(i64::from(k0)),
            low1,
            high0.bitwise_xor(d).bitwise_xor_scalar(i64::from(k1)),
            low0,
        );
        (k0, k1) = (k0.wrapping_add(W0), k1.wrapping_add(W1));
    }
    [a, b, c, d]
}

/// The upper and the lower word of word · factor, by way of the factor's halves: nothing leaves 2⁴⁹.
fn product<const D: usize>(word: Tensor<D, Int>, factor: u32) -> (Tensor<D, Int>, Tensor<D, Int>) {
    let by_high = word.clone().mul_scalar(i64::from(factor >> 16));
    let by_low = word.mul_scalar(i64::from(factor & 0xffff));
    let high = shifted(by_high.clone() + shifted(by_low.clone()));
    let low =
        (by_high.bitwise_and_scalar(0xffff_i64).bitwise_left_shift_scalar(16_i64) + by_low).bitwise_and_scalar(WORD);
    (high, low)
}
