//! The same bits for any number of ranks and kernel threads, through stops and resumes (`docs/step.md` §7).

use std::sync::Arc;

use syncytia::task::TaskConfig;
use syncytia::task::completion::CompletionConfig;
use syncytia::train::config::{Recompute, Reduction, TrainConfig};
use syncytia::train::ready::{self, Ready};
use syncytia::train::trainer::End;
use syncytia_shards::draw::{Purpose, ShuffleStream};
use syncytia_shards::reader::Shards;
use syncytia_shards::writer::{self, WriteOptions};

use crate::stage::{self, Consumed, Seen, Theatre, shipped, tiny};

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

/// However many threads prepare the batches, and whatever they had ready when the run stopped.
#[test]
fn loaders_and_a_stop_among_them_change_no_bit() {
    let (one, seen_by_one) = straight(&recorded(|_| {}), 2);
    for loaders in [2, 5] {
        let config = recorded(|c| c.train.loaders = loaders);
        let theatre = Theatre::new();
        let (_, first) = theatre.run(&config, 2, Some(5)).unwrap();
        let (end, second) = theatre.run(&config, 2, None).unwrap();
        assert_eq!(end, End::Finished);
        let mut consumed = [first.consumed, second.consumed].concat();
        consumed.sort();
        assert_eq!(consumed, seen_by_one.consumed, "{loaders} loaders: every record once");
        assert!(theatre.last() == one.last(), "{loaders} loaders");
    }
}

/// Lanes of 32 neighbourhoods at full width: every product is above the size from which the kernels share work.
#[test]
fn kernel_threads_do_not_change_a_bit() {
    for recipe in ["paper", "best"] {
        let mut config = shipped(recipe);
        config.train.max_steps = 2;
        config.train.lanes = 2;
        let with = |threads: usize| {
            let mut config = config.clone();
            config.train.threads = threads;
            straight(&config, 1).0.last()
        };
        let one = with(1);
        for threads in [2, 4, 7] {
            assert!(with(threads) == one, "{recipe}.toml on {threads} kernel threads");
        }
    }
}

/// What is computed again in backward is what was kept otherwise.
#[test]
fn recomputing_what_is_cheap_changes_no_bit() {
    for recipe in ["tiny", "best"] {
        let with = |recompute: Recompute| {
            let mut config = shipped(recipe);
            (config.train.max_steps, config.train.lanes, config.train.recompute) = (2, 2, recompute);
            straight(&config, 1)
        };
        let ((kept, seen), (again, seen_again)) = (with(Recompute::None), with(Recompute::Cheap));
        assert_eq!(seen.losses, seen_again.losses, "{recipe}.toml");
        assert!(kept.last().model == again.last().model, "{recipe}.toml");
    }
}

/// A block's second forward draws as its first did, its gradients are added up in the same order, and those who sum them during
/// backward are told from within it: norms before and after, with all parts training and without the first ones.
#[test]
fn blocks_that_run_again_in_backward_change_no_bit() {
    for (recipe, freeze) in
        [("tiny", &[][..]), ("best", &["linear", "transformer_encoder.layers.0"][..]), ("paper", &[][..])]
    {
        let with = |recompute: Recompute, ranks: usize, overlap: bool| {
            let mut config = shipped(recipe);
            config.train.freeze = freeze.iter().map(|part| (*part).to_owned()).collect();
            config.train.freeze_untrained = true;
            (config.train.max_steps, config.train.lanes, config.train.micro_batch) = (3, 4, 8);
            (config.train.recompute, config.train.overlap) = (recompute, Some(overlap));
            let (theatre, seen) = straight(&config, ranks);
            (theatre.last(), seen.losses)
        };
        let kept = with(Recompute::None, 1, false);
        for (ranks, overlap) in [(1, false), (2, false), (2, true)] {
            assert!(
                with(Recompute::Blocks, ranks, overlap) == kept,
                "{recipe}.toml, {ranks} ranks, overlap: {overlap}"
            );
        }
    }
}

/// Two terms: the weights of both travel, and both enter the loss with their λ.
#[test]
fn a_loss_of_two_terms_has_the_same_bits_and_adds_up() {
    let with = |lambda: f64, ranks: usize| {
        let TaskConfig::Completion(task) = tiny(|_| {}).task else { unreachable!() };
        let task = CompletionConfig { visible_weight: lambda, ..task };
        let (theatre, seen) = straight(&recorded(|c| c.task = TaskConfig::Completion(task)), ranks);
        (theatre.last(), seen)
    };
    let (one, seen_by_one) = with(0.5, 1);
    for ranks in [3, 8] {
        let (several, seen) = with(0.5, ranks);
        assert!(several == one && seen.losses == seen_by_one.losses, "{ranks} ranks");
    }
    let first_loss = |lambda| with(lambda, 2).1.losses[0].1;
    let (none, all) = (first_loss(0.0), first_loss(1.0));
    assert!((seen_by_one.losses[0].1 - (none + 0.5 * (all - none))).abs() < 1e-12, "λ enters the loss once");
    assert!(all > none, "the visible entries have an error of their own");
}

