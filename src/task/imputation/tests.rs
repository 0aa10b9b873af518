use syncytia_shards::matrix::Matrix;

use super::super::paired::tests::wave;
use super::*;
use crate::model::params;
use crate::model::spotdiff::tests::tiny;
use crate::tensor::{RAN_AGAIN, cpu};

const AT: DrawsAt = DrawsAt::Step { global_step: 3, first_slot: 8 };
const FOLDED: [usize; 2] = [2, 5];

fn task(paired: &Paired) -> Imputation {
    Imputation::of_paired(ImputationConfig { steps: 50, ..Default::default() }, &tiny(), paired, 1).unwrap()
}

/// A model none of whose parts is silent.
fn trained(genes: usize) -> Spotdiff {
    let device = cpu();
    let model = Spotdiff::new(&tiny(), genes, 1, &device);
    let flat: Vec<f32> = (0..params::to_flat(&model).len()).map(|i| (0.7 * i as f32).sin() * 0.1).collect();
    params::from_flat(model, &flat, &device)
}

#[test]
fn spots_are_asked_for_what_a_mask_hides_and_cells_for_the_fold_too() {
    let paired = wave(6, 5, 8, &FOLDED);
    let batch = task(&paired).prepare(&paired, &[0, 3, 4], AT);
    let rows = &batch.rows;
    assert_eq!((rows.n, rows.asked.len()), (6, 6 * 8));
    for (row, (asked, bits)) in rows.asked.chunks(8).zip(rows.bits.chunks(8)).enumerate() {
        for gene in 0..8 {
            assert!(asked[gene] * bits[gene] == 0.0, "row {row} shows what it is asked for");
            let folded = FOLDED.contains(&gene);
            let expected = if row < 3 { f32::from(u8::from(!folded)) } else { 1.0 };
            assert_eq!(asked[gene] + bits[gene], expected, "row {row}, gene {gene}");
            assert!(!(folded && row >= 3) || asked[gene] == 1.0);
        }
    }
    let asked = |rows_: std::ops::Range<usize>| rows.asked[rows_.start * 8..rows_.end * 8].iter().sum::<f32>();
    assert_eq!(batch.weights, [f64::from(asked(0..3)), f64::from(asked(3..6))]);
    assert!(batch.weights[0] > 0.0 && batch.weights[0] < 18.0);
}

#[test]
fn a_slot_s_draws_do_not_depend_on_the_cut_and_cells_change_with_the_step() {
    let paired = wave(6, 40, 8, &FOLDED);
    let task = task(&paired);
    let all = task.prepare(&paired, &[0, 1, 2, 3], AT).rows;
    let late = task.prepare(&paired, &[2, 3], DrawsAt::Step { global_step: 3, first_slot: 10 }).rows;
    assert_eq!(all.noisy[2 * 8..4 * 8], late.noisy[..2 * 8]);
    assert_eq!(all.noisy[6 * 8..], late.noisy[2 * 8..]);
    assert_eq!((&all.times[2..4], &all.times[6..]), (&late.times[..2], &late.times[2..]));
    let next = task.prepare(&paired, &[0, 1, 2, 3], DrawsAt::Step { global_step: 4, first_slot: 8 }).rows;
    assert_ne!(all.pair[4 * 8..], next.pair[4 * 8..], "the same cells joined");
}

#[test]
fn entries_have_no_cells_and_spots_their_whole_weight() {
    let paired = wave(6, 5, 8, &[]);
    let task = task(&paired);
    assert_eq!(task.lambdas(), [1.0, 0.0]);
    let batch = task.prepare(&paired, &[0, 1], AT);
    assert_eq!((batch.rows.n, batch.weights[1]), (2, 0.0));
    let error = Imputation::of_paired(ImputationConfig::default(), &tiny(), &wave(6, 0, 8, &FOLDED), 1).unwrap_err();
    assert!(error.contains("--reference"), "{error}");
}

