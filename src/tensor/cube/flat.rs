//! The kernels of a GPU: one pass over memory each, grid-strided. Integers are the cores' bit for bit; f32 is the device's own, where
//! a compiler may fuse a product and a sum.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use cubecl::prelude::*;

use crate::tensor::flat::{AdamW, Fixed, Flat, INFINITE, PARTS, exp2};

/// Units of a cube.
const UNITS: u32 = 256;
/// Values that a unit has at least, where there are so many.
const EACH: usize = 8;
/// Most cubes: beyond it units go round.
const CUBES: usize = 4096;
/// Most cubes that meet at one number in memory.
const MEETING: usize = 64;

/// round-to-nearest-even(|g| · 2^shift) of a finite g by its bits, out of integers alone: a compiler may take apart what rounds in
/// floating point (Mesa's makes x of x + 1.5·2⁵² − 1.5·2⁵²). What leaves 63 bits is i64's largest.
#[cube]
fn magnitude(bits: u32, shift: i32) -> i64 {
    let exponent = (bits >> 23u32) & 0xffu32;
    let fraction = bits & 0x007f_ffffu32;
    let mantissa = select(exponent == 0u32, fraction, fraction | 0x0080_0000u32);
    // |g| is mantissa · 2^(exponent − 150), subnormals as if their exponent were 1.
    let by = i32::cast_from(max(exponent, 1u32)) - 150i32 + shift;
    let mut result = 9_223_372_036_854_775_807i64;
    if by >= 0i32 {
        if by < 39i32 {
            result = i64::cast_from(mantissa) << i64::cast_from(by);
        }
    } else {
        // 24 bits are less than half of 2²⁶.
        let down = u32::cast_from(min(-by, 26i32));
        let whole = mantissa >> down;
        let rest = mantissa - (whole << down);
        let half = 1u32 << (down - 1u32);
        let up = rest > half || (rest == half && (whole & 1u32) == 1u32);
        result = i64::cast_from(select(up, whole + 1u32, whole));
    }
    select(mantissa == 0u32, 0i64, result)
}

