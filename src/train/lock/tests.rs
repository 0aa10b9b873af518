//! The lock as two jobs meet it.

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Instant;

use super::claim::sibling;
use super::holder::life_of;
use super::*;

const FAST: Timing = Timing { heartbeat: Duration::from_millis(20), takeover_after: Duration::from_millis(400) };

fn folder() -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path().join("R")).unwrap();
    (folder, run)
}

fn job(id: &str, restart_count: u32) -> Option<Job> {
    Some(Job { id: id.into(), restart_count })
}

/// A lock as a process on another machine left it; no heartbeat.
fn foreign(run: &RunFolder, job: Option<Job>) -> Holder {
    let mut holder = Holder::this_process(job);
    holder.host = "n7".into();
    holder.life = "another boot/pid:[1]/1".into();
    fs::write(run.lock(), format!("{}\n{}", serde_json::to_string(&holder).unwrap(), beat_line(0))).unwrap();
    holder
}

fn lock_files(run: &RunFolder) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(run.root())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with("lock"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_second_job_is_refused_and_told_who_holds_the_folder() {
    let (_keep, run) = folder();
    let held = RunLock::acquire(&run, job("77", 1), Timing::default()).unwrap();
    let refused = RunLock::acquire(&run, job("78", 5), Timing::default()).unwrap_err();
    let words = refused.to_string();
    let who = format!("process {} on {} (job 77, restart 1)", std::process::id(), held.holder().host);
    assert!(words.contains(&who), "{words}");
    assert_eq!(refused.exit_code(), ExitCode::Usage);
    assert_eq!(lock_files(&run), ["lock"]);
    drop(held);
    assert!(lock_files(&run).is_empty());
    RunLock::acquire(&run, None, Timing::default()).unwrap();
}

#[test]
fn a_beating_lock_outlives_the_patience_and_a_silent_one_does_not() {
    let (_keep, run) = folder();
    let held = RunLock::acquire(&run, None, FAST).unwrap();
    std::thread::sleep(3 * FAST.takeover_after);
    assert!(matches!(RunLock::acquire(&run, None, FAST), Err(LockError::Held { .. })));
    drop(held);

    foreign(&run, None);
    assert!(matches!(RunLock::acquire(&run, None, FAST), Err(LockError::Held { .. })), "it may still be alive");
    std::thread::sleep(FAST.takeover_after + Duration::from_millis(100));
    let taken = RunLock::acquire(&run, None, FAST).unwrap();
    assert!(taken.check().is_ok());
    assert_eq!(lock_files(&run), ["lock"]);
}

fn date(path: &Path, by: impl Fn(SystemTime) -> SystemTime) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(by(SystemTime::now())).unwrap();
}

/// The clock was set back by a year, or a machine wrote a wrong time and died: nothing ever makes that lock old.
#[test]
fn a_dead_lock_from_the_future_is_watched_and_then_taken() {
    let year = Duration::from_secs(31_556_952);
    let (_keep, run) = folder();
    let dead = foreign(&run, None);
    date(&run.lock(), |now| now + year);
    fs::write(entry_path(&run, &dead.token), "").unwrap(); // left by one who died while taking it over
    date(&entry_path(&run, &dead.token), |now| now + year);
    let asked = Instant::now();
    RunLock::acquire(&run, None, FAST).unwrap();
    assert!(asked.elapsed() >= FAST.takeover_after, "{:?}", asked.elapsed());
    assert!(lock_files(&run).is_empty());
}

/// The clock jumps by a year while a run trains: its next heartbeat shows that it lives, whatever the clock says.
#[test]
fn a_live_lock_outlives_jumps_of_the_clock() {
    let year = Duration::from_secs(31_556_952);
    let (_keep, run) = folder();
    // slow enough for a heartbeat to be in time on a busy machine
    let timing = Timing { heartbeat: Duration::from_millis(150), ..FAST };
    let held = RunLock::acquire(&run, None, timing).unwrap();
    let path = run.lock();
    let jumps: [&dyn Fn(SystemTime) -> SystemTime; 2] = [&|now| now - year, &|now| now + year];
    for jump in jumps {
        for _ in 0..3 {
            date(&path, jump);
            let refused = RunLock::acquire(&run, None, timing).unwrap_err();
            assert!(matches!(refused, LockError::Held { .. }), "{refused}");
        }
        held.check().unwrap();
    }
    assert!(!held.is_lost());
}

