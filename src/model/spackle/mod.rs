//! SpaCKLE: completion of a spot's expression from itself and its neighbours (`spackle.md` §5).
//!
//! h = Lin(E_m); h = T(h); Ê = Lout(h), attention over the spots of a neighbourhood. The options beyond the paper
//! (`input`, `rank_embedding`, `readout`) are the recipe of `best.toml`. Knows no file, no rank and no mask rule.

mod readout;

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use self::readout::CentreResidual;
use super::init::{Init, Scope};
use super::layers::{Activation, AttentionAxis, EncoderConfig, Linear, NormPlacement, Training, TransformerEncoder};
use crate::model::DataShape;
use crate::tensor::{Bool, Device, Module, Param, Tensor};

/// `[model.spackle]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpackleConfig {
    /// Model width; the paper fixes 128.
    pub d: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward's hidden layer.
    pub feed_forward: usize,
    /// Dropout probability.
    pub dropout: f64,
    /// `post` (paper) or `pre`.
    pub norm: NormPlacement,
    /// `spots` (paper) or `batch` (what the release runs; needs `lanes = 1`).
    pub attention_axis: AttentionAxis,
    /// `copied` (release: every layer starts as layer 0) or `own`.
    pub init: LayerInit,
    /// What a spot's row holds.
    pub input: InputForm,
    /// A learned vector per neighbour rank (0 = centre, then by distance).
    pub rank_embedding: bool,
    /// What is predicted and how.
    pub readout: Readout,
}

impl SpackleConfig {
    /// Columns of a spot's row as it enters.
    fn width(&self, shape: DataShape) -> usize {
        let per_gene = match self.input {
            InputForm::Values => 1,
            InputForm::CentredWithVisibility => 2,
        };
        per_gene * shape.genes + shape.covariates
    }

    /// How many parameters [`Spackle::new`] makes, without making them.
    pub fn n_parameters(&self, shape: DataShape) -> f64 {
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        let [d, hidden, genes, spots] = [self.d, self.feed_forward, shape.genes, shape.spots].map(|n| n as f64);
        let norms = 4.0 * d;
        let layer = linear(d, 3.0 * d) + linear(d, d) + linear(d, hidden) + linear(hidden, d) + norms;
        let rank = if self.rank_embedding { spots * d } else { 0.0 };
        let centre = if self.readout == Readout::CentreResidual { linear(4.0 * genes, genes) } else { 0.0 };
        linear(self.width(shape) as f64, d) + rank + self.layers as f64 * layer + linear(d, genes) + centre
    }

    /// About how many values a forward of `records` neighbourhoods keeps for its backward. The multiples are what the
    /// peak memory of `paper.toml` showed (README, "Measured"): right to a third, not to a value.
    pub fn n_kept_values(&self, shape: DataShape, records: usize) -> f64 {
        let rows = records as f64 * shape.spots as f64;
        let attended = match self.attention_axis {
            AttentionAxis::Spots => shape.spots,
            AttentionAxis::Batch => records,
        };
        let scores = 3.0 * self.heads as f64 * attended as f64;
        let layer = 12.0 * self.d as f64 + 6.0 * self.feed_forward as f64 + scores;
        rows * (2.0 * (self.width(shape) + shape.genes) as f64 + self.layers as f64 * layer)
    }
}

/// Initial weights of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerInit {
    /// Every layer starts with layer 0's weights.
    Copied,
    /// Each layer draws its own.
    Own,
}

/// What a spot's row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputForm {
    /// The completed values, hidden entries 0 (paper).
    Values,
    /// Visible values less the section's visible gene mean, else 0; then one visibility bit per gene.
    CentredWithVisibility,
}

/// What is predicted and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readout {
    /// Every row by one linear head (paper).
    AllRows,
    /// The centre only: gene mean + mean of visible neighbours + zero-initialised skip and head.
    CentreResidual,
}

