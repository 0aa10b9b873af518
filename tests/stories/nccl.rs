//! The engine over NCCL, as far as it can be seen without a GPU: its own table of functions against a library that computes in
//! the host's memory (`fake_gpu.c`), the exchange of the id over the store, the gates on versions, and the real library where
//! `SYNCYTIA_TEST_NCCL` names its file.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use syncytia::engine::nccl::{NcclEngine, Seat};
use syncytia::engine::peers::NoNews;
use syncytia::engine::watchdog::Watched;
use syncytia::engine::{Engine, EngineError};
use syncytia::gpu::nccl::SHARES_A_GPU;
use syncytia::gpu::probe::{Needs, Probe};
use syncytia::gpu::{Driver, Nccl, Version, trial};
use syncytia::train::config::Reduction;
use syncytia::train::join_nccl::{self, Meeting};
use syncytia::train::trainer::thread_ranks;
use syncytia_launch::World;

use crate::engines::{conforms, differs, names_the_difference};
use crate::stage::{Theatre, tiny};

/// The library built with these definitions, in a file of its own.
fn fake(definitions: &[&str]) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static BUILT: AtomicUsize = AtomicUsize::new(0);
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let file = folder.path().join(format!("gpu-{}.so", BUILT.fetch_add(1, Ordering::Relaxed)));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories/fake_gpu.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-pthread"]).args(definitions).arg(&source).arg("-o").arg(&file);
    assert!(cc.status().expect("a C compiler, as the linker needs one").success(), "{}", source.display());
    file
}

