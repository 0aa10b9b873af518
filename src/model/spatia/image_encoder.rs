//! The image encoder: a ViT that sees the kept patches only, and the decoder that paints the hidden ones (ViT-MAE,
//! `spatia.md` §3).

use std::sync::Arc;

use super::config::ImageConfig;
use super::patches::{Kept, kept_of_table, patchify};
use super::{norm_last, positions, select_rows};
use crate::model::init::{Init, Scope};
use crate::model::layers::{EncoderConfig, LayerNorm, Linear, Training, TransformerEncoder};
use crate::tensor::{Module, Param, Tensor, TensorData};

/// Standard deviation of CLS and of the mask token at the start, as in MAE.
const TOKEN_SD: f64 = 0.02;

/// Pictures of a micro-batch.
#[derive(Debug, Clone)]
pub struct ImageInput {
    /// `[b, channels, size, size]`, normalised.
    pub pixels: Tensor<4>,
    /// The patches that are seen; `None` for all, as at inference.
    pub kept: Option<Kept>,
}

/// The encoder.
#[derive(Module, Debug)]
pub struct ImageEncoder {
    /// p·p·channels → e.
    pub patch: Linear,
    /// `[e]`; stands at position 0.
    pub cls: Param<Tensor<1>>,
    /// The blocks.
    pub encoder: TransformerEncoder,
    /// Norm of the last block's output.
    pub norm: LayerNorm,
    #[module(skip)]
    grid: Grid,
}

/// The decoder.
#[derive(Module, Debug)]
pub struct ImageDecoder {
    /// e → decoder's width.
    pub embed: Linear,
    /// `[w]`: stands where a patch is hidden.
    pub mask_token: Param<Tensor<1>>,
    /// The blocks.
    pub encoder: TransformerEncoder,
    /// Norm of the last block's output.
    pub norm: LayerNorm,
    /// Decoder's width → p·p·channels.
    pub head: Linear,
    #[module(skip)]
    grid: Grid,
}

/// Fixed positions of the patches.
#[derive(Debug, Clone)]
struct Grid {
    /// `[n, width]`.
    table: Arc<Vec<f32>>,
    width: usize,
    patch: usize,
}

impl Grid {
    fn new(config: &ImageConfig, width: usize) -> Self {
        Self { table: Arc::new(positions::grid(config.side(), width)), width, patch: config.patch }
    }

    fn n(&self) -> usize {
        self.table.len() / self.width
    }
}

impl ImageEncoder {
    /// For pictures of `config`.
    pub fn new(scope: &Scope, config: &ImageConfig) -> Self {
        let e = config.width;
        let encoder = EncoderConfig::pre_norm(e, config.blocks, config.heads, 0.0);
        Self {
            patch: Linear::with_init(&scope.child("patch"), config.patch_values(), e, Init::XavierUniform, Init::Zeros),
            cls: scope.param("cls", [e], Init::Normal(TOKEN_SD)),
            encoder: TransformerEncoder::new(&scope.child("encoder"), &encoder),
            norm: LayerNorm::new(&scope.child("norm"), e),
            grid: Grid::new(config, e),
        }
    }

    /// Which patches of `input` are seen.
    pub fn kept(&self, input: &ImageInput) -> Kept {
        let b = input.pixels.dims()[0];
        let kept = input.kept.clone().unwrap_or_else(|| Kept::all(b, self.grid.n()));
        assert_eq!((kept.records(), kept.n_patches()), (b, self.grid.n()), "kept patches do not fit the pictures");
        kept
    }

    /// Raw patches, `[b, n, p·p·channels]`.
    pub fn patches(&self, input: &ImageInput) -> Tensor<3> {
        let patches = patchify(input.pixels.clone(), self.grid.patch);
        assert_eq!(patches.dims()[1], self.grid.n(), "pictures are not of the size in model.spatia.image.size");
        patches
    }

    /// `[b, 1 + kept, e]`: CLS, then the patches that are seen. A hidden patch is not even embedded.
    pub fn forward(&self, patches: Tensor<3>, kept: &Kept, training: Option<&Training>) -> Tensor<3> {
        let (b, e) = (patches.dims()[0], self.grid.width);
        let seen = self.patch.forward(kept.select(patches), training);
        let at = kept_of_table(&self.grid.table, e, kept, &seen.device());
        let cls = self.cls.val().reshape([1, 1, e]).expand([b, 1, e]);
        let tokens = Tensor::cat(vec![cls, seen + at], 1);
        norm_last(&self.norm, self.encoder.forward(tokens, None, training), training)
    }
}

