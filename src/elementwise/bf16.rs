//! bf16 for sums over ranks: the upper half of an f32, by its bits. Every engine and every device gives the same bits, as the sum
//! has one definition: each rank's value rounded to bf16, the ranks' values added in f32 in rank order, the sum rounded to bf16.
//! Rounding is to nearest even.

use multiversion::multiversion;

/// Rounds values.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn narrow(values: &[f32], out: &mut [u16]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = rounded(value);
    }
}

/// The values as f32, exactly.
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
pub fn widen(values: &[u16], out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = wide(value);
    }
}

/// The sum of the ranks' parts, given in rank order and of equal length: in f32, rounded once.
pub fn sum(parts: &[&[u16]]) -> Vec<u16> {
    let mut total = vec![0.0; parts[0].len()];
    widen(parts[0], &mut total);
    for part in &parts[1..] {
        add(part, &mut total);
    }
    let mut out = vec![0; total.len()];
    narrow(&total, &mut out);
    out
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn add(part: &[u16], total: &mut [f32]) {
    for (total, &value) in total.iter_mut().zip(part) {
        *total += wide(value);
    }
}

/// Half a unit of what stays is added, less one bit where what stays is even; a NaN stays one.
#[inline(always)]
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { nearest }
}

#[inline(always)]
fn wide(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(values: &[f32]) -> Vec<u16> {
        let mut out = vec![0; values.len()];
        narrow(values, &mut out);
        out
    }

    /// By definition: the nearest of the two neighbours in f64, the even one of two as near.
    #[test]
    fn values_are_rounded_to_the_nearest_and_halves_to_even() {
        let cases = [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_8000), 0x3f80), // a half: to the even one below
            (f32::from_bits(0x3f81_8000), 0x3f82), // a half: to the even one above
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::from_bits(0x3fff_ffff), 0x4000), // into the next exponent
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (-0.0, 0x8000),
            (f32::from_bits(1), 0),
            (f32::from_bits(0x0000_8001), 1), // subnormals as any others
        ];
        for (value, bits) in cases {
            assert_eq!(narrowed(&[value]), [bits], "{value:e}");
        }
        for nan in [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            assert!(wide(narrowed(&[nan])[0]).is_nan(), "{:x}", nan.to_bits());
        }
        let values: Vec<f32> = (0..10_000).map(|i| (1.37 * i as f32).sin() * 2f32.powi(i % 120 - 60)).collect();
        let mut back = vec![0.0; values.len()];
        widen(&narrowed(&values), &mut back);
        for (value, near) in values.iter().zip(&back) {
            let unit = f64::from(f32::from_bits(value.to_bits() & 0x7f80_0000)) / 128.0;
            let off = (f64::from(*value) - f64::from(*near)).abs();
            assert!(off <= unit / 2.0, "{value:e} to {near:e}");
        }
        assert_eq!(narrowed(&back), narrowed(&values), "what is bf16 stays as it is");
    }

    /// 256 + 1 is 256 in bf16: only a sum in f32 sees the ones, and it is rounded once.
    #[test]
    fn a_sum_is_made_in_f32_in_order_and_rounded_once() {
        let parts: Vec<Vec<u16>> = [256.0f32, 1.0, 1.0, 1.0].map(|v| narrowed(&[v, -v])).to_vec();
        let parts: Vec<&[u16]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(sum(&parts), narrowed(&[259.0, -259.0]));
        assert_ne!(narrowed(&[259.0]), narrowed(&[256.0]));
        // In f32 as well the order counts: 2^24 + 1 + 1 from the left loses both ones, as 1 + 1 + 2^24 does not.
        let of = |values: [f32; 4]| {
            let parts = values.map(|v| narrowed(&[v]));
            sum(&parts.each_ref().map(Vec::as_slice))
        };
        let large = 2f32.powi(24);
        assert_eq!(of([large, 1.0, 1.0, -large]), narrowed(&[0.0]));
        assert_eq!(of([1.0, 1.0, large, -large]), narrowed(&[2.0]));
    }
}
