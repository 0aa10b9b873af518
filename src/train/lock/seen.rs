//! Another's lock as this process sees it: who holds it, how old it is, whether it may be taken. Changes nothing of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::{Holder, LockError, Timing, io_error};
use crate::train::run_folder::RunFolder;

/// A lock as another process sees it.
pub(super) struct Seen {
    pub(super) holder: Option<Holder>,
    pub(super) age: Duration,
    /// How far its time lies in the future: the clock was set back since its last heartbeat.
    pub(super) ahead: Duration,
}

/// Whether a lock is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taking {
    /// Its holder is known to be gone.
    Now,
    /// If nothing in it changes for this long.
    IfSilentFor(Duration),
    /// It is held.
    Never,
}

impl Seen {
    /// `None` when the lock is gone. Its age is judged by `reference`, a file of ours beside it, which is touched.
    pub(super) fn look(run: &RunFolder, reference: &Path) -> Result<Option<Seen>, LockError> {
        let path = run.lock();
        let (age, ahead) = match age(&path, reference) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(None),
            Err(e) => return Err(io_error("look at", &path)(e)),
        };
        match read_lock(&path) {
            Ok(holder) => Ok(Some(Seen { holder, age, ahead })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("read", &path)(e)),
        }
    }

    pub(super) fn token(&self) -> &str {
        self.holder.as_ref().map_or("unreadable", |h| &h.token)
    }

    pub(super) fn verdict(&self, by: &Holder, timing: Timing) -> Taking {
        let later_life = |holder: &Holder| match (&holder.job, &by.job) {
            (Some(theirs), Some(ours)) => theirs.id == ours.id && ours.restart_count > theirs.restart_count,
            _ => false,
        };
        if self.holder.as_ref().is_some_and(|holder| later_life(holder) || holder.is_dead_here(by)) {
            return Taking::Now;
        }
        if self.age > timing.takeover_after {
            return Taking::IfSilentFor(2 * timing.heartbeat);
        }
        // a beat of this moment may lie a little ahead where time is coarse
        if self.ahead > timing.heartbeat {
            return Taking::IfSilentFor(timing.takeover_after);
        }
        Taking::Never
    }
}

/// Watches a lock for `time`: whether neither a byte of it nor its time changes.
pub(super) fn stays_silent(run: &RunFolder, time: Duration, timing: Timing) -> Result<bool, LockError> {
    let path = run.lock();
    let look = || {
        let mut file = match File::open(&path) {
            Ok(file) => file, // opened: network file systems then ask the server
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some((file.metadata()?.modified()?, bytes)))
    };
    let before = look().map_err(io_error("watch", &path))?;
    tracing::warn!(lock = %path.display(), "held by a process that seems gone: watching it for {time:?}");
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::sleep((timing.heartbeat / 4).min(time));
        let now = look().map_err(io_error("watch", &path))?;
        if now.is_none() {
            return Ok(true); // given free: the next turn takes it
        }
        if now != before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The holder's line; `None` when there is a lock that cannot be understood.
pub(super) fn read_lock(path: &Path) -> io::Result<Option<Holder>> {
    let text = fs::read(path)?;
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line).ok())
}

/// How long ago `path` was written and how far that lies ahead (one of them is 0), by the clock of its file system:
/// `reference` is touched now.
pub(super) fn age(path: &Path, reference: &Path) -> io::Result<(Duration, Duration)> {
    let mut file = OpenOptions::new().write(true).open(reference)?;
    file.seek(SeekFrom::End(-1))?;
    file.write_all(b"\n")?; // what is there already: only the time changes
    file.sync_data()?;
    let now = file.metadata()?.modified()?;
    let then = File::open(path)?.metadata()?.modified()?; // opened: network file systems then ask the server
    Ok(apart(now, then))
}

pub(super) fn apart(now: SystemTime, then: SystemTime) -> (Duration, Duration) {
    (now.duration_since(then).unwrap_or_default(), then.duration_since(now).unwrap_or_default())
}
