//! `[model.spatia]`: sizes of the encoder, what is wrong with them, and how many parameters they make (`spatia.md` §5).

use serde::{Deserialize, Serialize};

use super::classes::ClassFamily;
use crate::model::kept::{self, Stack};
use crate::model::layers::EncoderConfig;

/// `[model.spatia]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatiaConfig {
    /// Width of z_cell, z_niche and z_tissue.
    pub h: usize,
    /// Dropout of the gene, niche and tissue blocks; the picture's blocks have none (ViT-MAE). Default .1.
    #[serde(default = "default_dropout")]
    pub dropout: f64,
    /// Genes.
    pub gene: GeneConfig,
    /// Picture.
    pub image: ImageConfig,
    /// How the two meet.
    #[serde(default)]
    pub fusion: FusionConfig,
    /// Cells of a niche.
    pub niche: LevelConfig,
    /// Niches of a tissue.
    pub tissue: LevelConfig,
    /// Width of the space in which gene and image vectors are contrasted; without it there are no such projections.
    #[serde(default)]
    pub contrast_width: Option<usize>,
    /// Whether niche and tissue have the learned token of their masked objective.
    #[serde(default)]
    pub masked_token: bool,
    /// Whether the picture can be painted from z_cell alone.
    #[serde(default)]
    pub vector_painter: bool,
    /// Whether niches are read with the picture of their region as a further token.
    #[serde(default)]
    pub regions: bool,
}

/// `[model.spatia.gene]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneConfig {
    /// d: width of a gene token.
    pub width: usize,
    /// Pre-norm blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Most genes of one cell that are read.
    pub context: usize,
    /// Class families; each has an extra token, and a head if it has classes. Default: tissue, cell_type, without heads.
    #[serde(default = "default_families")]
    pub families: Vec<ClassFamily>,
}

/// `[model.spatia.image]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Pixels of a side after resizing.
    pub size: usize,
    /// Pixels of a patch's side; divides `size`.
    pub patch: usize,
    /// Channels; a grey picture is replicated. Default 3.
    #[serde(default = "default_channels")]
    pub channels: usize,
    /// e: width of an image token, a multiple of 4.
    pub width: usize,
    /// Pre-norm blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Share of patches hidden in training. Default .75.
    #[serde(default = "default_mask_ratio")]
    pub mask_ratio: f64,
    /// Share of patches hidden at inference; the release leaves .75 on. Default 0.
    #[serde(default)]
    pub mask_eval: f64,
    /// The decoder that paints the hidden patches.
    pub decoder: DecoderConfig,
}

/// `[model.spatia.image.decoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Width, a multiple of 4.
    pub width: usize,
    /// Pre-norm blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
}

/// `[model.spatia.fusion]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionConfig {
    /// Who asks whom. Default `both`.
    #[serde(default)]
    pub kind: FusionKind,
    /// α: 0 leaves the tokens as they are, 1 is the full exchange. Default 1.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// X + α·F(X, ·) as in the release, where F already contains X; else X + α·(F(X, ·) − X). Default false.
    #[serde(default)]
    pub doubled_residual: bool,
}

/// Who asks whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionKind {
    /// Genes ask the picture and the picture asks the genes, both of the unfused tokens.
    #[default]
    Both,
    /// The picture asks the genes.
    ImageQueries,
    /// Nobody.
    None,
}

/// `[model.spatia.niche]` and `[model.spatia.tissue]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelConfig {
    /// Pre-norm blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Most members that are read: cells of a niche, niches of a tissue.
    pub members: usize,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self { kind: FusionKind::Both, alpha: default_alpha(), doubled_residual: false }
    }
}

pub(super) fn default_dropout() -> f64 {
    0.1
}

pub(super) fn default_channels() -> usize {
    3
}

pub(super) fn default_mask_ratio() -> f64 {
    0.75
}

fn default_alpha() -> f64 {
    1.0
}

pub(super) fn default_families() -> Vec<ClassFamily> {
    ["tissue", "cell_type"].map(ClassFamily::named).into()
}

/// Sine–cosine features of an offset (`spatia.md` §5).
pub const POSITION_FEATURES: usize = 64;

/// Extra tokens that are no class family's: base and depth.
pub const EXTRA_BEFORE_FAMILIES: usize = 2;

impl GeneConfig {
    /// Extra tokens in front of the genes: base, depth, one per family.
    pub fn n_extra(&self) -> usize {
        EXTRA_BEFORE_FAMILIES + self.families.len()
    }
}

impl ImageConfig {
    /// Patches of a side.
    pub fn side(&self) -> usize {
        self.size / self.patch
    }

