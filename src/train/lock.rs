//! One writer per run folder: a lock file that names its holder and beats. Must not know what the holder writes.
//!
//! The file is made whole and then linked to its name, so nobody reads half of it. A heartbeat rewrites its last line
//! every 10 s; age is judged by the file system's own clock (the modification time of a file made for the question), so
//! that clocks of nodes need not agree. A lock is taken over when it has been silent for 90 s, when its process is dead
//! on this very machine, or by a later life of the same job (higher restart count).
//!
//! Even that clock may jump, or a machine sleep. So silence is also *watched* before it is believed: two heartbeats long
//! where the lock's time says it is old, and the whole 90 s where its time lies in the future and says nothing.
//!
//! Taking over and releasing both need the *entry* of the lock's token (`lock.entry-TOKEN`, made exclusively): of all
//! who saw the same stale lock one gets it, checks that the lock is still that one, and renames its own over it. Whoever
//! slept through its own 90 s finds another's token in the lock at the next beat or [`RunLock::check`], and must stop.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use syncytia_launch::{ExitCode, Job};

use crate::train::run_folder::RunFolder;

mod claim;
mod holder;
mod seen;

use claim::{Claim, entry_path, remove_claims_of_the_dead};
pub use holder::Holder;
use holder::described;
use seen::{Seen, Taking, apart, read_lock, stays_silent};

/// Heartbeat and patience; [`Timing::default`] is what runs use.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between beats.
    pub heartbeat: Duration,
    /// Silence after which a lock is taken over.
    pub takeover_after: Duration,
}

impl Default for Timing {
    /// 10 s and 90 s: network file systems may show another node's write up to 60 s late.
    fn default() -> Timing {
        Timing { heartbeat: Duration::from_secs(10), takeover_after: Duration::from_secs(90) }
    }
}

/// Why the run folder is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody trains here.
    #[error(
        "{} is in use by {}, last heartbeat {age_s} s ago; stop that one (it saves and exits 75), or give another --run; \
         a holder that has died is replaced after {takeover_after_s} s of silence",
        run.display(), described(holder.as_deref())
    )]
    Held {
        /// The run folder.
        run: PathBuf,
        /// By whom; `None` when the lock cannot be read.
        holder: Option<Box<Holder>>,
        /// Seconds since its last heartbeat.
        age_s: u64,
        /// Silence after which it is taken over.
        takeover_after_s: u64,
    },
    /// It was ours, and another took it over.
    #[error("{} was taken over by {}; this process has stopped writing to it", run.display(), described(holder.as_deref()))]
    Lost {
        /// The run folder.
        run: PathBuf,
        /// By whom; `None` when the lock is gone or cannot be read.
        holder: Option<Box<Holder>>,
    },
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl LockError {
    /// 2 for a run folder in use, 4 for one lost to another process, 7 where storage refused.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            LockError::Held { .. } => ExitCode::Usage,
            LockError::Lost { .. } => ExitCode::Peers,
            LockError::Io { .. } => ExitCode::Storage,
        }
    }
}

