//! One suite for every engine: threads in this process, and processes under `mpirun` when the build has the feature `mpi`
//! (each of them is this test binary again, in the part [`part_of_an_mpi_group`]).

pub mod overlap;

use std::time::Duration;

use syncytia::engine::messages::{broadcast, gather};
use syncytia::engine::{Convert, Engine, EngineError, ThreadsEngine};

/// What any engine must do, on this rank; `largest`: elements of the largest buffer.
pub fn conforms(engine: &mut dyn Engine, largest: usize) {
    let (rank, w) = (engine.rank() as i64, engine.world_size() as i64);
    for n in [0usize, 1, 7, 65_537, largest] {
        let value = |i: usize, rank: i64| (i as i64 - 40) * (rank + 1) + (rank << 40);
        let all: Vec<i64> = (0..n).map(|i| (0..w).map(|r| value(i, r)).sum()).collect();
        let mine: Vec<i64> = (0..n).map(|i| value(i, rank)).collect();
        for round in 0..2 {
            let mut sums = mine.clone();
            engine.all_reduce_i64("sum", &mut sums).unwrap();
            assert!(sums == all, "{n} elements on {w} ranks, round {round}");
        }
        for tail in [0, 5].into_iter().filter(|&tail| tail <= n) {
            let (mut words, mut out) = (mine.clone(), vec![f32::NAN; n - tail]);
            // The place enters the conversion: a piece that is told the wrong place shows.
            let convert: Convert<'_> = &|first, sums, out| {
                out.iter_mut().zip(sums).enumerate().for_each(|(i, (o, &s))| *o = s as f32 + (first + i) as f32);
            };
            engine.all_reduce_converted("converted sum", &mut words, tail, convert, &mut out).unwrap();
            let expected = all[..n - tail].iter().enumerate().map(|(i, &s)| s as f32 + i as f32);
            assert!(out.iter().copied().eq(expected), "{n} elements, {tail} of them tail, on {w} ranks");
            assert_eq!(words[n - tail..], all[n - tail..], "the tail");
        }
        let mut floats: Vec<f32> = (0..n).map(|i| 0.1 * (i % 97) as f32 * (rank + 1) as f32).collect();
        engine.all_reduce_f32("floats", &mut floats).unwrap();
        let bits: Vec<u8> = floats.iter().take(1000).flat_map(|f| f.to_bits().to_le_bytes()).collect();
        assert!(
            gather(engine, "bits", &bits).unwrap().iter().all(|theirs| *theirs == bits),
            "floats agree on all ranks"
        );
        for (i, sum) in floats.iter().enumerate() {
            let expected = 0.1 * f64::from((i % 97) as u32) * (w * (w + 1) / 2) as f64;
            assert!((f64::from(*sum) - expected).abs() <= 1e-5 * expected, "element {i}: {sum}, not {expected}");
        }
    }
    sums_of_bf16_are_those_of_the_definition(engine, largest);
    assert_eq!(broadcast(engine, "told", format!("from {rank}").as_bytes()).unwrap(), b"from 0");
    engine.barrier("end").unwrap();
}

/// The same bits from every engine: each rank's values as bf16, added in f32 in rank order, rounded once.
fn sums_of_bf16_are_those_of_the_definition(engine: &mut dyn Engine, largest: usize) {
    let (rank, w) = (engine.rank(), engine.world_size());
    let nearest = |v: f32| -> u16 {
        let (below, part) = (v.to_bits() >> 16, v.to_bits() & 0xffff);
        (below + u32::from(part > 0x8000 || part == 0x8000 && below % 2 == 1)) as u16
    };
    let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    // Of every fifth the first two cancel, and what the others add is left only if it comes after them: the order shows.
    let value = |i: usize, rank: usize| match (i % 5, rank) {
        (0, 0) => nearest(1e9),
        (0, 1) => nearest(-1e9),
        _ => nearest((0.37 * i as f32 + rank as f32).sin() * 4f32.powi((i + rank) as i32 % 7 - 3)),
    };
    for n in [0usize, 1, 2, 7, 65_537, largest] {
        let sum = |i: usize| nearest((0..w).map(|rank| wide(value(i, rank))).reduce(|a, b| a + b).unwrap());
        for round in 0..2 {
            let mut data: Vec<u16> = (0..n).map(|i| value(i, rank)).collect();
            engine.all_reduce_bf16("sum of bf16", &mut data).unwrap();
            let wrong = data.iter().enumerate().position(|(i, &bits)| bits != sum(i));
            assert!(wrong.is_none(), "{n} elements on {w} ranks, round {round}: element {wrong:?}");
        }
    }
}

/// Runs `f` as each rank of a group of threads.
fn threads<T: Send>(world_size: usize, deadline: Duration, f: impl Fn(&mut dyn Engine) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let f = &f;
        let ranks = ThreadsEngine::group(world_size, deadline)
            .into_iter()
            .map(|mut engine| scope.spawn(move || f(&mut engine)));
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    })
}