/// Runs `f` as each rank of a group over the fake library.
pub fn ranks<T: Send>(
    world_size: usize,
    deadline: Duration,
    f: impl Fn(Result<NcclEngine, EngineError>) -> T + Sync,
    come: impl Fn(usize) -> bool + Sync,
) -> Vec<T> {
    let file = fake(&[]);
    let driver = Arc::new(Driver::open(Some(file.as_os_str())).unwrap());
    let nccl = Arc::new(Nccl::open(Some(file.as_os_str())).unwrap());
    let id = nccl.unique_id().unwrap();
    std::thread::scope(|scope| {
        let (f, driver, nccl) = (&f, &driver, &nccl);
        let those = (0..world_size).filter(|&rank| come(rank)).map(|rank| {
            scope.spawn(move || {
                let seat = Seat { rank, world_size, ordinal: rank % 2 };
                f(NcclEngine::join_unwatched(Arc::clone(driver), Arc::clone(nccl), &id, seat, deadline))
            })
        });
        let those: Vec<_> = those.collect();
        those.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn nccl_ranks_conform() {
    // the largest takes several pieces, of any kind
    for (world_size, largest) in [(1, 70_001), (2, 8_400_003), (3, 100_003)] {
        let ended = |engine: Result<NcclEngine, EngineError>| {
            let mut engine = engine.unwrap();
            conforms(&mut engine, largest);
            engine.finish().unwrap();
            engine.all_reduce_i64("after the end", &mut vec![1, 2])
        };
        let after = ranks(world_size, Duration::from_secs(60), ended, |_| true);
        assert!(after.iter().all(Result::is_err), "nothing follows a goodbye");
    }
}

#[test]
fn nccl_ranks_that_disagree_are_told_who_and_how() {
    for in_length in [false, true] {
        let errors = ranks(2, Duration::from_secs(10), |e| differs(&mut e.unwrap(), in_length), |_| true);
        errors.iter().enumerate().for_each(|(rank, error)| names_the_difference(error, rank, in_length));
    }
}

#[test]
fn who_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    let began = Instant::now();
    let soon = Duration::from_millis(300);
    let joined = ranks(3, soon, |engine| engine.err().unwrap(), |rank| rank != 1);
    // The first gives up at the deadline; the other may hear of that from its communicator before its own.
    assert!(joined.iter().any(|error| matches!(error, EngineError::Deadline { sequence: 0, .. })), "{joined:?}");
    assert!(joined.iter().all(|error| error.to_string().contains("joining the others over NCCL")), "{joined:?}");
    let stays_away = |engine: Result<NcclEngine, EngineError>| {
        let mut engine = engine.unwrap();
        engine.barrier("start").unwrap();
        if engine.rank() == 1 {
            std::thread::sleep(2 * soon);
            return None;
        }
        engine.all_reduce_f32("sum", &mut vec![1.0; 3]).err()
    };
    let errors = ranks(2, soon, stays_away, |_| true);
    assert!(matches!(errors[0], Some(EngineError::Deadline { sequence: 2, bytes: 12, .. })), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_rank_that_gives_up_ends_the_others_wait_by_the_communicators_own_error() {
    let both = Barrier::new(2);
    let gives_up = |engine: Result<NcclEngine, EngineError>| {
        let mut engine = engine.unwrap();
        engine.barrier("start").unwrap();
        both.wait();
        if engine.rank() == 1 {
            engine.abort("its disk is full", 7);
            return None;
        }
        engine.barrier("never").err()
    };
    let errors = ranks(2, Duration::from_secs(60), gives_up, |_| true);
    let words = errors[0].as_ref().unwrap().to_string();
    assert!(matches!(errors[0], Some(EngineError::Library { library: "NCCL", .. })), "{words}");
    assert!(words.contains("never (operation 2)") && words.contains("a peer has gone"), "{words}");
}

/// A training run over the engine: the bytes of thread-ranks, with sums after backward and beside it, of any kind of sum that
/// promises them.
#[test]
fn ranks_over_nccl_train_to_the_bytes_of_threads_also_beside_backward() {
    let over_nccl = |n: usize| -> Vec<Watched> {
        let file = fake(&[]);
        let driver = Arc::new(Driver::open(Some(file.as_os_str())).unwrap());
        let nccl = Arc::new(Nccl::open(Some(file.as_os_str())).unwrap());
        let id = nccl.unique_id().unwrap();
        std::thread::scope(|scope| {
            let joining = (0..n).map(|rank| {
                let (driver, nccl) = (Arc::clone(&driver), Arc::clone(&nccl));
                let seat = Seat { rank, world_size: n, ordinal: 0 };
                scope.spawn(move || {
                    NcclEngine::join_unwatched(driver, nccl, &id, seat, Duration::from_secs(60)).unwrap()
                })
            });
            let joining: Vec<_> = joining.collect();
            let engines = joining.into_iter().map(|rank| rank.join().unwrap());
            engines.map(|engine| Watched::recorded(Box::new(engine), Arc::new(NoNews))).collect()
        })
    };
    for reduction in [Reduction::Exact, Reduction::FastBf16] {
        let trained = |overlap: Option<bool>, over_nccl: Option<&dyn Fn(usize) -> Vec<Watched>>| {
            let config = tiny(|c| {
                c.train.max_steps = 4;
                c.train.reduction = reduction;
                c.train.overlap = overlap;
            });
            let theatre = Theatre::new();
            let threads = |n| thread_ranks(n, Duration::from_secs(60));
            let mut flight = None;
            let engines = |n| {
                let engines = over_nccl.unwrap_or(&threads)(n);
                flight = Some(Arc::clone(engines[0].flight()));
                engines
            };
            let (_, seen) = theatre.run_with(crate::stage::shards(), &config, 2, None, engines).unwrap();
            let operations = flight.unwrap().record("").operations;
            let buckets = operations.iter().filter(|o| o.operation.starts_with("sum of gradients")).count();
            ((theatre.last().model, seen.losses), buckets)
        };
        let (threads, at_once) = trained(None, None);
        for overlap in [None, Some(true), Some(false)] {
            let (bytes, buckets) = trained(overlap, Some(&over_nccl));
            assert!(bytes == threads, "{reduction:?}, overlap {overlap:?}");
            assert_eq!(buckets > at_once, overlap == Some(true), "{reduction:?}, overlap {overlap:?}: {buckets}");
        }
    }
}

/// Threads that meet as processes do: address, store, id, communicator.
fn met(files: &[PathBuf]) -> Vec<Result<usize, String>> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let those = files.iter().enumerate().map(|(rank, file)| {
            scope.spawn(move || {
                let world = World {
                    world_size: files.len() as u32,
                    rank: rank as u32,
                    local_rank: rank as u32,
                    ..World::local()
                };
                let address = format!("127.0.0.1:{port}");
                let meeting = Meeting { address: &address, generation: "a test", deadline: Duration::from_secs(10) };
                let driver = Arc::new(Driver::open(Some(file.as_os_str())).unwrap());
                let nccl = Arc::new(Nccl::open(Some(file.as_os_str())).unwrap());
                let (mut engine, _news) =
                    join_nccl::meet(&world, &meeting, driver, nccl, rank % 2).map_err(|e| e.to_string())?;
                let mut sum = vec![1i64 << rank];
                engine.all_reduce_i64("sum", &mut sum).map_err(|e| e.to_string())?;
                engine.finish().map_err(|e| e.to_string())?;
                Ok(sum[0] as usize)
            })
        });
        let those: Vec<_> = those.collect();
        those.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn processes_meet_at_the_store_and_share_the_id() {
    let file = fake(&[]);
    assert_eq!(met(&vec![file; 3]), [Ok(7), Ok(7), Ok(7)]);
}

#[test]
fn ranks_with_different_versions_of_nccl_are_told_both_and_nobody_waits() {
    let began = Instant::now();
    let ends = met(&[fake(&[]), fake(&["-DVERSION=23003"])]);
    assert!(began.elapsed() < Duration::from_secs(9), "before the deadline");
    let words = ends[1].as_ref().unwrap_err();
    assert!(words.contains("2.32.3") && words.contains("2.30.3") && words.contains("rank 1"), "{words}");
    let echo = ends[0].as_ref().unwrap_err();
    assert!(echo.contains("rank 1") && echo.contains("2.30.3"), "{echo}");
}

#[test]
fn a_library_that_is_too_old_or_lacks_a_function_is_refused_in_one_line() {
    let opened = |definitions: &[&str]| Nccl::open(Some(fake(definitions).as_os_str()));
    let old = opened(&["-DVERSION=21203"]).unwrap_err().to_string();
    assert!(old.contains("2.12.3") && old.contains("2.14.0 or later"), "{old}");
    let lacks = opened(&["-DWITHOUT_CONFIG"]).unwrap_err().to_string();
    assert!(lacks.contains("ncclCommInitRankConfig") && lacks.contains("SYNCYTIA_NCCL"), "{lacks}");
    for (version, shares) in [("23003", true), ("22907", false)] {
        let nccl = opened(&[&format!("-DVERSION={version}")]).unwrap();
        assert_eq!(nccl.must_share_a_gpu().is_ok(), shares, "{version}; the first is {SHARES_A_GPU}");
    }
    for words in [old, lacks] {
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}

#[test]
fn a_probe_names_devices_versions_and_the_first_thing_that_is_missing() {
    let file = fake(&[]);
    let probe = Probe::look(|name| match name {
        "SYNCYTIA_LIBCUDA" | "SYNCYTIA_NCCL" => Some(file.clone().into_os_string()),
        _ => None,
    });
    let (version, devices) = probe.driver.as_ref().unwrap();
    assert_eq!((*version, devices.len()), (Version::new(13, 0, 0), 2));
    assert_eq!((devices[1].name.as_str(), devices[1].capability), ("a GPU of the host's memory", (9, 0)));
    assert_eq!(probe.nccl.as_ref().unwrap().1, Version::new(2, 32, 3));
    if let Err(words) = probe.require(Needs::WithPeers, 0) {
        assert!(words.contains("NVRTC") || words.contains("headers"), "{words}"); // of this machine
    }
}

#[test]
fn compiler_headers_and_driver_are_tried_with_one_kernel_and_told_in_one_line() {
    let tried = |definitions: &[&str]| {
        let file = fake(definitions);
        let driver = Driver::open(Some(file.as_os_str())).unwrap();
        trial::run(&driver, Some(file.as_os_str()), Path::new("/usr/include"), 1)
    };
    assert_eq!(tried(&[]), Ok(()));
    let builtins = tried(&["-DWITHOUT_BUILTINS"]).unwrap_err();
    assert!(builtins.contains("libnvrtc-builtins.so.12.9") && builtins.contains("capability 9.0"), "{builtins}");
    let old = tried(&["-DOLD_DRIVER"]).unwrap_err();
    assert!(old.contains("error 222") && old.contains("of CUDA 13.0") && old.contains("not newer"), "{old}");
    for words in [builtins, old] {
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}

/// NVIDIA's own library, as pip's `nvidia-nccl-cu12` or `-cu13` ships it: 340 MB, so that it is asked for by name.
#[test]
fn the_real_library_loads_tells_its_version_and_names_a_group() {
    let Some(file) = std::env::var_os("SYNCYTIA_TEST_NCCL") else {
        eprintln!("NOT RUN: set SYNCYTIA_TEST_NCCL to a libnccl.so.2 to see the real library load");
        return;
    };
    let nccl = Nccl::open(Some(OsStr::new(&file))).unwrap();
    assert!(nccl.version() >= Version::new(2, 14, 0) && nccl.version() < Version::new(3, 0, 0), "{}", nccl.version());
    let (first, second) = (nccl.unique_id().unwrap(), nccl.unique_id().unwrap());
    assert!(first != second, "a group's name is its own");
}
