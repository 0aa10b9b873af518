//! The encoder of a T5, frozen: what a prompt says, as vectors (`spotdiff.md` §2).
//!
//! Relative positions are a bias learned in layer 0 and shared by all; norms are RMS without bias; scores are not divided by
//! √d. Both feed-forwards, ReLU (v1.0) and gated GELU (v1.1). Given as the files of a Hugging Face folder, as bytes: this
//! knows no file.

mod config;
mod tokenizer;
mod weights;

pub use self::config::{FeedForwardKind, T5Config};
pub use self::tokenizer::{MOST_TOKENS, T5Tokenizer, Vocabulary};
use self::weights::Weights;
use crate::tensor::{Device, Int, Tensor, TensorData, gelu_tanh, matmul, relu, softmax};

/// Why a folder is no T5, or a text not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum T5Error {
    /// `config.json` says nothing usable.
    #[error("{file}: {what}; expected is the config.json of a T5 as Hugging Face writes it")]
    Config {
        /// File.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// `model.safetensors` cannot be read.
    #[error("{file}: {what}")]
    Weights {
        /// File.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor is not there.
    #[error("{file} has no tensor {name}; expected is one of shape {shape:?}, by config.json beside it")]
    Missing {
        /// File.
        file: String,
        /// Tensor.
        name: String,
        /// Shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor of another shape.
    #[error("{file}: tensor {name} has shape {found:?}; expected is {expected:?}, by config.json beside it")]
    Shape {
        /// File.
        file: String,
        /// Tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// Shape it should have.
        expected: Vec<usize>,
    },
    /// The vocabulary cannot be read.
    #[error("{file}: {what}; expected is the vocabulary of a T5: tokenizer.json, or spiece.model of SentencePiece")]
    Tokenizer {
        /// File.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The vocabulary has more tokens than the table.
    #[error(
        "{file}: token {id} of \"{text}\" is beyond the {rows} rows of the model's token table: they are not of one model"
    )]
    OtherVocabulary {
        /// File.
        file: String,
        /// Token.
        id: u32,
        /// Text.
        text: String,
        /// Rows of the table.
        rows: usize,
    },
    /// A text is not read.
    #[error("\"{text}\" is not read: {what}")]
    Text {
        /// Text.
        text: String,
        /// What is wrong.
        what: String,
    },
}

/// Files of a folder, with their names for errors.
#[derive(Debug, Clone, Copy)]
pub struct T5Files<'a> {
    /// `config.json`.
    pub config: (&'a str, &'a str),
    /// `model.safetensors`.
    pub weights: (&'a [u8], &'a str),
    /// `tokenizer.json` or `spiece.model`.
    pub vocabulary: (Vocabulary<'a>, &'a str),
}

/// The encoder with its vocabulary.
#[derive(Debug)]
pub struct T5 {
    config: T5Config,
    tokenizer: T5Tokenizer,
    vocabulary_file: String,
    table: Tensor<2>,
    positions: Tensor<2>,
    layers: Vec<Layer>,
    norm: Tensor<1>,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    /// `[heads · d_kv, d]` each.
    qkv: [Tensor<2>; 3],
    /// `[d, heads · d_kv]`.
    o: Tensor<2>,
    attention_norm: Tensor<1>,
    /// `[d_ff, d]`: one, or the gelu's and the gate's.
    wi: Vec<Tensor<2>>,
    /// `[d, d_ff]`.
    wo: Tensor<2>,
    feed_forward_norm: Tensor<1>,
}