#[test]
fn thread_ranks_conform() {
    for world_size in [1, 2, 3, 8] {
        threads(world_size, Duration::from_secs(120), |engine| conforms(engine, 1_000_003));
    }
}

/// Ranks that issue different operations: what each gets is an error that names them.
pub fn differs(engine: &mut dyn Engine, in_length: bool) -> EngineError {
    let rank = engine.rank();
    engine.barrier("together").unwrap();
    if in_length {
        return engine.all_reduce_i64("sum", &mut vec![0; 3 + usize::from(rank == 1)]).unwrap_err();
    }
    let operation = if rank == 1 { "validation" } else { "sum" };
    engine.all_reduce_i64(operation, &mut vec![0; 3]).unwrap_err()
}

pub fn names_the_difference(error: &EngineError, rank: usize, in_length: bool) {
    let words = error.to_string();
    assert!(matches!(error, EngineError::Mismatch { sequence: 2, .. }), "{words}");
    let peer = if rank == 1 { "rank 0" } else { "rank 1" };
    let other = match (in_length, rank) {
        (true, 1) => "sum of 3",
        (true, _) => "sum of 4",
        (false, 1) => "sum of 3",
        (false, _) => "validation of 3",
    };
    assert!(words.contains(&format!("rank {rank} issues")) && words.contains(peer) && words.contains(other), "{words}");
}

#[test]
fn thread_ranks_that_disagree_are_told_who_and_how() {
    for in_length in [false, true] {
        let errors = threads(2, Duration::from_secs(10), |engine| differs(engine, in_length));
        errors.iter().enumerate().for_each(|(rank, error)| names_the_difference(error, rank, in_length));
    }
}

#[cfg(feature = "mpi")]
mod under_mpirun {
    use std::process::Output;
    use std::sync::Arc;

    use syncytia::engine::mpi::MpiEngine;
    use syncytia::engine::peers::NoNews;

    use super::*;
    use crate::mpirun::{mpirun, said};

    /// Runs a scenario of [`part_of_an_mpi_group`] in `n` processes.
    fn group(n: usize, scenario: &str) -> Output {
        let this = std::env::current_exe().unwrap();
        let part = ["engines::under_mpirun::part_of_an_mpi_group", "--exact", "--ignored", "--nocapture"];
        mpirun(n, this.to_str().unwrap(), &part).env("SYNCYTIA_SCENARIO", scenario).output().unwrap()
    }

    fn all_well(n: usize, scenario: &str) {
        let output = group(n, scenario);
        // who leaves a broken group without MPI_Finalize is an error to Open MPI's mpirun and none to MPICH's
        let orderly = scenario != "late";
        assert!(!orderly || output.status.code() == Some(0), "{scenario} on {n}: {}", said(&output));
        let well = said(&output).matches("rank is well").count();
        assert_eq!(well, n, "{scenario} on {n}: {}", said(&output));
    }

    #[test]
    fn mpi_processes_conform() {
        for n in [1, 2, 3, 4] {
            all_well(n, "conforms");
        }
    }

    #[test]
    fn mpi_processes_that_disagree_are_told_who_and_how() {
        all_well(2, "another operation");
        all_well(2, "another length");
    }

    #[test]
    fn an_mpi_process_that_does_not_come_is_an_error_before_the_deadline() {
        all_well(3, "late");
    }

    /// One process of the groups above; what the others call it by.
    #[test]
    #[ignore = "a part of other tests, under mpirun"]
    fn part_of_an_mpi_group() {
        let scenario = std::env::var("SYNCYTIA_SCENARIO").unwrap();
        let deadline = Duration::from_secs(if scenario == "late" { 2 } else { 60 });
        let mut engine = MpiEngine::join(deadline).unwrap();
        let rank = engine.rank();
        match scenario.as_str() {
            "conforms" => conforms(&mut engine, 10_000_000),
            "another operation" => names_the_difference(&differs(&mut engine, false), rank, false),
            "another length" => names_the_difference(&differs(&mut engine, true), rank, true),
            "late" => {
                engine.barrier("before there is news of the peers").unwrap();
                let mut engine = engine.with_peers(Arc::new(NoNews));
                engine.barrier("together").unwrap();
                if rank == 1 {
                    std::thread::sleep(Duration::from_secs(4)); // lost, as far as the others can tell
                    println!("rank is well");
                } else {
                    let error = engine.barrier("start").unwrap_err();
                    let words = error.to_string();
                    assert!(matches!(error, EngineError::Deadline { operation: "start", sequence: 2, .. }), "{words}");
                    println!("rank is well");
                    std::thread::sleep(Duration::from_secs(4)); // the first to leave takes the others along
                }
                std::thread::sleep(Duration::from_secs(2));
                syncytia_launch::exit::now(0); // the group is broken: no orderly end
            }
            other => panic!("no scenario {other:?}"),
        }
        if scenario == "conforms" || scenario.starts_with("another") {
            println!("rank is well");
            engine.finish().unwrap();
        }
    }
}
