//! ω: a cell's genes as the spatial domain would show them, a U-Net of gene vectors with a global residual
//! (`spotdiff.md` §3).
//!
//! The last layer starts at zero: a new ω moves nothing, and a gene that no loss ever speaks of (one that a fold hides)
//! stays as it was in the cell.

use serde::{Deserialize, Serialize};

use crate::model::init::Scope;
use crate::model::layers::{Dropout, LayerNorm, Linear, Training, before};
use crate::tensor::{Module, Tensor, gelu};

/// `[model.spotdiff.omega]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OmegaConfig {
    /// Widths on the way down; the way up mirrors them.
    pub widths: [usize; 3],
    /// Dropout after every hidden layer.
    pub dropout: f64,
}

impl Default for OmegaConfig {
    fn default() -> Self {
        Self { widths: [512, 256, 128], dropout: 0.1 }
    }
}

/// The network: G → w₁ → w₂ → w₃ → w₂, [w₂ ⊕ w₂] → w₁, [w₁ ⊕ w₁] → G, plus its input.
#[derive(Module, Debug)]
pub struct Omega {
    /// Narrower and narrower.
    pub down: Vec<Layer>,
    /// And back, each beside what was as wide on the way down.
    pub up: Vec<Layer>,
    /// Back to genes; zero at the start.
    pub last: Linear,
}

/// Linear, LayerNorm, GELU, dropout.
#[derive(Module, Debug)]
pub struct Layer {
    /// Affine map.
    pub linear: Linear,
    /// Norm after it.
    pub norm: LayerNorm,
    #[module(skip)]
    dropout: Dropout,
}

impl OmegaConfig {
    /// What is wrong with it, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.widths.contains(&0) {
            problems.push(format!("model.spotdiff.omega.widths = {:?}: each must be at least 1", self.widths));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            problems.push(format!("model.spotdiff.omega.dropout = {}: must be in [0, 1)", self.dropout));
        }
        problems
    }

    /// How many parameters it has for `genes` genes.
    pub fn n_parameters(&self, genes: usize) -> f64 {
        let [a, b, c] = self.widths.map(|w| w as f64);
        let g = genes as f64;
        let layer = |n_in: f64, n_out: f64| (n_in + 3.0) * n_out;
        layer(g, a) + layer(a, b) + layer(b, c) + layer(c, b) + layer(2.0 * b, a) + (2.0 * a + 1.0) * g
    }

    /// About how many values a row keeps for its backward.
    pub fn n_kept_values(&self, genes: usize) -> f64 {
        let [a, b, c] = self.widths.map(|w| w as f64);
        4.0 * (2.0 * a + 2.0 * b + c) + 2.0 * (a + b) + 2.0 * genes as f64
    }
}

impl Omega {
    /// For `genes` genes.
    pub fn new(scope: &Scope, config: &OmegaConfig, genes: usize) -> Self {
        let [a, b, c] = config.widths;
        let layers = |name: &str, sizes: &[(usize, usize)]| {
            let scope = scope.child(name);
            let layer = |(i, &(n_in, n_out)): (usize, &(usize, usize))| {
                Layer::new(&scope.child(&i.to_string()), n_in, n_out, config.dropout)
            };
            sizes.iter().enumerate().map(layer).collect()
        };
        Self {
            down: layers("down", &[(genes, a), (a, b), (b, c)]),
            up: layers("up", &[(c, b), (2 * b, a)]),
            last: Linear::zeros(&scope.child("last"), 2 * a, genes),
        }
    }

    /// `[rows, genes]` → the same.
    pub fn forward(&self, x: Tensor<2>, training: Option<&Training>) -> Tensor<2> {
        let first = self.down[0].forward(x.clone(), training);
        let second = self.down[1].forward(first.clone(), training);
        let third = self.down[2].forward(second.clone(), training);
        let up = self.up[0].forward(third, training);
        let up = self.up[1].forward(Tensor::cat(vec![up, second], 1), training);
        self.last.forward2(Tensor::cat(vec![up, first], 1), training) + x
    }
}

impl Layer {
    fn new(scope: &Scope, n_in: usize, n_out: usize, dropout: f64) -> Self {
        Self {
            linear: Linear::new(&scope.child("linear"), n_in, n_out),
            norm: LayerNorm::new(&scope.child("norm"), n_out),
            dropout: Dropout { p: dropout, site: scope.next_site() },
        }
    }

    fn forward(&self, x: Tensor<2>, training: Option<&Training>) -> Tensor<2> {
        let x = self.linear.forward2(x, training);
        let x = before(training, x, &self.norm);
        self.dropout.forward(gelu(self.norm.forward(x)), training)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::model::layers::reference::{tensor, values};
    use crate::model::params;
    use crate::tensor::cpu;

    fn omega(config: &OmegaConfig, genes: usize) -> Omega {
        let (device, sites) = (cpu(), Cell::new(0));
        Omega::new(&Scope::root(1, &device, &sites), config, genes)
    }

    /// `spotdiff.md` §3.
    #[test]
    fn it_has_as_many_parameters_as_the_spec_counts() {
        let config = OmegaConfig::default();
        for (genes, n) in [(33, 514_465), (84, 592_852), (268, 875_660), (1020, 2_031_484), (2000, 3_537_744)] {
            assert_eq!(config.n_parameters(genes), f64::from(n));
        }
        for (config, genes) in [(config, 33), (OmegaConfig { widths: [32, 16, 8], dropout: 0.1 }, 8)] {
            let built = params::to_flat(&omega(&config, genes)).len();
            assert_eq!(built as f64, config.n_parameters(genes));
        }
    }

    #[test]
    fn a_new_one_moves_nothing() {
        let x: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        let moved =
            omega(&OmegaConfig { widths: [32, 16, 8], dropout: 0.1 }, 8).forward(tensor(x.clone(), [2, 8]), None);
        assert_eq!(values(moved), x);
    }

    #[test]
    fn genes_that_no_loss_speaks_of_get_no_gradient_in_the_last_layer() {
        let device = cpu().autodiff();
        let sites = Cell::new(0);
        let config = OmegaConfig { widths: [8, 6, 4], dropout: 0.0 };
        let omega = Omega::new(&Scope::root(1, &device, &sites), &config, 5);
        let x: Vec<f32> = (0..10).map(|i| (1.3 * i as f32).cos()).collect();
        let x = Tensor::<2>::from_data(crate::tensor::TensorData::new(x, [2, 5]), &device);
        let y = omega.forward(x, None);
        let gradients = (y.clone() * y).narrow(1, 0, 3).sum().backward();
        let weight = omega.last.weight.val().grad(&gradients).unwrap();
        let rows: Vec<f32> = values(weight);
        assert!(rows[..3 * 16].iter().any(|g| *g != 0.0) && rows[3 * 16..].iter().all(|g| *g == 0.0));
    }
}