impl T5 {
    /// From its files.
    ///
    /// # Errors
    /// [`T5Error`], which names the file, what was found and what is expected.
    pub fn read(files: &T5Files<'_>, device: &Device) -> Result<Self, T5Error> {
        let config = T5Config::read(files.config.0, files.config.1)?;
        let tokenizer = T5Tokenizer::read(files.vocabulary.0, files.vocabulary.1)?;
        let weights = Weights::open(files.weights.0, files.weights.1, device)?;
        let (d, inner, ff) = (config.d_model, config.num_heads * config.d_kv, config.d_ff);
        let table = weights.take_any(&["shared.weight", "encoder.embed_tokens.weight"], [config.vocab_size, d])?;
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let positions = weights.take(bias, [config.relative_attention_num_buckets, config.num_heads])?;
        let layer = |i: usize| -> Result<Layer, T5Error> {
            let at = |name: &str| format!("encoder.block.{i}.layer.{name}.weight");
            let asking = |name: &str| weights.take(&at(&format!("0.SelfAttention.{name}")), [inner, d]);
            let into: &[&str] = match config.feed_forward_proj {
                FeedForwardKind::Relu => &["wi"],
                FeedForwardKind::GatedGelu => &["wi_0", "wi_1"],
            };
            let hidden = |name: &&str| weights.take(&at(&format!("1.DenseReluDense.{name}")), [ff, d]);
            Ok(Layer {
                qkv: [asking("q")?, asking("k")?, asking("v")?],
                o: weights.take(&at("0.SelfAttention.o"), [d, inner])?,
                attention_norm: weights.take(&at("0.layer_norm"), [d])?,
                wi: into.iter().map(hidden).collect::<Result<_, _>>()?,
                wo: weights.take(&at("1.DenseReluDense.wo"), [d, ff])?,
                feed_forward_norm: weights.take(&at("1.layer_norm"), [d])?,
            })
        };
        Ok(Self {
            table,
            positions,
            layers: (0..config.num_layers).map(layer).collect::<Result<_, _>>()?,
            norm: weights.take("encoder.final_layer_norm.weight", [d])?,
            vocabulary_file: files.vocabulary.1.to_owned(),
            device: device.clone(),
            config,
            tokenizer,
        })
    }

    /// Width of its vectors.
    pub fn width(&self) -> usize {
        self.config.d_model
    }

    /// Mean over the tokens of a text, the end included, `[width]`. A text's vector depends on that text alone.
    ///
    /// # Errors
    /// [`T5Error::OtherVocabulary`] where the vocabulary is not of this model.
    pub fn mean(&self, text: &str) -> Result<Vec<f32>, T5Error> {
        let ids = self.tokenizer.ids(text)?;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            let (file, text, rows) = (self.vocabulary_file.clone(), text.to_owned(), self.config.vocab_size);
            return Err(T5Error::OtherVocabulary { file, id, text, rows });
        }
        let mean: Tensor<2> = self.forward(&ids).mean_dim(0);
        Ok(mean.into_data().try_to_vec().expect("f32"))
    }

    /// `[tokens, width]` of these ids.
    fn forward(&self, ids: &[u32]) -> Tensor<2> {
        let (n, heads, dh) = (ids.len(), self.config.num_heads, self.config.d_kv);
        let index: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let x = self.table.clone().select(0, self.index(index));
        let ahead = (0..n * n).map(|at| self.config.bucket((at % n) as i64 - (at / n) as i64) as i64).collect();
        let bias = self.positions.clone().select(0, self.index(ahead)).reshape([n, n, heads]).permute([2, 0, 1]);
        let by_head = |x: Tensor<2>| x.reshape([n, heads, dh]).swap_dims(0, 1); // [heads, n, dh]
        let x = self.layers.iter().fold(x, |x, layer| {
            let h = self.rms(x.clone(), &layer.attention_norm);
            let [q, k, v] = layer.qkv.each_ref().map(|w| by_head(matmul(h.clone(), w.clone().transpose())));
            let weights = softmax(matmul(q, k.swap_dims(1, 2)) + bias.clone(), 2);
            let mixed = matmul(weights, v).swap_dims(0, 1).reshape([n, heads * dh]);
            let x = x + matmul(mixed, layer.o.clone().transpose());
            let h = self.rms(x.clone(), &layer.feed_forward_norm);
            let into = |w: &Tensor<2>| matmul(h.clone(), w.clone().transpose());
            let hidden = match layer.wi.as_slice() {
                [wi] => relu(into(wi)),
                [gelu, gate] => gelu_tanh(into(gelu)) * into(gate),
                _ => unreachable!("a feed-forward has one map into it, or two"),
            };
            x + matmul(hidden, layer.wo.clone().transpose())
        });
        self.rms(x, &self.norm)
    }

    fn index(&self, of: Vec<i64>) -> Tensor<1, Int> {
        let n = of.len();
        Tensor::from_data(TensorData::new(of, [n]), &self.device)
    }

    /// x / √(mean of x² + eps) · weight.
    fn rms(&self, x: Tensor<2>, weight: &Tensor<1>) -> Tensor<2> {
        let squares = (x.clone() * x.clone()).mean_dim(1);
        x / squares.add_scalar(self.config.layer_norm_epsilon).sqrt() * weight.clone().unsqueeze::<2>()
    }
}

#[cfg(test)]
mod tests;
