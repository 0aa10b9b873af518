//! The four sizes of `spatia.md` §5.

use super::config::{DecoderConfig, FusionConfig, GeneConfig, ImageConfig, LevelConfig, SpatiaConfig};

/// Genes in the table of tiny, small, base and foundation.
pub const TABLE: [usize; 4] = [64, 1_024, 30_000, 60_000];

/// (width, blocks, heads)
type Stack = (usize, usize, usize);

impl SpatiaConfig {
    /// For CPU tests: 137,539 parameters with 64 genes.
    pub fn tiny() -> Self {
        Self::of(32, (32, 2, 4), 64, (32, 8), (32, 2, 4), (32, 1, 4), [(1, 4, 8), (1, 4, 8)])
    }

    /// 5,641,891 parameters with 1,024 genes.
    pub fn small() -> Self {
        Self::of(128, (128, 4, 4), 512, (128, 16), (192, 6, 3), (128, 2, 4), [(2, 4, 16), (2, 4, 64)])
    }

    /// 156,928,003 parameters with 30,000 genes.
    pub fn base() -> Self {
        Self::of(512, (256, 8, 4), 1_000, (224, 16), (768, 12, 12), (512, 8, 16), [(4, 8, 64), (4, 8, 512)])
    }

    /// 921,988,867 parameters with 60,000 genes.
    pub fn foundation() -> Self {
        let levels = [(8, 16, 128), (8, 16, 2_048)];
        Self::of(1_024, (1_024, 24, 16), 2_000, (224, 16), (1_024, 24, 16), (512, 8, 16), levels)
    }

    /// `picture`: (size, patch); `levels`: (blocks, heads, members) of niche and tissue.
    fn of(
        h: usize,
        gene: Stack,
        context: usize,
        picture: (usize, usize),
        image: Stack,
        decoder: Stack,
        levels: [(usize, usize, usize); 2],
    ) -> Self {
        let level = |(blocks, heads, members)| LevelConfig { blocks, heads, members };
        Self {
            h,
            dropout: super::config::default_dropout(),
            gene: GeneConfig {
                width: gene.0,
                blocks: gene.1,
                heads: gene.2,
                context,
                families: super::config::default_families(),
            },
            image: ImageConfig {
                size: picture.0,
                patch: picture.1,
                channels: super::config::default_channels(),
                width: image.0,
                blocks: image.1,
                heads: image.2,
                mask_ratio: super::config::default_mask_ratio(),
                mask_eval: 0.0,
                decoder: DecoderConfig { width: decoder.0, blocks: decoder.1, heads: decoder.2 },
            },
            fusion: FusionConfig::default(),
            niche: level(levels[0]),
            tissue: level(levels[1]),
            contrast_width: None,
            masked_token: false,
            regions: true,
            vector_painter: false,
        }
    }
}
