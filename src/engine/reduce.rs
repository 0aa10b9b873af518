//! Exact sums: gradients as 64-bit fixed point with one exponent per parameter tensor (`docs/step.md` §5).
//!
//! Integer addition is associative, so any engine, order or world size gives the same bits. Here is what is about exponents and
//! tensors; the loops over values are [`crate::elementwise::fixed_point`]'s. Knows no engine.

use std::ops::Range;

use crate::elementwise::fixed_point::INFINITE;
pub use crate::elementwise::fixed_point::{Scan, dequantise, overflows, quantise, quantise_add, scan};

/// Bits kept free above the exponent seen last, so that a gradient may grow 2⁵-fold without a rerun.
const HEADROOM: i32 = 6;

/// ⌊log2 |g|⌋ of a positive finite f32 given by its bits, subnormals included.
pub fn binary_exponent(bits: u32) -> i16 {
    debug_assert!(bits != 0 && bits < INFINITE);
    match bits >> 23 {
        0 => (31 - bits.leading_zeros()) as i16 - 149,
        biased => biased as i16 - 127,
    }
}

/// The exponents that the next step starts from: those just seen, and where a gradient was all zero the ones known.
pub fn carry_exponents(known: &mut [Option<i16>], seen: &[Option<i16>]) {
    for (known, seen) in known.iter_mut().zip(seen) {
        *known = seen.or(*known);
    }
}

/// e of a tensor whose last exponent is E: 62 − ⌈log2 lanes⌉ − 6 − E.
pub fn shift(exponent: i16, lanes: usize) -> i32 {
    62 - lanes.next_power_of_two().trailing_zeros() as i32 - HEADROOM - i32::from(exponent)
}

/// The flat gradient's values from `first` on: each by its tensor's shift, 0 where the tensor has none.
pub fn dequantise_segment(
    tensors: &[Range<usize>],
    shifts: &[Option<i32>],
    first: usize,
    sums: &[i64],
    out: &mut [f32],
) {
    let end = first + sums.len();
    let start = tensors.partition_point(|range| range.end <= first);
    for (range, shift) in tensors.iter().zip(shifts).skip(start).take_while(|(range, _)| range.start < end) {
        let part = range.start.max(first) - first..range.end.min(end) - first;
        match shift {
            Some(shift) => dequantise(&sums[part.clone()], *shift, &mut out[part]),
            None => out[part].fill(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::fixed_point::exp2;

    #[test]
    fn exponents_are_the_floor_of_the_logarithm() {
        for (value, expected) in
            [(1.0f32, 0), (1.5, 0), (2.0, 1), (0.75, -1), (f32::MAX, 127), (f32::MIN_POSITIVE, -126), (1e-45, -149)]
        {
            assert_eq!(binary_exponent(value.to_bits()), expected, "{value}");
        }
        assert_eq!(binary_exponent(3e-42f32.to_bits()), -138);
    }

    #[test]
    fn segments_cut_anywhere_give_the_values_of_the_whole() {
        let tensors = [0..3, 3..3, 3..4, 4..10];
        let shifts = [Some(2), None, None, Some(-1)];
        let sums: Vec<i64> = (1..=10).collect();
        let mut whole = vec![f32::NAN; 10];
        dequantise_segment(&tensors, &shifts, 0, &sums, &mut whole);
        assert_eq!(whole, [0.25, 0.5, 0.75, 0.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0]);
        for cut in 0..=10 {
            let mut out = vec![f32::NAN; 10];
            dequantise_segment(&tensors, &shifts, 0, &sums[..cut], &mut out[..cut]);
            dequantise_segment(&tensors, &shifts, cut, &sums[cut..], &mut out[cut..]);
            assert_eq!(out, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_gradient_of_zeros_keeps_its_exponent() {
        let mut known = [Some(3), Some(-2), None, None];
        carry_exponents(&mut known, &[Some(5), None, Some(0), None]);
        assert_eq!(known, [Some(5), Some(-2), Some(0), None]);
    }

    #[test]
    fn a_sum_does_not_depend_on_its_order() {
        let lanes: Vec<Vec<f32>> = (0..8)
            .map(|l| (0..500).map(|i| ((l * 7919 + i * 104_729) as f32).sin() * 10f32.powi(l % 5 - 2)).collect())
            .collect();
        let e = shift(binary_exponent(lanes.iter().flatten().fold(0, |m, v| m.max(v.abs().to_bits()))), 8);
        let sum = |order: &[usize]| {
            let mut sum = vec![0i64; 500];
            order.iter().for_each(|&l| quantise_add(&lanes[l], e, &mut sum));
            sum
        };
        let forward = sum(&[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(forward, sum(&[5, 2, 7, 0, 4, 1, 6, 3]));
        let mut back = vec![0.0; 500];
        dequantise(&forward, e, &mut back);
        for (i, b) in back.iter().enumerate() {
            let exact: f64 = lanes.iter().map(|l| f64::from(l[i])).sum();
            // Eight roundings of half a unit each in fixed point, one to f32.
            let tolerance = 8.0 * exp2(-e) + exact.abs() * 6e-8;
            assert!((f64::from(*b) - exact).abs() <= tolerance, "{b} against {exact}");
        }
    }

    /// Golden (`docs/step.md` §5): a toy gradient on 8 lanes with E = 0, so e = 62 − 3 − 6 − 0 = 53.
    #[test]
    fn quantised_values_are_those_of_the_definition() {
        assert_eq!(shift(0, 8), 53);
        let mut sum = vec![0; 5];
        quantise_add(&[1.0, -0.5, 1.0 / 3.0, f32::from_bits(1), 0.0], 53, &mut sum);
        assert_eq!(sum, [1 << 53, -(1 << 52), 3_002_399_841_058_816, 0, 0]);
        // A half unit goes to the even integer: 2^-54 · 2^53 = 0.5 → 0, 3 · 2^-54 · 2^53 = 1.5 → 2.
        let mut sum = vec![0; 2];
        quantise_add(&[exp2(-54) as f32, 3.0 * exp2(-54) as f32], 53, &mut sum);
        assert_eq!(sum, [0, 2]);
    }

    #[test]
    fn growth_within_the_headroom_fits_and_beyond_it_overflows() {
        for lanes in [1usize, 3, 8] {
            let e = shift(0, lanes);
            assert!(!overflows(32.0f32.to_bits(), e, lanes), "2^5 on {lanes} lanes");
            assert!(overflows(128.0f32.to_bits(), e, lanes), "128 on {lanes} lanes");
        }
    }
}
