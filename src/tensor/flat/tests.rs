use super::*;
use crate::engine::reduce;
use crate::optim::{OptimConfig, adamw as host, clip, ema};
use crate::tensor::cpu;

/// Of every size that f32 has, halves and their neighbours among them.
fn gradient() -> Vec<f32> {
    let spread = (0..4000).map(|i| (1.37 * i as f32).sin() * 2f32.powi(i % 120 - 90));
    let ties = (1..200).flat_map(|i| [0.5, 0.499_999_97, 0.500_000_06].map(|half| (i as f32 + half) * 2f32.powi(-40)));
    spread.chain(ties).chain([0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45, 0.999_999_94]).collect()
}

fn tensor(values: &[f32]) -> Tensor<1> {
    super::values(values.to_vec(), &cpu())
}

fn read(values: Tensor<1>) -> Vec<f32> {
    values.into_data().try_to_vec().unwrap()
}

fn words(sums: &Tensor<1, Int>) -> Vec<i64> {
    sums.clone().into_data().try_to_vec().unwrap()
}

/// Facts and sums of gradients that begin at 2, as the step makes them.
fn summed(gradients: &[&[f32]], shift: i32, lanes: usize) -> (Vec<(u32, u64)>, Tensor<1, Int>) {
    let n = gradients[0].len();
    let (mut facts, mut sums) = (Facts::none(gradients.len(), &cpu()), no_sums(n + 5, &cpu()));
    for (row, gradient) in gradients.iter().enumerate() {
        facts = facts.look(tensor(gradient), row);
        sums = add_fixed(sums, tensor(gradient), &facts, Fixed { at: 2, row, shift, lanes });
    }
    (facts.read().unwrap(), sums)
}

#[test]
fn integers_are_the_hosts_bit_for_bit_and_so_is_the_way_back() {
    let values = gradient();
    let largest = reduce::scan(&values).max_bits;
    for lanes in [1, 8, 1024] {
        let shift = reduce::shift(reduce::binary_exponent(largest), lanes);
        for shift in [shift, shift - 9, 0, -30] {
            let mut expected = vec![0; values.len() + 5];
            reduce::quantise(&values, shift, &mut expected[2..values.len() + 2]);
            reduce::quantise_add(&values, shift, &mut expected[2..values.len() + 2]);
            let (facts, sums) = summed(&[&values, &values], shift, lanes);
            assert_eq!(facts, [(largest, 0); 2]);
            let at = words(&sums).iter().zip(&expected).position(|(a, b)| a != b);
            assert!(at.is_none(), "shift {shift}: place {at:?}");
            let mut back = vec![0.0; values.len()];
            reduce::dequantise(&expected[2..values.len() + 2], shift, &mut back);
            let here = read(from_fixed(zeros(values.len() + 5, &cpu()), &sums, 2, 3..values.len() + 3, shift));
            assert_eq!(here[..3], [0.0; 3]);
            assert!(here[3..].iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()), "shift {shift}");
        }
    }
}

/// As of a gradient that a device could not make: its kernel is left out.
#[test]
fn a_look_that_left_no_mark_is_told() {
    let facts = Facts::none(3, &cpu()).look(tensor(&[1.0]), 2);
    assert_eq!(facts.read(), Ok(vec![(0, 0), (0, 0), (1f32.to_bits(), 0)]));
    let lost = Facts { rows: vec![2, 1], ..Facts::none(3, &cpu()).look(tensor(&[1.0]), 2) };
    assert!(lost.read().unwrap_err().contains("left out the kernel"));
}

/// Golden (`docs/step.md` §5), as the host's test has it.
#[test]
fn quantised_values_are_those_of_the_definition() {
    let tie = |n: f32| n * 2f32.powi(-54);
    let (_, sums) = summed(&[&[1.0, -0.5, 1.0 / 3.0, f32::from_bits(1), 0.0, tie(1.0), tie(3.0)]], 53, 1);
    assert_eq!(words(&sums)[2..9], [1 << 53, -(1 << 52), 3_002_399_841_058_816, 0, 0, 0, 2]);
}

#[test]
fn a_look_counts_what_is_not_finite_and_such_a_gradient_adds_nothing() {
    let (facts, sums) = summed(&[&[1.0, f32::NAN, -3.0, f32::NEG_INFINITY, 0.0], &[0.0, -0.0, 0.0, 0.0, 0.0]], 3, 1);
    assert_eq!(facts[0].1, 2);
    assert_eq!((facts[1], words(&sums)), ((0, 0), vec![0; 10]));
}

/// What a lane may take is 2⁶² / lanes, to the last bit as the host judges it.
#[test]
fn a_gradient_without_room_adds_nothing_exactly_where_the_host_says_that_it_overflows() {
    let mut both = [0, 0];
    for lanes in [1, 3, 6, 7, 8, 1000] {
        for bits in (0..400).map(|i| (2f32.powi(40) / lanes as f32).to_bits() - 200 + i) {
            let (facts, sums) = summed(&[&[1.0, -f32::from_bits(bits)]], 22, lanes);
            assert_eq!(facts[0].0, bits);
            let adds = words(&sums)[2] != 0;
            assert_eq!(adds, !reduce::overflows(bits, 22, lanes), "{lanes} lanes, {bits}");
            both[usize::from(adds)] += 1;
        }
    }
    assert!(both.iter().all(|&n| n > 100), "{both:?}");
}

/// The optimizer's own, in the same order of operations.
#[test]
fn an_update_has_the_bits_of_the_optimizers() {
    let text = "lr = 1e-3\nweight_decay = 0.05\nclip_norm = 1.0\nema = 0.9\n";
    let config: OptimConfig = toml::from_str(text).unwrap();
    let n = 1000;
    let wave = |of: f32| -> Vec<f32> { (0..n).map(|i| (of * i as f32).sin()).collect() };
    let (mut p, mut m, mut v, mut average) = (wave(0.7), vec![0.0; n], vec![0.0; n], wave(0.7));
    let (mut there, mut moments, mut mean) = (tensor(&p), zeros(2 * n, &cpu()), tensor(&p));
    for t in 1..=3 {
        let mut g = wave(1.3 * t as f32);
        let norm = clip::global_norm(&g, &[0..400, 400..n]);
        let gradient = tensor(&g);
        assert!((super::norm(&gradient) - norm).abs() < 1e-12 * norm && norm > 1.0);
        clip::clip(&mut g, norm, 1.0);
        host::update(&config, 1e-3, t, &g, &mut p, &mut m, &mut v);
        ema::update(&mut average, &p, 0.9);
        let by = Constants { clip: (1.0 / norm) as f32, ..host::constants(&config, 1e-3, t) };
        (there, moments) = adamw(there, moments, &gradient, by);
        mean = super::average(mean, &there, 0.9, (1.0 - 0.9f64) as f32);
    }
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read(there)), bits(&p));
    assert_eq!(bits(&read(moments)), bits(&[m, v].concat()));
    assert_eq!(bits(&read(mean)), bits(&average));
}

#[test]
fn memory_that_is_lent_is_the_tensors_own() {
    let (sums, lent) = Int::lend(super::sums(vec![3, -4, 5], &cpu()));
    let lent = lent.unwrap();
    assert_eq!(lent.length(), 3);
    // SAFETY: the tensor holds the memory and nobody else does.
    unsafe { *(lent.address() as *mut i64).add(1) = 7 };
    assert_eq!(words(&sums), [3, 7, 5]);
}
