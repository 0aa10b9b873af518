//! What the assembled network promises.

use super::config::tests::{small, tiny};
use super::*;
use crate::model::params;
use crate::tensor::cpu;

pub(super) const B: usize = 3;
const TOKENS: usize = 5;

/// Values as random as needed, the same everywhere: s·sin(k + i).
fn wave(n: usize, s: f64, k: f64) -> Vec<f32> {
    (0..n).map(|i| (s * (k + i as f64 * 1.37).sin()) as f32).collect()
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(super) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

pub(super) fn condition(config: &DitConfig, device: &Device) -> Condition {
    let width = config.condition;
    Condition {
        tokens: tensor(wave(B * TOKENS * width, 1.0, 0.4), [B, TOKENS, width], device),
        absent: None,
        vector: tensor(wave(B * width, 1.0, 2.4), [B, width], device),
        dropped: vec![false; B],
    }
}

fn input(config: &DitConfig, device: &Device) -> DitInput {
    let side = config.image;
    DitInput {
        images: tensor(wave(B * side * side * 3, 0.9, 0.1), [B, side, side, 3], device),
        times: vec![0.1, 0.5, 0.8],
        condition: condition(config, device),
        destinations: Destinations::drawn(5, 2),
    }
}

/// A network whose zero-initialised layers have left zero.
pub(super) fn trained(config: &DitConfig, device: &Device) -> Dit {
    let dit = Dit::new(config, 1, device);
    let drawn = params::to_flat(&dit);
    let flat: Vec<f32> = drawn.iter().zip(wave(drawn.len(), 0.05, 3.0)).map(|(a, b)| a + b).collect();
    params::from_flat(dit, &flat, device)
}

fn merging(ratio: f64) -> TokenMergingConfig {
    TokenMergingConfig { ratio, mlp: false, cross: false }
}

#[test]
fn parameters_are_counted_without_being_made() {
    for config in [tiny(), DitConfig { condition_dropout: 0.0, ..tiny() }, small()] {
        let built: usize = params::specs(&Dit::new(&config, 1, &cpu())).iter().map(params::ParamSpec::len).sum();
        assert_eq!(config.n_parameters(), built as f64);
    }
}

#[test]
fn a_new_network_says_zero_and_parameters_depend_on_the_seed_alone() {
    let config = tiny();
    let dit = Dit::new(&config, 1, &cpu());
    assert!(values(dit.forward(&input(&config, &cpu()), None)).iter().all(|&v| v == 0.0));
    let flat = |seed| params::to_flat(&Dit::new(&config, seed, &cpu()));
    assert_eq!(flat(1), flat(1));
    assert_ne!(flat(1), flat(2));
}

#[test]
fn a_ratio_of_zero_is_the_plain_network_bit_for_bit() {
    let none = DitConfig { token_merging: merging(0.0), ..tiny() };
    let also = TokenMergingConfig { ratio: 0.0, mlp: true, cross: true };
    let zero = DitConfig { token_merging: also, ..tiny() };
    let out = |config: &DitConfig| values(trained(config, &cpu()).forward(&input(config, &cpu()), None));
    assert_eq!(out(&none), out(&zero));

    // the same by hand: blocks that are told of no merging
    let dit = trained(&zero, &cpu());
    let given = input(&zero, &cpu());
    let (keys, vector) = given.condition.with_null(dit.null.as_ref());
    let c = silu(dit.t_embedder.forward(&given.times, &cpu(), None) + dit.c_embedder.forward2(vector, None));
    let at = tensor(dit.positions.try_to_vec().unwrap(), [1, 64, 64], &cpu());
    let x = dit.x_embedder.forward(to_patches(given.images, 4), None) + at;
    let x = dit.blocks.iter().fold(x, |x, block| block.forward(x, &c, &keys, None, None));
    let plain = to_images(dit.final_layer.forward(x, &c, None), zero.grid(), 4);
    assert_eq!(values(plain), out(&none));
}

#[test]
fn merging_changes_the_output_and_its_options_change_it_further() {
    let out = |ratio, mlp, cross| {
        let config = DitConfig { token_merging: TokenMergingConfig { ratio, mlp, cross }, ..tiny() };
        values(trained(&config, &cpu()).forward(&input(&config, &cpu()), None))
    };
    let all = [out(0.0, false, false), out(0.5, false, false), out(0.5, true, false), out(0.5, false, true)];
    for (i, a) in all.iter().enumerate() {
        all[..i].iter().for_each(|b| assert_ne!(a, b));
    }
}

#[test]
fn a_record_changes_no_other_records_output() {
    let config = tiny();
    let dit = trained(&config, &cpu());
    let given = input(&config, &cpu());
    let per_record = 32 * 32 * 3;
    let before = values(dit.forward(&given, None));
    let mut other = given.clone();
    let image = tensor(wave(B * per_record, 0.9, 9.0), [B, 32, 32, 3], &cpu());
    other.images = Tensor::cat(vec![given.images.clone().narrow(0, 0, 2), image.narrow(0, 2, 1)], 0);
    let token = tensor(wave(TOKENS * 32, 1.0, 7.0), [1, TOKENS, 32], &cpu());
    other.condition.tokens = Tensor::cat(vec![given.condition.tokens.clone().narrow(0, 0, 2), token], 0);
    other.condition.dropped[2] = true;
    other.times[2] = 0.3;
    let after = values(dit.forward(&other, None));
    assert_eq!(before[..2 * per_record], after[..2 * per_record]);
    assert_ne!(before[2 * per_record..], after[2 * per_record..]);
}

/// The image, the time, the vector and the tokens each reach the output once the zero-initialised layers have moved.
#[test]
fn everything_given_is_used() {
    let config = tiny();
    let dit = trained(&config, &cpu());
    let given = input(&config, &cpu());
    let before = values(dit.forward(&given, None));
    let differs = |what: &str, change: &dyn Fn(&mut DitInput)| {
        let mut other = given.clone();
        change(&mut other);
        assert_ne!(values(dit.forward(&other, None)), before, "{what} is not used");
    };
    differs("the image", &|i| i.images = i.images.clone().mul_scalar(0.5));
    differs("the time", &|i| i.times[0] = 0.11);
    differs("the vector", &|i| i.condition.vector = i.condition.vector.clone().mul_scalar(0.5));
    differs("a token", &|i| i.condition.tokens = i.condition.tokens.clone().mul_scalar(0.5));
    differs("the draw of destinations", &|i| i.destinations = Destinations::TopLeft);
}

#[test]
fn padding_is_not_seen() {
    let config = tiny();
    let dit = trained(&config, &cpu());
    let mut given = input(&config, &cpu());
    let absent: Vec<bool> = (0..B * TOKENS).map(|i| i % TOKENS >= 3).collect();
    given.condition.absent = Some(absent.clone());
    let before = values(dit.forward(&given, None));
    let mut tokens = values(given.condition.tokens.clone());
    tokens.chunks_mut(32).zip(&absent).filter(|(_, absent)| **absent).for_each(|(t, _)| t.fill(1e3));
    given.condition.tokens = tensor(tokens, [B, TOKENS, 32], &cpu());
    assert_eq!(values(dit.forward(&given, None)), before);
}

#[test]
fn a_dropped_condition_is_the_null_condition_whatever_it_was() {
    let config = tiny();
    let dit = trained(&config, &cpu());
    let mut given = input(&config, &cpu());
    let kept = values(dit.forward(&given, None));
    given.condition = given.condition.dropped(true);
    let dropped = values(dit.forward(&given, None));
    assert_ne!(kept, dropped);
    given.condition.tokens = given.condition.tokens.clone().mul_scalar(-2.0);
    given.condition.vector = given.condition.vector.clone().add_scalar(1.0);
    given.condition.absent = Some((0..B * TOKENS).map(|i| i % TOKENS < 2).collect());
    assert_eq!(values(dit.forward(&given, None)), dropped);
}

#[test]
#[should_panic(expected = "needs a null condition")]
fn a_network_without_a_null_condition_cannot_drop_one() {
    let config = DitConfig { condition_dropout: 0.0, ..tiny() };
    let mut given = input(&config, &cpu());
    given.condition = given.condition.dropped(true);
    Dit::new(&config, 1, &cpu()).forward(&given, None);
}

/// Every parameter has a gradient in every lane, also where nothing is dropped, and those of a block are told before
/// those of the block before it.
#[test]
fn gradients_are_complete_and_told_block_by_block() {
    told_block_by_block(false);
    told_block_by_block(true);
}

fn told_block_by_block(recomputing: bool) {
    use std::sync::{Arc, Mutex};

    use crate::tensor::RAN_AGAIN;

    let device = cpu().autodiff();
    let config = tiny();
    let dit = trained(&config, &device);
    let specs = params::specs(&dit);
    let told: Arc<Mutex<Vec<usize>>> = Arc::default();
    let listener = {
        let told = Arc::clone(&told);
        crate::tensor::Listener::new(move |place, _| told.lock().unwrap().push(place))
    };
    let training = Training::new(1, 0, 0).with_listener(listener, params::ids(&dit)).recomputing_blocks(recomputing);
    let out = dit.forward(&input(&config, &device), Some(&training));
    RAN_AGAIN.set(0);
    let mut gradients = (out.clone() * out).sum().backward();
    assert_eq!(RAN_AGAIN.get(), if recomputing { config.blocks } else { 0 });
    let mut rest = Vec::new();
    params::each_gradient(&dit, &mut gradients, &mut |place, _| rest.push(place));
    let told = told.lock().unwrap().clone();
    let mut all = [told.clone(), rest.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..specs.len()).collect::<Vec<_>>(), "each once");
    let rest: Vec<&str> = rest.iter().map(|&place| specs[place].path.as_str()).collect();
    // first layers see what has no gradient, so nothing comes by to tell of them
    let first = ["x_embedder.weight", "x_embedder.bias", "t_embedder.fc1.weight", "t_embedder.fc1.bias"];
    assert_eq!(rest, [&first[..], &["null.token", "null.vector"]].concat());
    let when =
        |prefix: &str| -> Vec<usize> { (0..told.len()).filter(|&i| specs[told[i]].path.starts_with(prefix)).collect() };
    let (last, first) = (when("blocks.1."), when("blocks.0."));
    assert_eq!((last.len(), first.len()), (16, 16));
    assert!(last.iter().max() < first.iter().min(), "block 1 at {last:?}, block 0 at {first:?}");
    assert!(when("final_layer.").iter().max() < last.iter().min());
}
