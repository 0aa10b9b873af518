//! Tensors of a `model.safetensors` by name, each of the shape that the config says.

use safetensors::{Dtype, SafeTensors};

use super::T5Error;
use crate::tensor::{Device, Tensor, TensorData};

/// An open file.
pub struct Weights<'a> {
    tensors: SafeTensors<'a>,
    file: &'a str,
    device: &'a Device,
}

impl<'a> Weights<'a> {
    /// Of the bytes of `file`.
    pub fn open(bytes: &'a [u8], file: &'a str, device: &'a Device) -> Result<Self, T5Error> {
        let refuse = |e: safetensors::SafeTensorError| T5Error::Weights { file: file.to_owned(), what: e.to_string() };
        Ok(Self { tensors: SafeTensors::deserialize(bytes).map_err(refuse)?, file, device })
    }

    /// The tensor `name`, of exactly this shape.
    pub fn take<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, T5Error> {
        let Ok(view) = self.tensors.tensor(name) else {
            return Err(T5Error::Missing { file: self.file.to_owned(), name: name.to_owned(), shape: shape.to_vec() });
        };
        if view.shape() != shape {
            return Err(T5Error::Shape {
                file: self.file.to_owned(),
                name: name.to_owned(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let bytes = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
                .collect(),
            other => {
                let what = format!("tensor {name} is {other:?}: save the model as F32 or BF16");
                return Err(T5Error::Weights { file: self.file.to_owned(), what });
            }
        };
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The first of `names` that is there.
    pub fn take_any<const D: usize>(&self, names: &[&str], shape: [usize; D]) -> Result<Tensor<D>, T5Error> {
        let there = names.iter().find(|name| self.tensors.tensor(name).is_ok());
        self.take(there.unwrap_or(&names[0]), shape)
    }
}
