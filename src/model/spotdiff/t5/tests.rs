//! Against `transformers` on small random models: `tests/golden/t5.py`.

use std::collections::HashMap;

use safetensors::tensor::{SafeTensors, TensorView, serialize};
use serde::Deserialize;

use super::*;
use crate::tensor::cpu;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    encoded: HashMap<String, Vec<[Vec<f32>; 3]>>,
}

/// The new shape of a tensor; none leaves it out.
type Change<'a> = &'a dyn Fn(&str, &[usize]) -> Option<Vec<usize>>;

const SPIECE: &[u8] = include_bytes!("../../../../tests/golden/t5/spiece.model");

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../../../tests/golden/t5/expected.json")).unwrap()
}

/// Config and weights of a variant.
fn folder(name: &str) -> (&'static str, &'static [u8]) {
    match name {
        "v1_0" => (
            include_str!("../../../../tests/golden/t5/v1_0/config.json"),
            include_bytes!("../../../../tests/golden/t5/v1_0/model.safetensors"),
        ),
        _ => (
            include_str!("../../../../tests/golden/t5/v1_1/config.json"),
            include_bytes!("../../../../tests/golden/t5/v1_1/model.safetensors"),
        ),
    }
}

fn read(config: &str, weights: &[u8], vocabulary: &[u8]) -> Result<T5, T5Error> {
    let files = T5Files {
        config: (config, "T/config.json"),
        weights: (weights, "T/model.safetensors"),
        vocabulary: (Vocabulary::SentencePiece(vocabulary), "T/spiece.model"),
    };
    T5::read(&files, &cpu())
}

#[test]
fn token_ids_are_those_of_transformers() {
    let tokenizer = T5Tokenizer::read(Vocabulary::SentencePiece(SPIECE), "spiece.model").unwrap();
    let expected = expected();
    for (text, ids) in expected.texts.iter().zip(&expected.ids) {
        assert_eq!(&tokenizer.ids(text).unwrap(), ids, "{text}");
    }
    assert_eq!(expected.ids[2].len(), MOST_TOKENS);
}

#[test]
fn both_variants_equal_transformers() {
    let expected = expected();
    for (name, rows) in &expected.encoded {
        let (config, weights) = folder(name);
        let t5 = read(config, weights, SPIECE).unwrap();
        for (text, (ids, [first, last, mean])) in expected.texts.iter().zip(expected.ids.iter().zip(rows)) {
            let ours: Vec<f32> = t5.forward(ids).into_data().try_to_vec().unwrap();
            let (n, d) = (ids.len(), t5.width());
            let near = |a: &[f32], b: &[f32], what: &str| {
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(a.len() == b.len() && worst < 1e-5, "{name}, {what} of {text:?}: {worst:e}");
            };
            near(&ours[..d], first, "first token");
            near(&ours[(n - 1) * d..], last, "last token");
            near(&t5.mean(text).unwrap(), mean, "mean");
        }
    }
}

#[test]
fn a_vocabulary_that_is_none_is_refused_by_its_file() {
    for bytes in [&b"{}"[..], b"not json"] {
        let error = T5Tokenizer::read(Vocabulary::Json(bytes), "T/tokenizer.json").unwrap_err().to_string();
        assert!(error.starts_with("T/tokenizer.json") && error.contains("expected is the vocabulary"), "{error}");
    }
    let error = T5Tokenizer::read(Vocabulary::SentencePiece(&[]), "T/spiece.model").unwrap_err().to_string();
    assert!(error.starts_with("T/spiece.model") && error.contains("no pieces"), "{error}");
}

#[test]
fn missing_and_misshapen_tensors_are_named_with_what_is_expected() {
    let (config, weights) = folder("v1_1");
    let tensors = SafeTensors::deserialize(weights).unwrap();
    let changed = |change: Change<'_>| {
        let kept: Vec<(String, TensorView<'_>)> = tensors
            .iter()
            .filter_map(|(name, view)| {
                let shape = change(name, view.shape())?;
                Some((name.to_owned(), TensorView::new(view.dtype(), shape, view.data()).unwrap()))
            })
            .collect();
        serialize(kept, None).unwrap()
    };
    let without =
        changed(&|name, shape| (!name.contains("block.1.layer.1.DenseReluDense.wi_1")).then(|| shape.to_vec()));
    let error = read(config, &without, SPIECE).unwrap_err().to_string();
    for part in ["T/model.safetensors", "encoder.block.1.layer.1.DenseReluDense.wi_1.weight", "[20, 12]"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    let turned = changed(&|name, shape| {
        let turn = name.ends_with("SelfAttention.o.weight");
        Some(if turn { shape.iter().rev().copied().collect() } else { shape.to_vec() })
    });
    let error = read(config, &turned, SPIECE).unwrap_err().to_string();
    assert!(error.contains("SelfAttention.o.weight has shape [15, 12]; expected is [12, 15]"), "{error}");
    let error = read(config, &weights[..100], SPIECE).unwrap_err().to_string();
    assert!(error.starts_with("T/model.safetensors"), "{error}");
    let error = read("{\"d_model\": 12}", weights, SPIECE).unwrap_err().to_string();
    assert!(error.starts_with("T/config.json: missing field"), "{error}");
    let fewer = config.replace("\"vocab_size\": 80", "\"vocab_size\": 81");
    assert!(matches!(read(&fewer, weights, SPIECE), Err(T5Error::Shape { .. })));
}

#[test]
fn buckets_are_the_reference_s() {
    let config = T5Config::read(folder("v1_0").0, "config.json").unwrap();
    // transformers' _relative_position_bucket(bidirectional, 32, 128)
    let expected =
        [(0, 0), (-1, 1), (-7, 7), (-8, 8), (-11, 8), (-12, 9), (-16, 10), (-32, 12), (-64, 14), (-91, 15), (-500, 15)];
    for (ahead, bucket) in expected {
        assert_eq!(config.bucket(ahead), bucket, "{ahead}");
        if ahead < 0 {
            assert_eq!(config.bucket(-ahead), 16 + bucket, "{}", -ahead);
        }
    }
}
