//! The saving thread on a disk that works, one that is full, and one that is another's.

use std::fs;
use std::io::Write;
use std::process::Command;

use serde_json::json;
use syncytia_launch::ExitCode;

use super::*;
use crate::train::checkpoint::{NamedTensor, load, newest_valid, steps};
use crate::train::lock::Timing;

fn contents(step: u64, n: usize) -> CheckpointContents {
    let model = vec![NamedTensor { name: "w".into(), shape: vec![n], values: vec![step as f32; n] }];
    CheckpointContents { model, state: json!({"global_step": step}), ..CheckpointContents::default() }
}

fn start(run: &RunFolder, keep: usize) -> Saver {
    patient(run, keep, 0)
}

fn patient(run: &RunFolder, keep: usize, patience_s: u64) -> Saver {
    let lock = RunLock::acquire(run, None, Timing::default()).unwrap();
    Saver::start(Arc::new(lock), &CheckpointConfig { keep, patience_s, ..CheckpointConfig::default() }).unwrap()
}

#[test]
fn everything_submitted_is_on_the_disk_after_finish() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    let saver = start(&run, 2);
    for step in 1..=5 {
        saver.submit(Place::Best, step, contents(step, 4)).unwrap();
        saver.submit(Place::Step, step, contents(step, 4)).unwrap();
    }
    let mut told = saver.outcomes();
    told.extend(saver.finish().unwrap());
    let order: Vec<_> = told.iter().map(|o| (o.global_step, o.place, o.result.is_ok())).collect();
    let expected: Vec<_> = (1..=5).flat_map(|s| [(s, Place::Best, true), (s, Place::Step, true)]).collect();
    assert_eq!(order, expected);
    assert_eq!(steps(&run).unwrap(), [4, 5]);
    assert_eq!(load(run.best().root()).unwrap().contents, contents(5, 4));
    assert!(!run.lock().exists(), "the saver's lock went with it");
}

#[test]
fn leftovers_of_a_crash_are_gone_after_start() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    fs::create_dir(run.checkpoints().join(".tmp-step-00000003-1-0")).unwrap();
    start(&run, 1).finish().unwrap();
    assert_eq!(fs::read_dir(run.checkpoints()).unwrap().count(), 0);
}

#[test]
fn a_failed_save_is_told_and_the_next_one_makes_good_the_best_first() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    let saver = start(&run, 3);
    // a file where the folder should be: no save can work
    fs::remove_dir(run.checkpoints()).unwrap();
    fs::write(run.checkpoints(), "").unwrap();
    saver.submit(Place::Best, 1, contents(1, 4)).unwrap();
    saver.submit(Place::Step, 1, contents(1, 4)).unwrap();
    let told = wait_for(&saver, 2);
    assert!(told.iter().all(|o| o.result.is_err()));
    assert!(told.iter().all(|o| o.place == Place::Best), "no checkpoint may claim a best that is not there");

    fs::remove_file(run.checkpoints()).unwrap();
    saver.submit(Place::Step, 2, contents(2, 4)).unwrap();
    saver.finish().unwrap();
    assert_eq!(load(run.best().root()).unwrap().contents, contents(1, 4));
    assert_eq!(steps(&run).unwrap(), [2]);
}

#[test]
fn a_last_save_that_fails_is_the_runs_failure_with_the_storage_code() {
    for place in [Place::Step, Place::Best] {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path()).unwrap();
        let saver = start(&run, 3);
        saver.submit(Place::Step, 1, contents(1, 4)).unwrap();
        wait_for(&saver, 1);
        fs::remove_dir_all(run.checkpoints()).unwrap();
        fs::write(run.checkpoints(), "").unwrap();
        saver.submit(place, 2, contents(2, 4)).unwrap();
        assert_eq!(saver.finish().unwrap_err().exit_code(), ExitCode::Storage, "{place:?}");
    }
}

