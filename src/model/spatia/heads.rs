//! What is read from gene tokens and from vectors: expression as a zero-inflated negative binomial, classes, and the
//! space of the contrast (`spatia.md` §4).

use super::classes::ClassFamily;
use super::config::SpatiaConfig;
use super::norm_last;
use crate::model::init::{Init, Scope};
use crate::model::layers::{LayerNorm, Linear, Training, before};
use crate::tensor::{Module, Padding, Param, Tensor, enter, leaky_relu, matmul, softmax};

/// LeakyReLU's slope.
const SLOPE: f64 = 0.01;

/// θ = exp(min(b, 15)).
const MOST_LOG_DISPERSION: f64 = 15.0;

/// Stands for −∞ before a softmax over genes: a list of padding only gives finite numbers, which no loss reads.
const NEVER: f32 = -1e30;

/// The 10 in exp(log 10): temperature .1 at the start.
const FIRST_SCALE: f64 = 10.0;

/// Most that similarities are multiplied by: temperature ≥ .01.
const MOST_SCALE: f64 = 100.0;

/// Counts as predicted: `[b, k]` each; anything finite where a gene is padding.
#[derive(Debug, Clone)]
pub struct Expression {
    /// μ: softmax over the cell's genes · depth.
    pub mean: Tensor<2>,
    /// θ.
    pub dispersion: Tensor<2>,
    /// π: logit of a zero that is none of the counts' own.
    pub dropout_logit: Tensor<2>,
}

impl Expression {
    /// Of (a, b, c) per gene, `[b, k, 3]`. `depth`: `[b]`, Σ of the counts that are predicted.
    fn of(parameters: Tensor<3>, depth: Tensor<1>, padding: Option<&Padding>) -> Self {
        let column = |i: usize| parameters.clone().narrow(2, i, 1).squeeze_dim::<2>(2);
        let logits = match padding {
            Some(padding) => column(0).mask_fill(padding.mask(&parameters.device()), NEVER),
            None => column(0),
        };
        Self {
            mean: softmax(logits, 1) * depth.unsqueeze_dim(1),
            dispersion: column(1).clamp_max(MOST_LOG_DISPERSION).exp(),
            dropout_logit: column(2),
        }
    }
}

/// Expression per gene token: 2 × [Linear d → d, LN, LeakyReLU], Linear d → 3.
#[derive(Module, Debug)]
pub struct ExpressionDecoder {
    /// First map.
    pub linear1: Linear,
    /// Its norm.
    pub norm1: LayerNorm,
    /// Second map.
    pub linear2: Linear,
    /// Its norm.
    pub norm2: LayerNorm,
    /// d → (a, b, c).
    pub head: Linear,
}

impl ExpressionDecoder {
    /// Of width `d`.
    pub fn new(scope: &Scope, d: usize) -> Self {
        Self {
            linear1: Linear::new(&scope.child("linear1"), d, d),
            norm1: LayerNorm::new(&scope.child("norm1"), d),
            linear2: Linear::new(&scope.child("linear2"), d, d),
            norm2: LayerNorm::new(&scope.child("norm2"), d),
            head: Linear::new(&scope.child("head"), d, 3),
        }
    }

    /// `genes`: `[b, k, d]`; `depth`: `[b]`, Σ of the counts that are predicted.
    pub fn forward(
        &self,
        genes: Tensor<3>,
        depth: Tensor<1>,
        padding: Option<&Padding>,
        training: Option<&Training>,
    ) -> Expression {
        let x = leaky_relu(norm_last(&self.norm1, self.linear1.forward(genes, training), training), SLOPE);
        let x = leaky_relu(norm_last(&self.norm2, self.linear2.forward(x, training), training), SLOPE);
        Expression::of(self.head.forward(x, training), depth, padding)
    }
}

/// Expression from one vector of the cell: q = LN(Linear(z)), and E·W_k·q for the three parameters.
#[derive(Module, Debug)]
pub struct Mvc {
    /// h → d: the cell vector's width is its input's.
    pub linear: Linear,
    /// Norm of q.
    pub norm: LayerNorm,
    /// `[3d, d]`: W_a, W_b, W_c.
    pub bilinear: Param<Tensor<2>>,
}

