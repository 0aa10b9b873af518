//! The centre's residual readout: simple fills first, then what the network adds to them.
//!
//! gene mean + mean of visible neighbours + linear skip of [own or neighbours' mean, mean of the 6 nearest,
//! neighbours' mean, visibility], the skip zero-initialised. With all weights at zero it is the ring mean.

use super::SpackleInput;
use crate::model::init::Scope;
use crate::model::layers::{Linear, Training};
use crate::tensor::{Module, Tensor, enter};

/// Neighbours of the first ring, which come first in the list.
const NEAREST: usize = 6;

/// Features of a gene that the skip reads.
pub(super) const FEATURES: usize = 4;

/// The skip path.
#[derive(Module, Debug)]
pub struct CentreResidual {
    /// 4G → G, zero at the start.
    pub skip: Linear,
}

impl CentreResidual {
    /// For `genes` genes.
    pub fn new(scope: &Scope, genes: usize) -> Self {
        Self { skip: Linear::zeros(&scope.child("skip"), FEATURES * genes, genes) }
    }

    /// `[b, G]`: everything but the network's head. `h`: what that one reads; backward does the skip when it comes there.
    pub fn forward(&self, input: &SpackleInput, h: &Tensor<3>, training: Option<&Training>) -> Tensor<2> {
        let [_, s, _] = input.values.dims();
        let centred = centred(input);
        let (all, n_all) = sum_visible(&centred, &input.visible, s - 1);
        let all = all / n_all.clamp_min(1.0);
        let (near, n_near) = sum_visible(&centred, &input.visible, NEAREST.min(s - 1));
        let some_near = n_near.clone().clamp_max(1.0);
        let near = near / n_near.clamp_min(1.0) + (some_near.neg() + 1.0) * all.clone();
        let own_visible = row(&input.visible, 0);
        let own = row(&centred, 0) + (own_visible.clone().neg() + 1.0) * all.clone();
        let features = Tensor::cat(vec![own, near, all.clone(), own_visible], 1); // [b, 4G]
        input.gene_mean.clone() + all + self.skip.forward2(enter(features, h), training)
    }
}

/// `[b, s, G]`: visible values less the gene mean, else 0.
pub(super) fn centred(input: &SpackleInput) -> Tensor<3> {
    (input.values.clone() - input.gene_mean.clone().unsqueeze_dim(1)) * input.visible.clone()
}

/// Sum and number of the visible values of neighbours 1..=n, `[b, G]` each.
fn sum_visible(centred: &Tensor<3>, visible: &Tensor<3>, n: usize) -> (Tensor<2>, Tensor<2>) {
    let sum = |x: &Tensor<3>| x.clone().narrow(1, 1, n).sum_dim(1).squeeze_dim::<2>(1);
    (sum(centred), sum(visible))
}

fn row(x: &Tensor<3>, i: usize) -> Tensor<2> {
    x.clone().narrow(1, i, 1).squeeze_dim::<2>(1)
}
