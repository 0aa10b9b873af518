//! Dropout's masks on a GPU: Philox4x32-10, a block of eight 16-bit halves a unit.

use burn::backend::{Cube, ops::IntTensorOps, tensor::FloatTensor};
use burn::tensor::TensorData;
use cubecl::prelude::*;
use syncytia_shards::draw::{self, M0, M1, W0, W1};

use super::launch::{counted, cubes, units};
use crate::tensor::dropout::DropoutDraws;
use crate::tensor::masks::Masks;

/// Ten rounds over a counter of four words.
#[cube]
fn philox(block: u32, slot: u32, step: u32, site: u32, key0: u32, key1: u32) -> (u32, u32, u32, u32) {
    let mut a = block;
    let mut b = slot;
    let mut c = step;
    let mut d = site;
    let mut k0 = key0;
    let mut k1 = key1;
    #[unroll]
    for _ in 0..10 {
        let high0 = a.mul_hi(M0);
        let low0 = a * M0;
        let high1 = c.mul_hi(M1);
        let low1 = c * M1;
        a = high1 ^ b ^ k0;
        b = low1;
        c = high0 ^ d ^ k1;
        d = low0;
        k0 += W0;
        k1 += W1;
    }
    (a, b, c, d)
}

#[cube(launch_unchecked)]
fn fill(
    out: &mut [f32],
    records: usize,
    elements: usize,
    slot: u32,
    step: u32,
    site: u32,
    key0: u32,
    key1: u32,
    threshold: u32,
    scale: f32,
) {
    let blocks = elements.div_ceil(8);
    let mut at = ABSOLUTE_POS;
    while at < records * blocks {
        let record = at / blocks;
        let block = at % blocks;
        let (a, b, c, d) = philox(block as u32, slot + record as u32, step, site, key0, key1);
        let first = record * elements + block * 8;
        let left = elements - block * 8;
        put(out, first, left, a, threshold, scale);
        if left > 2 {
            put(out, first + 2, left - 2, b, threshold, scale);
        }
        if left > 4 {
            put(out, first + 4, left - 4, c, threshold, scale);
        }
        if left > 6 {
            put(out, first + 6, left - 6, d, threshold, scale);
        }
        at += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// A unit to each weight: its half of a block that seven others draw, too, which is less than an index of each in memory.
#[cube(launch_unchecked)]
fn fill_weights(
    out: &mut [f32],
    lengths: &[u32],
    total: usize,
    heads: usize,
    longest: usize,
    slot: u32,
    step: u32,
    site: u32,
    key0: u32,
    key1: u32,
    threshold: u32,
    scale: f32,
) {
    let mut at = ABSOLUTE_POS;
    while at < total {
        let answering = at % longest;
        let asking = at / longest % longest;
        let head = at / longest / longest % heads;
        let record = at / longest / longest / heads;
        let n = lengths[record] as usize;
        if asking < n && answering < n {
            let element = (head * n + asking) * n + answering;
            let (a, b, c, d) = philox((element / 8) as u32, slot + record as u32, step, site, key0, key1);
            let half = element % 8;
            let word = select(half < 4, select(half < 2, a, b), select(half < 6, c, d));
            let drawn = select(half & 1 == 0, word & 0xffffu32, word >> 16u32);
            out[at] = select(drawn >= threshold, scale, 0.0f32);
        } else {
            out[at] = 0.0f32;
        }
        at += CUBE_DIM as usize * CUBE_COUNT;
    }
}

/// The two halves of a word, the low one first, as far as there are elements.
#[cube]
fn put(out: &mut [f32], at: usize, left: usize, word: u32, threshold: u32, scale: f32) {
    out[at] = select(word & 0xffffu32 >= threshold, scale, 0.0f32);
    if left > 1 {
        out[at + 1] = select(word >> 16u32 >= threshold, scale, 0.0f32);
    }
}

impl Masks for Cube {
    fn fill_mask(out: FloatTensor<Cube>, records: usize, elements: usize, draws: DropoutDraws) -> FloatTensor<Cube> {
        let client = out.client.clone();
        let ([key0, key1], threshold) = (draws.key.words(), draw::dropout_threshold(draws.p));
        let scale = draw::dropout_scale(threshold);
        // SAFETY: `out` has `records · elements` values, and a unit writes where it compared.
        unsafe {
            fill::launch_unchecked(
                &client,
                cubes(counted(records * elements.div_ceil(8) * 8) / 8),
                units(),
                out.clone().into_buffer_arg(),
                records,
                elements,
                draws.first_slot,
                draws.global_step,
                draws.site,
                key0,
                key1,
                u32::from(threshold),
                scale,
            );
        }
        out
    }

    fn fill_weights_mask(
        out: FloatTensor<Cube>,
        lengths: &[u32],
        heads: usize,
        longest: usize,
        draws: DropoutDraws,
    ) -> FloatTensor<Cube> {
        let client = out.client.clone();
        let ([key0, key1], threshold) = (draws.key.words(), draw::dropout_threshold(draws.p));
        let total = counted(lengths.len() * heads * longest * longest);
        let lengths = Cube::int_from_data(TensorData::new(lengths.to_vec(), [lengths.len()]), &out.device);
        // SAFETY: `out` has `total` values of as many records as there are lengths, and a unit writes where it compared.
        unsafe {
            fill_weights::launch_unchecked(
                &client,
                cubes(total),
                units(),
                out.clone().into_buffer_arg(),
                lengths.into_buffer_arg(),
                total,
                heads,
                longest,
                draws.first_slot,
                draws.global_step,
                draws.site,
                key0,
                key1,
                u32::from(threshold),
                draw::dropout_scale(threshold),
            );
        }
        out
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use syncytia_shards::draw::{DrawKey, Purpose};

    use super::*;
    use crate::tensor::cube::flat::tests::padded;
    use crate::tensor::cube::{down, up};
    use crate::tensor::{Tensor, cpu};

    #[test]
    fn a_mask_in_a_longer_buffer_is_the_cores() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let key = DrawKey::new(3, Purpose::Dropout);
        let draws = DropoutDraws { p: 0.4, key, first_slot: u32::MAX - 1, global_step: 2, site: 5 };
        let there: Tensor<1> = up(Cube::fill_mask(down(padded(&[9.0; 3 * 37], &device)), 3, 37, draws));
        let cores = crate::tensor::masks::dropout_mask(draws, 3, 37, &cpu());
        let [a, b] = [there, cores.reshape([3 * 37])].map(|x| x.into_data().try_to_vec::<f32>().expect("f32"));
        assert!(a == b && a.contains(&0.0), "{a:?} and {b:?}");
    }

    #[test]
    fn a_mask_of_weights_in_a_longer_buffer_is_the_cores() {
        let (device, _) = crate::tensor::wgpu().expect("a driver of Vulkan (mesa-vulkan-drivers)");
        let key = DrawKey::new(3, Purpose::Dropout);
        let draws = DropoutDraws { p: 0.4, key, first_slot: u32::MAX - 9, global_step: 2, site: 5 };
        let (lengths, heads, longest) = ([2, 0, 13, 7], 3, 13);
        let out = [9.0; 4 * 3 * 13 * 13];
        let there: Tensor<1> =
            up(Cube::fill_weights_mask(down(padded(&out, &device)), &lengths, heads, longest, draws));
        let there = there.into_data().try_to_vec::<f32>().expect("f32");
        let cores = crate::tensor::masks::weights_mask(draws, &lengths.map(|n| n as usize), heads, &cpu());
        let cores = cores.into_data().try_to_vec::<f32>().expect("f32");
        assert!(there == cores && cores.iter().filter(|v| **v > 0.0).count() > 300, "{there:?}\n{cores:?}");
    }
}