/// The right to write to a run folder; beats until dropped, then gives the folder free.
#[derive(Debug)]
pub struct RunLock {
    run: RunFolder,
    holder: Holder,
    lost: Arc<AtomicBool>,
    stop: Option<mpsc::Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl RunLock {
    /// Takes the run folder for this process; `job` is the scheduler's job it belongs to.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder; [`LockError::Io`].
    pub fn acquire(run: &RunFolder, job: Option<Job>, timing: Timing) -> Result<RunLock, LockError> {
        RunLock::acquire_as(run, Holder::this_process(job), timing)
    }

    fn acquire_as(run: &RunFolder, holder: Holder, timing: Timing) -> Result<RunLock, LockError> {
        let claim = Claim::make(run, &holder)?;
        // Each turn either takes the lock, refuses, or saw it change hands; under real contention somebody wins a turn.
        for _ in 0..100 {
            if claim.link_to(&run.lock())? {
                return RunLock::begin(run, holder, timing);
            }
            let Some(seen) = Seen::look(run, &claim.path)? else { continue };
            let taken = match seen.verdict(&holder, timing) {
                Taking::Now => true,
                Taking::Never => false,
                Taking::IfSilentFor(time) => stays_silent(run, time, timing)?,
            };
            if !taken {
                return Err(LockError::Held {
                    run: run.root().to_owned(),
                    holder: seen.holder.map(Box::new),
                    age_s: seen.age.as_secs(),
                    takeover_after_s: timing.takeover_after.as_secs(),
                });
            }
            if claim.replace(run, &seen, &holder, timing)? {
                return RunLock::begin(run, holder, timing);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = read_lock(&run.lock()).ok().flatten().map(Box::new);
        let takeover_after_s = timing.takeover_after.as_secs();
        Err(LockError::Held { run: run.root().to_owned(), holder: seen, age_s: 0, takeover_after_s })
    }

    fn begin(run: &RunFolder, holder: Holder, timing: Timing) -> Result<RunLock, LockError> {
        let path = run.lock();
        // Opened once: if another renames its lock over ours, our beats go to our own file, never into theirs.
        let file = OpenOptions::new().write(true).open(&path).map_err(io_error("open", &path))?;
        let lost = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::channel();
        let beat = Beat { file, path, token: holder.token.clone(), lost: Arc::clone(&lost) };
        let beating = std::thread::Builder::new()
            .name("run-lock".to_owned())
            .spawn(move || beat.until(&stopped, timing.heartbeat))
            .map_err(io_error("start the heartbeat of", &run.lock()))?;
        let lock = RunLock { run: run.clone(), holder, lost, stop: Some(stop), beating: Some(beating) };
        lock.check()?;
        remove_claims_of_the_dead(run, &lock.holder);
        Ok(lock)
    }

    /// The run folder that is ours.
    pub fn run(&self) -> &RunFolder {
        &self.run
    }

    /// What the lock says about this process.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Whether the heartbeat found the lock in other hands. Cheap: for every step.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Looks whether the lock is still ours: before anything is written that a reader trusts.
    ///
    /// # Errors
    /// [`LockError::Lost`] names who has it now; [`LockError::Io`].
    pub fn check(&self) -> Result<(), LockError> {
        let path = self.run.lock();
        let now = read_lock(&path).map_err(io_error("read", &path))?;
        if now.as_ref().is_some_and(|h| h.token == self.holder.token) && !self.is_lost() {
            return Ok(());
        }
        self.lost.store(true, Ordering::Relaxed);
        Err(LockError::Lost { run: self.run.root().to_owned(), holder: now.map(Box::new) })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.beating.take() {
            let _ = thread.join(); // a panic there has been printed; the lock is given free all the same
        }
        // The entry keeps everyone else from replacing the lock between our look and our removal.
        let Ok(claim) = Claim::make(&self.run, &self.holder) else { return };
        let entry = entry_path(&self.run, &self.holder.token);
        if let Ok(true) = claim.link_to(&entry) {
            if self.check().is_ok() {
                let _ = fs::remove_file(self.run.lock());
            }
            let _ = fs::remove_file(&entry);
        }
    }
}

/// A lock as somebody who only looks sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// By whom, in words.
    pub by: String,
    /// Time since its last heartbeat.
    pub age: Duration,
    /// Whether a run of `job` that starts now would take it over, if need be after watching it stay silent.
    pub may_be_taken: bool,
}

/// Looks who holds a run folder and writes nothing; `now` is the time by the clock of its file system. `None`: nobody.
///
/// # Errors
/// The system's.
pub fn in_use(run: &RunFolder, job: Option<Job>, now: SystemTime, timing: Timing) -> io::Result<Option<InUse>> {
    let looked = fs::metadata(run.lock()).and_then(|meta| Ok((meta.modified()?, read_lock(&run.lock())?)));
    let (then, holder) = match looked {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(e),
    };
    let (age, ahead) = apart(now, then);
    let seen = Seen { holder, age, ahead };
    let may_be_taken = seen.verdict(&Holder::this_process(job), timing) != Taking::Never;
    Ok(Some(InUse { by: described(seen.holder.as_ref()), age: seen.age, may_be_taken }))
}

struct Beat {
    file: File,
    path: PathBuf,
    token: String,
    lost: Arc<AtomicBool>,
}

impl Beat {
    fn until(mut self, stopped: &mpsc::Receiver<()>, interval: Duration) {
        for n in 1u64.. {
            if !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            match read_lock(&self.path) {
                Ok(Some(holder)) if holder.token == self.token => {}
                Ok(_) => {
                    self.lost.store(true, Ordering::Relaxed);
                    tracing::error!(lock = %self.path.display(), "the run folder was taken over by another process");
                    return;
                }
                // a stale network handle or the like: the next beat tells more
                Err(error) => tracing::warn!(lock = %self.path.display(), %error, "cannot read the run folder's lock"),
            }
            if let Err(error) = self.write(n) {
                tracing::warn!(lock = %self.path.display(), %error, "cannot write the run folder's heartbeat");
            }
        }
    }

    /// The counter has a fixed place and width at the end, so that the holder's line is never torn.
    fn write(&mut self, n: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::End(-(BEAT_BYTES as i64)))?;
        self.file.write_all(beat_line(n).as_bytes())?;
        self.file.sync_data() // network file systems show a write to other nodes only then
    }
}

const BEAT_BYTES: usize = 27;

fn beat_line(n: u64) -> String {
    format!("beat {n:>21}\n")
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    move |source| LockError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