    /// Patches of a picture.
    pub fn n_patches(&self) -> usize {
        self.side() * self.side()
    }

    /// Values of a patch.
    pub fn patch_values(&self) -> usize {
        self.patch * self.patch * self.channels
    }
}

impl SpatiaConfig {
    /// What is wrong with it, each with its key; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(format!("model.spatia.{problem}"));
            }
        };
        let (gene, image, decoder) = (&self.gene, &self.image, &self.image.decoder);
        must(self.h > 0, "h = 0: must be at least 1".into());
        must((0.0..1.0).contains(&self.dropout), format!("dropout = {}: must be in [0, 1)", self.dropout));
        for (name, width, heads) in [
            ("gene", gene.width, gene.heads),
            ("image", image.width, image.heads),
            ("image.decoder", decoder.width, decoder.heads),
            ("niche", self.h, self.niche.heads),
            ("tissue", self.h, self.tissue.heads),
        ] {
            let divides = heads > 0 && width > 0 && width.is_multiple_of(heads);
            must(divides, format!("{name}.heads = {heads}: must divide the width {width}"));
        }
        must(gene.context > 0, "gene.context = 0: must be at least 1".into());
        must(gene.width.is_multiple_of(2), format!("gene.width = {}: must be even", gene.width));
        for (i, family) in gene.families.iter().enumerate() {
            let again = gene.families[..i].iter().any(|f| f.name == family.name);
            must(!again, format!("gene.families: `{}` is there twice", family.name));
            family.problems().into_iter().for_each(|problem| must(false, problem));
        }
        must(
            image.patch > 0 && image.size > 0 && image.size.is_multiple_of(image.patch),
            format!("image.patch = {}: must divide image.size = {}", image.patch, image.size),
        );
        must(image.channels > 0, "image.channels = 0: must be at least 1".into());
        for (name, width) in [("image.width", image.width), ("image.decoder.width", decoder.width)] {
            must(width.is_multiple_of(4), format!("{name} = {width}: must be a multiple of 4 (positions of two axes)"));
        }
        for (name, ratio) in [("mask_ratio", image.mask_ratio), ("mask_eval", image.mask_eval)] {
            must((0.0..1.0).contains(&ratio), format!("image.{name} = {ratio}: must be in [0, 1)"));
        }
        let alpha = self.fusion.alpha;
        must((0.0..=1.0).contains(&alpha), format!("fusion.alpha = {alpha}: must be in [0, 1]"));
        for (name, level) in [("niche", self.niche), ("tissue", self.tissue)] {
            must(level.members > 0, format!("{name}.members = 0: must be at least 1"));
        }
        must(self.contrast_width != Some(0), "contrast_width = 0: must be at least 1 (or be left out)".into());
        problems
    }

    /// How many parameters the model for `genes` genes has, without making it.
    pub fn n_parameters(&self, genes: usize) -> f64 {
        self.parts(genes).iter().map(|(_, n)| n).sum()
    }

    /// [`Self::n_parameters`] part by part, in declaration order.
    pub fn parts(&self, genes: usize) -> Vec<(&'static str, f64)> {
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        let norm = |n: f64| 2.0 * n;
        let stack = |d, blocks, heads| EncoderConfig::pre_norm(d, blocks, heads, 0.0).n_parameters();
        let (gene, image, decoder) = (&self.gene, &self.image, &self.image.decoder);
        let [h, d, e, w] = [self.h, gene.width, image.width, decoder.width].map(|n| n as f64);
        let patch = image.patch_values() as f64;
        let value = linear(1.0, d) + norm(d) + linear(d, d);
        let gene_side = (genes as f64 + 1.0) * d + 2.0 * value + gene.n_extra() as f64 * d;
        let image_side = linear(patch, e) + e + stack(image.width, image.blocks, image.heads) + norm(e);
        let painter = linear(e, w) + w + stack(decoder.width, decoder.blocks, decoder.heads) + norm(w);
        let exchange = |x: f64| {
            let hidden = (x / 2.0).floor();
            4.0 * linear(x, x) + 2.0 * norm(x) + linear(x, hidden) + linear(hidden, x)
        };
        let (by_genes, by_image) = (linear(e, d) + exchange(d), linear(d, e) + exchange(e));
        let fusion = match self.fusion.kind {
            FusionKind::Both => by_genes + by_image,
            FusionKind::ImageQueries => by_image,
            FusionKind::None => 0.0,
        };
        let classes =
            gene.families.iter().map(|f| if f.classes.is_empty() { 0.0 } else { linear(d, f.n_leaves() as f64) });
        let contrast = self.contrast_width.map_or(0.0, |c| linear(d, c as f64) + linear(e, c as f64) + 1.0);
        let vector_painter = if self.vector_painter { linear(h, w) } else { 0.0 };
        let level = |level: LevelConfig| {
            let token = if self.masked_token { h } else { 0.0 };
            stack(self.h, level.blocks, level.heads) + norm(h) + linear(POSITION_FEATURES as f64, h) + h + token
        };
        vec![
            ("gene_encoder", gene_side + stack(gene.width, gene.blocks, gene.heads) + norm(d)),
            ("image_encoder", image_side),
            ("image_decoder", painter + linear(w, patch)),
            ("fusion", fusion),
            ("expression_decoder", 2.0 * (linear(d, d) + norm(d)) + linear(d, 3.0)),
            ("mvc", linear(h, d) + norm(d) + 3.0 * d * d),
            ("classes", classes.sum()),
            ("contrast", contrast),
            ("cell_out", linear(d + e, h) + norm(h)),
            ("vector_painter", vector_painter),
            ("niche", level(self.niche) + if self.regions { linear(e, h) } else { 0.0 }),
            ("tissue", level(self.tissue)),
            ("final_fusion", linear(3.0 * h, h) + norm(h)),
        ]
    }

    /// About how many values a forward of `records` cells keeps for its backward, by the multiples of SpaCKLE's blocks.
    pub fn n_kept_values(&self, records: usize, recomputed: bool) -> f64 {
        let (gene, image, decoder) = (&self.gene, &self.image, &self.image.decoder);
        let genes = gene.n_extra() + gene.context;
        let seen = 1 + kept_of(image.n_patches(), image.mask_ratio);
        let stacks = [
            stack(gene.blocks, genes, gene.width, gene.heads),
            stack(image.blocks, seen, image.width, image.heads),
            stack(decoder.blocks, 1 + image.n_patches(), decoder.width, decoder.heads),
        ];
        records as f64 * kept::of_stacks(&stacks, recomputed)
    }

    /// The same of `records` niches or tissues, whose `level` reads the vectors of as many members as it may.
    pub fn n_kept_of_level(&self, level: LevelConfig, records: usize, recomputed: bool) -> f64 {
        let tokens = 2 + level.members; // the query, a picture
        records as f64 * kept::of_stacks(&[stack(level.blocks, tokens, self.h, level.heads)], recomputed)
    }
}

