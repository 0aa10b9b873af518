//! SPATIA's encoder: a cell's genes and picture as one vector, cells as a niche, niches as a tissue (`spatia.md` §2–§5).
//!
//! [`Spatia::forward`] makes z_cell; the other methods make what the losses need of its output. The losses themselves are
//! the task's. Knows no file, no rank and no rule of what is hidden: masks come with the input.

pub mod classes;
pub mod config;
pub mod context;
pub mod fusion;
pub mod gene_encoder;
pub mod gene_list;
pub mod heads;
pub mod image_encoder;
pub mod niche;
pub mod patches;
pub mod pixels;
pub mod positions;
mod sizes;
#[cfg(test)]
mod tests;
pub mod tissue;

use std::cell::Cell;

pub use self::config::SpatiaConfig;
use self::context::{ContextInput, ContextOutput};
use self::fusion::Fusion;
use self::gene_encoder::{GeneEncoder, GeneInput, GeneTokens};
use self::heads::{ClassHeads, Contrast, Expression, ExpressionDecoder, Mvc};
use self::image_encoder::{ImageDecoder, ImageEncoder, ImageInput};
use self::niche::Niche;
use self::patches::Kept;
pub use self::sizes::TABLE;
use self::tissue::{FinalFusion, Tissue};
use super::init::Scope;
use super::layers::{LayerNorm, Linear, Training, before};
use super::params::GeneAxis;
use crate::tensor::{Device, Int, Module, Tensor, TensorData, look_up};

/// A micro-batch of cells. Either side may be missing for the whole batch, not both: then there is no fusion, and the
/// missing side's mean is zeros in z_cell. A gene-only encoding has seen nothing of any picture.
#[derive(Debug, Clone)]
pub struct CellInput {
    /// Gene lists.
    pub genes: Option<GeneInput>,
    /// Pictures.
    pub image: Option<ImageInput>,
}

/// Cells before genes and picture meet.
#[derive(Debug, Clone)]
pub struct Sides {
    genes: Option<GeneTokens>,
    image: Option<ImageTokens>,
    gene_vector: Option<Tensor<2>>,
    image_vector: Option<Tensor<2>>,
}

/// Cells as encoded.
#[derive(Debug, Clone)]
pub struct CellOutput {
    /// Tokens of the genes after fusion.
    pub genes: Option<GeneTokens>,
    /// Tokens of the picture.
    pub image: Option<ImageTokens>,
    /// `[b, d]`: mean of the extra tokens before fusion.
    pub gene_vector: Option<Tensor<2>>,
    /// `[b, e]`: mean of the picture's tokens before fusion, without CLS.
    pub image_vector: Option<Tensor<2>>,
    /// `[b, h]`.
    pub z_cell: Tensor<2>,
}

/// Tokens of a picture.
#[derive(Debug, Clone)]
pub struct ImageTokens {
    /// `[b, 1 + kept, e]` before fusion: CLS, then the patches that were seen. What the decoder paints from.
    pub unfused: Tensor<3>,
    /// The same after fusion.
    pub tokens: Tensor<3>,
    /// `[b, n, p·p·channels]`: raw patches.
    pub patches: Tensor<3>,
    /// The patches that were seen.
    pub kept: Kept,
}

