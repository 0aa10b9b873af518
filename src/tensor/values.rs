//! A CPU tensor's values as slices, for operations of our own.

use burn::backend::{Flex, tensor::FloatTensor};
use burn::tensor::TensorData;

pub(super) type Primitive = FloatTensor<Flex>;

/// `x` after `change`, in its own memory where nobody else holds it.
pub(super) fn changed(x: Primitive, change: impl FnOnce(&mut [f32])) -> Primitive {
    let contiguous = x.to_contiguous();
    drop(x); // of two handles to the same memory
    let mut x = contiguous;
    change(x.storage_mut::<f32>());
    x
}

/// A tensor of `values`.
pub(super) fn of(values: Vec<f32>, shape: impl Into<burn::tensor::Shape>) -> Primitive {
    Primitive::from_data(TensorData::new(values, shape))
}

/// The values of a contiguous tensor.
pub(super) fn slice(x: &Primitive) -> &[f32] {
    x.as_slice().expect("contiguous f32")
}
