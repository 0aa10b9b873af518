//! Exact sums where the gradient is: round-to-nearest-even(g · 2^shift) as 64-bit integers, and back (`docs/step.md` §5), out
//! of operations that every device has. The host's own are in `engine::reduce`; the bits are the same.

use burn::tensor::{DType, FloatDType, IntDType, Tensor};

use super::Int;

/// 1.5 · 2⁵²: adding it and taking it away rounds to the nearest integer, ties to even. The product has 24 significant bits, so
/// that one beyond 2²⁴ is an integer already and loses nothing on the way; no device's `round` has to be believed.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Fixed point of a flat gradient whose values are finite. `shift`: as `engine::reduce::shift` gives it.
pub fn quantise(gradient: Tensor<1>, shift: i32) -> Tensor<1, Int> {
    let scaled = gradient.cast(DType::F64).mul_scalar(exp2(shift));
    scaled.add_scalar(ROUNDER).sub_scalar(ROUNDER).cast(IntDType::I64)
}

/// f32(f64(Σq) · 2^−shift).
pub fn dequantise(sums: Tensor<1, Int>, shift: i32) -> Tensor<1> {
    sums.cast(FloatDType::F64).mul_scalar(exp2(-shift)).cast(DType::F32)
}

/// What the host decides by, of each gradient: how many values are not finite, and the largest |g| of those that are. One read
/// for all of them.
pub fn scan(gradients: &[Tensor<1>]) -> Vec<(u64, f32)> {
    let of_one = |g: &Tensor<1>| {
        let bad = g.clone().is_finite().bool_not();
        let largest = g.clone().mask_fill(bad.clone(), 0.0).abs().max();
        // Counted as integers: a count of f32 ends at 2²⁴.
        [bad.int().sum().cast(FloatDType::F64), largest.cast(DType::F64)]
    };
    if gradients.is_empty() {
        return Vec::new();
    }
    let facts = Tensor::cat(gradients.iter().flat_map(of_one).collect(), 0).into_data();
    let facts = facts.try_to_vec::<f64>().expect("they were made of f64");
    facts.chunks_exact(2).map(|pair| (pair[0] as u64, pair[1] as f32)).collect()
}

/// 2^n exactly, for |n| ≤ 1022.
fn exp2(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::engine::reduce;
    use crate::tensor::cpu;

    /// Of every size that f32 has, halves and their neighbours among them.
    fn gradient() -> Vec<f32> {
        let spread = (0..4000).map(|i| (1.37 * i as f32).sin() * 2f32.powi(i % 120 - 90));
        let ties =
            (1..200).flat_map(|i| [0.5, 0.499_999_97, 0.500_000_06].map(|half| (i as f32 + half) * 2f32.powi(-40)));
        spread.chain(ties).chain([0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45, 0.999_999_94]).collect()
    }

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &cpu())
    }

    #[test]
    fn integers_are_the_hosts_bit_for_bit_and_so_is_the_way_back() {
        let values = gradient();
        let largest = reduce::scan(&values).max_bits;
        for lanes in [1, 8, 1024] {
            let shift = reduce::shift(reduce::binary_exponent(largest), lanes);
            for shift in [shift, 40, 24, 0, -30] {
                let mut host = vec![0; values.len()];
                reduce::quantise(&values, shift, &mut host);
                let q = quantise(tensor(&values), shift);
                let device = q.clone().into_data().try_to_vec::<i64>().unwrap();
                let at = device.iter().zip(&host).position(|(a, b)| a != b);
                assert!(at.is_none(), "shift {shift}: {:?}", at.map(|i| (values[i], device[i], host[i])));
                let mut back = vec![0.0; values.len()];
                reduce::dequantise(&host, shift, &mut back);
                let device = dequantise(q, shift).into_data().try_to_vec::<f32>().unwrap();
                assert!(device.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()), "shift {shift}");
            }
        }
    }

    /// Golden (`docs/step.md` §5), as the host's test has it.
    #[test]
    fn quantised_values_are_those_of_the_definition() {
        let tie = |n: f32| n * 2f32.powi(-54);
        let q = quantise(tensor(&[1.0, -0.5, 1.0 / 3.0, f32::from_bits(1), 0.0, tie(1.0), tie(3.0)]), 53);
        let q = q.into_data().try_to_vec::<i64>().unwrap();
        assert_eq!(q, [1 << 53, -(1 << 52), 3_002_399_841_058_816, 0, 0, 0, 2]);
    }

    #[test]
    fn a_scan_counts_what_is_not_finite_and_finds_the_largest_of_the_rest() {
        let bad = [1.0, f32::NAN, -3.0, f32::NEG_INFINITY, 0.0];
        let seen = scan(&[tensor(&bad), tensor(&[0.0, -0.0]), tensor(&gradient())]);
        let host = reduce::scan(&gradient());
        assert_eq!(seen, [(2, 3.0), (0, 0.0), (0, f32::from_bits(host.max_bits))]);
        assert_eq!(scan(&[]), []);
    }
}
