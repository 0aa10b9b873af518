//! The forward against its references, and what of it is told while backward runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::params;
use crate::tensor::{Listener, TensorData, cpu};

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
    for (d, genes, expected) in [(128, 128, 1_219_072), (128, 32, 1_194_400), (128, 1024, 1_449_344), (32, 32, 277_120)]
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

/// `[model.spackle]` of a shipped config.
fn shipped(text: &str) -> SpackleConfig {
    let config: toml::Table = text.parse().unwrap();
    config["model"]["spackle"].clone().try_into().unwrap()
}

/// Without its taps a model trains the same and hides no communication: no other test would miss them.
#[test]
fn all_but_the_first_block_is_told_before_backward_ends() {
    type Told = Vec<(usize, TensorData)>;
    let recipes = [
        (include_str!("../../../configs/spackle/paper.toml"), &["linear.weight", "linear.bias"][..]),
        (include_str!("../../../configs/spackle/best.toml"), &["linear.weight", "linear.bias", "rank"]),
    ];
    let (device, [b, s, genes]) = (cpu().autodiff(), [3, 7, 5]);
    let wave = |n: usize| (0..n).map(|i| (i as f32).sin()).collect::<Vec<f32>>();
    let tensor = |values, shape| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
    let values = tensor(wave(b * s * genes), [b, s, genes]);
    let input = SpackleInput {
        visible: values.ones_like(),
        gene_mean: Tensor::zeros([b, genes], &device),
        covariates: None,
        absent: None,
        values,
    };
    for ((text, first_block), axis) in
        recipes.into_iter().flat_map(|r| [AttentionAxis::Spots, AttentionAxis::Batch].map(|axis| (r, axis)))
    {
        let config = SpackleConfig { attention_axis: axis, ..shipped(text) };
        let model = Spackle::new(&config, shape(genes, s), 1, &device);
        let specs = params::specs(&model);
        let flat = wave(specs.iter().map(params::ParamSpec::len).sum()); // heads that start at zero hide nothing
        let backward = |listener: Option<Listener>| {
            let model = params::from_flat(model.clone(), &flat, &device);
            let training = Training::new(7, 0, 0);
            let training = match listener {
                Some(listener) => training.with_listener(listener, params::ids(&model)),
                None => training,
            };
            let mut gradients = model.forward(&input, Some(&training)).sin().sum().backward();
            let mut left = BTreeMap::new();
            params::each_gradient(&model, &mut gradients, &mut |place, data| {
                drop(left.insert(place, data.into_data()))
            });
            left
        };
        let expected = backward(None);
        let told: Arc<Mutex<Told>> = Arc::default();
        let hear = Arc::clone(&told);
        let left = backward(Some(Listener::new(move |place, data| {
            hear.lock().unwrap().push((place, data.into_data()));
        })));
        let left: Vec<&str> = left.keys().map(|&place| specs[place].path.as_str()).collect();
        assert_eq!(left, first_block, "{config:?}");
        let told = told.lock().unwrap();
        let layers: Vec<usize> = told.iter().filter_map(|(place, _)| layer(&specs[*place].path)).collect();
        assert!(layers.is_sorted_by(|a, b| a >= b), "the last layer's leave first: {layers:?}");
        assert_eq!(told.len() + left.len(), specs.len(), "each once");
        for (place, data) in told.iter() {
            assert!(expected[place] == *data, "{}, {config:?}", specs[*place].path);
        }
    }
}

fn layer(path: &str) -> Option<usize> {
    path.strip_prefix("transformer_encoder.layers.")?.split('.').next()?.parse().ok()
}
