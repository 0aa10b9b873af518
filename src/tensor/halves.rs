//! bf16 between ranks, where the values are: two to a word of 32 bits, the first in its lower half, so that no device needs a type
//! for it, and a word's bytes are those of two bf16.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::values::slice;
use crate::elementwise::bf16;

/// The operations on a backend. All write their first argument where it lies.
#[backend_extension(Flex, Cube: cfg(feature = "cube"))]
pub trait Halves: Backend {
    /// Words of the values, rounded; zeros behind them.
    fn halves_narrow(words: IntTensor<Self>, values: FloatTensor<Self>) -> IntTensor<Self>;
    /// Of the `ranks` parts that lie one behind the other the sum, in f32 and in their order, rounded.
    fn halves_sum(sum: IntTensor<Self>, parts: IntTensor<Self>, ranks: usize) -> IntTensor<Self>;
    /// The values that words hold, exactly.
    fn halves_widen(values: FloatTensor<Self>, words: IntTensor<Self>) -> FloatTensor<Self>;
}

/// So many words, zero.
pub fn no_words(n: usize, device: &Device) -> Tensor<1, Int> {
    Tensor::zeros([n], (device, DType::U32))
}

/// Words of the host's bf16, by their bits.
pub fn words(halves: &[u16], device: &Device) -> Tensor<1, Int> {
    let n = halves.len().div_ceil(2);
    let mut words = vec![0; n];
    together(halves, &mut words);
    Tensor::from_data(TensorData::new(words, [n]), (device, DType::U32))
}

/// The bf16 of words, by their bits, on the host.
pub fn read(words: Tensor<1, Int>) -> Vec<u16> {
    apart(&words.into_data().try_to_vec::<u32>().expect("words were made of u32"))
}

/// The values rounded to bf16, in `n` words.
pub fn narrow(values: Tensor<1>, n: usize) -> Tensor<1, Int> {
    assert!(values.dims()[0] <= 2 * n, "two values to a word");
    let words = no_words(n, &values.device()).into_dispatch();
    Tensor::from_dispatch(<Dispatch as Halves>::halves_narrow(words, values.into_dispatch()))
}

/// The sum of what `ranks` ranks have, in the words `sum`.
pub fn sum(sum: Tensor<1, Int>, parts: &Tensor<1, Int>, ranks: usize) -> Tensor<1, Int> {
    assert!(sum.dims()[0] * ranks == parts.dims()[0], "every rank has a part of this length");
    let parts = parts.clone().into_dispatch();
    Tensor::from_dispatch(<Dispatch as Halves>::halves_sum(sum.into_dispatch(), parts, ranks))
}

/// The first `n` values that words hold.
pub fn widen(words: Tensor<1, Int>, n: usize) -> Tensor<1> {
    let values = Tensor::<1>::zeros([n], (&words.device(), DType::F32)).into_dispatch();
    Tensor::from_dispatch(<Dispatch as Halves>::halves_widen(values, words.into_dispatch()))
}

fn apart(words: &[u32]) -> Vec<u16> {
    words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]).collect()
}

fn together(halves: &[u16], words: &mut [u32]) {
    for (word, two) in words.iter_mut().zip(halves.chunks(2)) {
        *word = two.iter().rev().fold(0, |word, &half| word << 16 | u32::from(half));
    }
}

impl Halves for Flex {
    fn halves_narrow(mut words: IntTensor<Flex>, values: FloatTensor<Flex>) -> IntTensor<Flex> {
        let values = values.to_contiguous();
        let mut halves = vec![0; slice(&values).len()];
        bf16::narrow(slice(&values), &mut halves);
        together(&halves, words.storage_mut::<u32>());
        words
    }

    fn halves_sum(mut sum: IntTensor<Flex>, parts: IntTensor<Flex>, ranks: usize) -> IntTensor<Flex> {
        let halves = apart(parts.to_contiguous().as_slice().expect("contiguous u32"));
        let of_ranks: Vec<&[u16]> = halves.chunks_exact(halves.len() / ranks).collect();
        together(&bf16::sum(&of_ranks), sum.storage_mut::<u32>());
        sum
    }

    fn halves_widen(mut values: FloatTensor<Flex>, words: IntTensor<Flex>) -> FloatTensor<Flex> {
        let out = values.storage_mut::<f32>();
        let halves = apart(words.to_contiguous().as_slice().expect("contiguous u32"));
        bf16::widen(&halves[..out.len()], out);
        values
    }
}
