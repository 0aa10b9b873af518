//! Named tensors to the bytes of a safetensors file and back. The same tensors and metadata give the same bytes. Must
//! not know which file it is or what the names mean.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A tensor of 32-bit floats, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name as in the reference implementation, e.g. `model.linear.weight`.
    pub name: String,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values, row-major; as many as the product of `shape`.
    pub values: Vec<f32>,
}

impl NamedTensor {
    /// The values as they lie in a file: little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.values.len() * 4);
        for value in &self.values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

/// A whole safetensors file: the same bytes for the same tensors and metadata, in whatever order they come.
///
/// # Errors
/// In words: a name twice, or values that do not fill the shape.
pub fn encode(tensors: &[NamedTensor], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, String> {
    let mut by_name: BTreeMap<&str, (&[usize], Vec<u8>)> = BTreeMap::new();
    for tensor in tensors {
        let size: usize = tensor.shape.iter().product();
        if size != tensor.values.len() {
            let (name, shape, n) = (&tensor.name, &tensor.shape, tensor.values.len());
            return Err(format!("tensor {name} has shape {shape:?} ({size} values) but {n} values"));
        }
        if by_name.insert(&tensor.name, (&tensor.shape, tensor.bytes())).is_some() {
            return Err(format!("two tensors are called {}", tensor.name));
        }
    }
    let views: Vec<(&str, TensorView)> = by_name
        .iter()
        .map(|(name, (shape, bytes))| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(|e| e.to_string())?;
    let plain = safetensors::serialize(views, None).map_err(|e| e.to_string())?;
    Ok(with_metadata(plain, metadata))
}

/// Puts `__metadata__` in front of the header's entries, keys ascending. The crate takes a `HashMap` and writes it in
/// that map's random order: two saves of one state would differ.
fn with_metadata(plain: Vec<u8>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    if metadata.is_empty() {
        return plain;
    }
    let (length, rest) = plain.split_at(8);
    let n_header = u64::from_le_bytes(length.try_into().expect("split at 8")) as usize;
    let (header, data) = rest.split_at(n_header);
    let entries = header.strip_prefix(b"{").expect("a safetensors header is a JSON object").trim_ascii_end();
    let metadata = serde_json::to_string(metadata).expect("a map of strings is JSON");
    let mut new_header = format!("{{\"__metadata__\":{metadata}").into_bytes();
    if entries != b"}" {
        new_header.push(b',');
    }
    new_header.extend_from_slice(entries);
    new_header.resize(new_header.len().next_multiple_of(8), b' '); // the data stay aligned, as the format asks
    let mut bytes = Vec::with_capacity(8 + new_header.len() + data.len());
    bytes.extend_from_slice(&(new_header.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&new_header);
    bytes.extend_from_slice(data);
    bytes
}

/// The tensors of a safetensors file by name, and its metadata.
///
/// # Errors
/// In words: not a safetensors file, or a tensor that is not f32.
#[allow(clippy::type_complexity)] // a file is its tensors and its metadata; a struct would be used once
pub(super) fn decode(bytes: &[u8]) -> Result<(BTreeMap<String, NamedTensor>, BTreeMap<String, String>), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(format!("tensor {name} is {:?}, not F32", view.dtype()));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let tensor = NamedTensor { name: name.clone(), shape: view.shape().to_vec(), values };
        tensors.insert(name, tensor);
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        NamedTensor { name: name.into(), shape: shape.into(), values: values.into() }
    }

    fn metadata(n: usize) -> BTreeMap<String, String> {
        (0..n).map(|i| (format!("key{i}"), format!("a \"{i}\"\n"))).collect()
    }

    #[test]
    fn what_is_encoded_is_decoded_bit_by_bit() {
        let odd = [f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY];
        let tensors = [tensor("b", &[2, 2], &odd), tensor("a", &[], &[1.5]), tensor("none", &[0, 3], &[])];
        let bytes = encode(&tensors, &metadata(20)).unwrap();
        let (back, meta) = decode(&bytes).unwrap();
        assert_eq!(meta, metadata(20));
        assert_eq!(back.len(), 3);
        for t in &tensors {
            assert_eq!(back[&t.name].bytes(), t.bytes());
            assert_eq!(back[&t.name].shape, t.shape);
        }
    }

    #[test]
    fn the_same_tensors_and_metadata_give_the_same_bytes() {
        let (a, b) = (tensor("a", &[1], &[1.0]), tensor("b", &[1], &[2.0]));
        let first = encode(&[a.clone(), b.clone()], &metadata(20)).unwrap();
        assert_eq!(encode(&[b, a], &metadata(20)).unwrap(), first);
        let n_header = u64::from_le_bytes(first[..8].try_into().unwrap());
        assert_eq!(n_header % 8, 0);
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let short = encode(&[tensor("w", &[2, 3], &[0.0; 5])], &metadata(0)).unwrap_err();
        assert!(short.contains("w has shape [2, 3] (6 values) but 5 values"), "{short}");
        let twice = encode(&[tensor("w", &[1], &[0.0]), tensor("w", &[1], &[0.0])], &metadata(0)).unwrap_err();
        assert!(twice.contains("two tensors are called w"), "{twice}");
    }
}
