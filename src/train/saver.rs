//! Saves off the training thread: one thread, one save waiting at most. A failed save is told, tried again at the next
//! one, and is the run's failure only if the last one fails. Must not know why something is saved.
//!
//! Order is kept: a checkpoint may say what the best value was, so a best that could not be written is written before the
//! next checkpoint, or that one fails too. Before anything is published the run's lock is looked at.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::train::checkpoint::{self, CheckpointContents, CheckpointError};
use crate::train::lock::RunLock;
use crate::train::run_folder::RunFolder;

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

/// The thread that saves. Rank 0 has one; ended by [`Saver::finish`]. Dropped without it, it completes what was submitted
/// and nobody learns how that went.
#[derive(Debug)]
pub struct Saver {
    run: RunFolder,
    queue: Option<SyncSender<Save>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
}

impl Saver {
    /// Clears what a crash left and starts the thread. `keep` checkpoints of steps are kept, at least one.
    ///
    /// # Errors
    /// [`CheckpointError`] when the folder cannot be read or cleared, or is not ours.
    pub fn start(lock: Arc<RunLock>, keep: usize) -> Result<Saver, CheckpointError> {
        lock.check()?;
        let run = lock.run().clone();
        for name in checkpoint::recover(&run)? {
            tracing::info!(name, "removed an unfinished checkpoint of an earlier process");
        }
        // One waits while one is written: a third makes the training thread wait rather than the memory grow.
        let (queue, saves) = sync_channel(1);
        let (tell, outcomes) = channel();
        let thread = std::thread::Builder::new()
            .name("saver".to_owned())
            .spawn(move || Worker { lock, keep, tell, unsaved_best: None }.run(&saves))
            .map_err(CheckpointError::io("start the thread that saves into", run.root()))?;
        Ok(Saver { run, queue: Some(queue), outcomes, thread: Some(thread) })
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

    /// Waits until everything submitted is on the disk. The outcomes not yet asked for come back with it.
    ///
    /// # Errors
    /// The last save's, or that of a best that could never be written: then the state on disk is older than the run, and
    /// the command must end with [`CheckpointError::exit_code`].
    pub fn finish(mut self) -> Result<Vec<Outcome>, CheckpointError> {
        drop(self.queue.take());
        let died = CheckpointError::SaverDied { run: self.run.root().to_owned() };
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(last)) => last.map(|()| self.outcomes.try_iter().collect()),
            _ => Err(died),
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // `finish` is the way to learn the result
        }
    }
}

struct Worker {
    lock: Arc<RunLock>,
    keep: usize,
    tell: Sender<Outcome>,
    unsaved_best: Option<Save>,
}

impl Worker {
    /// The result is that of the last save of a step, or the one of a best that is still unwritten.
    fn run(mut self, saves: &Receiver<Save>) -> Result<(), CheckpointError> {
        let mut last = Ok(());
        for save in saves {
            match save.place {
                Place::Best => self.unsaved_best = Some(save), // a newer best replaces one that failed
                Place::Step => {
                    let best_first = self.write_best();
                    last = best_first.and_then(|()| self.write_step(&save));
                    continue;
                }
            }
            if let Err(error) = self.write_best() {
                tracing::debug!(%error, "kept for the next save");
            }
        }
        self.write_best()?;
        last
    }

    fn write_best(&mut self) -> Result<(), CheckpointError> {
        let Some(save) = self.unsaved_best.take() else { return Ok(()) };
        let written = self.write(&save, |run, save| checkpoint::write_best(run, save.global_step, &save.contents));
        if written.is_err() {
            self.unsaved_best = Some(save);
        }
        written
    }

    fn write_step(&self, save: &Save) -> Result<(), CheckpointError> {
        self.write(save, |run, save| {
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
        how: impl FnOnce(&RunFolder, &Save) -> Result<PathBuf, CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let started = Instant::now();
        let result = self.lock.check().map_err(CheckpointError::from).and_then(|()| how(self.lock.run(), save));
        let (place, global_step, took) = (save.place, save.global_step, started.elapsed());
        match &result {
            Ok(dir) => tracing::debug!(global_step, dir = %dir.display(), ?took, "saved"),
            Err(error) => tracing::error!(global_step, %error, "a checkpoint was not saved; the next save tries again"),
        }
        let told = result.as_ref().map(PathBuf::clone).map_err(ToString::to_string);
        let _ = self.tell.send(Outcome { place, global_step, result: told, took }); // nobody listens after a drop
        result.map(drop)
    }
}

#[cfg(test)]
mod tests;