/// A micro-batch of neighbourhoods; row 0 of the second axis is the centre.
#[derive(Debug, Clone)]
pub struct SpackleInput {
    /// `[b, s, G]`: completed values with hidden entries 0.
    pub values: Tensor<3>,
    /// `[b, s, G]`: 1 where measured and not hidden.
    pub visible: Tensor<3>,
    /// `[b, G]`: the section's mean of visible values per gene.
    pub gene_mean: Tensor<2>,
    /// `[b, s, E]`: covariates as they are, and their mean over the section, `[b, E]`; `None` where there are none.
    pub covariates: Option<(Tensor<3>, Tensor<2>)>,
    /// `[b, s]`: true where a neighbour is padding.
    pub absent: Option<Tensor<2, Bool>>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Spackle {
    /// Input width → d.
    pub linear: Linear,
    /// `[s, d]`, when `rank_embedding`.
    pub rank: Option<Param<Tensor<2>>>,
    /// The stack.
    pub transformer_encoder: TransformerEncoder,
    /// d → G.
    pub out_linear: Linear,
    /// The residual readout, when `readout = "centre_residual"`.
    pub centre: Option<CentreResidual>,
    #[module(skip)]
    input: InputForm,
}

impl Spackle {
    /// A new model for data of this shape, initialised from `seed`.
    pub fn new(config: &SpackleConfig, shape: DataShape, seed: u64, device: &Device) -> Self {
        let DataShape { genes, spots, .. } = shape;
        let sites = Cell::new(0);
        let scope = Scope::root(seed, device, &sites);
        let width = config.width(shape);
        let encoder = EncoderConfig {
            d: config.d,
            layers: config.layers,
            heads: config.heads,
            feed_forward: config.feed_forward,
            dropout: config.dropout,
            norm: config.norm,
            activation: Activation::Relu,
            axis: config.attention_axis,
            copied: config.init == LayerInit::Copied,
        };
        let (out_linear, centre) = match config.readout {
            Readout::AllRows => (Linear::new(&scope.child("out_linear"), config.d, genes), None),
            Readout::CentreResidual => (
                Linear::zeros(&scope.child("out_linear"), config.d, genes),
                Some(CentreResidual::new(&scope.child("centre"), genes)),
            ),
        };
        Self {
            linear: Linear::new(&scope.child("linear"), width, config.d),
            rank: config.rank_embedding.then(|| scope.param("rank", [spots, config.d], Init::Normal(0.02))),
            transformer_encoder: TransformerEncoder::new(&scope.child("transformer_encoder"), &encoder),
            out_linear,
            centre,
            input: config.input,
        }
    }

