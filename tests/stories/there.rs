//! Sums and state kept where the model is (`train.keep = "device"`): what a GPU does by default, here on the cores, whose arithmetic
//! is the host's, so that every bit can be compared.

use std::sync::Arc;
use std::time::Duration;

use syncytia::engine::nccl::NcclEngine;
use syncytia::engine::peers::NoNews;
use syncytia::engine::watchdog::Watched;
use syncytia::train::config::{Keep, Reduction, TrainConfig};
use syncytia::train::trainer::{End, thread_ranks};

use crate::nccl;
use crate::stage::{self, Seen, Theatre, tiny};

fn over_nccl(ranks: usize) -> Vec<Watched> {
    let joined = nccl::ranks(ranks, Duration::from_secs(60), Result::unwrap, |_| true);
    joined.into_iter().map(|engine: NcclEngine| Watched::recorded(Box::new(engine), Arc::new(NoNews))).collect()
}

/// Clipped in some steps, with an average and a decay; digests at steps at which nothing else looks at the state.
fn config(keep: Option<Keep>, change: impl FnOnce(&mut TrainConfig)) -> TrainConfig {
    tiny(|c| {
        c.optim.clip_norm = Some(0.05);
        c.train.keep = keep;
        change(c);
    })
}

/// A run from its start; and the operations of its first rank.
fn run(
    config: &TrainConfig,
    ranks: usize,
    engines: impl Fn(usize) -> Vec<Watched>,
) -> (Theatre, Seen, Vec<&'static str>) {
    let (theatre, mut flight) = (Theatre::new(), None);
    let engines = |n| {
        let engines = engines(n);
        flight = Some(Arc::clone(engines[0].flight()));
        engines
    };
    let (_, seen) = theatre.run_with(stage::shards(), config, ranks, None, engines).unwrap();
    let operations = flight.unwrap().record("").operations.iter().map(|o| o.operation).collect();
    (theatre, seen, operations)
}

#[test]
fn a_state_on_the_device_is_the_hosts_bit_for_bit_on_any_number_of_ranks() {
    let host = Theatre::new();
    let (_, by_host) = host.run(&config(Some(Keep::Host), |_| {}), 2, None).unwrap();
    assert!(by_host.norms.iter().any(|&norm| norm > 0.05), "nothing was clipped: {:?}", by_host.norms);
    for (ranks, overlap) in [(1, false), (2, false), (3, false), (1, true), (2, true), (3, true)] {
        let there = config(Some(Keep::Device), |c| c.train.overlap = Some(overlap));
        let (theatre, seen, operations) = run(&there, ranks, |n| thread_ranks(n, Duration::from_secs(60)));
        let on = format!("{ranks} ranks, beside backward: {overlap}");
        assert!(operations.contains(&"tail"), "{on}: the host's sums take the tail along");
        assert_eq!(seen.losses, by_host.losses, "{on}");
        assert_eq!((seen.validations, &seen.reruns), (by_host.validations.clone(), &by_host.reruns), "{on}");
        let apart = seen.norms.iter().zip(&by_host.norms).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        assert!(apart < 1e-12, "{on}: norms are {apart} apart");
        assert!(theatre.last() == host.last(), "{on}: weights, moments, average or exponents differ");
    }
}

#[test]
fn a_stop_and_a_resume_on_other_ranks_change_no_bit_of_it() {
    let config = config(Some(Keep::Device), |_| {});
    let straight = Theatre::new();
    straight.run(&config, 2, None).unwrap();
    let theatre = Theatre::new();
    let (end, _) = theatre.run(&config, 3, Some(5)).unwrap();
    assert!(matches!(end, End::Stopped { .. }));
    let (end, _) = theatre.run(&config, 1, None).unwrap();
    assert_eq!(end, End::Finished);
    assert!(theatre.last() == straight.last());
}

/// Between ranks values are bf16, two to a word: the host's bits, alone, by way of the host, and in place.
#[test]
fn bf16_between_ranks_has_the_hosts_bits_wherever_it_is_added() {
    let of = |keep| config(Some(keep), |c| (c.train.max_steps, c.train.reduction) = (4, Reduction::FastBf16));
    let threads = |n: usize| thread_ranks(n, Duration::from_secs(60));
    for ranks in [1, 2, 3] {
        let (host, seen, _) = run(&of(Keep::Host), ranks, threads);
        for (engines, operation) in [
            (&threads as &dyn Fn(usize) -> Vec<Watched>, "sum of gradients"),
            (&over_nccl, "sum of gradients, in place"),
        ] {
            let (there, seen_there, operations) = run(&of(Keep::Device), ranks, engines);
            assert_eq!(seen_there.losses, seen.losses, "{ranks} ranks, {operation}");
            assert!(there.last() == host.last(), "{ranks} ranks, {operation}");
            let sums = operations.iter().filter(|o| **o == operation).count();
            assert_eq!(sums, if ranks == 1 { 0 } else { 4 }, "{operation}: {operations:?}");
        }
    }
}

/// Values that are too large for their fixed point: the step is run again from the same state.
#[test]
fn a_lane_that_overflows_runs_the_step_again_from_what_is_there() {
    let with = |keep| {
        let theatre = Theatre::new();
        let wild = config(Some(keep), |c| (c.optim.lr, c.optim.clip_norm) = (3.0, None));
        let (_, seen) = theatre.run(&wild, 2, None).unwrap();
        (theatre.last(), seen.reruns)
    };
    let ((host, reruns), (there, reruns_there)) = (with(Keep::Host), with(Keep::Device));
    assert!(reruns.iter().any(|&step| step > 1), "{reruns:?}");
    assert_eq!(reruns_there, reruns);
    assert!(there == host);
}

/// The sums lie in memory that the library adds up in place; what stands in for it here is the host's.
#[test]
fn nccl_adds_up_what_lies_on_the_device_where_it_lies() {
    let threads = |n: usize| thread_ranks(n, Duration::from_secs(60));
    for reduction in [Reduction::Exact, Reduction::Fast] {
        let config = |keep, overlap| {
            config(Some(keep), |c| {
                (c.train.max_steps, c.train.reduction, c.train.overlap) = (4, reduction, overlap);
            })
        };
        let (host, seen, _) = run(&config(Keep::Host, None), 2, threads);
        let mut sums = Vec::new();
        for overlap in [None, Some(true)] {
            let (there, seen_there, operations) = run(&config(Keep::Device, overlap), 2, over_nccl);
            assert_eq!(seen_there.losses, seen.losses, "{reduction:?}, {overlap:?}");
            assert!(there.last() == host.last(), "{reduction:?}, {overlap:?}");
            let in_place = operations.iter().filter(|o| **o == "sum of gradients, in place").count();
            // As often in every step, of which the first is run twice where it measures exponents.
            let attempts = 4 + seen_there.reruns.len();
            assert_eq!(in_place % attempts, 0, "{reduction:?}, {overlap:?}: {operations:?}");
            sums.push(in_place / attempts);
        }
        assert!(sums[0] == 1 && sums[1] > 2, "{reduction:?}: at once, and bucket by bucket: {sums:?}");
    }
}
