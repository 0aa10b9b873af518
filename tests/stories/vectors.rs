//! The definition of a step against a second implementation of its text (`docs/step.md`, `tests/golden/step.py`). A change
//! here breaks every checkpoint.

use serde_json::Value;
use syncytia::engine::reduce;
use syncytia::optim::{OptimConfig, adamw, clip, ema};
use syncytia::tensor::{Tensor, cpu, total};
use syncytia::train::step::objective;
use syncytia_shards::draw::{self, DrawKey, Purpose, ShuffleStream};
use syncytia_shards::order::{Order, OrderConfig, RowRef, Window};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/step.json")).unwrap()
}

fn ints<T: TryFrom<i64, Error: std::fmt::Debug>>(value: &Value) -> Vec<T> {
    value.as_array().unwrap().iter().map(|v| T::try_from(v.as_i64().unwrap()).unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    ints::<u32>(value).into_iter().map(f32::from_bits).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn seed(golden: &Value) -> u64 {
    golden["seed"].as_u64().unwrap()
}

#[test]
fn sixteen_draws_of_every_purpose() {
    let golden = golden();
    let purposes = [
        ("Dropout", Purpose::Dropout),
        ("TrainMask", Purpose::TrainMask),
        ("AssayMask", Purpose::AssayMask),
        ("Init", Purpose::Init),
        ("Noise", Purpose::Noise),
        ("Timestep", Purpose::Timestep),
        ("Crop", Purpose::Crop),
        ("GeneSubset", Purpose::GeneSubset),
        ("ShuffleEpoch", Purpose::ShuffleEpoch),
        ("ShuffleWindow", Purpose::ShuffleWindow),
        ("Mixture", Purpose::Mixture),
        ("Synthetic", Purpose::Synthetic),
        ("PatchMask", Purpose::PatchMask),
        ("Thinning", Purpose::Thinning),
        ("MemberMask", Purpose::MemberMask),
        ("ConditionDrop", Purpose::ConditionDrop),
        ("TokenMerge", Purpose::TokenMerge),
    ];
    assert_eq!(golden["draws"].as_object().unwrap().len(), purposes.len());
    for (name, purpose) in purposes {
        let key = DrawKey::new(seed(&golden), purpose);
        let words: Vec<u32> = (0..16).map(|element| key.word(element, [3, 2, 1])).collect();
        assert_eq!(words, ints::<u32>(&golden["draws"][name]), "{name}");
    }
}

#[test]
fn masks_dropout_and_initial_values() {
    let golden = golden();
    let seed = seed(&golden);
    let flags =
        |name: &str| -> Vec<bool> { golden[name].as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect() };
    let mut mask = [false; 12];
    draw::step_bernoulli(DrawKey::new(seed, Purpose::TrainMask), 4, 11, &[0.3, 0.5, 1.0], &mut mask);
    assert_eq!(mask.to_vec(), flags("step_mask"));
    draw::assay_bernoulli(DrawKey::new(seed, Purpose::AssayMask), 5, (2 << 32) | 17, &[0.4; 12], &mut mask);
    assert_eq!(mask.to_vec(), flags("assay_mask"));
    let mut dropout = [0.0; 150];
    draw::dropout_mask_slots(&mut dropout, 150, 0.1, DrawKey::new(seed, Purpose::Dropout), 11, 4, 2);
    assert_eq!(bits(&dropout), ints::<u32>(&golden["dropout"]));
    assert_eq!(bits(&draw::init_uniforms(seed, "a.weight", 9)), ints::<u32>(&golden["init_uniforms"]));
    assert_eq!(bits(&draw::init_normals(seed, "b.weight", 10)), ints::<u32>(&golden["init_normals"]));
}

#[test]
fn ids_of_twenty_one_steps_in_one_window_and_in_windows_of_row_groups() {
    let golden = golden();
    let groups = ints::<u32>(&golden["groups"]);
    let by_record_id =
        (0u32..).zip(&groups).flat_map(|(row_group, &n)| (0..n).map(move |row| RowRef { row_group, row })).collect();
    let mut stream = ShuffleStream::new(seed(&golden), Purpose::ShuffleWindow, &[1, 2, 3]);
    let below: Vec<u32> = (0..20).map(|_| stream.below(3 << 30)).collect();
    assert_eq!(below, ints::<u32>(&golden["below"]));
    assert_eq!(
        ShuffleStream::new(seed(&golden), Purpose::ShuffleEpoch, &[6]).permutation(40),
        ints::<u32>(&golden["permutation"])
    );
    for (name, window) in [("order_whole", Window::Whole { by_record_id }), ("order_windows", Window::RowGroups(2))] {
        let config = OrderConfig { seed: seed(&golden), lanes: 2, micro_batch: 3, window };
        let order = Order::new(config, groups.clone()).unwrap();
        let steps = golden[name].as_array().unwrap();
        assert_eq!(steps.len(), 21);
        for (step, expected) in (0u64..).zip(steps) {
            let ids: Vec<[u32; 2]> =
                (0..2).flat_map(|lane| order.ids(step, lane)).map(|r| [r.row_group, r.row]).collect();
            let expected: Vec<Vec<u32>> = expected.as_array().unwrap().iter().map(ints).collect();
            assert_eq!(ids.iter().map(|id| id.to_vec()).collect::<Vec<_>>(), expected, "{name}, step {step}");
        }
    }
}

#[test]
fn sums_of_a_toy_gradient_with_an_overflow() {
    let golden = golden();
    let lanes: Vec<Vec<f32>> = golden["lanes"].as_array().unwrap().iter().map(floats).collect();
    let tensors: Vec<_> = golden["tensors"].as_array().unwrap().iter().map(ints::<usize>).map(|t| t[0]..t[1]).collect();
    let shifts: Vec<Option<i32>> =
        ints::<i16>(&golden["exponents"]).iter().map(|&e| Some(reduce::shift(e, lanes.len()))).collect();
    let mut sums = vec![0i64; lanes[0].len()];
    let mut overflow = Vec::new();
    for (t, range) in tensors.iter().enumerate() {
        for (l, lane) in lanes.iter().enumerate() {
            let shift = shifts[t].unwrap();
            if reduce::overflows(reduce::scan(&lane[range.clone()]).max_bits, shift, lanes.len()) {
                overflow.push(vec![l, t]);
            } else {
                let (gradient, sum) = (&lane[range.clone()], &mut sums[range.clone()]);
                if l == 0 { reduce::quantise(gradient, shift, sum) } else { reduce::quantise_add(gradient, shift, sum) }
            }
        }
    }
    let expected: Vec<Vec<usize>> = golden["overflow"].as_array().unwrap().iter().map(ints).collect();
    assert_eq!((overflow, sums.clone()), (expected, ints::<i64>(&golden["sums"])));
    let mut back = vec![f32::NAN; sums.len()];
    reduce::dequantise_segment(&tensors, &shifts, 0, &sums, &mut back);
    assert_eq!(bits(&back), ints::<u32>(&golden["back"]));
}

#[test]
fn an_adam_update_an_average_and_a_norm() {
    let golden = golden();
    let [mut p, mut m, mut v, g] = ["p", "m", "v", "g"].map(|name| floats(&golden["adam"][name]));
    let mut average = p.clone();
    let config: OptimConfig = toml::from_str("lr = 1e-3\nweight_decay = 0.05").unwrap();
    adamw::update(&config, 1e-3, 7, &g, &mut p, &mut m, &mut v);
    for (i, ours) in [&p, &m, &v].into_iter().enumerate() {
        assert_eq!(bits(ours), ints::<u32>(&golden["adam"]["after"][i]), "{}", ["p", "m", "v"][i]);
    }
    ema::update(&mut average, &p, 0.98);
    assert_eq!(bits(&average), ints::<u32>(&golden["ema"]));
    let long = floats(&golden["norm"]["of"]);
    assert_eq!(clip::global_norm(&long, &[0..101, 101..130]).to_bits(), golden["norm"]["is"].as_u64().unwrap());
}

#[test]
fn final_weights_of_a_two_term_loss() {
    let golden = &golden()["two_terms"];
    let reals = |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let list = |value: &Value| value.as_array().unwrap().clone();
    let (mut p, lambdas) = (floats(&golden["start"]), reals(&golden["lambdas"]));
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let config: OptimConfig = toml::from_str("lr = 1e-2\nweight_decay = 0.05").unwrap();
    let device = cpu().autodiff();
    for (step, (lanes, weights)) in list(&golden["slopes"]).iter().zip(list(&golden["weights"])).enumerate() {
        let gradient_of = |lane: &Value| -> Vec<f32> {
            let leaf = Tensor::<1>::from_floats(&p[..], &device).require_grad();
            let sum = |slope: &Value| total(leaf.clone() * Tensor::from_floats(&floats(slope)[..], &device));
            let sums = list(lane).iter().map(sum).collect();
            let gradients = objective(sums, &lambdas, &reals(&weights)).backward();
            leaf.grad(&gradients).unwrap().into_data().try_to_vec().unwrap()
        };
        let lanes: Vec<Vec<f32>> = list(lanes).iter().map(gradient_of).collect();
        let largest = lanes.iter().map(|g| reduce::scan(g).max_bits).max().unwrap();
        let shift = reduce::shift(reduce::binary_exponent(largest), lanes.len());
        let mut sums = vec![0i64; p.len()];
        lanes.iter().for_each(|gradient| reduce::quantise_add(gradient, shift, &mut sums));
        let mut gradient = vec![0.0; p.len()];
        reduce::dequantise(&sums, shift, &mut gradient);
        adamw::update(&config, 1e-2, step as u64 + 1, &gradient, &mut p, &mut m, &mut v);
    }
    assert_eq!(bits(&p), ints::<u32>(&golden["after"]));
}
