//! Saves off the training thread: one thread, one save waiting at most. A failed save is told and tried again, every half
//! minute and with every later save, which takes its place. Must not know why something is saved.
//!
//! Order is kept: a checkpoint may say what the best value was, so a best that could not be written is written before the
//! next checkpoint, or that one fails too. Before anything is published the run's lock is looked at.
//!
//! The last save has no next one, and what it holds is nowhere else: where storage refuses it the run *pauses*, says what
//! it needs, and tries again until there is room or `checkpoint.patience_s` is over. TERM and the like change nothing
//! meanwhile: they ask for just this save. A second INT ends the process at once, as always.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::train::checkpoint::{self, CheckpointContents, CheckpointError};
use crate::train::config::CheckpointConfig;
use crate::train::lock::{LockError, RunLock};
use crate::train::run_folder::RunFolder;

/// Time between attempts at a save that failed while the run goes on.
const RETRY: Duration = Duration::from_secs(30);
/// First and longest time between attempts at the last one.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];
/// Time between words about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The place a save goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `checkpoints/step-…`; older ones beyond `keep` are deleted afterwards.
    Step,
    /// `checkpoints/best`.
    Best,
}

/// What became of a save.
#[derive(Debug)]
pub struct Outcome {
    /// Where it went.
    pub place: Place,
    /// The step it is of.
    pub global_step: u64,
    /// The folder, or in words why there is none; the error itself comes from [`Saver::finish`] if it was the last.
    pub result: Result<PathBuf, String>,
    /// How long it took.
    pub took: Duration,
}

struct Save {
    place: Place,
    global_step: u64,
    contents: CheckpointContents,
}

/// The thread that saves. Rank 0 has one; ended by [`Saver::finish`]. Dropped without it, it completes what was submitted,
/// as far as storage takes it at once, and nobody learns how that went.
#[derive(Debug)]
pub struct Saver {
    run: RunFolder,
    queue: Option<SyncSender<Save>>,
    outcomes: Receiver<Outcome>,
    /// Whether the end of the queue is the end of the run: only then is the last save worth a pause.
    awaited: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
}

impl Saver {
    /// Clears what a crash left and starts the thread. `config.keep` checkpoints of steps are kept, at least one.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read or cleared, or is not ours.
    pub fn start(lock: Arc<RunLock>, config: &CheckpointConfig) -> Result<Saver, CheckpointError> {
        lock.check()?;
        let run = lock.run().clone();
        for name in checkpoint::recover(&run)? {
            tracing::info!(name, "removed an unfinished checkpoint of an earlier process");
        }
        // One waits while one is written: a third makes the training thread wait rather than the memory grow.
        let (queue, saves) = sync_channel(1);
        let (tell, outcomes) = channel();
        let awaited = Arc::new(AtomicBool::new(false));
        let (keep, patience) = (config.keep, Duration::from_secs(config.patience_s));
        let end = End { awaited: Arc::clone(&awaited), patience };
        let worker = Worker { lock, keep, tell, end, unsaved_best: None, unsaved_step: None };
        let thread = std::thread::Builder::new()
            .name("saver".to_owned())
            .spawn(move || worker.run(&saves))
            .map_err(CheckpointError::io("start the thread that saves into", run.root()))?;
        Ok(Saver { run, queue: Some(queue), outcomes, awaited, thread: Some(thread) })
    }

    /// Hands over a save of the step's checkpoint or of the best one. Waits only when one is being written and another
    /// is waiting already.
    ///
    /// # Errors
    /// [`CheckpointError::SaverDied`]; a save that fails shows in [`Saver::outcomes`] and [`Saver::finish`].
    pub fn submit(&self, place: Place, global_step: u64, contents: CheckpointContents) -> Result<(), CheckpointError> {
        let save = Save { place, global_step, contents };
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(save).is_ok());
        if sent { Ok(()) } else { Err(CheckpointError::SaverDied { run: self.run.root().to_owned() }) }
    }

    /// What has been finished since the last call, in order: for the log.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.try_iter().collect()
    }

    /// Takes no more saves and waits up to `wait` for those submitted; whether all have been tried. [`Saver::finish`] then
    /// does not wait and tells how they went.
    pub fn is_done_within(&mut self, wait: Duration) -> bool {
        self.awaited.store(true, Ordering::Relaxed);
        drop(self.queue.take());
        let began = Instant::now();
        loop {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return true;
            }
            if began.elapsed() >= wait {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until everything submitted is on the disk, `checkpoint.patience_s` at most where storage refuses the last
    /// save. The outcomes not yet asked for come back with it, less the failures that were made good.
    ///
    /// # Errors
    /// The last save's, or that of a best that could never be written: then the state on disk is older than the run, and
    /// the command must end with [`CheckpointError::exit_code`].
    pub fn finish(mut self) -> Result<Vec<Outcome>, CheckpointError> {
        self.awaited.store(true, Ordering::Relaxed);
        drop(self.queue.take());
        let died = CheckpointError::SaverDied { run: self.run.root().to_owned() };
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(last)) => last?,
            _ => return Err(died),
        }
        let mut outcomes = self.outcomes();
        let written: Vec<(Place, u64)> =
            outcomes.iter().filter(|o| o.result.is_ok()).map(|o| (o.place, o.global_step)).collect();
        outcomes.retain(|o| o.result.is_ok() || !written.contains(&(o.place, o.global_step)));
        Ok(outcomes)
    }
}

impl Drop for Saver {
    /// The run ends with an error of its own, a lost peer say: it waits for no room. What waits is tried once more.
    fn drop(&mut self) {
        self.awaited.store(false, Ordering::Relaxed);
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark(); // out of a pause
            let _ = thread.join(); // `finish` is the way to learn the result
        }
    }
}