/// Blocks over a sequence.
fn stack(blocks: usize, tokens: usize, d: usize, heads: usize) -> Stack {
    let scores = 3.0 * (heads * tokens) as f64;
    let block = tokens as f64 * (12.0 * d as f64 + 6.0 * 4.0 * d as f64 + scores);
    Stack { blocks, input: (tokens * d) as f64, block }
}

/// How many of `patches` stay when `ratio` of them is hidden: N(1 − r) rounded down, at least one.
pub fn kept_of(patches: usize, ratio: f64) -> usize {
    ((patches as f64 * (1.0 - ratio)) as usize).clamp(1, patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_read_from_toml_and_their_problems_named() {
        let text = r#"
            h = 32
            regions = true
            [gene]
            width = 32
            blocks = 2
            heads = 4
            context = 64
            [image]
            size = 32
            patch = 8
            width = 32
            blocks = 2
            heads = 4
            decoder = { width = 32, blocks = 1, heads = 4 }
            [niche]
            blocks = 1
            heads = 4
            members = 8
            [tissue]
            blocks = 1
            heads = 4
            members = 8
        "#;
        let mut config: SpatiaConfig = toml::from_str(text).unwrap();
        assert_eq!(config, SpatiaConfig::tiny());
        let again: SpatiaConfig = toml::from_str(&toml::to_string(&SpatiaConfig::small()).unwrap()).unwrap();
        assert_eq!(again, SpatiaConfig::small());
        assert!(toml::from_str::<SpatiaConfig>(&text.replace("patch = 8", "patch = 8\npach = 8")).is_err());
        (config.image.size, config.gene.heads, config.fusion.alpha) = (36, 5, 2.0);
        let problems = config.problems().join("\n");
        for key in ["model.spatia.image.patch = 8", "model.spatia.gene.heads = 5", "model.spatia.fusion.alpha = 2"] {
            assert!(problems.contains(key), "{problems}");
        }
        assert_eq!(config.problems().len(), 3);
        for size in [SpatiaConfig::base(), SpatiaConfig::foundation()] {
            let kept = |members| size.n_kept_of_level(LevelConfig { members, ..size.niche }, 32, false);
            assert!(
                kept(2) < kept(50) && kept(50) < size.n_kept_values(32, false),
                "a place is its members, not their pictures"
            );
            assert_eq!(size.problems(), Vec::<String>::new());
        }
    }
}
