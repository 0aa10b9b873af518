//! The same bits for any number of ranks and kernel threads, through stops and resumes (`docs/step.md` §7).

use syncytia::train::config::{Reduction, TrainConfig};
use syncytia::train::trainer::End;
use syncytia_shards::draw::{Purpose, ShuffleStream};

use crate::stage::{Consumed, Seen, Theatre, tiny};

fn recorded(change: impl FnOnce(&mut TrainConfig)) -> TrainConfig {
    tiny(|c| {
        c.log.record_ids = true;
        change(c);
    })
}

/// Trains undisturbed on `ranks` and gives the last checkpoint and what was seen.
fn straight(config: &TrainConfig, ranks: usize) -> (Theatre, Seen) {
    let theatre = Theatre::new();
    let (end, seen) = theatre.run(config, ranks, None).unwrap();
    assert_eq!(end, End::Finished);
    (theatre, seen)
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let config = recorded(|_| {});
    let (one, seen_by_one) = straight(&config, 1);
    assert_eq!(seen_by_one.consumed.len(), 12 * 8, "8 lanes a step");
    assert!(seen_by_one.reruns.contains(&1), "the first step measures its exponents and runs again");
    for ranks in [2, 3, 4, 8] {
        let (several, seen) = straight(&config, ranks);
        assert_eq!(seen.consumed, seen_by_one.consumed, "{ranks} ranks read other records");
        assert_eq!(seen.losses, seen_by_one.losses, "{ranks} ranks");
        assert_eq!(seen.validations, seen_by_one.validations, "{ranks} ranks");
        assert!(several.last() == one.last(), "weights, optimizer, EMA or exponents differ on {ranks} ranks");
    }
}

#[test]
fn kernel_threads_do_not_change_a_bit() {
    let (one, _) = straight(&recorded(|c| c.train.threads = 1), 2);
    let (two, _) = straight(&recorded(|c| c.train.threads = 2), 2);
    assert!(one.last() == two.last());
}

/// The paper's recipe takes other paths: post-norm, all rows, no EMA.
#[test]
fn the_published_recipe_has_the_same_bits_too() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/spackle/paper.toml");
    let mut config: TrainConfig = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    config.train.max_steps = 3;
    config.train.micro_batch = 4;
    config.train.validate_every = 3;
    let (one, _) = straight(&config, 1);
    let (three, _) = straight(&config, 3);
    assert!(one.last() == three.last());
}

#[test]
fn windows_of_row_groups_have_the_same_bits_too() {
    let config = recorded(|c| {
        c.data.window_bytes = 1;
        c.data.window_row_groups = 2;
    });
    let (one, seen_by_one) = straight(&config, 1);
    let (three, seen) = straight(&config, 3);
    assert_eq!(seen.consumed, seen_by_one.consumed);
    assert!(one.last() == three.last());
    let (_, whole) = straight(&recorded(|_| {}), 2);
    assert_ne!(seen.consumed, whole.consumed, "a window of two row groups is another order than the whole split");
}

/// 20 random schedules of world sizes and stops, drawn with a fixed seed.
#[test]
fn stops_and_resumes_on_other_numbers_of_ranks_change_nothing() {
    let config = recorded(|_| {});
    let (undisturbed, whole) = straight(&config, 2);
    let mut stream = ShuffleStream::new(20, Purpose::Synthetic, &[]);
    for schedule in 0..20 {
        let theatre = Theatre::new();
        let mut consumed: Consumed = Vec::new();
        let mut story = Vec::new();
        loop {
            let ranks = [1, 2, 3, 4, 8][stream.below(5) as usize];
            let after = u64::from(1 + stream.below(6));
            story.push((ranks, after));
            let (end, seen) = theatre.run(&config, ranks, Some(after)).unwrap();
            consumed.extend(seen.consumed);
            if end == End::Finished {
                break;
            }
        }
        consumed.sort();
        assert_eq!(consumed, whole.consumed, "schedule {schedule}: {story:?}");
        let (ours, theirs) = (theatre.last(), undisturbed.last());
        assert!(ours == theirs, "schedule {schedule}, (ranks, stop after): {story:?}");
    }
}

#[test]
fn the_fast_reduction_agrees_within_its_tolerance() {
    let (exact, _) = straight(&recorded(|c| c.train.max_steps = 3), 2);
    let (fast, _) = straight(
        &recorded(|c| {
            c.train.max_steps = 3;
            c.train.reduction = Reduction::Fast;
        }),
        2,
    );
    for (a, b) in exact.last().model.iter().zip(&fast.last().model) {
        for (x, y) in a.values.iter().zip(&b.values) {
            // Adam divides by the gradient's size: where that is rounding only, a step of lr = 2e-3 may turn its sign.
            assert!((x - y).abs() < 3.0 * 2.0 * 2e-3, "{}: {x} against {y}", a.name);
        }
    }
    assert_eq!(exact.last().model.len(), fast.last().model.len());
}

#[test]
fn a_changed_config_is_refused_on_resume_by_name() {
    let theatre = Theatre::new();
    theatre.run(&tiny(|_| {}), 2, Some(3)).unwrap();
    let error = theatre.run(&tiny(|c| c.optim.lr = 1e-4), 2, None).unwrap_err().to_string();
    assert!(error.contains("optim.lr: 0.002 → 0.0001"), "{error}");
    // What may change, may.
    theatre.run(&tiny(|c| c.train.max_steps = 14), 3, None).unwrap();
}
