//! Text to token ids with a T5's own vocabulary: `tokenizer.json`, or SentencePiece's `spiece.model`.

use base64::Engine as _;
use prost::Message;
use serde_json::json;
use tokenizers::Tokenizer;

use super::T5Error;

/// Most tokens of a text, the end included.
pub const MOST_TOKENS: usize = 128;

/// A vocabulary file.
#[derive(Debug, Clone, Copy)]
pub enum Vocabulary<'a> {
    /// `tokenizer.json`.
    Json(&'a [u8]),
    /// `spiece.model`.
    SentencePiece(&'a [u8]),
}

/// Text to token ids.
#[derive(Debug)]
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    end: u32,
}

/// The end of a text.
const END: &str = "</s>";

impl T5Tokenizer {
    /// Of a vocabulary; `file` names it in errors.
    pub fn read(vocabulary: Vocabulary<'_>, file: &str) -> Result<Self, T5Error> {
        let refuse = |what: String| T5Error::Tokenizer { file: file.to_owned(), what };
        let tokenizer = match vocabulary {
            Vocabulary::Json(bytes) => Tokenizer::from_bytes(bytes).map_err(|e| refuse(e.to_string()))?,
            Vocabulary::SentencePiece(bytes) => {
                let pieces = ModelProto::decode(bytes).map_err(|e| refuse(e.to_string()))?;
                let text = as_json(&pieces).map_err(refuse)?.to_string();
                Tokenizer::from_bytes(text.as_bytes()).map_err(|e| refuse(e.to_string()))?
            }
        };
        let end =
            tokenizer.token_to_id(END).ok_or_else(|| refuse(format!("it has no token {END}, the end of a text")))?;
        Ok(Self { tokenizer, end })
    }

    /// At most 128 ids, the last of them the end.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, T5Error> {
        let refuse = |e: tokenizers::Error| T5Error::Text { text: text.to_owned(), what: e.to_string() };
        let encoding = self.tokenizer.encode_fast(text, false).map_err(refuse)?;
        let mut ids: Vec<u32> = encoding.get_ids().to_vec();
        ids.truncate(MOST_TOKENS - 1);
        ids.push(self.end);
        Ok(ids)
    }
}

/// What SentencePiece's file says, in the words of `tokenizer.json`.
fn as_json(model: &ModelProto) -> Result<serde_json::Value, String> {
    if model.pieces.is_empty() {
        return Err("it has no pieces: it is no SentencePiece model".to_owned());
    }
    let kind = model.trainer_spec.as_ref().and_then(|spec| spec.model_type).unwrap_or(UNIGRAM);
    if kind != UNIGRAM {
        return Err(format!("its model type is {kind}, a T5's is {UNIGRAM} (unigram)"));
    }
    let of_kind = |kind: i32| model.pieces.iter().position(|p| p.kind.unwrap_or(NORMAL) == kind);
    let unknown = of_kind(UNKNOWN).ok_or("it has no piece for what is unknown")?;
    let special = |(id, piece): (usize, &Piece)| {
        let special = matches!(piece.kind.unwrap_or(NORMAL), UNKNOWN | CONTROL);
        special.then(|| {
            json!({"id": id, "content": piece.piece(), "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
    };
    let map = model.normalizer_spec.as_ref().and_then(|spec| spec.precompiled_charsmap.as_deref()).unwrap_or_default();
    let normalizer = (!map.is_empty()).then(|| {
        json!({"type": "Precompiled", "precompiled_charsmap": base64::engine::general_purpose::STANDARD.encode(map)})
    });
    let vocabulary: Vec<_> = model.pieces.iter().map(|p| json!([p.piece(), f64::from(p.score())])).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": model.pieces.iter().enumerate().filter_map(special).collect::<Vec<_>>(),
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false},
    }))
}

const UNIGRAM: i32 = 1;
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;

/// What of SentencePiece's `ModelProto` is read.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}
