//! Threads as ranks: right sums, and errors that name the rank.

use super::*;

fn run<T: Send>(world_size: usize, f: impl Fn(ThreadsEngine) -> T + Sync) -> Vec<T> {
    run_within(world_size, Duration::from_secs(20), f)
}

fn run_within<T: Send>(world_size: usize, deadline: Duration, f: impl Fn(ThreadsEngine) -> T + Sync) -> Vec<T> {
    let f = &f;
    std::thread::scope(|scope| {
        let handles: Vec<_> =
            ThreadsEngine::group(world_size, deadline).into_iter().map(|e| scope.spawn(move || f(e))).collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    })
}

#[test]
fn sums_are_right_for_any_size_and_any_number_of_ranks() {
    for world_size in [1, 2, 3, 4, 8] {
        for n in [0usize, 1, 7, 1000, 65_537] {
            let sums = run(world_size, |mut engine| {
                let rank = engine.rank() as i64;
                let mut total = Vec::new();
                for round in 0..3 {
                    let mut data: Vec<i64> = (0..n as i64).map(|i| i * (rank + 1) + round).collect();
                    engine.all_reduce_i64("test", &mut data).unwrap();
                    total.push(data);
                }
                total
            });
            let w = world_size as i64;
            for rank in sums {
                for (round, data) in rank.into_iter().enumerate() {
                    let expected: Vec<i64> = (0..n as i64).map(|i| i * w * (w + 1) / 2 + w * round as i64).collect();
                    assert_eq!(data, expected, "W = {world_size}, n = {n}");
                }
            }
        }
    }
}

#[test]
fn converted_sums_are_those_of_the_plain_reduction() {
    let tail = 5;
    for world_size in [1, 2, 3, 8] {
        for n in [0usize, 1, 7, BLOCK * 3 + 11] {
            let sums = run(world_size, |mut engine| {
                let rank = engine.rank() as i64;
                let mine: Vec<i64> = (0..(n + tail) as i64).map(|i| (i - 40) * (rank + 3)).collect();
                let (mut plain, mut words, mut out) = (mine.clone(), mine, vec![f32::NAN; n]);
                engine.all_reduce_i64("plain", &mut plain).unwrap();
                // The place enters the conversion: a segment that is told the wrong place shows.
                let convert = |first: usize, sums: &[i64], out: &mut [f32]| {
                    for (i, (o, &s)) in out.iter_mut().zip(sums).enumerate() {
                        *o = s as f32 + 0.5 * (first + i) as f32;
                    }
                };
                for _ in 0..2 {
                    let mut again = words.clone();
                    engine.all_reduce_converted("converted", &mut again, tail, &convert, &mut out).unwrap();
                    assert_eq!(again[n..], plain[n..], "the tail");
                }
                words.clear();
                (plain, out)
            });
            for (plain, out) in &sums {
                let expected: Vec<f32> =
                    plain[..n].iter().enumerate().map(|(i, &s)| s as f32 + 0.5 * i as f32).collect();
                assert_eq!(*out, expected, "W = {world_size}, n = {n}");
            }
        }
    }
}

#[test]
fn float_sums_agree_on_every_rank() {
    let sums = run(3, |mut engine| {
        let mut data = vec![0.1f32 * (engine.rank() + 1) as f32; 10];
        engine.all_reduce_f32("test", &mut data).unwrap();
        data
    });
    assert!(sums.iter().all(|s| *s == sums[0]));
    // 0.1 + 0.2 + 0.3 in f32: one rounding each.
    assert!((sums[0][0] - 0.6).abs() < 1e-6);
}

#[test]
fn a_lost_peer_is_an_error_that_names_it() {
    let results = run_within(3, Duration::from_millis(200), |mut engine| {
        (engine.rank() != 1).then(|| engine.barrier("start").unwrap_err())
    });
    for error in results.into_iter().flatten() {
        assert!(
            matches!(&error, EngineError::Deadline { missing, operation: "start", .. } if missing == &[1]),
            "{error}"
        );
    }
}

#[test]
fn a_panicking_rank_releases_the_others_with_its_reason() {
    std::thread::scope(|scope| {
        let mut group = ThreadsEngine::group(2, Duration::from_secs(20)).into_iter();
        let (mut a, b) = (group.next().unwrap(), group.next().unwrap());
        let lost = scope.spawn(move || {
            let _held = b;
            panic!("boom");
        });
        assert!(lost.join().is_err());
        let error = a.barrier("start").unwrap_err();
        assert!(matches!(error, EngineError::Peer { peer: 1, .. }), "{error}");
    });
}

#[test]
fn different_lengths_are_refused() {
    let results = run_within(2, Duration::from_secs(1), |mut engine| {
        let mut data = vec![0; 3 + engine.rank()];
        engine.all_reduce_i64("gradients", &mut data)
    });
    assert!(results.iter().any(|r| matches!(r, Err(EngineError::Mismatch { operation: "gradients", .. }))));
    assert!(results.iter().all(|r| r.is_err()));
}
