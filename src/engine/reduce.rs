//! Exact sums: gradients as 64-bit fixed point with one exponent per parameter tensor (`docs/step.md` §5).
//!
//! Integer addition is associative, so any engine, order or world size gives the same bits. Knows no engine.

use std::ops::Range;

use multiversion::multiversion;

/// Bits kept free above the exponent seen last, so that a gradient may grow 2⁵-fold without a rerun.
const HEADROOM: i32 = 6;

/// What a lane's gradient of one tensor looks like, before any conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Number of values that are NaN or infinite.
    pub non_finite: u64,
    /// Largest |g| as f32 bits; 0 where the tensor is all zero.
    pub max_bits: u32,
}

/// Looks at a lane's gradient of one tensor.
pub fn scan(gradient: &[f32]) -> Scan {
    let max_bits = max_abs_bits(gradient);
    let non_finite = match max_bits {
        INFINITE.. => gradient.iter().filter(|v| !v.is_finite()).count() as u64,
        _ => 0,
    };
    Scan { non_finite, max_bits }
}

const INFINITE: u32 = 0x7f80_0000;

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn max_abs_bits(values: &[f32]) -> u32 {
    values.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff))
}

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

/// Whether a lane's largest value leaves the range that `lanes` summands may use: |q| > 2^62 / lanes.
pub fn overflows(max_bits: u32, shift: i32, lanes: usize) -> bool {
    let q = (f64::from(f32::from_bits(max_bits)) * exp2(shift)).round_ties_even();
    q * lanes as f64 > 4_611_686_018_427_387_904.0
}

/// Sets the accumulator to round-to-nearest-even(g · 2^shift), element by element.
pub fn quantise(gradient: &[f32], shift: i32, sum: &mut [i64]) {
    quantise_scaled(gradient, exp2(shift), sum);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn quantise_scaled(gradient: &[f32], scale: f64, sum: &mut [i64]) {
    for (s, &g) in sum.iter_mut().zip(gradient) {
        *s = (f64::from(g) * scale).round_ties_even() as i64;
    }
}

/// Adds round-to-nearest-even(g · 2^shift) to the accumulator, element by element.
pub fn quantise_add(gradient: &[f32], shift: i32, sum: &mut [i64]) {
    quantise_add_scaled(gradient, exp2(shift), sum);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn quantise_add_scaled(gradient: &[f32], scale: f64, sum: &mut [i64]) {
    for (s, &g) in sum.iter_mut().zip(gradient) {
        *s = s.wrapping_add((f64::from(g) * scale).round_ties_even() as i64);
    }
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

/// f32(f64(Σq) · 2^−shift).
pub fn dequantise(sum: &[i64], shift: i32, out: &mut [f32]) {
    dequantise_scaled(sum, exp2(-shift), out);
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn dequantise_scaled(sum: &[i64], scale: f64, out: &mut [f32]) {
    for (o, &q) in out.iter_mut().zip(sum) {
        *o = (q as f64 * scale) as f32;
    }
}

/// 2^n exactly, for |n| ≤ 1022.
fn exp2(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn non_finite_values_are_counted_per_lane() {
        assert_eq!(scan(&[1.0, f32::NAN, 0.0, f32::NEG_INFINITY, -3.0]).non_finite, 2);
        assert_eq!(scan(&[0.0, -0.0]), Scan { non_finite: 0, max_bits: 0 });
        assert_eq!(scan(&[0.5, -3.0]), Scan { non_finite: 0, max_bits: 3f32.to_bits() });
    }
}