/// Hidden patches: what was painted, and what was there.
#[derive(Debug, Clone)]
pub struct Painted {
    /// `[b, hidden, p·p·channels]`: per-patch normalised.
    pub prediction: Tensor<3>,
    /// The same from z_cell alone, where it was given.
    pub of_vector: Option<Tensor<3>>,
    /// `[b, hidden, p·p·channels]`: raw.
    pub patches: Tensor<3>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Spatia {
    /// Genes to tokens.
    pub gene_encoder: GeneEncoder,
    /// Picture to tokens.
    pub image_encoder: ImageEncoder,
    /// Tokens of the seen patches to the hidden ones.
    pub image_decoder: ImageDecoder,
    /// Genes and picture meet.
    pub fusion: Fusion,
    /// Expression from gene tokens.
    pub expression_decoder: ExpressionDecoder,
    /// Expression from a vector.
    pub mvc: Mvc,
    /// Classes from their tokens.
    pub classes: ClassHeads,
    /// The contrast's space, when `contrast_width`.
    pub contrast: Option<Contrast>,
    /// Means of both sides to z_cell.
    pub cell_out: CellOut,
    /// h → the image decoder's width: z_cell in CLS's place, when `vector_painter`.
    pub vector_painter: Option<Linear>,
    /// Cells to z_niche.
    pub niche: Niche,
    /// Niches to z_tissue.
    pub tissue: Tissue,
    /// Three levels to z.
    pub final_fusion: FinalFusion,
}

/// z_cell = LN(Linear(concat(mean extra tokens, mean image tokens without CLS))).
#[derive(Module, Debug)]
pub struct CellOut {
    /// d + e → h.
    pub linear: Linear,
    /// Norm of z_cell.
    pub norm: LayerNorm,
}

impl Spatia {
    /// A new model for a panel of `genes` genes, initialised from `seed`. `config` has no [`SpatiaConfig::problems`].
    pub fn new(config: &SpatiaConfig, genes: usize, seed: u64, device: &Device) -> Self {
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        let (h, d, e) = (config.h, config.gene.width, config.image.width);
        let cell_out = scope.child("cell_out");
        Self {
            gene_encoder: GeneEncoder::new(&scope.child("gene_encoder"), config, genes),
            image_encoder: ImageEncoder::new(&scope.child("image_encoder"), &config.image),
            image_decoder: ImageDecoder::new(&scope.child("image_decoder"), &config.image),
            fusion: Fusion::new(&scope.child("fusion"), config),
            expression_decoder: ExpressionDecoder::new(&scope.child("expression_decoder"), d),
            mvc: Mvc::new(&scope.child("mvc"), h, d),
            classes: ClassHeads::new(&scope.child("classes"), &config.gene.families, d),
            contrast: config.contrast_width.map(|width| Contrast::new(&scope.child("contrast"), config, width)),
            cell_out: CellOut {
                linear: Linear::new(&cell_out.child("linear"), d + e, h),
                norm: LayerNorm::new(&cell_out.child("norm"), h),
            },
            vector_painter: config
                .vector_painter
                .then(|| Linear::new(&scope.child("vector_painter"), h, config.image.decoder.width)),
            niche: Niche::new(&scope.child("niche"), config),
            tissue: Tissue::new(&scope.child("tissue"), config),
            final_fusion: FinalFusion::new(&scope.child("final_fusion"), h),
        }
    }

    /// Where the tensor of this path holds genes: the rows of the gene table, before the padding's.
    pub fn gene_axes(&self, path: &str) -> Vec<GeneAxis> {
        if path == "gene_encoder.table" { vec![GeneAxis { axis: 0, blocks: 1 }] } else { Vec::new() }
    }

    /// Encodes cells.
    pub fn forward(&self, input: &CellInput, training: Option<&Training>) -> CellOutput {
        self.fuse(self.sides(input, training), training)
    }

    /// The first half of [`Spatia::forward`]: each side by itself.
    pub fn sides(&self, input: &CellInput, training: Option<&Training>) -> Sides {
        let genes = input.genes.as_ref().map(|genes| self.gene_encoder.forward(genes, training));
        let image = input.image.as_ref().map(|image| {
            let (kept, patches) = (self.image_encoder.kept(image), self.image_encoder.patches(image));
            let tokens = self.image_encoder.forward(patches.clone(), &kept, training);
            ImageTokens { unfused: tokens.clone(), tokens, patches, kept }
        });
        let gene_vector = genes.as_ref().map(GeneTokens::vector);
        let image_vector = image.as_ref().map(|image| without_cls_mean(image.unfused.clone()));
        Sides { genes, image, gene_vector, image_vector }
    }

    /// The second half of [`Spatia::forward`].
    pub fn fuse(&self, sides: Sides, training: Option<&Training>) -> CellOutput {
        let Sides { genes, image, gene_vector, image_vector } = sides;
        let (genes, image) = match (genes, image) {
            (Some(genes), Some(image)) => {
                let absent = genes.absent.as_ref();
                let (fused_genes, fused_image) =
                    self.fusion.forward(genes.tokens.clone(), image.unfused.clone(), absent, training);
                (Some(genes.with_tokens(fused_genes)), Some(ImageTokens { tokens: fused_image, ..image }))
            }
            sides => sides,
        };
        let z_cell = self.z_cell(genes.as_ref(), image.as_ref(), training);
        CellOutput { genes, image, gene_vector, image_vector, z_cell }
    }

    fn z_cell(
        &self,
        genes: Option<&GeneTokens>,
        image: Option<&ImageTokens>,
        training: Option<&Training>,
    ) -> Tensor<2> {
        let genes = genes.map(GeneTokens::vector);
        let image = image.map(|image| without_cls_mean(image.tokens.clone()));
        let some = genes.as_ref().or(image.as_ref()).expect("a cell has genes or a picture");
        let (b, device) = (some.dims()[0], some.device());
        let (d, e) = (self.gene_encoder.extra.val().dims()[1], self.image_encoder.cls.val().dims()[0]);
        let zeros = |width| Tensor::zeros([b, width], &device);
        let both = vec![genes.unwrap_or_else(|| zeros(d)), image.unwrap_or_else(|| zeros(e))];
        let z = self.cell_out.linear.forward2(Tensor::cat(both, 1), training);
        norm_last(&self.cell_out.norm, z, training)
    }