impl ImageDecoder {
    /// For pictures of `config`.
    pub fn new(scope: &Scope, config: &ImageConfig) -> Self {
        let decoder = &config.decoder;
        let w = decoder.width;
        let encoder = EncoderConfig::pre_norm(w, decoder.blocks, decoder.heads, 0.0);
        Self {
            embed: Linear::with_init(&scope.child("embed"), config.width, w, Init::XavierUniform, Init::Zeros),
            mask_token: scope.param("mask_token", [w], Init::Normal(TOKEN_SD)),
            encoder: TransformerEncoder::new(&scope.child("encoder"), &encoder),
            norm: LayerNorm::new(&scope.child("norm"), w),
            head: Linear::with_init(&scope.child("head"), w, config.patch_values(), Init::XavierUniform, Init::Zeros),
            grid: Grid::new(config, w),
        }
    }

    /// Per-patch normalised predictions of the hidden patches, `[b, hidden, p·p·channels]`, in [`Kept::hidden`]'s order:
    /// from the seen patches' tokens, and from `vector`, `[b, w]`, in CLS's place with every patch hidden. One pass, since
    /// gradients are told once.
    pub fn forward(
        &self,
        tokens: Tensor<3>,
        vector: Option<Tensor<2>>,
        kept: &Kept,
        training: Option<&Training>,
    ) -> (Tensor<3>, Option<Tensor<3>>) {
        let b = tokens.dims()[0];
        let with_vector = vector.is_some();
        let decoded = self.decode(tokens, vector, kept, training);
        let hidden = |from: usize| kept.select_hidden(decoded.clone().narrow(0, from, b));
        if !with_vector {
            return (self.head.forward(hidden(0), training), None);
        }
        let painted = self.head.forward(Tensor::cat(vec![hidden(0), hidden(b)], 0), training);
        (painted.clone().narrow(0, 0, b), Some(painted.narrow(0, b, b)))
    }

    /// Per-patch normalised predictions of all patches, `[b, n, p·p·channels]`.
    pub fn paint(&self, tokens: Tensor<3>, kept: &Kept) -> Tensor<3> {
        self.head.forward(self.decode(tokens, None, kept, None), None)
    }

    /// `[b, n, w]`: the decoder's tokens without CLS; `[2b, n, w]` with `vector`, `[b, w]`, whose records come second.
    fn decode(
        &self,
        tokens: Tensor<3>,
        vector: Option<Tensor<2>>,
        kept: &Kept,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let (b, n, w) = (tokens.dims()[0], kept.n_patches(), self.grid.width);
        let seen = self.embed.forward(tokens, training); // [b, 1 + kept, w]
        let each = 1 + kept.per_record();
        // Row 0 is the mask token, then record by record CLS and the seen patches, then the vectors.
        let mut rows = vec![self.mask_token.val().reshape([1, w]), seen.reshape([b * each, w])];
        let of_vectors = if vector.is_some() { b } else { 0 };
        rows.extend(vector);
        let mut places = vec![0i64; (b + of_vectors) * (1 + n)];
        for i in 0..of_vectors {
            places[(b + i) * (1 + n)] = (1 + b * each + i) as i64;
        }
        for ((i, places), seen) in places.chunks_mut(1 + n).enumerate().zip(kept.of_records()) {
            let cls = 1 + i * each;
            places[0] = cls as i64;
            for (rank, &patch) in seen.iter().enumerate() {
                places[1 + patch as usize] = (cls + 1 + rank) as i64;
            }
        }
        let tokens = select_rows(Tensor::cat(rows, 0), places).reshape([b + of_vectors, 1 + n, w]);
        let mut at = vec![0.0; w]; // CLS stands at position 0
        at.extend_from_slice(&self.grid.table);
        let at = Tensor::from_data(TensorData::new(at, [1, 1 + n, w]), &tokens.device());
        let tokens = self.encoder.forward(tokens + at, None, training);
        norm_last(&self.norm, tokens, training).narrow(1, 1, n)
    }
}
