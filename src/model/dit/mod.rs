//! The generator's network: a diffusion transformer (DiT) with cross-attention to a condition, adaLN-zero and token
//! merging (`spatia.md` §6).
//!
//! It says what a noisy image's velocity (or noise) is, given a time and a condition; how images become noisy and how
//! noise becomes an image is beside it ([`noising`], [`sampler`]). Knows no encoder, no file and no rank.

pub mod attention;
pub mod block;
pub mod condition;
pub mod config;
pub mod diffusion;
pub mod noising;
pub(super) mod norm;
pub mod patch;
pub mod progressive_merging;
pub mod sampler;
pub mod time;
pub mod token_merging;

use std::cell::Cell;

use self::block::{DitBlock, Merged};
pub use self::condition::{Condition, Keys, NullCondition};
pub use self::config::DitConfig;
use self::norm::adaptive_norm;
use self::patch::{Grid, positions, to_images, to_patches};
use self::time::TimeEmbedding;
use self::token_merging::match_tokens;
pub use self::token_merging::{Destinations, TokenMergingConfig};
use super::init::{Init, Scope};
use super::layers::{Linear, Training, in_block};
use crate::tensor::{Device, Module, Tensor, TensorData, enter, silu};

/// A micro-batch of noisy images.
#[derive(Debug, Clone)]
pub struct DitInput {
    /// `[b, image, image, channels]`, pixels in [−1, 1] before the noise.
    pub images: Tensor<4>,
    /// `[b]`, in [0, 1]: the flow's t, or the diffusion's step in thousandths.
    pub times: Vec<f64>,
    /// What the images are to show.
    pub condition: Condition,
    /// Where tokens are merged; without effect when the ratio is 0.
    pub destinations: Destinations,
}

/// The network.
#[derive(Module, Debug)]
pub struct Dit {
    /// Patch → d.
    pub x_embedder: Linear,
    /// Time → d.
    pub t_embedder: TimeEmbedding,
    /// Condition's vector → d.
    pub c_embedder: Linear,
    /// Blocks, first to last.
    pub blocks: Vec<DitBlock>,
    /// d → patch.
    pub final_layer: FinalLayer,
    /// What stands for a dropped condition, when `condition_dropout` is above 0.
    pub null: Option<NullCondition>,
    #[module(skip)]
    config: DitConfig,
    #[module(skip)]
    positions: TensorData,
}

/// Adaptive norm and d → patch, both zero at the start.
#[derive(Module, Debug)]
pub struct FinalLayer {
    /// Time and condition → shift, scale.
    pub ada_ln: Linear,
    /// d → patch.
    pub linear: Linear,
}

impl Dit {
    /// A new network, initialised from `seed`; `config.problems()` must be empty.
    pub fn new(config: &DitConfig, seed: u64, device: &Device) -> Self {
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        let (d, patch) = (config.d, config.patch_values());
        let linear = |name, n_in| Linear::with_init(&scope.child(name), n_in, d, Init::XavierUniform, Init::Zeros);
        let blocks = scope.child("blocks");
        let last = scope.child("final_layer");
        Self {
            x_embedder: linear("x_embedder", patch),
            t_embedder: TimeEmbedding::new(&scope.child("t_embedder"), d),
            c_embedder: linear("c_embedder", config.condition),
            blocks: (0..config.blocks).map(|i| DitBlock::new(&blocks.child(&i.to_string()), config)).collect(),
            final_layer: FinalLayer {
                ada_ln: Linear::zeros(&last.child("ada_ln"), d, 2 * d),
                linear: Linear::zeros(&last.child("linear"), d, patch),
            },
            null: (config.condition_dropout > 0.0).then(|| NullCondition::new(&scope.child("null"), config.condition)),
            config: config.clone(),
            positions: positions(config.grid(), d),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Predictions `[b, image, image, channels]`: the velocity x − ε of a flow, or the noise ε of a diffusion.
    ///
    /// A record's output depends on that record alone.
    pub fn forward(&self, input: &DitInput, training: Option<&Training>) -> Tensor<4> {
        let device = input.images.device();
        let (keys, vector) = input.condition.with_null(self.null.as_ref());
        let c = self.t_embedder.forward(&input.times, &device, training) + self.c_embedder.forward2(vector, training);
        let c = silu(c); // every use begins with it

        let patches = to_patches(input.images.clone(), self.config.patch);
        let at = Tensor::<2>::from_data(self.positions.clone(), &device).unsqueeze::<3>();
        let x = self.x_embedder.forward(patches, training) + at;
        let through = |x, (i, block): (usize, &DitBlock)| {
            let merged = self.merged(&x, i as u32, input.destinations);
            let absent = keys.absent.clone();
            in_block(training, block, (x, c.clone(), keys.tokens.clone()), move |block, (x, c, tokens), training| {
                let keys = Keys { tokens, absent: absent.clone() };
                block.forward(x, &c, &keys, merged.as_ref(), training)
            })
        };
        let x = self.blocks.iter().enumerate().fold(x, through);
        to_images(self.final_layer.forward(x, &c, training), self.config.grid(), self.config.patch)
    }

    /// Which tokens of `x` block `i` merges; none at ratio 0, which is then the plain network bit for bit.
    fn merged(&self, x: &Tensor<3>, i: u32, destinations: Destinations) -> Option<Merged> {
        let TokenMergingConfig { mlp, cross, .. } = self.config.token_merging;
        let grid: Grid = self.config.grid();
        let n_merged = self.config.token_merging.n_merged(grid.n_tokens());
        (n_merged > 0).then(|| {
            let map = match_tokens(x.clone().inner(), &destinations.of(grid, i), n_merged);
            Merged { map, mlp, cross }
        })
    }
}

impl FinalLayer {
    fn forward(&self, x: Tensor<3>, c: &Tensor<2>, training: Option<&Training>) -> Tensor<3> {
        let d = c.dims()[1];
        let ada = self.ada_ln.forward2(enter(c.clone(), &x), training);
        let part = |i: usize| ada.clone().narrow(1, i * d, d).unsqueeze_dim::<3>(1);
        self.linear.forward(adaptive_norm(x, part(0), part(1)), training)
    }
}

#[cfg(test)]
mod tests;
