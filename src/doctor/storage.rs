//! What a run relies on from storage, tried out in a temporary folder that goes again: renames that replace, folders that
//! swap, links and locks that exclude, a clock, and how long it takes until bytes are on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use syncytia_launch::ExitCode;

use super::folder::{Folder, Use};
use super::{Finding, bytes};

/// Large enough to outlast a drive's own cache for a moment, small enough for a laptop.
const LARGE: u64 = 64 << 20;
const SMALL: usize = 4096;
const SMALL_SYNCS: usize = 10;
/// Replacements watched by a reader.
const RENAMES: usize = 100;
/// A file system's clock may differ from the host's by this: NFS rounds, virtual machines drift.
const SKEW: Duration = Duration::from_secs(5);
/// Slurm kills 30 s after TERM on most sites.
const A_SAVE: Duration = Duration::from_secs(20);

/// Tries the promises of the folder's file system.
pub fn promises(folder: &Folder) -> super::Look<SystemTime> {
    let scratch = match Scratch::make(&folder.at) {
        Ok(scratch) => scratch,
        Err(error) => return (vec![not_writable(&error, folder)], None),
    };
    let mut findings = vec![match scratch.write("written", b"whole") {
        Ok(()) => Finding::ok("writing", "works"),
        Err(error) => return (vec![not_writable(&error, folder)], None),
    }];
    // A promise that is not kept fails the run only where there is no other way: see each.
    let fail = |what, found, advice| Finding::fail(ExitCode::Storage, what, found, advice);
    let what = "rename over a file";
    findings.push(match rename_replaces(&scratch) {
        Ok(0) => Finding::ok(what, format!("replaces; {RENAMES} times under a reader that never missed it")),
        Ok(missed) => {
            let found = format!("replaces, but {missed} of {RENAMES} times a reader found nothing");
            Finding::warn(what, found, "readers of this run may have to try twice")
        }
        Err(e) => fail(what, e.to_string(), "checkpoints cannot be published here: choose another file system"),
    });
    let what = "rename of a folder";
    findings.push(match rename_of_a_folder(&scratch) {
        Ok(()) => Finding::ok(what, "works"),
        Err(e) => fail(what, e.to_string(), "checkpoints cannot be published here: choose another file system"),
    });
    let what = "swap of two folders";
    findings.push(match swap(&scratch) {
        Ok(()) => Finding::ok(what, "works: the best checkpoint is never missing"),
        Err(e) => {
            let advice =
                "the best checkpoint is replaced by two renames; a crash between them is healed at the next start";
            Finding::warn(what, e.to_string(), advice)
        }
    });
    let what = "hard links";
    findings.push(match hard_link(&scratch) {
        Ok(()) => Finding::ok(what, "work: the run lock is taken by one of them"),
        Err(e) => Finding::warn(what, e.to_string(), "the run lock is made by an exclusive create instead"),
    });
    let what = "exclusive create";
    findings.push(match exclusive(&scratch) {
        Ok(()) => Finding::ok(what, "excludes"),
        Err(e) => fail(what, e.to_string(), "two jobs could take one run folder: choose another file system"),
    });
    let what = "file locks";
    findings.push(match locks(&scratch) {
        Ok(()) => Finding::ok(what, "seen by another open of the file"),
        Err(e) => {
            Finding::warn(what, e.to_string(), "Syncytia does not need them; HDF5 does: HDF5_USE_FILE_LOCKING=FALSE")
        }
    });
    let now = clock(&scratch);
    findings.push(match &now {
        Ok((time, host)) => skew(*time, *host),
        Err(e) => Finding::warn("its clock", e.to_string(), "the age of a run lock is judged by it"),
    });
    (findings, now.ok().map(|(time, _)| time))
}

fn not_writable(error: &io::Error, folder: &Folder) -> Finding {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let advice =
        if full { "free some space, or give another --run" } else { "give --run a folder that can be written" };
    let found = format!("{}: {error}", folder.at.display());
    match folder.used {
        Use::Run => Finding::fail(ExitCode::Storage, "writing", found, advice),
        Use::Here => Finding::warn("writing", found, advice),
        Use::Shards => Finding::ok("writing", format!("{found}; shards are only read")),
    }
}