impl Mvc {
    /// From vectors of width `h`.
    pub fn new(scope: &Scope, h: usize, d: usize) -> Self {
        Self {
            linear: Linear::new(&scope.child("linear"), h, d),
            norm: LayerNorm::new(&scope.child("norm"), d),
            // E and q start with entries of size 1: so do the forms.
            bilinear: scope.param("bilinear", [3 * d, d], Init::Normal(1.0 / d as f64)),
        }
    }

    /// `z`: `[b, h]`; `embeddings`: E of the cell's genes, `[b, k, d]`; `depth`: `[b]`. With `training` once in a
    /// forward only: its gradients are told once.
    pub fn forward(
        &self,
        z: Tensor<2>,
        embeddings: Tensor<3>,
        depth: Tensor<1>,
        padding: Option<&Padding>,
        training: Option<&Training>,
    ) -> Expression {
        let q = norm_last(&self.norm, self.linear.forward2(z, training), training); // [b, d]
        let [b, d] = q.dims();
        let q = before(training, q, &self.bilinear);
        let forms = matmul(q.clone(), enter(self.bilinear.val(), &q).transpose()); // [b, 3d]
        let parameters = matmul(embeddings, forms.reshape([b, 3, d]).swap_dims(1, 2)); // [b, k, 3]
        Expression::of(parameters, depth, padding)
    }
}

/// A class head per family that has leaves.
#[derive(Module, Debug)]
pub struct ClassHeads {
    /// d → leaves; `None` for families without leaves.
    pub families: Vec<Option<Linear>>,
}

impl ClassHeads {
    /// For the config's families.
    pub fn new(scope: &Scope, families: &[ClassFamily], d: usize) -> Self {
        let head = |i: usize, family: &ClassFamily| {
            Linear::new(&scope.child("families").child(&i.to_string()), d, family.n_leaves())
        };
        Self { families: families.iter().enumerate().map(|(i, f)| (f.n_leaves() > 0).then(|| head(i, f))).collect() }
    }

    /// Logits of the leaves of every family, `[b, leaves]`, of `tokens`: the families' extra tokens, `[b, families, d]`.
    pub fn forward(&self, tokens: Tensor<3>, training: Option<&Training>) -> Vec<Option<Tensor<2>>> {
        let token = |i: usize| tokens.clone().narrow(1, i, 1).squeeze_dim::<2>(1);
        let heads = self.families.iter().enumerate();
        heads.map(|(i, head)| head.as_ref().map(|head| head.forward2(token(i), training))).collect()
    }
}

/// The space in which a cell's genes and picture are held against those of others.
#[derive(Module, Debug)]
pub struct Contrast {
    /// d → width.
    pub genes: Linear,
    /// e → width.
    pub image: Linear,
    /// `[1]`: log of what similarities are multiplied by.
    pub log_scale: Param<Tensor<1>>,
}

impl Contrast {
    /// Of this width.
    pub fn new(scope: &Scope, config: &SpatiaConfig, width: usize) -> Self {
        let log_scale = scope.param("log_scale", [1], Init::Constant(FIRST_SCALE.ln()));
        Self {
            genes: Linear::new(&scope.child("genes"), config.gene.width, width),
            image: Linear::new(&scope.child("image"), config.image.width, width),
            log_scale,
        }
    }

    /// Of the gene vectors `[b, d]` and the image vectors `[b, e]` before fusion: `[b, width]` each, of any length.
    pub fn forward(&self, genes: Tensor<2>, image: Tensor<2>, training: Option<&Training>) -> (Tensor<2>, Tensor<2>) {
        (self.genes.forward2(genes, training), self.image.forward2(image, training))
    }

    /// `[1]`: 1/temperature, at most 100.
    pub fn scale(&self) -> Tensor<1> {
        self.log_scale.val().exp().clamp_max(MOST_SCALE)
    }
}
