//! The condition against the encoder it comes from, sizes, and what is refused.

use super::*;
use crate::model::dit::config::tests as dit;
use crate::model::params;
use crate::model::spatia::{CellInput, Spatia, SpatiaConfig};
use crate::tensor::cpu;

const GENES: usize = 64;

fn tiny() -> GeneratorConfig {
    GeneratorConfig { encoder: SpatiaConfig::tiny(), dit: dit::tiny() }
}

fn cells() -> GeneLists {
    let reader = GeneReader::new(1, GENES, 64);
    reader.read(&[(&[1, 5, 9], &[3.0, 1.0, 2.0]), (&[0, 63], &[4.0, 4.0])], &[[0; 3], [1, 0, 0]])
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// The generator's encoder with the weights of `spatia`, by the names that `train --from` uses.
fn with_weights_of(spatia: &Spatia, generator: Generator) -> Generator {
    let (theirs, specs) = (params::to_flat(spatia), params::specs(spatia));
    let mut flat = params::to_flat(&generator);
    for spec in params::specs(&generator) {
        let Some(name) = Generator::name_in_encoder(&spec.path) else { continue };
        let there =
            specs.iter().find(|s| s.path == name).unwrap_or_else(|| panic!("{name} is no name of the encoder's"));
        flat[spec.range()].copy_from_slice(&theirs[there.range()]);
    }
    params::from_flat(generator, &flat, &cpu())
}

#[test]
fn the_condition_is_what_the_encoder_says_without_a_picture() {
    let config = tiny();
    let spatia = Spatia::new(&config.encoder, GENES, 7, &cpu());
    let generator = with_weights_of(&spatia, Generator::new(&config, GENES, 8, &cpu()));
    let cells = cells();
    let condition = generator.condition(&cells, vec![false; 2], None, &cpu());
    let whole = spatia.forward(&CellInput { genes: Some(cells.input(&cpu())), image: None }, None);
    assert_eq!(values(condition.vector), values(whole.z_cell.clone()));
    let z = spatia.fuse_levels(whole.z_cell, None, None, None);
    let tokens = whole.genes.unwrap().tokens;
    assert_eq!(condition.tokens.dims(), [2, 2 + 4 + 6, 32]);
    assert_eq!(values(condition.tokens.clone().narrow(1, 0, 1)), values(z));
    assert_eq!(values(condition.tokens.narrow(1, 2, 10)), values(tokens));
    let absent = condition.absent.unwrap();
    assert_eq!(absent.iter().filter(|a| **a).count(), 2);
    assert!(absent[22] && absent[23], "the second cell has two genes, and two without a count");
}

#[test]
fn a_frozen_encoder_has_no_gradient_and_says_the_same_in_training() {
    let device = cpu().autodiff();
    let generator = Generator::new(&tiny(), GENES, 8, &device);
    let trains: Vec<bool> =
        params::specs(&generator).iter().map(|s| Generator::name_in_encoder(&s.path).is_none()).collect();
    let frozen = params::freeze(generator.clone(), &trains);
    assert!(frozen.encoder.is_frozen() && !generator.encoder.is_frozen());
    let training = Training::new(1, 2, 3);
    let in_training = frozen.condition(&cells(), vec![false; 2], Some(&training), &device);
    let plain = generator.valid().condition(&cells(), vec![false; 2], None, &cpu());
    assert_eq!(values(in_training.tokens.inner()), values(plain.tokens));
    let with_dropout = generator.condition(&cells(), vec![false; 2], Some(&training), &device);
    assert_ne!(values(with_dropout.vector.inner()), values(plain.vector), "an encoder that trains has its dropout");
}

#[test]
fn parameters_are_counted_without_being_made_and_problems_named() {
    let mut config = tiny();
    let n = |config: &GeneratorConfig| params::to_flat(&Generator::new(config, GENES, 1, &cpu())).len() as f64;
    assert_eq!(config.n_parameters(GENES), n(&config));
    assert_eq!(config.problems(), Vec::<String>::new());
    config.encoder.gene.width = 16;
    assert_eq!(config.n_parameters(GENES), n(&config), "with a bridge");
    (config.encoder.h, config.dit.patch, config.encoder.gene.context) = (16, 5, 0);
    let problems = config.problems().join("\n");
    for key in ["generator.dit.condition = 32", "generator.dit.image = 32", "generator.encoder.gene.context = 0"] {
        assert!(problems.contains(&format!("model.{key}")), "{problems}");
    }
}
