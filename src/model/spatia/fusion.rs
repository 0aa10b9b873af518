//! Genes and picture meet: cross-attention both ways, of the unfused tokens (`spatia.md` §4).

use super::config::{FusionConfig, FusionKind, SpatiaConfig};
use crate::model::init::Scope;
use crate::model::layers::{CrossAttention, LayerNorm, Linear, Training, before};
use crate::tensor::{Module, Padding, Tensor, gelu};

/// The exchange.
#[derive(Module, Debug)]
pub struct Fusion {
    /// Genes ask the picture.
    pub genes: Option<Exchange>,
    /// The picture asks the genes.
    pub image: Option<Exchange>,
}

/// One direction: the other's tokens are brought to one's own width, then F.
#[derive(Module, Debug)]
pub struct Exchange {
    /// Width of the other → own width.
    pub bridge: Linear,
    /// F.
    pub block: FusionBlock,
    #[module(skip)]
    config: FusionConfig,
}

/// F(x, y): z = x + MHA(LN(x) asks y), then z + W2·GELU(W1·LN(z)); y enters as it is, W1 is to half the width.
#[derive(Module, Debug)]
pub struct FusionBlock {
    /// Norm of what asks.
    pub norm1: LayerNorm,
    /// The attention.
    pub attention: CrossAttention,
    /// Norm before the feed-forward.
    pub norm2: LayerNorm,
    /// d → d/2.
    pub linear1: Linear,
    /// d/2 → d.
    pub linear2: Linear,
}

impl Fusion {
    /// The directions that the config asks for.
    pub fn new(scope: &Scope, config: &SpatiaConfig) -> Self {
        let (gene, image) = (&config.gene, &config.image);
        let exchange = |name: &str, d, other, heads| Exchange::new(&scope.child(name), d, other, heads, config.fusion);
        let kind = config.fusion.kind;
        Self {
            genes: (kind == FusionKind::Both).then(|| exchange("genes", gene.width, image.width, gene.heads)),
            image: (kind != FusionKind::None).then(|| exchange("image", image.width, gene.width, image.heads)),
        }
    }

    /// `genes`: `[b, n, d]`, `image`: `[b, m, e]`, each of its shape after the exchange. `absent`: of `[b, n]`, the
    /// genes that are padding.
    pub fn forward(
        &self,
        genes: Tensor<3>,
        image: Tensor<3>,
        absent: Option<&Padding>,
        training: Option<&Training>,
    ) -> (Tensor<3>, Tensor<3>) {
        let fused_genes = match &self.genes {
            Some(exchange) => exchange.forward(genes.clone(), image.clone(), None, training),
            None => genes.clone(),
        };
        let fused_image = match &self.image {
            Some(exchange) => exchange.forward(image, genes, absent, training),
            None => image,
        };
        (fused_genes, fused_image)
    }
}

impl Exchange {
    fn new(scope: &Scope, d: usize, d_other: usize, heads: usize, config: FusionConfig) -> Self {
        Self {
            bridge: Linear::new(&scope.child("bridge"), d_other, d),
            block: FusionBlock::new(&scope.child("block"), d, heads),
            config,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        other: Tensor<3>,
        absent: Option<&Padding>,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let FusionConfig { alpha, doubled_residual, .. } = self.config;
        let fused = self.block.forward(x.clone(), self.bridge.forward(other, training), absent, training);
        match (doubled_residual, alpha == 1.0) {
            (false, true) => fused,
            (false, false) => x.clone() + (fused - x).mul_scalar(alpha),
            (true, _) => x + fused.mul_scalar(alpha),
        }
    }
}

impl FusionBlock {
    /// Of width `d`.
    pub fn new(scope: &Scope, d: usize, heads: usize) -> Self {
        Self {
            norm1: LayerNorm::new(&scope.child("norm1"), d),
            attention: CrossAttention::new(&scope.child("attention"), d, d, heads),
            norm2: LayerNorm::new(&scope.child("norm2"), d),
            linear1: Linear::new(&scope.child("linear1"), d, d / 2),
            linear2: Linear::new(&scope.child("linear2"), d / 2, d),
        }
    }

    /// `x`: `[b, n, d]`, `y`: `[b, m, d]`; `absent`: of `[b, m]`, where `y` is padding.
    pub fn forward(
        &self,
        x: Tensor<3>,
        y: Tensor<3>,
        absent: Option<&Padding>,
        training: Option<&Training>,
    ) -> Tensor<3> {
        let x = before(training, x, &self.norm1);
        let z = x.clone() + self.attention.forward(self.norm1.forward(x), y, absent, training);
        let z = before(training, z, &self.norm2);
        let hidden = gelu(self.linear1.forward(self.norm2.forward(z.clone()), training));
        z + self.linear2.forward(hidden, training)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, filled, values, x, y};
    use crate::model::params;

    #[test]
    fn the_fusion_block_equals_its_vector() {
        let fills =
            [("attention.q", 1.0), ("attention.kv", 3.0), ("attention.out", 7.0), ("linear1", 9.0), ("linear2", 11.0)];
        let block = filled(|scope| FusionBlock::new(scope, 4, 1), &fills);
        // The vector fills k with 3 and v with 5, each from its own start; here they are the halves of one map.
        let mut flat = params::to_flat(&block);
        for spec in params::specs(&block).iter().filter(|spec| spec.path.starts_with("attention.kv")) {
            let (s, first) = if spec.path.ends_with("bias") { (0.1, 1.0) } else { (0.5, 0.0) };
            let half = spec.len() / 2;
            for i in 0..half {
                let of = |k: f64| (s * (k + first + i as f64).sin()) as f32;
                (flat[spec.offset + i], flat[spec.offset + half + i]) = (of(3.0), of(5.0));
            }
        }
        let block = params::from_flat(block, &flat, &crate::tensor::cpu());
        let reference = [
            1.0485339012,
            0.2973995621,
            1.8269034838,
            -0.9868739175,
            0.5511825058,
            1.672348516,
            -0.0711852498,
            1.0469585454,
            0.2894131391,
            0.1223903988,
            2.7283690549,
            0.814261633,
        ];
        // The reference is f64, ours f32 with values near 3.
        assert_near(&values(block.forward(x(), y(), None, None)), &reference, 2e-6);
    }
}
