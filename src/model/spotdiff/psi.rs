//! ψ: what is noise in a spot's genes, given the visible ones, its paired cells and its prompt (`spotdiff.md` §4).
//!
//! A spot is one token, or some of its genes are; a record's output depends on what is given of that record alone (of which
//! `neighbours` is a part). With `tokens = "batch"` a spot is one token and the micro-batch is the sequence, as in stDiff's release.

use super::block::PsiBlock;
use super::psi_config::{AROUND, PsiConfig, Visible};
use crate::model::dit::norm::adaptive_norm;
use crate::model::dit::time::TimeEmbedding;
use crate::model::init::{Init, Scope};
use crate::model::layers::{Linear, Training, in_block};
use crate::tensor::{Module, Param, Tensor, enter, silu};

/// What is known of the spots that are asked about, `[b, G]` each.
#[derive(Debug, Clone)]
pub struct Known {
    /// Visible values in [−1, 1], hidden ones 0.
    pub visible: Tensor<2>,
    /// 1 where visible.
    pub bits: Tensor<2>,
    /// Their paired cells' genes.
    pub pair: Tensor<2>,
    /// What their neighbours show, `[b, AROUND · G]`, where `neighbours`.
    pub around: Option<Tensor<2>>,
    /// Their prompts, `[b, d]`, as [`super::prompt::Prompt`] gives them.
    pub text: Option<Tensor<2>>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Psi {
    /// A patch's channels → d.
    pub x_embedder: Linear,
    /// Where a patch stands, `[patches, d]`.
    pub positions: Param<Tensor<2>>,
    /// Time → d.
    pub t_embedder: TimeEmbedding,
    /// The paired cells' genes → d.
    pub rna_embedder: Option<Linear>,
    /// The visible genes → d, where they condition.
    pub visible_embedder: Option<Linear>,
    /// Blocks, first to last.
    pub blocks: Vec<PsiBlock>,
    /// Time and conditions → shift, scale of the last norm; zero at the start.
    pub last_ada_ln: Linear,
    /// d → patch; zero at the start.
    pub last: Linear,
    /// How much of each channel that speaks of a gene goes straight to it, `[channels, G]`: the pair, then both means of neighbours.
    /// Zero at the start; none where there is no such channel. The same at all times: in the gene's own unit at the last one, when preconditioned.
    pub straight: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: PsiConfig,
    #[module(skip)]
    genes: usize,
}

impl Psi {
    /// For `genes` genes.
    pub fn new(scope: &Scope, config: &PsiConfig, genes: usize) -> Self {
        let (d, patch) = (config.d, config.patch(genes));
        let linear = |name, n_in| Linear::with_init(&scope.child(name), n_in, d, Init::XavierUniform, Init::Zeros);
        let blocks = scope.child("blocks");
        Self {
            x_embedder: linear("x_embedder", config.channels() * patch),
            positions: scope.param("positions", [genes.div_ceil(patch), d], Init::Normal(0.02)),
            t_embedder: TimeEmbedding::new(&scope.child("t_embedder"), d),
            rna_embedder: config.use_rna.then(|| linear("rna_embedder", genes)),
            visible_embedder: (config.visible == Visible::Condition).then(|| linear("visible_embedder", genes)),
            blocks: (0..config.blocks).map(|i| PsiBlock::new(&blocks.child(&i.to_string()), config)).collect(),
            last_ada_ln: Linear::zeros(&scope.child("last_ada_ln"), d, 2 * d),
            last: Linear::zeros(&scope.child("last"), d, patch),
            straight: (config.aligned() > 0).then(|| scope.param("straight", [config.aligned(), genes], Init::Zeros)),
            config: *config,
            genes,
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &PsiConfig {
        &self.config
    }

    /// What the network says of `noisy` (`[b, G]`: x_t where a gene is asked about, else the visible value), `[b, G]`.
    /// `times`: `[b]`, t / T.
    pub fn forward(&self, noisy: Tensor<2>, known: &Known, times: &[f64], training: Option<&Training>) -> Tensor<2> {
        let c = self.t_embedder.forward(times, &noisy.device(), training);
        let c = match &self.rna_embedder {
            Some(rna) => c + rna.forward2(known.pair.clone(), training),
            None => c,
        };
        let c = match &self.visible_embedder {
            Some(visible) => c + visible.forward2(known.visible.clone(), training),
            None => c,
        };
        let c = match &known.text {
            Some(text) if self.config.use_text => c + text.clone(),
            _ => c,
        };
        let c = silu(c); // every use begins with it

        let x = self.x_embedder.forward(self.patches(noisy, known), training);
        let at = enter(self.positions.val(), &x).unsqueeze::<3>();
        let x = self.blocks.iter().fold(x + at, |x, block| {
            in_block(training, block, (x, c.clone()), |block, (x, c), training| block.forward(x, &c, training))
        });

        let d = self.config.d;
        let ada = self.last_ada_ln.forward2(enter(c, &x), training);
        let part = |i: usize| ada.clone().narrow(1, i * d, d).unsqueeze_dim::<3>(1);
        let said = self.last.forward(adaptive_norm(x, part(0), part(1)), training);
        let [b, tokens, patch] = said.dims();
        let said = said.reshape([b, tokens * patch]).narrow(1, 0, self.genes);
        match &self.straight {
            Some(straight) => {
                let channels = self.aligned(known); // [b, channels, G]
                let by = enter(straight.val(), &channels).unsqueeze::<3>();
                said + (channels * by).sum_dim(1).squeeze_dim(1)
            }
            None => said,
        }
    }

    /// The channels of `straight`, `[b, channels, G]`.
    fn aligned(&self, known: &Known) -> Tensor<3> {
        let mut channels = Vec::new();
        if self.config.use_rna && self.config.rna_channel {
            channels.push(known.pair.clone());
        }
        if let Some(around) = known.around.as_ref().filter(|_| self.config.neighbours) {
            channels.extend([0, 2].map(|mean| around.clone().narrow(1, mean * self.genes, self.genes)));
        }
        Tensor::stack(channels, 1)
    }

    /// `[b, patches, channels · patch]`: the genes of a patch, channel after channel.
    fn patches(&self, noisy: Tensor<2>, known: &Known) -> Tensor<3> {
        let mut channels = vec![noisy];
        if self.config.visible == Visible::Token {
            channels.extend([known.visible.clone(), known.bits.clone()]);
        }
        if self.config.use_rna && self.config.rna_channel {
            channels.push(known.pair.clone());
        }
        let (b, n, patch) = (channels[0].dims()[0], self.config.channels(), self.config.patch(self.genes));
        let tokens = self.genes.div_ceil(patch);
        let all: Tensor<3> = Tensor::stack(channels, 1); // [b, n, G]
        let all = match &known.around {
            Some(around) if self.config.neighbours => {
                Tensor::cat(vec![all, around.clone().reshape([b, AROUND, self.genes])], 1)
            }
            _ => all,
        };
        let missing = tokens * patch - self.genes;
        let all = match missing {
            0 => all,
            _ => {
                let none = Tensor::zeros([b, n, missing], &all.device());
                Tensor::cat(vec![all, none], 2)
            }
        };
        all.reshape([b, n, tokens, patch]).swap_dims(1, 2).reshape([b, tokens, n * patch])
    }
}