    /// Predictions `[b, s, G]`, or `[b, 1, G]` for a centre readout; row 0 is the centre in both.
    pub fn forward(&self, input: &SpackleInput, training: Option<&Training>) -> Tensor<3> {
        let mut x = match self.input {
            InputForm::Values => vec![input.values.clone()],
            InputForm::CentredWithVisibility => vec![readout::centred(input), input.visible.clone()],
        };
        if let Some((covariates, mean)) = &input.covariates {
            x.push(match self.input {
                InputForm::Values => covariates.clone(),
                InputForm::CentredWithVisibility => covariates.clone() - mean.clone().unsqueeze_dim(1),
            });
        }
        let x = if x.len() == 1 { x.remove(0) } else { Tensor::cat(x, 2) };
        let h = self.linear.forward(x, training);
        let h = match &self.rank {
            Some(rank) => h + rank.val().unsqueeze(),
            None => h,
        };
        let h = self.transformer_encoder.forward(h, input.absent.as_ref(), training);
        match &self.centre {
            None => self.out_linear.forward(h, training),
            Some(centre) => {
                let h = h.narrow(1, 0, 1);
                let simple = centre.forward(input, &h, training);
                self.out_linear.forward(h, training) + simple.unsqueeze_dim(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params;
    use crate::tensor::{TensorData, cpu};

    fn shape(genes: usize, spots: usize) -> DataShape {
        DataShape { genes, spots, covariates: 0 }
    }

    fn paper(d: usize, layers: usize, feed_forward: usize, axis: AttentionAxis) -> SpackleConfig {
        SpackleConfig {
            d,
            layers,
            heads: 1,
            feed_forward,
            dropout: 0.1,
            norm: NormPlacement::Post,
            attention_axis: axis,
            init: LayerInit::Copied,
            input: InputForm::Values,
            rank_embedding: false,
            readout: Readout::AllRows,
        }
    }

    #[test]
    fn parameters_are_counted_without_being_made() {
        let mut config = paper(8, 2, 12, AttentionAxis::Spots);
        for readout in [Readout::AllRows, Readout::CentreResidual] {
            for (input, rank_embedding) in [(InputForm::Values, false), (InputForm::CentredWithVisibility, true)] {
                (config.readout, config.input, config.rank_embedding) = (readout, input, rank_embedding);
                let shape = DataShape { genes: 5, spots: 7, covariates: 3 };
                let built = params::to_flat(&Spackle::new(&config, shape, 1, &cpu())).len();
                assert_eq!(config.n_parameters(shape), built as f64, "{config:?}");
            }
        }
    }

    /// s·sin(k + i) filled row-major, as `spackle.md` §5 sets its reference value.
    fn reference_weights(model: &Spackle) -> Vec<f32> {
        let fill = |path: &str| match path {
            "linear.weight" => (0.5, 1.0),
            "linear.bias" => (0.1, 2.0),
            "out_linear.weight" => (0.5, 3.0),
            "out_linear.bias" => (0.1, 4.0),
            p if p.ends_with("in_proj_weight") => (0.5, 5.0),
            p if p.ends_with("in_proj_bias") => (0.1, 6.0),
            p if p.ends_with("out_proj.weight") => (0.5, 7.0),
            p if p.ends_with("out_proj.bias") => (0.1, 8.0),
            p if p.ends_with("linear1.weight") => (0.5, 9.0),
            p if p.ends_with("linear1.bias") => (0.1, 10.0),
            p if p.ends_with("linear2.weight") => (0.5, 11.0),
            p if p.ends_with("linear2.bias") => (0.1, 12.0),
            p if p.contains("norm") => (f64::NAN, if p.ends_with("weight") { 1.0 } else { 0.0 }),
            p => panic!("no reference fill for {p}"),
        };
        let mut flat = Vec::new();
        for spec in params::specs(model) {
            let (s, k) = fill(&spec.path);
            flat.extend((0..spec.len()).map(|i| if s.is_nan() { k as f32 } else { (s * (k + i as f64).sin()) as f32 }));
        }
        flat
    }

    fn forward(axis: AttentionAxis) -> Vec<f32> {
        let device = cpu();
        let model = Spackle::new(&paper(4, 1, 8, axis), shape(3, 3), 1, &device);
        let flat = reference_weights(&model);
        let model = params::from_flat(model, &flat, &device);
        let x: [f32; 18] = [1., 0., 2., 0.5, 1.5, 0., 0., 0., 3., 2., 1., 0., 1., 1., 1., 0., 2., 0.5];
        let values = Tensor::from_data(TensorData::new(x.to_vec(), [2, 3, 3]), &device);
        let input = SpackleInput {
            visible: values.ones_like(),
            gene_mean: Tensor::zeros([2, 3], &device),
            covariates: None,
            absent: None,
            values,
        };
        model.forward(&input, None).into_data().try_to_vec().unwrap()
    }

    /// Tolerance 2e-6: the reference is f64, ours f32 with values near 1.
    fn check(axis: AttentionAxis, expected: [f64; 18]) {
        for (ours, reference) in forward(axis).iter().zip(expected) {
            assert!((f64::from(*ours) - reference).abs() < 2e-6, "{ours} against {reference}");
        }
    }

    #[test]
    fn attention_over_spots_equals_the_reference_forward() {
        check(
            AttentionAxis::Spots,
            [
                -0.0315225886,
                0.3299262542,
                -0.6287665406,
                0.0364675528,
                0.2286315347,
                -0.5643353875,
                -0.1786185349,
                0.5009455599,
                -0.7052419508,
                0.0910682948,
                0.1519369225,
                -0.5186742415,
                0.0260039917,
                0.2361584921,
                -0.5637117218,
                -0.003554307,
                0.2593920517,
                -0.5645263591,
            ],
        );
    }

    #[test]
    fn attention_over_the_batch_equals_the_release() {
        check(
            AttentionAxis::Batch,
            [
                -0.0071213023,
                0.315567597,
                -0.6343969376,
                0.0581500874,
                0.2145550003,
                -0.5676158484,
                -0.1758643645,
                0.5034543725,
                -0.7112758599,
                0.083127255,
                0.1553623894,
                -0.5152112709,
                0.0175007109,
                0.2408684184,
                -0.5613656676,
                -0.0273474809,
                0.2743697064,
                -0.5603132821,
            ],
        );
    }

    #[test]
    fn parameter_counts_are_those_of_the_paper() {
        for (d, genes, expected) in
            [(128, 128, 1_219_072), (128, 32, 1_194_400), (128, 1024, 1_449_344), (32, 32, 277_120)]
        {
            let model = Spackle::new(&paper(d, 2, 2048, AttentionAxis::Spots), shape(genes, 19), 1, &cpu());
            assert_eq!(params::to_flat(&model).len(), expected, "d = {d}, G = {genes}");
        }
    }

    #[test]
    fn copied_layers_start_alike_and_own_layers_do_not() {
        let start = |init| {
            let config = SpackleConfig { init, ..paper(8, 2, 16, AttentionAxis::Spots) };
            let model = Spackle::new(&config, shape(3, 3), 1, &cpu());
            let flat = params::to_flat(&model);
            let weight = |i: usize| {
                let path = format!("transformer_encoder.layers.{i}.linear1.weight");
                let spec = params::specs(&model).into_iter().find(|s| s.path == path).unwrap();
                flat[spec.range()].to_vec()
            };
            (weight(0), weight(1))
        };
        let (a, b) = start(LayerInit::Copied);
        assert_eq!(a, b);
        let (a, b) = start(LayerInit::Own);
        assert_ne!(a, b);
    }
}