#[cube(launch_unchecked)]
fn look(gradient: &[f32], facts: &mut [Atomic<u32>], row: usize) {
    let mut largest = 0u32;
    let mut bad = 0u32;
    let mut i = ABSOLUTE_POS;
    while i < gradient.len() {
        let bits = u32::reinterpret(gradient[i]) & 0x7fff_ffffu32;
        largest = max(largest, bits);
        if bits >= INFINITE {
            bad += 1u32;
        }
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
    if largest > 0u32 {
        facts[2 * row].fetch_max(largest);
    }
    if bad > 0u32 {
        facts[2 * row + 1].fetch_add(bad);
    }
}

#[cube(launch_unchecked)]
fn add_fixed(sums: &mut [i64], gradient: &[f32], facts: &[u32], at: usize, row: usize, shift: i32, room: i64) {
    if facts[2 * row + 1] == 0u32 && magnitude(facts[2 * row], shift) <= room {
        let mut i = ABSOLUTE_POS;
        while i < gradient.len() {
            let bits = u32::reinterpret(gradient[i]);
            let q = magnitude(bits, shift);
            sums[at + i] += select(bits >> 31u32 == 0u32, q, -q);
            i += CUBE_DIM as usize * CUBE_COUNT;
        }
    }
}

#[cube(launch_unchecked)]
fn add(sums: &mut [f32], gradient: &[f32], at: usize) {
    let mut i = ABSOLUTE_POS;
    while i < gradient.len() {
        sums[at + i] += gradient[i];
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn from_fixed(gradient: &mut [f32], sums: &[i64], at: usize, n: usize, scale: f64) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        gradient[at + i] = f32::cast_from(f64::cast_from(sums[at + i]) * scale);
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn squares(parts: &mut [f64], gradient: &[f32]) {
    let mut sum = 0.0f64;
    let mut i = ABSOLUTE_POS;
    while i < gradient.len() {
        let g = f64::cast_from(gradient[i]);
        sum += g * g;
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
    parts[ABSOLUTE_POS] = sum;
}

#[cube(launch_unchecked)]
fn adamw(
    p: &mut [f32],
    moments: &mut [f32],
    gradient: &[f32],
    clip: f32,
    keep: f32,
    b1: f32,
    one_less_b1: f32,
    b2: f32,
    one_less_b2: f32,
    step: f32,
    root_c2: f32,
    eps: f32,
) {
    let n = p.len();
    let mut i = ABSOLUTE_POS;
    while i < n {
        let g = gradient[i] * clip;
        let m = b1 * moments[i] + one_less_b1 * g;
        let v = b2 * moments[n + i] + one_less_b2 * g * g;
        moments[i] = m;
        moments[n + i] = v;
        p[i] = p[i] * keep - step * (m / (v.sqrt() / root_c2 + eps));
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn mix(average: &mut [f32], p: &[f32], keep: f32, take: f32) {
    let mut i = ABSOLUTE_POS;
    while i < p.len() {
        average[i] = keep * average[i] + take * p[i];
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// Cubes for `n` values, at most so many.
fn cubes(n: usize, most: usize) -> CubeCount {
    CubeCount::new_1d(n.div_ceil(UNITS as usize * EACH).clamp(1, most) as u32)
}

fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

// SAFETY, of all launches: a unit reads and writes below the lengths that it compares with, and callers give sums and gradients that
// hold `at + n` values and facts that hold the row (`train::there` makes them).
impl Flat for Cube {
    fn flat_look(facts: IntTensor<Cube>, gradient: FloatTensor<Cube>, row: usize) -> IntTensor<Cube> {
        let (client, n) = (facts.client.clone(), gradient.meta.num_elements());
        let cubes = cubes(n, MEETING);
        // SAFETY: see above.
        unsafe {
            look::launch_unchecked(
                &client,
                cubes,
                units(),
                gradient.into_buffer_arg(),
                facts.clone().into_buffer_arg(),
                row,
            );
        }
        facts
    }

    fn flat_add_fixed(
        sums: IntTensor<Cube>,
        gradient: FloatTensor<Cube>,
        facts: IntTensor<Cube>,
        place: Fixed,
    ) -> IntTensor<Cube> {
        let (client, n) = (sums.client.clone(), gradient.meta.num_elements());
        let (cubes, Fixed { at, row, shift, lanes }) = (cubes(n, CUBES), place);
        // SAFETY: see above.
        unsafe {
            add_fixed::launch_unchecked(
                &client,
                cubes,
                units(),
                sums.clone().into_buffer_arg(),
                gradient.into_buffer_arg(),
                facts.into_buffer_arg(),
                at,
                row,
                shift,
                (1 << 62) / lanes as i64,
            );
        }
        sums
    }

    fn flat_add(sums: FloatTensor<Cube>, gradient: FloatTensor<Cube>, at: usize) -> FloatTensor<Cube> {
        let (client, n) = (sums.client.clone(), gradient.meta.num_elements());
        let (cubes, sum) = (cubes(n, CUBES), sums.clone().into_buffer_arg());
        // SAFETY: see above.
        unsafe { add::launch_unchecked(&client, cubes, units(), sum, gradient.into_buffer_arg(), at) };
        sums
    }

    fn flat_from_fixed(
        gradient: FloatTensor<Cube>,
        sums: IntTensor<Cube>,
        at: usize,
        n: usize,
        shift: i32,
    ) -> FloatTensor<Cube> {
        let client = sums.client.clone();
        let (cubes, g) = (cubes(n, CUBES), gradient.clone().into_buffer_arg());
        // SAFETY: see above.
        unsafe {
            from_fixed::launch_unchecked(&client, cubes, units(), g, sums.into_buffer_arg(), at, n, exp2(-shift));
        }
        gradient
    }

    fn flat_squares(parts: FloatTensor<Cube>, gradient: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let client = parts.client.clone();
        let (all, p) = (CubeCount::new_1d(PARTS as u32 / UNITS), parts.clone().into_buffer_arg());
        // SAFETY: see above; there are as many units as parts.
        unsafe { squares::launch_unchecked(&client, all, units(), p, gradient.into_buffer_arg()) };
        parts
    }

    fn flat_adamw(
        parameters: FloatTensor<Cube>,
        moments: FloatTensor<Cube>,
        gradient: FloatTensor<Cube>,
        by: AdamW,
    ) -> (FloatTensor<Cube>, FloatTensor<Cube>) {
        let client = parameters.client.clone();
        let cubes = cubes(gradient.meta.num_elements(), CUBES);
        let AdamW { clip, keep, b1, b2, step, root_c2, eps } = by;
        // SAFETY: see above.
        unsafe {
            adamw::launch_unchecked(
                &client,
                cubes,
                units(),
                parameters.clone().into_buffer_arg(),
                moments.clone().into_buffer_arg(),
                gradient.into_buffer_arg(),
                clip,
                keep,
                b1[0],
                b1[1],
                b2[0],
                b2[1],
                step,
                root_c2,
                eps,
            );
        }
        (parameters, moments)
    }

    fn flat_average(
        average: FloatTensor<Cube>,
        parameters: FloatTensor<Cube>,
        keep: f32,
        take: f32,
    ) -> FloatTensor<Cube> {
        let client = average.client.clone();
        let cubes = cubes(parameters.meta.num_elements(), CUBES);
        let (a, p) = (average.clone().into_buffer_arg(), parameters.into_buffer_arg());
        // SAFETY: see above.
        unsafe { mix::launch_unchecked(&client, cubes, units(), a, p, keep, take) };
        average
    }
}