/// How often a reader found the name without a file while it was being replaced.
fn rename_replaces(scratch: &Scratch) -> io::Result<u64> {
    let (target, missed, done) = (scratch.path("target"), AtomicU64::new(0), AtomicBool::new(false));
    fs::write(&target, "0")?;
    let replaced: io::Result<()> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if File::open(&target).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let replaced = (1..=RENAMES).try_for_each(|n| {
            let next = scratch.path("next");
            fs::write(&next, n.to_string())?;
            fs::rename(&next, &target)
        });
        done.store(true, Ordering::Relaxed);
        replaced
    });
    replaced?;
    match fs::read_to_string(&target)? {
        last if last == RENAMES.to_string() => Ok(missed.into_inner()),
        other => Err(io::Error::other(format!("the file that was replaced still says {other:?}"))),
    }
}

fn rename_of_a_folder(scratch: &Scratch) -> io::Result<()> {
    let (from, to) = (scratch.path("made"), scratch.path("named"));
    fs::create_dir(&from)?;
    fs::write(from.join("file"), "whole")?;
    fs::rename(&from, &to)?;
    must(fs::read(to.join("file"))? == b"whole" && !from.exists(), "the folder did not move")
}

fn swap(scratch: &Scratch) -> io::Result<()> {
    let (a, b) = (scratch.path("a"), scratch.path("b"));
    for folder in [&a, &b] {
        fs::create_dir(folder)?;
        fs::write(folder.join("file"), folder.as_os_str().as_encoded_bytes())?;
    }
    exchange(&a, &b)?;
    must(fs::read(a.join("file"))? == b.as_os_str().as_encoded_bytes(), "the folders did not swap")
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn hard_link(scratch: &Scratch) -> io::Result<()> {
    let (file, link) = (scratch.path("written"), scratch.path("link"));
    fs::hard_link(&file, &link)?;
    must(fs::read(&link)? == b"whole", "the link shows another file")?;
    let again = fs::hard_link(&file, &link).err().map(|e| e.kind());
    must(again == Some(io::ErrorKind::AlreadyExists), "a second link took the same name")
}

fn exclusive(scratch: &Scratch) -> io::Result<()> {
    let path = scratch.path("exclusive");
    File::create_new(&path)?;
    let again = File::create_new(&path).err().map(|e| e.kind());
    must(again == Some(io::ErrorKind::AlreadyExists), "a second process could make the same file")
}

fn locks(scratch: &Scratch) -> io::Result<()> {
    let path = scratch.path("written");
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let (one, other) = (open()?, open()?);
    one.lock()?;
    let taken_twice = other.try_lock().is_ok();
    one.unlock()?;
    must(!taken_twice, "two opens of one file both got the lock")
}

fn must(holds: bool, otherwise: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(otherwise)) }
}

/// The file system's time and the host's at the same moment.
fn clock(scratch: &Scratch) -> io::Result<(SystemTime, SystemTime)> {
    let mut file = OpenOptions::new().write(true).open(scratch.path("written"))?;
    file.write_all(b"whole")?;
    file.sync_data()?;
    Ok((file.metadata()?.modified()?, SystemTime::now()))
}

fn skew(file_system: SystemTime, host: SystemTime) -> Finding {
    let apart = host.duration_since(file_system).unwrap_or_else(|e| e.duration());
    let found = format!("{:.1} s from the host's", apart.as_secs_f64());
    if apart > SKEW {
        let advice = "run locks are judged by the file system's own clock and stay right; times in logs will not agree";
        return Finding::warn("its clock", found, advice);
    }
    Finding::ok("its clock", found)
}