#[test]
fn the_last_save_waits_for_storage_as_long_as_it_may_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    let break_it = || {
        let _ = fs::remove_dir_all(run.checkpoints()); // not there the third time
        fs::write(run.checkpoints(), "").unwrap(); // a file where the folder should be
    };
    let saver = patient(&run, 3, 60);
    break_it();
    saver.submit(Place::Best, 2, contents(2, 4)).unwrap();
    saver.submit(Place::Step, 2, contents(2, 4)).unwrap();
    let told = std::thread::scope(|scope| {
        let finish = scope.spawn(|| saver.finish().unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!finish.is_finished());
        fs::remove_file(run.checkpoints()).unwrap();
        finish.join().unwrap()
    });
    assert!(told.iter().all(|o| o.result.is_ok()) && told.len() == 2, "what was made good is no failure: {told:?}");
    assert_eq!(newest_valid(&run).unwrap().checkpoint.unwrap().contents, contents(2, 4));
    assert_eq!(load(run.best().root()).unwrap().contents, contents(2, 4));

    let saver = patient(&run, 3, 1);
    break_it();
    saver.submit(Place::Step, 3, contents(3, 4)).unwrap();
    let asked = Instant::now();
    assert_eq!(saver.finish().unwrap_err().exit_code(), ExitCode::Storage);
    assert!((1..20).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());

    fs::remove_file(run.checkpoints()).unwrap();
    let saver = patient(&run, 3, 600);
    break_it();
    saver.submit(Place::Step, 4, contents(4, 4)).unwrap();
    let asked = Instant::now();
    drop(saver); // a run that ends with an error of its own: nobody waits for the result
    assert!(asked.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_wait_for_storage_ends_when_the_run_ends_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    let mut saver = patient(&run, 3, 10);
    fs::remove_dir(run.checkpoints()).unwrap();
    fs::write(run.checkpoints(), "").unwrap(); // a file where the folder should be
    saver.submit(Place::Step, 1, contents(1, 4)).unwrap();
    assert!(!saver.is_done_within(Duration::from_millis(1100)), "the second pause, of 2 s, has begun");
    let asked = Instant::now();
    drop(saver);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[test]
fn whoever_lost_the_run_folder_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path()).unwrap();
    let saver = start(&run, 3);
    saver.submit(Place::Step, 1, contents(1, 4)).unwrap();
    wait_for(&saver, 1);
    fs::write(run.lock(), "{}").unwrap();
    saver.submit(Place::Step, 2, contents(2, 4)).unwrap();
    assert_eq!(saver.finish().unwrap_err().exit_code(), ExitCode::Peers);
    assert_eq!(steps(&run).unwrap(), [1]);
}

/// On a real file system of 256 KiB.
#[test]
fn a_full_disk_costs_the_save_and_never_the_checkpoint_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path(), 256) else {
        assert!(std::env::var_os("SYNCYTIA_REQUIRE_ALL").is_none_or(|v| v != "1"), "cannot mount a small disk");
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: a full disk (mounting a tmpfs needs root)");
        return;
    };
    let run = RunFolder::create(folder.path().join("R")).unwrap();
    let saver = start(&run, 3);
    saver.submit(Place::Step, 1, contents(1, 10_000)).unwrap();
    saver.submit(Place::Step, 2, contents(2, 100_000)).unwrap();
    let told = wait_for(&saver, 2);
    assert!(told[0].result.is_ok());
    let full = told[1].result.as_ref().unwrap_err();
    assert!(full.contains("No space left"), "{full}");
    assert_eq!(fs::read_dir(run.checkpoints()).unwrap().count(), 1, "nothing half-written stays");

    saver.submit(Place::Step, 3, contents(3, 10_000)).unwrap(); // room again
    saver.submit(Place::Step, 4, contents(4, 100_000)).unwrap();
    assert_eq!(saver.finish().unwrap_err().exit_code(), ExitCode::Storage);
    assert_eq!(newest_valid(&run).unwrap().checkpoint.unwrap().contents, contents(3, 10_000));
}

fn wait_for(saver: &Saver, n: usize) -> Vec<Outcome> {
    let asked = Instant::now();
    let mut told = Vec::new();
    while told.len() < n {
        assert!(asked.elapsed() < Duration::from_secs(20), "{} of {n} outcomes", told.len());
        told.extend(saver.outcomes());
        std::thread::sleep(Duration::from_millis(2));
    }
    told
}

/// A tmpfs of some KiB, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, kib: u32) -> Option<SmallDisk> {
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
