//! Dropout's masks as tensors, for operations that are made of Burn's: the words of [`syncytia_shards::draw`] where the tensor is.

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Device, Tensor};

use super::dropout::DropoutDraws;

/// The operation on a backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub trait Masks: Backend {
    /// `out`, records · elements of f32 in a row, filled with 0 or 1/(1 − p): consecutive slots, element by element.
    fn fill_mask(out: FloatTensor<Self>, records: usize, elements: usize, draws: DropoutDraws) -> FloatTensor<Self>;

    /// `out`, `[lengths, heads, longest, longest]` in a row, filled likewise: element (head · n + asking) · n + answering of a record
    /// of n tokens. Beyond a record's tokens it is 0.
    fn fill_weights_mask(
        out: FloatTensor<Self>,
        lengths: &[u32],
        heads: usize,
        longest: usize,
        draws: DropoutDraws,
    ) -> FloatTensor<Self>;
}

impl Masks for Flex {
    fn fill_mask(mut out: FloatTensor<Self>, _: usize, elements: usize, draws: DropoutDraws) -> FloatTensor<Self> {
        let values = out.storage_mut::<f32>();
        values.fill(1.0);
        values.chunks_mut(elements.max(1)).enumerate().for_each(|(record, values)| draws.apply(record, values));
        out
    }

    fn fill_weights_mask(
        mut out: FloatTensor<Self>,
        lengths: &[u32],
        heads: usize,
        longest: usize,
        draws: DropoutDraws,
    ) -> FloatTensor<Self> {
        let records = out.storage_mut::<f32>().chunks_mut((heads * longest * longest).max(1));
        for (record, (values, &n)) in records.zip(lengths).enumerate() {
            let n = n as usize;
            let mut mask = vec![1.0; heads * n * n];
            draws.apply(record, &mut mask);
            values.fill(0.0);
            for (row, mask) in mask.chunks(n.max(1)).enumerate() {
                values[(row / n * longest + row % n) * longest..][..n].copy_from_slice(mask);
            }
        }
        out
    }
}

/// `[records, elements]` of 0 or 1/(1 − p): the masks of consecutive slots, element by element (`docs/step.md` §3).
pub fn dropout_mask(draws: DropoutDraws, records: usize, elements: usize, device: &Device) -> Tensor<2> {
    // Flat: rows of a matrix may be padded on a device.
    let out = Tensor::<1>::empty([records * elements], (device, DType::F32));
    let mask = <Dispatch as Masks>::fill_mask(out.into_dispatch(), records, elements, draws);
    Tensor::<1>::from_dispatch(mask).reshape([records, elements])
}

/// The dropout of attention's weights, `[lengths, heads, longest, longest]` of 0 or 1/(1 − p): element (head · n + asking) · n +
/// answering of a record of n tokens, each consecutive record a slot. Beyond a record's tokens it is 0.
pub fn weights_mask(draws: DropoutDraws, lengths: &[usize], heads: usize, device: &Device) -> Tensor<4> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let shape = [lengths.len(), heads, longest, longest];
    let out = Tensor::<1>::empty([shape.iter().product::<usize>()], (device, DType::F32)).into_dispatch();
    let lengths: Vec<u32> = lengths.iter().map(|&n| n as u32).collect();
    let mask = <Dispatch as Masks>::fill_weights_mask(out, &lengths, heads, longest, draws);
    Tensor::<1>::from_dispatch(mask).reshape(shape)
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::{self, DrawKey, Purpose};

    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn a_mask_is_that_of_its_slots() {
        let draws =
            DropoutDraws { p: 0.4, key: DrawKey::new(3, Purpose::Dropout), first_slot: 7, global_step: 2, site: 5 };
        let mask = dropout_mask(draws, 3, 29, &cpu()).into_data().try_to_vec::<f32>().unwrap();
        let mut expected = vec![0.0; 3 * 29];
        draw::dropout_mask_slots(&mut expected, 29, 0.4, draws.key, 7, 2, 5);
        assert_eq!(mask, expected);
    }

    #[test]
    fn weights_of_a_record_are_counted_as_if_it_were_alone() {
        let draws =
            DropoutDraws { p: 0.4, key: DrawKey::new(3, Purpose::Dropout), first_slot: 7, global_step: 2, site: 5 };
        let (lengths, heads) = ([2, 0, 5], 3);
        let mask = weights_mask(draws, &lengths, heads, &cpu()).into_data().try_to_vec::<f32>().unwrap();
        for (record, &n) in lengths.iter().enumerate() {
            let mut alone = vec![1.0; heads * n * n];
            draws.apply(record, &mut alone);
            for (at, &expected) in alone.iter().enumerate() {
                let (head, asking, answering) = (at / (n * n), at / n % n, at % n);
                assert_eq!(mask[((record * heads + head) * 5 + asking) * 5 + answering], expected, "{record}: {at}");
            }
        }
    }
}
