//! Signals as votes. TERM, INT, USR1 and USR2 all mean: stop at a step boundary, save, exit 75. A second INT ends the
//! process at once with 130. Must not know what a step is: the trainer asks, the tail carries the vote to all ranks.
//!
//! Schedulers deliver one wish in several ways: preemption sends CONT and TERM (twice, seconds apart), a time limit
//! sends what `--signal` names, and a forwarding batch script may repeat it. So every handler is idempotent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::low_level;

use crate::exit::ExitCode;

/// A signal that votes to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// The scheduler or an operator asks the process to end.
    Term,
    /// Ctrl-C.
    Int,
    /// The usual warning before a time limit.
    Usr1,
    /// The same, as submitit sends it.
    Usr2,
}

impl StopSignal {
    const ALL: [StopSignal; 4] = [StopSignal::Term, StopSignal::Int, StopSignal::Usr1, StopSignal::Usr2];

    /// Name as in `kill -l`, with prefix.
    pub const fn name(self) -> &'static str {
        match self {
            StopSignal::Term => "SIGTERM",
            StopSignal::Int => "SIGINT",
            StopSignal::Usr1 => "SIGUSR1",
            StopSignal::Usr2 => "SIGUSR2",
        }
    }

    const fn number(self) -> i32 {
        match self {
            StopSignal::Term => SIGTERM,
            StopSignal::Int => SIGINT,
            StopSignal::Usr1 => SIGUSR1,
            StopSignal::Usr2 => SIGUSR2,
        }
    }
}

/// This process's vote to stop; clones share it. Once cast it stays.
#[derive(Debug, Clone, Default)]
pub struct StopVote {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first signal, 0 before it.
    first: AtomicI32,
    /// Interrupts seen.
    n_int: AtomicU32,
}

/// A file-size limit (`ulimit -f`) shall be an error of the write, told and with its exit code, not a silent death: SIGXFSZ
/// gets a handler that does nothing. Called once, early in `main`.
///
/// # Errors
/// The system's, when the handler cannot be installed.
pub fn outlive_file_size_limits() -> io::Result<()> {
    // SAFETY: the handler does nothing.
    unsafe { low_level::register(SIGXFSZ, || {}) }.map(drop)
}

impl StopVote {
    /// A vote that no signal casts: for tests and for commands that do not train.
    pub fn unbound() -> StopVote {
        StopVote::default()
    }

    /// A vote that TERM, INT, USR1 and USR2 cast. Called once, early in `main`, before threads start; the handlers stay
    /// for the life of the process.
    ///
    /// # Errors
    /// The system's, when a handler cannot be installed.
    pub fn on_signals() -> io::Result<StopVote> {
        let vote = StopVote::default();
        for signal in StopSignal::ALL {
            let state = Arc::clone(&vote.state);
            // SAFETY: the handler touches two atomics and, at a second INT, calls `_exit`: both are async-signal-safe.
            // It neither allocates, locks nor panics.
            unsafe { low_level::register(signal.number(), move || state.receive(signal)) }?;
        }
        Ok(vote)
    }

    /// Whether this process votes to stop. Cheap: one relaxed load.
    pub fn is_cast(&self) -> bool {
        self.state.first.load(Ordering::Relaxed) != 0
    }

    /// The signal that came first, if any: for the log and for the reason in the run's state.
    pub fn first(&self) -> Option<StopSignal> {
        let number = self.state.first.load(Ordering::Relaxed);
        StopSignal::ALL.into_iter().find(|s| s.number() == number)
    }

    /// Casts the vote as if `signal` had arrived, but never ends the process. For tests.
    pub fn cast(&self, signal: StopSignal) {
        self.state.note_first(signal);
    }
}

impl State {
    /// What the handler does.
    fn receive(&self, signal: StopSignal) {
        if signal == StopSignal::Int && self.n_int.fetch_add(1, Ordering::Relaxed) > 0 {
            low_level::exit(i32::from(ExitCode::Interrupted.code()));
        }
        self.note_first(signal);
    }

    fn note_first(&self, signal: StopSignal) {
        let _ = self.first.compare_exchange(0, signal.number(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_remembered_and_later_ones_change_nothing() {
        let vote = StopVote::unbound();
        assert!(!vote.is_cast());
        assert_eq!(vote.first(), None);
        vote.cast(StopSignal::Usr1);
        vote.clone().cast(StopSignal::Term);
        assert!(vote.is_cast());
        assert_eq!(vote.first(), Some(StopSignal::Usr1));
    }
}