/// How the thread ends.
struct End {
    awaited: Arc<AtomicBool>,
    patience: Duration,
}

struct Worker {
    lock: Arc<RunLock>,
    keep: usize,
    tell: Sender<Outcome>,
    end: End,
    unsaved_best: Option<Save>,
    unsaved_step: Option<Save>,
}

impl Worker {
    /// The result is that of the newest save of a step, or the one of a best that is still unwritten.
    fn run(mut self, saves: &Receiver<Save>) -> Result<(), CheckpointError> {
        loop {
            let unsaved = self.unsaved_best.is_some() || self.unsaved_step.is_some();
            let next = match unsaved {
                true => saves.recv_timeout(RETRY),
                false => saves.recv().map_err(RecvTimeoutError::from),
            };
            // A failure is told once; later attempts only when they succeed.
            let again = matches!(next, Err(RecvTimeoutError::Timeout));
            match next {
                // a newer one replaces one that failed
                Ok(save) if save.place == Place::Best => self.unsaved_best = Some(save),
                Ok(save) => self.unsaved_step = Some(save),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.last(),
            }
            if let Err(error) = self.write_unsaved(!again) {
                tracing::debug!(%error, "kept for the next attempt");
            }
        }
    }

    /// Nothing follows: what is unsaved now is lost with the process. Pauses the end of the run for it.
    fn last(&mut self) -> Result<(), CheckpointError> {
        let (began, mut pause, mut said) = (Instant::now(), PAUSES[0], None::<Instant>);
        loop {
            let Err(error) = self.write_unsaved(false) else {
                if said.is_some() {
                    tracing::warn!("the last save is on the disk after {} s", began.elapsed().as_secs());
                }
                return Ok(());
            };
            let left = self.end.patience.saturating_sub(began.elapsed());
            let awaited = self.end.awaited.load(Ordering::Relaxed);
            if said.is_some() && !awaited {
                tracing::warn!("the last save is given up: the run ends with another error");
            }
            if !awaited || !may_pass(&error) || left.is_zero() {
                return Err(error);
            }
            if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
                said = Some(Instant::now());
                tracing::warn!(
                    "{error}. {} The state is in memory, and the save is tried again for {} s (checkpoint.patience_s); a \
                     second Ctrl-C ends at once and loses what was done since the checkpoint before",
                    self.room(),
                    left.as_secs()
                );
            }
            std::thread::park_timeout(pause.min(left));
            pause = (2 * pause).min(PAUSES[1]);
        }
    }

    /// Needed and free, in words.
    fn room(&self) -> String {
        let unsaved = [&self.unsaved_best, &self.unsaved_step];
        let needed: usize = unsaved.into_iter().flatten().map(|save| save.contents.n_bytes()).sum();
        let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
        let free =
            free(&self.lock.run().checkpoints()).map_or_else(String::new, |free| format!(", {} are free", mib(free)));
        format!("{} are needed{free}.", mib(needed as f64))
    }

    /// The best one first: see the head of this file. `telling` whether a failure is told.
    fn write_unsaved(&mut self, telling: bool) -> Result<(), CheckpointError> {
        if let Some(save) = &self.unsaved_best {
            self.write(save, telling, |run, save| checkpoint::write_best(run, save.global_step, &save.contents))?;
            self.unsaved_best = None;
        }
        if let Some(save) = &self.unsaved_step {
            self.write_step(save, telling)?;
            self.unsaved_step = None;
        }
        Ok(())
    }

    fn write_step(&self, save: &Save, telling: bool) -> Result<(), CheckpointError> {
        self.write(save, telling, |run, save| {
            let dir = checkpoint::save(run, save.global_step, &save.contents)?;
            // The checkpoint is whole; that an old one cannot be deleted costs space, not the run.
            if let Err(error) = checkpoint::prune(run, self.keep) {
                tracing::warn!(%error, "old checkpoints stay");
            }
            Ok(dir)
        })
    }

    /// Writes, tells the log and the trainer, and says whether it worked.
    fn write(
        &self,
        save: &Save,
        telling: bool,
        how: impl FnOnce(&RunFolder, &Save) -> Result<PathBuf, CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let started = Instant::now();
        let result = self.lock.check().map_err(CheckpointError::from).and_then(|()| how(self.lock.run(), save));
        let (place, global_step, took) = (save.place, save.global_step, started.elapsed());
        match &result {
            Ok(dir) => tracing::debug!(global_step, dir = %dir.display(), ?took, "saved"),
            Err(error) => tracing::debug!(global_step, %error, "a checkpoint was not saved"),
        }
        if telling || result.is_ok() {
            let told = result.as_ref().map(PathBuf::clone).map_err(ToString::to_string);
            let _ = self.tell.send(Outcome { place, global_step, result: told, took }); // nobody listens after a drop
        }
        result.map(drop)
    }
}

/// Whether waiting can help: a disk gets room, a file server comes back, an administrator mounts it anew. A limit of this
/// process on the size of files stays, and so does another's lock.
fn may_pass(error: &CheckpointError) -> bool {
    match error {
        CheckpointError::Io { source, .. } => source.kind() != io::ErrorKind::FileTooLarge,
        CheckpointError::Lock(LockError::Io { .. }) => true,
        _ => false,
    }
}

#[cfg(unix)]
fn free(folder: &std::path::Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail as f64 * stat.f_frsize as f64)
}

#[cfg(not(unix))]
fn free(_: &std::path::Path) -> Option<f64> {
    None
}

#[cfg(test)]
mod tests;
