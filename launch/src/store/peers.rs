//! What ranks know of each other: the progress a rank tells with every beat, the table of peers it gets back, and who is
//! missing in words for people. Must not know sockets.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Longer lists of peers are cut in an error's text.
const MAX_LISTED: usize = 8;

/// What a rank is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// Number of the last collective it entered; 0 before the first.
    pub sequence: u64,
    /// Name of that collective.
    pub operation: String,
    /// Whether it is still inside.
    pub entered: bool,
}

/// The cell in which the training thread notes what it does; clones share it. Costs one uncontended lock per note.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Doing>>);

impl Progress {
    /// Before a collective.
    pub fn enter(&self, sequence: u64, operation: &str) {
        let mut doing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doing.sequence = sequence;
        doing.operation.clear();
        doing.operation.push_str(operation);
        doing.entered = true;
    }

    /// After it.
    pub fn leave(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entered = false;
    }

    /// As noted last.
    pub fn now(&self) -> Doing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a rank stands with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// Never joined.
    Absent,
    /// Heard within its patience.
    Alive,
    /// Connected, but not heard for longer: stopped, starved, or behind a cut link.
    Silent,
    /// Said goodbye.
    Left,
    /// Its connection broke without a goodbye: most likely the process is dead.
    Gone,
}

/// A rank as the store sees it. Its `Display` is a sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub rank: u32,
    /// Its node; empty when it never joined.
    pub host: String,
    /// Its process; 0 when it never joined.
    pub pid: u32,
    /// How it stands.
    pub state: PeerState,
    /// Seconds since its last sign, by the clock of the store's host; 0 when it never joined.
    pub silent_s: f64,
    /// What it was doing then.
    pub doing: Doing,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer { rank, host, pid, .. } = self;
        if self.state == PeerState::Absent {
            return write!(f, "rank {rank}: never joined the store");
        }
        let ago = if self.silent_s < 10.0 {
            format!("{:.1} s ago", self.silent_s)
        } else {
            format!("{:.0} s ago", self.silent_s)
        };
        write!(f, "rank {rank} on {host} (pid {pid}): ")?;
        match self.state {
            PeerState::Alive => write!(f, "alive, heard {ago}, ")?,
            PeerState::Left => write!(f, "left {ago}, ")?,
            PeerState::Gone => write!(f, "its connection broke {ago}, ")?,
            PeerState::Silent | PeerState::Absent => write!(f, "last heard {ago}, ")?,
        }
        let Doing { sequence, operation, entered } = &self.doing;
        match (entered, sequence, self.state) {
            (true, _, _) => write!(f, "in `{operation}` (operation {sequence})"),
            (false, 0, _) => write!(f, "before its first operation"),
            (false, _, PeerState::Left) => write!(f, "after operation {sequence}"),
            (false, _, PeerState::Alive) => {
                write!(f, "still computing before operation {}", sequence.saturating_add(1))
            }
            (false, ..) => write!(f, "computing before operation {}", sequence.saturating_add(1)),
        }
    }
}

/// The ranks that have not entered the collective `my_sequence` which this rank waits in, in order of rank: whom a
/// watchdog names before it gives up.
pub fn who_is_missing(peers: &[Peer], my_sequence: u64) -> Vec<Peer> {
    peers.iter().filter(|p| p.state == PeerState::Absent || p.doing.sequence < my_sequence).cloned().collect()
}

/// Missing peers as the end of a sentence.
pub(super) fn listed(missing: &[Peer]) -> String {
    if missing.is_empty() {
        return "all ranks are there".into();
    }
    let words: Vec<String> = missing.iter().take(MAX_LISTED).map(Peer::to_string).collect();
    let more =
        if missing.len() > MAX_LISTED { format!("; and {} more", missing.len() - MAX_LISTED) } else { String::new() };
    format!("missing: {}{more}", words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn peer(rank: u32, state: PeerState, silent_s: f64, sequence: u64, entered: bool) -> Peer {
        let doing = Doing { sequence, operation: "validation".into(), entered };
        Peer { rank, host: format!("n{}", rank + 1), pid: 75 + rank, state, silent_s, doing }
    }

    #[test]
    fn the_missing_are_named_in_words_and_those_who_are_here_are_not() {
        let absent = Peer { host: String::new(), pid: 0, ..peer(6, PeerState::Absent, 0.0, 0, false) };
        let peers = [
            peer(0, PeerState::Alive, 0.1, 120, true),
            peer(1, PeerState::Alive, 0.4, 119, false),
            peer(2, PeerState::Silent, 31.2, 118, true),
            peer(3, PeerState::Gone, 3.0, 119, false),
            peer(4, PeerState::Left, 3.0, 100, false),
            peer(5, PeerState::Alive, 0.4, 120, false), // through already
            absent,
            peer(7, PeerState::Alive, 0.4, 0, false),
        ];
        let words: Vec<String> = who_is_missing(&peers, 120).iter().map(Peer::to_string).collect();
        assert_eq!(
            words,
            [
                "rank 1 on n2 (pid 76): alive, heard 0.4 s ago, still computing before operation 120",
                "rank 2 on n3 (pid 77): last heard 31 s ago, in `validation` (operation 118)",
                "rank 3 on n4 (pid 78): its connection broke 3.0 s ago, computing before operation 120",
                "rank 4 on n5 (pid 79): left 3.0 s ago, after operation 100",
                "rank 6: never joined the store",
                "rank 7 on n8 (pid 82): alive, heard 0.4 s ago, before its first operation",
            ]
        );
        let crowd: Vec<Peer> = (0..64).map(|rank| peer(rank, PeerState::Alive, 0.0, 1, false)).collect();
        assert!(listed(&crowd).ends_with("; and 56 more"));
    }

    #[test]
    fn noting_progress_costs_less_than_a_microsecond() {
        let progress = Progress::default();
        let batch = |_| {
            let start = Instant::now();
            (0..1000).for_each(|sequence| {
                progress.enter(sequence, "gradients of bucket 7");
                progress.leave();
            });
            start.elapsed().as_nanos() / 1000
        };
        let nanoseconds = (0..50).map(batch).min().unwrap(); // the least: other work on the machine only adds
        assert!(nanoseconds < 1000, "{nanoseconds} ns");
        assert_eq!(progress.now(), Doing { sequence: 999, operation: "gradients of bucket 7".into(), entered: false });
    }
}
