//! Saving off the training thread: the loop hands over plain values and goes on.
//!
//! A save that fails (a full disk) is a warning and the next one tries again; only the last save of a run must succeed.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::checkpoint::{self, CheckpointContents, CheckpointError};
use super::run_folder::RunFolder;

/// The thread that writes checkpoints.
#[derive(Debug)]
pub struct Saver {
    sender: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
    warnings: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
struct Work {
    step: u64,
    best: bool,
    contents: CheckpointContents,
}

impl Saver {
    /// Starts the thread; `keep` checkpoints stay beside the best.
    pub fn start(run: RunFolder, keep: usize) -> Saver {
        // One waits while one is written: a third submit waits, so memory stays bounded.
        let (sender, receiver) = sync_channel(1);
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&warnings);
        let thread = std::thread::Builder::new()
            .name("saver".into())
            .spawn(move || work(&run, keep, &receiver, &theirs))
            .expect("the system gives a thread");
        Saver { sender: Some(sender), thread: Some(thread), warnings }
    }

    /// Hands over the checkpoint of a step.
    pub fn submit(&mut self, step: u64, contents: CheckpointContents) {
        self.send(Work { step, best: false, contents });
    }

    /// Hands over the best checkpoint so far.
    pub fn submit_best(&mut self, step: u64, contents: CheckpointContents) {
        self.send(Work { step, best: true, contents });
    }

    /// What failed since the last look.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all is on disk; an error if the last checkpoint, or the last best one, could not be written.
    pub fn finish(mut self) -> Result<(), CheckpointError> {
        self.sender = None;
        match self.thread.take().expect("a saver is finished once").join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn send(&mut self, work: Work) {
        let sender = self.sender.as_ref().expect("a saver that is not finished has a thread");
        // A thread that is gone has panicked; `finish` says so.
        let _ = sender.send(work);
    }
}

fn work(
    run: &RunFolder,
    keep: usize,
    receiver: &Receiver<Work>,
    warnings: &Mutex<Vec<String>>,
) -> Result<(), CheckpointError> {
    let mut last: [Result<(), CheckpointError>; 2] = [Ok(()), Ok(())];
    while let Ok(Work { step, best, contents }) = receiver.recv() {
        let result = if best {
            checkpoint::write_best(run, step, &contents).map(drop)
        } else {
            checkpoint::save(run, step, &contents).and_then(|_| checkpoint::prune(run, keep).map(drop))
        };
        if let Err(error) = &result {
            let what = if best { "the best checkpoint" } else { "a checkpoint" };
            let warning = format!("step {step}: cannot save {what}: {error}; the run goes on and tries again");
            warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
        }
        last[usize::from(best)] = result;
    }
    let [checkpoint, best] = last;
    checkpoint.and(best)
}