    /// Paints the hidden patches from the unfused tokens of the seen ones: no gene and no hidden value is read. And, given
    /// z_cell to a model with `vector_painter`, from it in CLS's place with every patch under the mask token.
    pub fn paint_hidden(
        &self,
        image: &ImageTokens,
        z_cell: Option<&Tensor<2>>,
        training: Option<&Training>,
    ) -> Painted {
        let painter = self.vector_painter.as_ref();
        let vector = z_cell.zip(painter).map(|(z, painter)| painter.forward2(z.clone(), training));
        let (prediction, of_vector) = self.image_decoder.forward(image.unfused.clone(), vector, &image.kept, training);
        Painted { prediction, of_vector, patches: image.kept.select_hidden(image.patches.clone()) }
    }

    /// The cells' expression from their gene tokens. `depth`: `[b]`, Σ of the counts that are predicted.
    pub fn expression(&self, genes: &GeneTokens, depth: Tensor<1>, training: Option<&Training>) -> Expression {
        self.expression_decoder.forward(genes.genes(), depth, genes.padding.as_ref(), training)
    }

    /// The cells' expression from one vector each: `z` is z_cell, or z of the three levels; `[b, h]`.
    pub fn expression_of_vector(
        &self,
        z: Tensor<2>,
        genes: &GeneTokens,
        depth: Tensor<1>,
        training: Option<&Training>,
    ) -> Expression {
        self.mvc.forward(z, genes.embeddings.clone(), depth, genes.padding.as_ref(), training)
    }

    /// Logits of the leaves of every class family, `[b, leaves]`; `None` for a family without leaves.
    pub fn class_logits(&self, genes: &GeneTokens, training: Option<&Training>) -> Vec<Option<Tensor<2>>> {
        let first = config::EXTRA_BEFORE_FAMILIES;
        match genes.n_extra - first {
            0 => Vec::new(),
            n => self.classes.forward(genes.extra().narrow(1, first, n), training),
        }
    }

    /// Gene and image vectors in the contrast's space, `[b, width]` each; `None` without one or without a side.
    pub fn contrast_vectors(&self, cells: &CellOutput, training: Option<&Training>) -> Option<(Tensor<2>, Tensor<2>)> {
        let (genes, image) = (cells.gene_vector.clone()?, cells.image_vector.clone()?);
        Some(self.contrast.as_ref()?.forward(genes, image, training))
    }

    /// The same of cells whose sides have not met.
    pub fn contrast_of_sides(&self, cells: &Sides, training: Option<&Training>) -> Option<(Tensor<2>, Tensor<2>)> {
        let (genes, image) = (cells.gene_vector.clone()?, cells.image_vector.clone()?);
        Some(self.contrast.as_ref()?.forward(genes, image, training))
    }

    /// What a niche reads of the picture of its region: the image encoder's tokens of all patches, CLS left out, their mean;
    /// `[b, e]`.
    pub fn region(&self, pictures: &ImageInput) -> Tensor<2> {
        let encoder = &self.image_encoder;
        without_cls_mean(encoder.forward(encoder.patches(pictures), &encoder.kept(pictures), None))
    }

    /// z_niche of precomputed cell vectors, the nearest first, and of the region's picture.
    pub fn niche(&self, cells: &ContextInput, training: Option<&Training>) -> ContextOutput {
        self.niche.forward(cells, training)
    }

    /// z_tissue of precomputed niche vectors.
    pub fn tissue(&self, niches: &ContextInput, training: Option<&Training>) -> ContextOutput {
        self.tissue.forward(niches, training)
    }

    /// z of the three levels, `[b, h]` each; a missing one contributes zeros.
    pub fn fuse_levels(
        &self,
        cell: Tensor<2>,
        niche: Option<Tensor<2>>,
        tissue: Option<Tensor<2>>,
        training: Option<&Training>,
    ) -> Tensor<2> {
        self.final_fusion.forward(cell, niche, tissue, training)
    }
}

/// Mean of all tokens but CLS.
fn without_cls_mean(tokens: Tensor<3>) -> Tensor<2> {
    let n = tokens.dims()[1];
    tokens.narrow(1, 1, n - 1).mean_dim(1).squeeze_dim(1)
}

/// LN, told of when backward has done it.
fn norm_last<const D: usize>(norm: &LayerNorm, x: Tensor<D>, training: Option<&Training>) -> Tensor<D> {
    norm.forward(before(training, x, norm))
}

/// Rows of a `[n, d]` tensor, by host indices.
fn select_rows(x: Tensor<2>, rows: Vec<i64>) -> Tensor<2> {
    let n = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &x.device());
    look_up(x, rows)
}
