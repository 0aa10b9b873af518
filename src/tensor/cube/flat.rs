//! The kernels of a GPU: one pass over memory each, grid-strided. Integers are the cores' bit for bit; f32 is the device's own, where
//! a compiler may fuse a product and a sum.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use cubecl::prelude::*;

use crate::tensor::flat::{AdamW, Fixed, Flat, INFINITE, PARTS, ROOM, exp2};

/// Units of a cube.
const UNITS: u32 = 256;
/// Values that a unit has at least, where there are so many.
const EACH: usize = 8;
/// Most cubes: beyond it units go round.
const CUBES: usize = 4096;
/// Most cubes that meet at one number in memory.
const MEETING: usize = 64;

/// 1.5 · 2⁵²: adding it and taking it away rounds to the nearest integer, ties to even. The product has 24 significant bits, so
/// that one beyond 2²⁴ is an integer already and loses nothing on the way; no device's `round` has to be believed.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

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
fn add_fixed(sums: &mut [i64], gradient: &[f32], facts: &[u32], at: usize, row: usize, scale: f64, lanes: f64) {
    let largest = f64::cast_from(f32::reinterpret(facts[2 * row])) * scale;
    let rounded = largest + ROUNDER - ROUNDER;
    if facts[2 * row + 1] == 0u32 && rounded * lanes <= ROOM {
        let mut i = ABSOLUTE_POS;
        while i < gradient.len() {
            let scaled = f64::cast_from(gradient[i]) * scale;
            sums[at + i] += i64::cast_from(scaled + ROUNDER - ROUNDER);
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
                exp2(shift),
                lanes as f64,
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