/// How long until bytes are on the disk; `checkpoint` is what one save writes, 0 where that is not known.
pub fn speed(folder: &Folder, checkpoint: u64) -> Vec<Finding> {
    let Ok(scratch) = Scratch::make(&folder.at) else { return vec![] }; // told by the promises
    let mut findings = Vec::new();
    let what = "fsync of 4 KiB";
    findings.push(match small_syncs(&scratch) {
        Ok(median) => {
            let found = format!("{:.1} ms (median of {SMALL_SYNCS})", median.as_secs_f64() * 1e3);
            if median > Duration::from_secs(1) {
                Finding::warn(what, found, "every save waits for some ten of these: choose a faster file system")
            } else {
                Finding::ok(what, found)
            }
        }
        Err(e) => unless_run(what, &e, folder),
    });
    let what = "fsync of 64 MiB";
    let free = free(&folder.at);
    if free.is_some_and(|free| free < 2 * LARGE) {
        findings.push(Finding::ok(what, "not tried: too little is free"));
        return findings;
    }
    findings.push(match large_sync(&scratch) {
        Ok(took) => {
            let rate = LARGE as f64 / took.as_secs_f64();
            let mut found = format!("{:.0} MB/s", rate / 1e6);
            let save = Duration::from_secs_f64((checkpoint as f64 / rate).min(1e9));
            if checkpoint > 0 {
                found += &format!("; a checkpoint of {} takes about {:.1} s", bytes(checkpoint), save.as_secs_f64());
            }
            if save > A_SAVE {
                let advice =
                    "a site that kills 30 s after TERM would cut a save: ask for a warning with --signal=B:USR1@600";
                Finding::warn(what, found, advice)
            } else {
                Finding::ok(what, found)
            }
        }
        Err(e) => unless_run(what, &e, folder),
    });
    findings
}

fn unless_run(what: &str, error: &io::Error, folder: &Folder) -> Finding {
    match folder.used {
        Use::Run => Finding::fail(ExitCode::Storage, what, error.to_string(), "free some space, or give another --run"),
        _ => Finding::warn(what, error.to_string(), "give --run a folder with room"),
    }
}

fn small_syncs(scratch: &Scratch) -> io::Result<Duration> {
    let mut times = Vec::with_capacity(SMALL_SYNCS);
    for n in 0..SMALL_SYNCS {
        let mut file = File::create_new(scratch.path(&format!("small-{n}")))?;
        let started = Instant::now();
        file.write_all(&[b'x'; SMALL])?;
        file.sync_all()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// The file loses its name at once: if this look is given up, nothing stays.
fn large_sync(scratch: &Scratch) -> io::Result<Duration> {
    let path = scratch.path("large");
    let mut file = File::create_new(&path)?;
    fs::remove_file(&path)?;
    let block: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect(); // not compressible
    let started = Instant::now();
    for _ in 0..LARGE / block.len() as u64 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(started.elapsed())
}

#[cfg(unix)]
fn free(at: &Path) -> Option<u64> {
    rustix::fs::statvfs(at).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

/// A folder of ours in the folder that was asked about; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: &Path) -> io::Result<Scratch> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        // a name that everybody else takes for a left-over of an interrupted write
        let path = parent.join(format!(".doctor.{}-{n}.tmp", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.path(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the name says what it is if it stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn folder(at: &Path, used: Use) -> Folder {
        Folder { asked: at.to_owned(), at: at.to_owned(), used }
    }

    #[test]
    fn a_good_file_system_keeps_every_promise_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (findings, now) = promises(&folder(dir.path(), Use::Run));
        let bad: Vec<_> = findings.iter().filter(|f| matches!(f.verdict, Verdict::Fail(_))).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(now.is_some() && findings.len() == 8, "{findings:?}");
        assert!(speed(&folder(dir.path(), Use::Run), 0).iter().all(|f| !matches!(f.verdict, Verdict::Fail(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (findings, now) = promises(&folder(&dir.path().join("none"), Use::Run));
        assert_eq!((findings.len(), now), (1, None));
        assert_eq!(findings[0].verdict, Verdict::Fail(ExitCode::Storage));
        let (findings, _) = promises(&folder(&dir.path().join("none"), Use::Here));
        assert_eq!(findings[0].verdict, Verdict::Warn);
    }

    #[test]
    fn a_skew_of_the_clocks_is_said_in_seconds() {
        let now = SystemTime::now();
        assert_eq!(skew(now, now + Duration::from_secs(1)).verdict, Verdict::Ok);
        for apart in [skew(now, now + Duration::from_secs(60)), skew(now + Duration::from_secs(60), now)] {
            assert_eq!(apart.verdict, Verdict::Warn);
            assert!(apart.found.starts_with("60.0 s"), "{apart:?}");
        }
    }
}