#[test]
fn whoever_only_looks_sees_the_same_and_writes_nothing() {
    let (_keep, run) = folder();
    let look = |job, timing| in_use(&run, job, SystemTime::now(), timing).unwrap();
    assert_eq!(look(None, FAST), None);
    foreign(&run, job("5", 0));
    let seen = look(None, Timing::default()).unwrap();
    assert!(seen.by.contains("on n7 (job 5, restart 0)") && !seen.may_be_taken, "{seen:?}");
    assert!(look(job("5", 1), Timing::default()).unwrap().may_be_taken);
    date(&run.lock(), |now| now - Duration::from_secs(100));
    let old = look(None, Timing::default()).unwrap();
    assert!(old.may_be_taken && old.age.as_secs() >= 99, "{old:?}");
    date(&run.lock(), |now| now + Duration::from_secs(100));
    assert!(look(None, Timing::default()).unwrap().may_be_taken);
    assert_eq!(lock_files(&run), ["lock"]);
}

#[test]
fn a_later_life_of_the_same_job_takes_over_at_once_and_nobody_else_does() {
    for (theirs, ours, taken) in [
        (job("9", 0), job("9", 1), true),
        (job("9", 1), job("9", 1), false),
        (job("9", 2), job("9", 1), false),
        (job("9", 0), job("10", 1), false),
        (job("9", 0), None, false),
        (None, job("9", 1), false),
    ] {
        let (_keep, run) = folder();
        foreign(&run, theirs.clone());
        let got = RunLock::acquire(&run, ours.clone(), Timing::default());
        assert_eq!(got.is_ok(), taken, "{theirs:?} against {ours:?}");
    }
}

#[test]
fn a_holder_that_died_on_this_machine_is_replaced_at_once() {
    let (_keep, run) = folder();
    let mut child = Command::new("sleep").arg("30").stdin(Stdio::null()).spawn().unwrap();
    let mut holder = Holder::this_process(None);
    holder.pid = child.id();
    holder.life = life_of(child.id()).expect("a Linux /proc");
    fs::write(run.lock(), format!("{}\n{}", serde_json::to_string(&holder).unwrap(), beat_line(0))).unwrap();
    assert!(matches!(RunLock::acquire(&run, None, Timing::default()), Err(LockError::Held { .. })), "it lives");
    child.kill().unwrap();
    child.wait().unwrap();
    RunLock::acquire(&run, None, Timing::default()).unwrap();

    // the same process id in another life: the number was given out again
    let mut reused = Holder::this_process(None);
    reused.life.push('0');
    fs::write(run.lock(), format!("{}\n{}", serde_json::to_string(&reused).unwrap(), beat_line(0))).unwrap();
    RunLock::acquire(&run, None, Timing::default()).unwrap();
}

/// Two deaths: a holder, and a process that was killed while it took the dead one's lock over.
#[test]
fn a_process_that_died_while_it_took_over_bars_nobody() {
    let (_keep, run) = folder();
    let dead = |token: &str| {
        let mut holder = Holder::this_process(None);
        holder.life.push('0'); // this process id in another life
        holder.token = token.to_owned();
        format!("{}\n{}", serde_json::to_string(&holder).unwrap(), beat_line(0))
    };
    fs::write(run.lock(), dead("first")).unwrap();
    fs::write(entry_path(&run, "first"), dead("second")).unwrap();
    fs::write(sibling(&run, "claim-left"), dead("second")).unwrap();
    let held = RunLock::acquire(&run, None, Timing::default()).unwrap();
    assert_eq!(lock_files(&run), ["lock"], "and what they left is gone");
    drop(held);
}