/// The paper's recipe takes other paths: post-norm, all rows, no EMA.
#[test]
fn the_published_recipe_has_the_same_bits_too() {
    let mut config = shipped("paper");
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
        let (mut consumed, mut validations, mut reruns): (Consumed, _, _) = (Vec::new(), Vec::new(), Vec::new());
        let mut story = Vec::new();
        loop {
            let ranks = [1, 2, 3, 4, 8][stream.below(5) as usize];
            let after = u64::from(1 + stream.below(6));
            story.push((ranks, after));
            let (end, seen) = theatre.run(&config, ranks, Some(after)).unwrap();
            let left = config.train.max_steps - consumed.len() as u64 / 8;
            assert_eq!(
                seen.losses.len() as u64,
                after.min(left),
                "schedule {schedule}: a vote stops at the next boundary"
            );
            consumed.extend(seen.consumed);
            validations.extend(seen.validations);
            reruns.extend(seen.reruns);
            if end == End::Finished {
                break;
            }
        }
        consumed.sort();
        assert_eq!(consumed, whole.consumed, "schedule {schedule}: {story:?}");
        assert_eq!((validations, reruns), (whole.validations.clone(), whole.reruns.clone()), "{schedule}: {story:?}");
        let (ours, theirs) = (theatre.last(), undisturbed.last());
        assert!(ours == theirs, "schedule {schedule}, (ranks, stop after): {story:?}");
    }
}

/// f32 sums instead of integers: the same gradient to rounding, so the same norm at every step and nearly the same weights.
/// bf16 between ranks: half a unit of 2⁻⁸ per value and rank.
#[test]
fn a_fast_reduction_agrees_within_its_tolerance() {
    let (exact, seen) = straight(&recorded(|_| {}), 2);
    for (reduction, first, later) in [(Reduction::Fast, 1e-6, 1e-4), (Reduction::FastBf16, 1e-3, 2e-2)] {
        let (fast, seen_fast) = straight(&recorded(|c| c.train.reduction = reduction), 2);
        let near = |a: f64, b: f64| (a - b).abs() <= later * a.abs();
        let off = (seen.norms[0] - seen_fast.norms[0]).abs() / seen.norms[0];
        assert!(off <= first, "{reduction:?}: the first gradient is one gradient, {off} off");
        for (step, (a, b)) in seen.norms.iter().zip(&seen_fast.norms).enumerate() {
            assert!(near(*a, *b), "{reduction:?}, step {step}: norms {a} and {b}");
        }
        for ((step, a), (_, b)) in seen.losses.iter().zip(&seen_fast.losses) {
            assert!(near(*a, *b), "{reduction:?}, step {step}: losses {a} and {b}");
        }
        let (exact, fast) = (exact.last(), fast.last());
        assert!(exact.model != fast.model, "{reduction:?} was not taken");
        if reduction == Reduction::FastBf16 {
            continue; // where a gradient is rounding only Adam's step is of any sign, and that is no rarity here
        }
        let pairs = exact.model.iter().zip(&fast.model).flat_map(|(a, b)| a.values.iter().zip(&b.values));
        // Adam divides by the gradient's size: where that is rounding only, a step may turn its sign.
        let (n, off) = pairs.fold((0, 0), |(n, off), (x, y)| (n + 1, off + usize::from((x - y).abs() > 1e-5)));
        assert!(off * 100 < n, "{off} of {n} weights differ by more than 1e-5");
    }
}

/// With one rank per lane every lane's gradient is rounded, with one rank only their sum: not the same bits, and not promised.
#[test]
fn sums_in_bf16_depend_on_the_number_of_ranks_and_on_nothing_else() {
    let config = recorded(|c| c.train.reduction = Reduction::FastBf16);
    let weights = |ranks: usize| straight(&config, ranks).0.last();
    assert!(weights(2) == weights(2), "again");
    assert!(weights(1) != weights(2));
}

/// Who goes on with sums of another precision is told both.
#[test]
fn another_precision_of_the_sums_is_refused_on_resume() {
    let theatre = Theatre::new();
    theatre.run(&tiny(|_| {}), 2, Some(3)).unwrap();
    for (reduction, name) in [(Reduction::Fast, "fast"), (Reduction::FastBf16, "fast_bf16")] {
        let error = theatre.run(&tiny(|c| c.train.reduction = reduction), 2, None).unwrap_err().to_string();
        assert!(error.contains(&format!("train.reduction: \"exact\" → \"{name}\"")), "{error}");
    }
}

#[test]
fn a_changed_config_is_refused_on_resume_by_name() {
    let theatre = Theatre::new();
    theatre.run(&tiny(|_| {}), 2, Some(3)).unwrap();
    let error = theatre.run(&tiny(|c| c.optim.lr = 1e-4), 2, None).unwrap_err().to_string();
    assert!(error.contains("optim.lr: 0.002 → 0.0001"), "{error}");
    let (mut other, dir) = (stage::processed(), tempfile::tempdir().unwrap());
    other.pieces[0].counts.values[0] += 1.0;
    writer::write(&other, "", dir.path(), &WriteOptions { row_group_records: 100, ..WriteOptions::default() }).unwrap();
    let other = Arc::new(Shards::open(dir.path()).unwrap());
    let error = theatre.run_on(other, &tiny(|_| {}), 2, None).unwrap_err().to_string();
    assert!(error.contains("shards: data hash"), "{error}");
    let (config, shards) = (tiny(|_| {}), stage::shards());
    let ready = Ready::new(&config, &shards).unwrap();
    let mut resumed = ready::newest(&theatre.folder).unwrap().0.unwrap();
    resumed.contents.state["step_version"] = 2.into();
    let error = ready.state(Some(&resumed), theatre.folder.root()).unwrap_err().to_string();
    assert!(error.contains("step definition: 2 → 1"), "{error}");
    // What may change, may.
    theatre.run(&tiny(|c| c.train.max_steps = 14), 3, None).unwrap();
    let error = theatre.run(&tiny(|c| c.train.max_steps = 5), 3, None).unwrap_err().to_string();
    assert!(error.contains("train.max_steps = 5") && error.contains("step 14"), "{error}");
}
