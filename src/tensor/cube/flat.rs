//! The kernels of a GPU: one pass over memory each, grid-strided. Integers are the cores' bit for bit; f32 is the device's own, where
//! a compiler may fuse a product and a sum.

use std::ops::Range;

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use cubecl::prelude::*;

use super::launch::{UNITS, n_cubes, units};
use crate::elementwise::adamw::Constants;
use crate::elementwise::fixed_point::{INFINITE, exp2};
use crate::tensor::flat::{Fixed, Flat, PARTS};

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
        // 24 bits and 39 are 63; subnormals have fewer.
        if by < 39i32 || (by < 63i32 && mantissa >> u32::cast_from(max(63i32 - by, 1i32)) == 0u32) {
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
fn look(gradient: &[f32], facts: &mut [Atomic<u32>], looked: &mut [u32], n: usize, row: usize) {
    if ABSOLUTE_POS == 0 {
        looked[row] = 1u32;
    }
    let mut largest = 0u32;
    let mut bad = 0u32;
    let mut i = ABSOLUTE_POS;
    while i < n {
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
fn add_fixed(
    sums: &mut [i64],
    gradient: &[f32],
    facts: &[u32],
    n: usize,
    at: usize,
    row: usize,
    shift: i32,
    room: i64,
) {
    if facts[2 * row + 1] == 0u32 && magnitude(facts[2 * row], shift) <= room {
        let mut i = ABSOLUTE_POS;
        while i < n {
            let bits = u32::reinterpret(gradient[i]);
            let q = magnitude(bits, shift);
            sums[at + i] += select(bits >> 31u32 == 0u32, q, -q);
            i += CUBE_DIM as usize * CUBE_COUNT;
        }
    }
}

#[cube(launch_unchecked)]
fn add(sums: &mut [f32], gradient: &[f32], n: usize, at: usize) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        sums[at + i] += gradient[i];
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn from_fixed(gradient: &mut [f32], sums: &[i64], from: usize, to: usize, n: usize, scale: f64) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        gradient[to + i] = f32::cast_from(f64::cast_from(sums[from + i]) * scale);
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn squares(parts: &mut [f64], gradient: &[f32], n: usize) {
    let mut sum = 0.0f64;
    let mut i = ABSOLUTE_POS;
    while i < n {
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
    n: usize,
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
fn mix(average: &mut [f32], p: &[f32], n: usize, keep: f32, take: f32) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        average[i] = keep * average[i] + take * p[i];
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// Cubes for `n` values, at most so many.
fn cubes(n: usize, most: usize) -> CubeCount {
    n_cubes(n.div_ceil(UNITS as usize * EACH).min(most))
}

/// Values of a tensor that lie one after the other, as kernels read them. A buffer may be longer: CUDA's are padded.
fn contiguous(x: &FloatTensor<Cube>) -> usize {
    assert!(x.is_contiguous(), "a flat tensor lies in one piece");
    x.meta.num_elements()
}

// SAFETY, of all launches: a unit reads and writes below the number of values that it is told, and callers give sums and gradients
// that hold `at + n` values and facts that hold the row (`train::there` makes them).
impl Flat for Cube {
    fn flat_look(
        facts: IntTensor<Cube>,
        looked: IntTensor<Cube>,
        gradient: FloatTensor<Cube>,
        row: usize,
    ) -> (IntTensor<Cube>, IntTensor<Cube>) {
        let (client, n) = (facts.client.clone(), contiguous(&gradient));
        let cubes = cubes(n, MEETING);
        // SAFETY: see above.
        unsafe {
            look::launch_unchecked(
                &client,
                cubes,
                units(),
                gradient.into_buffer_arg(),
                facts.clone().into_buffer_arg(),
                looked.clone().into_buffer_arg(),
                n,
                row,
            );
        }
        (facts, looked)
    }

    fn flat_add_fixed(
        sums: IntTensor<Cube>,
        gradient: FloatTensor<Cube>,
        facts: IntTensor<Cube>,
        place: Fixed,
    ) -> IntTensor<Cube> {
        let (client, n) = (sums.client.clone(), contiguous(&gradient));
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
                n,
                at,
                row,
                shift,
                (1 << 62) / lanes as i64,
            );
        }
        sums
    }

    fn flat_add(sums: FloatTensor<Cube>, gradient: FloatTensor<Cube>, at: usize) -> FloatTensor<Cube> {
        let (client, n) = (sums.client.clone(), contiguous(&gradient));
        let (cubes, sum) = (cubes(n, CUBES), sums.clone().into_buffer_arg());
        // SAFETY: see above.
        unsafe { add::launch_unchecked(&client, cubes, units(), sum, gradient.into_buffer_arg(), n, at) };
        sums
    }

    fn flat_from_fixed(
        gradient: FloatTensor<Cube>,
        sums: IntTensor<Cube>,
        from: usize,
        to: Range<usize>,
        shift: i32,
    ) -> FloatTensor<Cube> {
        let (client, n, scale) = (sums.client.clone(), to.len(), exp2(-shift));
        let (cubes, g) = (cubes(n, CUBES), gradient.clone().into_buffer_arg());
        // SAFETY: see above.
        unsafe {
            let sums = sums.into_buffer_arg();
            from_fixed::launch_unchecked(&client, cubes, units(), g, sums, from, to.start, n, scale);
        }
        gradient
    }

    fn flat_squares(parts: FloatTensor<Cube>, gradient: FloatTensor<Cube>) -> FloatTensor<Cube> {
        let (client, n) = (parts.client.clone(), contiguous(&gradient));
        let (all, p) = (CubeCount::new_1d(PARTS as u32 / UNITS), parts.clone().into_buffer_arg());
        // SAFETY: see above; there are as many units as parts.
        unsafe { squares::launch_unchecked(&client, all, units(), p, gradient.into_buffer_arg(), n) };
        parts
    }

    fn flat_adamw(
        parameters: FloatTensor<Cube>,
        moments: FloatTensor<Cube>,
        gradient: FloatTensor<Cube>,
        by: Constants,
    ) -> (FloatTensor<Cube>, FloatTensor<Cube>) {
        let client = parameters.client.clone();
        let n = contiguous(&gradient);
        let cubes = cubes(n, CUBES);
        let Constants { clip, keep, b1, one_less_b1, b2, one_less_b2, step, root_c2, eps } = by;
        // SAFETY: see above.
        unsafe {
            adamw::launch_unchecked(
                &client,
                cubes,
                units(),
                parameters.clone().into_buffer_arg(),
                moments.clone().into_buffer_arg(),
                gradient.into_buffer_arg(),
                n,
                clip,
                keep,
                b1,
                one_less_b1,
                b2,
                one_less_b2,
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
        let n = contiguous(&parameters);
        let cubes = cubes(n, CUBES);
        let (a, p) = (average.clone().into_buffer_arg(), parameters.into_buffer_arg());
        // SAFETY: see above.
        unsafe { mix::launch_unchecked(&client, cubes, units(), a, p, n, keep, take) };
        average
    }
}

#[cfg(all(test, feature = "wgpu"))]
pub(super) mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::elementwise::adamw::Constants;
    use crate::tensor::cube::{down, up};
    use crate::tensor::flat;

    /// What CUDA's memory is like: the buffer goes on behind the values, here with what is no number.
    pub(in crate::tensor::cube) fn padded(values: &[f32], device: &Device) -> Tensor<1> {
        let mut long = values.to_vec();
        long.resize(values.len() + 28, f32::NAN);
        let mut tensor = down(flat::values(long, device));
        tensor.meta = down(flat::values(values.to_vec(), device)).meta;
        up(tensor)
    }

    /// Parameters, moments, sums, facts and norm after two steps, gradients of two tensors and their sums in padded buffers.
    fn two_steps(device: &Device, tensor: impl Fn(&[f32], &Device) -> Tensor<1>) -> Vec<f32> {
        let wave = |n: usize, of: f32| -> Vec<f32> { (0..n).map(|i| (of * i as f32).sin()).collect() };
        let (mut p, mut moments) = (tensor(&wave(172, 0.3), device), tensor(&[0.0; 344], device));
        let (mut average, mut plain) = (tensor(&wave(172, 0.3), device), tensor(&[0.0; 172], device));
        let by = Constants {
            clip: 0.5,
            keep: 0.9,
            b1: 0.9,
            one_less_b1: 0.1,
            b2: 0.99,
            one_less_b2: 0.01,
            step: 0.1,
            root_c2: 0.1,
            eps: 1e-8,
        };
        let mut said = Vec::new();
        for _ in 0..2 {
            let (mut facts, mut sums) = (flat::Facts::none(2, device), flat::no_sums(172, device));
            let mut gradient = tensor(&[0.0; 172], device);
            for (row, at, n) in [(0, 0, 100), (1, 100, 72)] {
                let of_tensor = tensor(&wave(n, 1.0 + row as f32), device);
                facts = facts.look(of_tensor.clone(), row);
                plain = flat::add(plain, of_tensor.clone(), at);
                sums = flat::add_fixed(sums, of_tensor, &facts, flat::Fixed { at, row, shift: 50, lanes: 2 });
                gradient = flat::from_fixed(gradient, &sums, at, at..at + n, 50);
            }
            said.push(flat::norm(&gradient) as f32);
            said.extend(facts.read().unwrap().iter().flat_map(|&(bits, bad)| [f32::from_bits(bits), bad as f32]));
            (p, moments) = flat::adamw(p, moments, &gradient, by);
            average = flat::average(average, &p, 0.9, 0.1);
        }
        let read = |x: Tensor<1>| -> Vec<f32> { x.into_data().try_to_vec().expect("f32") };
        said.into_iter().chain([p, moments, average, plain].into_iter().flat_map(read)).collect()
    }

    #[test]
    fn what_lies_behind_the_values_is_neither_read_nor_written() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let plain = |values: &[f32], device: &Device| flat::values(values.to_vec(), device);
        let (cores, there) = (two_steps(&crate::tensor::cpu(), plain), two_steps(&device, padded));
        assert!(cores.iter().all(|v| v.is_finite()) && cores.len() == there.len());
        for (i, (a, b)) in cores.iter().zip(&there).enumerate() {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{i}: {a} and {b}");
        }
    }

    /// The smallest there are, of a tensor that has nothing larger: to the host's integers.
    #[test]
    fn subnormals_are_the_hosts_integers() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        for (values, shift) in
            [(vec![1e-45, -1e-45, 0.0], 205), (vec![3e-42, 1e-45, -2.9e-42], 194), (vec![1e-38, 3e-42], 180)]
        {
            let run = |device: &Device| -> (Vec<i64>, Vec<(u32, u64)>) {
                let gradient = flat::values(values.clone(), device);
                let facts = flat::Facts::none(1, device).look(gradient.clone(), 0);
                let place = flat::Fixed { at: 0, row: 0, shift, lanes: 1 };
                let sums = flat::add_fixed(flat::no_sums(values.len(), device), gradient, &facts, place);
                (sums.into_data().try_to_vec().unwrap(), facts.read().unwrap())
            };
            let (cores, there) = (run(&crate::tensor::cpu()), run(&device));
            assert_eq!(cores, there, "{values:?}");
            assert!(cores.0[0].abs() > 1 << 40, "{cores:?}");
        }
    }
}
