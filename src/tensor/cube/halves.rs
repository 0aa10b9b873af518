//! bf16 by their bits on a GPU: integers and sums of f32, the host's bits.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use cubecl::prelude::*;

use super::launch::{counted, cubes, units, whole};
use crate::tensor::halves::Halves;

/// To the nearest of 16 bits, halves to even; what is no number stays none.
#[cube]
fn rounded(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let nearest = (bits + (0x7fffu32 + ((bits >> 16u32) & 1u32))) >> 16u32;
    select((bits & 0x7fff_ffffu32) > 0x7f80_0000u32, (bits >> 16u32) | 0x40u32, nearest)
}

#[cube]
fn lower(word: u32) -> f32 {
    f32::reinterpret(word << 16u32)
}

#[cube]
fn upper(word: u32) -> f32 {
    f32::reinterpret(word & 0xffff_0000u32)
}

#[cube(launch_unchecked)]
fn narrow(values: &[f32], words: &mut [u32], n: usize) {
    let mut i = ABSOLUTE_POS;
    while 2 * i < n {
        let first = rounded(values[2 * i]);
        let mut second = 0u32;
        if 2 * i + 1 < n {
            second = rounded(values[2 * i + 1]);
        }
        words[i] = (second << 16u32) | first;
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn sum(parts: &[u32], sum: &mut [u32], n: usize, ranks: usize) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        let mut first = lower(parts[i]);
        let mut second = upper(parts[i]);
        for rank in 1..ranks {
            first += lower(parts[rank * n + i]);
            second += upper(parts[rank * n + i]);
        }
        sum[i] = (rounded(second) << 16u32) | rounded(first);
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

#[cube(launch_unchecked)]
fn widen(words: &[u32], values: &mut [f32], n: usize) {
    let mut i = ABSOLUTE_POS;
    while i < n {
        let word = words[i / 2];
        values[i] = select(i & 1 == 0, lower(word), upper(word));
        i += CUBE_DIM as usize * CUBE_COUNT;
    }
}

fn length(x: &impl TensorMetadata) -> usize {
    counted(x.shape().num_elements())
}

impl Halves for Cube {
    fn halves_narrow(words: IntTensor<Cube>, values: FloatTensor<Cube>) -> IntTensor<Cube> {
        let (client, n) = (words.client.clone(), length(&values));
        let (values, out) = (whole(values).into_buffer_arg(), words.clone().into_buffer_arg());
        // SAFETY: `n` values, and words for as many or more.
        unsafe { narrow::launch_unchecked(&client, cubes(n.div_ceil(2)), units(), values, out, n) };
        words
    }

    fn halves_sum(total: IntTensor<Cube>, parts: IntTensor<Cube>, ranks: usize) -> IntTensor<Cube> {
        let (client, n) = (total.client.clone(), length(&total));
        let (parts, out) = (parts.into_buffer_arg(), total.clone().into_buffer_arg());
        // SAFETY: `n` words, and as many of every rank.
        unsafe { sum::launch_unchecked(&client, cubes(n), units(), parts, out, n, ranks) };
        total
    }

    fn halves_widen(values: FloatTensor<Cube>, words: IntTensor<Cube>) -> FloatTensor<Cube> {
        let (client, n) = (values.client.clone(), length(&values));
        let (words, out) = (words.into_buffer_arg(), values.clone().into_buffer_arg());
        // SAFETY: `n` values, and words for as many or more.
        unsafe { widen::launch_unchecked(&client, cubes(n), units(), words, out, n) };
        values
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use crate::tensor::{Device, cpu, flat, halves};

    /// Every pattern of the upper half with ties and their neighbours below it, subnormals, infinities and what is no number.
    fn every_kind() -> Vec<f32> {
        let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        (0..=u32::from(u16::MAX))
            .zip(lower.into_iter().cycle())
            .map(|(upper, lower)| f32::from_bits(upper << 16 | lower))
            .collect()
    }

    fn through(values: &[f32], device: &Device) -> (Vec<u16>, Vec<u16>, Vec<u32>) {
        let n = values.len();
        let words = halves::narrow(flat::values(values.to_vec(), device), n.div_ceil(2) + 3);
        // three ranks' parts, one behind the other
        let part = words.dims()[0] / 3;
        let parts = words.clone().narrow(0, 0, 3 * part);
        let sum = halves::sum(halves::no_words(part, device), &parts, 3);
        let wide = halves::widen(words.clone(), n).into_data().try_to_vec::<f32>().unwrap();
        (halves::read(words), halves::read(sum), wide.into_iter().map(f32::to_bits).collect())
    }

    #[test]
    fn words_sums_and_values_are_the_cores_bits() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let kinds = every_kind();
        let plain: Vec<f32> = (0..70_001).map(|i| (0.37 * i as f32).sin() * 2f32.powi(i % 60 - 30)).collect();
        // Llvmpipe takes subnormals for zeros in sums, and no number has the bits of any.
        for values in [plain, vec![1.5], vec![-0.0, 3.0, 1.0 / 3.0]] {
            assert!(through(&values, &device) == through(&values, &cpu()), "{} values", values.len());
        }
        let (there, here) = (through(&kinds, &device), through(&kinds, &cpu()));
        assert!(there.0 == here.0 && there.2 == here.2, "every kind, rounded and back");
    }
}