#[test]
fn the_one_whose_lock_was_taken_over_knows_and_leaves_it_alone() {
    let (_keep, run) = folder();
    let asleep = RunLock::acquire(&run, None, FAST).unwrap();
    let other = foreign(&run, None); // what a takeover leaves: another's file under the name
    let lost = asleep.check().unwrap_err();
    assert!(lost.to_string().contains("taken over by process") && lost.to_string().contains("n7"), "{lost}");
    assert!(asleep.is_lost());
    drop(asleep);
    assert_eq!(read_lock(&run.lock()).unwrap().unwrap().token, other.token);
}

#[test]
fn the_heartbeat_finds_a_takeover_by_itself() {
    let (_keep, run) = folder();
    let asleep = RunLock::acquire(&run, None, FAST).unwrap();
    let theirs = run.root().join("theirs");
    let holder = serde_json::to_string(&Holder::this_process(None)).unwrap();
    fs::write(&theirs, &holder).unwrap();
    fs::rename(&theirs, run.lock()).unwrap();
    let asked = Instant::now();
    while !asleep.is_lost() {
        assert!(asked.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(run.lock()).unwrap(), holder, "our beats never go into another's lock");
}

#[test]
fn an_unreadable_lock_is_held_until_it_is_old() {
    let (_keep, run) = folder();
    fs::write(run.lock(), "").unwrap();
    let refused = RunLock::acquire(&run, None, FAST).unwrap_err();
    assert!(refused.to_string().contains("unknown process"), "{refused}");
    std::thread::sleep(FAST.takeover_after + Duration::from_millis(100));
    RunLock::acquire(&run, None, FAST).unwrap();
}

#[test]
fn an_entry_left_by_a_crash_does_not_bar_the_folder_for_ever() {
    let (_keep, run) = folder();
    let dead = foreign(&run, None);
    fs::write(entry_path(&run, &dead.token), "").unwrap();
    std::thread::sleep(FAST.takeover_after + Duration::from_millis(100));
    RunLock::acquire(&run, None, FAST).unwrap();
}

#[test]
fn whoever_saw_a_stale_lock_too_long_ago_does_not_replace_the_one_that_followed() {
    let (_keep, run) = folder();
    foreign(&run, job("5", 0));
    let ours = Holder::this_process(job("5", 1));
    let claim = Claim::make(&run, &ours).unwrap();
    let stale = Seen::look(&run, &claim.path).unwrap().unwrap();
    let quicker = RunLock::acquire(&run, job("5", 1), Timing::default()).unwrap();
    assert!(!claim.replace(&run, &stale, &Holder::this_process(None), Timing::default()).unwrap());
    quicker.check().unwrap();

    // and while somebody is at a stale lock, nobody else is
    let (_keep, run) = folder();
    let dead = foreign(&run, job("5", 0));
    fs::write(entry_path(&run, &dead.token), "").unwrap();
    let claim = Claim::make(&run, &ours).unwrap();
    let stale = Seen::look(&run, &claim.path).unwrap().unwrap();
    assert!(!claim.replace(&run, &stale, &Holder::this_process(None), Timing::default()).unwrap());
    assert_eq!(read_lock(&run.lock()).unwrap().unwrap().token, dead.token);
}

/// Many threads, each its own holder, all see one stale or free lock at once; 60 rounds.
#[test]
fn of_many_who_come_at_once_exactly_one_gets_the_folder() {
    for round in 0..60 {
        let (_keep, run) = folder();
        if round % 2 == 0 {
            foreign(&run, job("5", 0));
        }
        let start = Barrier::new(8);
        let all_tried = Barrier::new(8);
        let n_holders: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let got = RunLock::acquire(&run, job("5", 1), Timing::default());
                        all_tried.wait(); // held until all have tried
                        usize::from(got.is_ok())
                    })
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(n_holders, 1, "round {round}");
        assert!(lock_files(&run).is_empty(), "{:?}", lock_files(&run));
    }
}