/// As stDiff: cells alone, asked for the fold's genes and for no others.
#[test]
fn without_a_mask_and_a_weight_of_spots_cells_are_asked_for_the_fold_alone() {
    let device = cpu().autodiff();
    let paired = wave(6, 40, 8, &FOLDED);
    let config = ImputationConfig { steps: 50, train_mask: 0.0, spot_share: 0.0, ..Default::default() };
    let alone = Imputation::of_paired(config, &tiny(), &paired, 1).unwrap();
    assert_eq!(alone.lambdas(), [0.0, 1.0]);
    let batch = alone.prepare(&paired, &[0, 3, 4], AT);
    assert_eq!((batch.rows.n, batch.n_spots, batch.ids.len()), (3, 0, 3));
    for asked in batch.rows.asked.chunks(8) {
        let expected: Vec<f32> = (0..8).map(|gene| f32::from(u8::from(FOLDED.contains(&gene)))).collect();
        assert_eq!(asked, expected);
    }
    assert_eq!(batch.weights, [0.0, 6.0]);
    // The same cells with the same noise as beside spots.
    let beside = Imputation::of_paired(ImputationConfig { steps: 50, ..Default::default() }, &tiny(), &paired, 1);
    let both = beside.unwrap().prepare(&paired, &[0, 3, 4], AT).rows;
    assert_eq!(batch.rows.times, both.times[3..]);
    assert_eq!(batch.rows.noisy[2], both.noisy[3 * 8 + 2]);
    let terms = alone.loss(&trained(8), &batch, &Training::new(1, 3, 8), &device);
    let (values, _) = terms.values.read();
    assert!(values[0] == 0.0 && values[1] > 0.0, "{values:?}");
    let problems = |train_mask, spot_share| ImputationConfig { train_mask, spot_share, ..config }.problems().join(" ");
    assert!(problems(0.0, 0.5).contains("asks spots for nothing") && problems(0.0, 0.0).is_empty());
}

/// What is noisy at the last time is noise: neither a target nor a value that is asked for can be read from it.
#[test]
fn the_last_time_comes_as_often_as_it_is_asked_for() {
    let paired = wave(200, 5, 8, &FOLDED);
    let rows: Vec<usize> = (0..200).collect();
    let times = |share: f64| {
        let config = ImputationConfig { steps: 50, last_time_share: share, ..Default::default() };
        Imputation::new(config, &tiny(), true, 1).prepare(&paired, &rows, AT).rows.times
    };
    let last = |share: f64| times(share).iter().filter(|&&t| t == 49).count();
    assert_eq!(last(1.0), 400);
    assert!((150..=250).contains(&last(0.5)), "{}", last(0.5)); // 5 standard errors, and 1 in 49 of the others
    assert!(times(0.0).iter().all(|t| (1..50).contains(t)));
}

#[test]
fn both_terms_reach_psi_and_the_prompt_and_none_reaches_omega() {
    let device = cpu().autodiff();
    let paired = wave(6, 5, 8, &FOLDED);
    let task = task(&paired);
    let model = params::from_flat(trained(8), &params::to_flat(&trained(8)), &device);
    let batch = task.prepare(&paired, &[0, 1, 2], AT);
    let terms = task.loss(&model, &batch, &Training::new(1, 3, 8).recomputing_blocks(true), &device);
    let (values, first_bad) = terms.values.read();
    assert!(first_bad.is_none() && values.iter().all(|v| *v > 0.0), "{values:?}");
    RAN_AGAIN.set(0);
    let mut gradients = terms.sums.into_iter().reduce(|a, b| a + b).unwrap().backward();
    assert_eq!(RAN_AGAIN.get(), tiny().psi.blocks, "psi's");
    let specs = params::specs(&model);
    let mut silent: Vec<bool> = vec![true; specs.len()];
    params::each_gradient(&model, &mut gradients, &mut |place, gradient| {
        silent[place] = gradient.into_data().try_to_vec::<f32>().unwrap().iter().all(|g| *g == 0.0);
    });
    for (spec, silent) in specs.iter().zip(silent) {
        assert_eq!(silent, spec.path.starts_with("omega."), "{}", spec.path);
    }
}

/// The promise of `spotdiff.md` §5: with everything fixed, a spot's values are a function of what is visible of it.
#[test]
fn a_spot_s_values_depend_on_what_is_visible_of_it_alone() {
    let paired = wave(70, 5, 8, &FOLDED); // two forwards
    let (task, model) = (task(&paired), trained(8));
    let Readings { mean, spread, .. } = task.impute(&model, &paired, ROWS, &cpu());
    assert!(spread.row(0)[2] > 0.0 && spread.row(0)[0] == 0.0);
    assert_eq!(mean.row(0)[0], paired.spots.values.row(0)[0]);
    let mut other = paired.clone();
    other.spots.values.values[8 * 66] += 0.1;
    let changed = task.impute(&model, &other, ROWS, &cpu()).mean;
    for row in 0..70 {
        assert_eq!(mean.row(row) == changed.row(row), row != 66, "row {row}");
    }
    assert_ne!(mean.row(66)[2], changed.row(66)[2]);
}

#[test]
fn smoothing_is_the_mean_over_a_spot_and_its_nearest() {
    let values = Matrix { n_cols: 1, values: vec![1.0, 2.0, 6.0] };
    let near = vec![vec![1, 2], vec![2, 0], vec![1, 0]];
    assert_eq!(smoothed(&values, &near, 1).values, [1.5, 4.0, 4.0]);
    assert_eq!(smoothed(&values, &near, 0), values);
}
