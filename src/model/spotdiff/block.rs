//! A block of ψ: attention and feed-forward, each between an adaptive norm and a gate (adaLN-zero, `spotdiff.md` §4).

use super::psi_config::{Gelu, PsiConfig, Tokens};
use crate::model::dit::attention::SelfAttention;
use crate::model::dit::block::FeedForward;
use crate::model::dit::norm::adaptive_norm;
use crate::model::init::Scope;
use crate::model::layers::{Dropout, Linear, Training};
use crate::tensor::{Module, Tensor, add_gated, enter, gelu};

/// One block; starts as the identity.
#[derive(Module, Debug)]
pub struct PsiBlock {
    /// Time and conditions → shift, scale and gate of the attention, then of the feed-forward; zero at the start.
    pub ada_ln: Linear,
    /// Self-attention.
    pub attn: SelfAttention,
    /// Feed-forward.
    pub mlp: FeedForward,
    #[module(skip)]
    dropouts: [Dropout; 2],
    #[module(skip)]
    tokens: Tokens,
    #[module(skip)]
    gelu: Gelu,
}

impl PsiBlock {
    /// Linear layers Xavier uniform with bias 0.
    pub fn new(scope: &Scope, config: &PsiConfig) -> Self {
        let d = config.d;
        Self {
            ada_ln: Linear::zeros(&scope.child("ada_ln"), d, 6 * d),
            attn: SelfAttention::new(&scope.child("attn"), d, config.heads),
            mlp: FeedForward::new(&scope.child("mlp"), d),
            dropouts: std::array::from_fn(|_| Dropout { p: config.dropout, site: scope.next_site() }),
            tokens: config.tokens,
            gelu: config.gelu,
        }
    }

    /// `x`: `[b, tokens, d]`; `c`: SiLU of time and conditions, `[b, d]`.
    pub fn forward(&self, x: Tensor<3>, c: &Tensor<2>, training: Option<&Training>) -> Tensor<3> {
        let d = c.dims()[1];
        // met here, so that backward finishes with this block's parameters before it comes to the block before
        let ada = self.ada_ln.forward2(enter(c.clone(), &x), training);
        let part = |i: usize| ada.clone().narrow(1, i * d, d).unsqueeze_dim::<3>(1); // [b, 1, d]

        let h = adaptive_norm(x.clone(), part(0), part(1));
        let attended = match self.tokens {
            Tokens::Whole | Tokens::Spot => self.attn.forward(h, training),
            Tokens::Batch => self.attn.forward(h.swap_dims(0, 1), training).swap_dims(0, 1), // b sequences of 1 → 1 of b
        };
        let x = add_gated(x, self.dropouts[0].forward(attended, training), part(2));

        let h = adaptive_norm(x.clone(), part(3), part(4));
        let fed = match self.gelu {
            Gelu::Tanh => self.mlp.forward(h, training),
            Gelu::Exact => self.mlp.fc2.forward(gelu(self.mlp.fc1.forward(h, training)), training),
        };
        add_gated(x, self.dropouts[1].forward(fed, training), part(5))
    }
}
