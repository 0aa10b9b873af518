//! How a rank waits in an engine over a library: it looks, rests, and asks now and then whether there is still something to
//! wait for. Knows no library.

use std::time::{Duration, Instant};

use super::EngineError;
use super::peers::{Missing, Peers};

/// How often a waiting rank asks for news of the others.
const LOOK: Duration = Duration::from_millis(10);

/// What a rank is at while it waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// This rank.
    pub rank: usize,
    /// What it is doing.
    pub operation: &'static str,
    /// How many operations it had issued.
    pub sequence: u64,
    /// Bytes of its contribution.
    pub bytes: usize,
    /// How long it waits.
    pub deadline: Duration,
    /// Who tells of the others.
    pub peers: &'a dyn Peers,
}

impl Waiting<'_> {
    /// Returns when `done` says so.
    ///
    /// # Errors
    /// Those of `done`; [`EngineError::Peer`] when another rank gave up, [`EngineError::Deadline`].
    pub fn until(&self, mut done: impl FnMut() -> Result<bool, EngineError>) -> Result<(), EngineError> {
        let begun = Instant::now();
        let mut looked = Duration::ZERO;
        for turn in 0u64.. {
            if done()? {
                return Ok(());
            }
            rest(turn);
            let waited = begun.elapsed();
            if waited >= looked + LOOK {
                looked = waited;
                self.give_up_if_hopeless(waited)?;
            }
        }
        unreachable!("the loop ends by a return")
    }

    /// The error of the first other rank that gave up.
    pub fn peer_gave_up(&self) -> Option<EngineError> {
        let &Waiting { rank, operation, sequence, .. } = self;
        let aborted = self.peers.aborted().filter(|a| a.rank != rank)?;
        let (peer, reason, code) = (aborted.rank, aborted.reason, aborted.code);
        Some(EngineError::Peer { rank, operation, sequence, peer, reason, code })
    }

    fn give_up_if_hopeless(&self, waited: Duration) -> Result<(), EngineError> {
        if let Some(error) = self.peer_gave_up() {
            return Err(error);
        }
        if waited < self.deadline {
            return Ok(());
        }
        let &Waiting { rank, operation, sequence, bytes, .. } = self;
        let Missing { ranks: missing, seen } = self.peers.missing(sequence);
        Err(EngineError::Deadline { rank, operation, sequence, bytes, waited_s: waited.as_secs(), missing, seen })
    }
}

/// Between two looks at something that is not done.
fn rest(turn: u64) {
    match turn {
        0..1_000 => std::hint::spin_loop(),
        1_000..20_000 => std::thread::yield_now(),
        _ => std::thread::sleep(Duration::from_micros(50)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::peers::{Aborted, NoNews};

    /// News of one rank that gave up.
    #[derive(Debug)]
    struct GaveUp(usize);

    impl Peers for GaveUp {
        fn aborted(&self) -> Option<Aborted> {
            Some(Aborted { rank: self.0, reason: "its disk is full".into(), code: 7 })
        }

        fn missing(&self, _: u64) -> Missing {
            Missing::default()
        }

        fn abort(&self, _: &str, _: u8) {}

        fn enter(&self, _: u64, _: &'static str) {}

        fn leave(&self) {}
    }

    fn waiting(peers: &dyn Peers, deadline: Duration) -> Waiting<'_> {
        Waiting { rank: 1, operation: "sum", sequence: 3, bytes: 8, deadline, peers }
    }

    #[test]
    fn a_wait_ends_when_it_is_done_by_the_deadline_or_by_who_gave_up() {
        let for_ever = Duration::from_secs(3600);
        let mut looks = 0;
        let third_time = || {
            looks += 1;
            Ok(looks == 3)
        };
        waiting(&GaveUp(0), for_ever).until(third_time).unwrap();
        assert_eq!(looks, 3, "what is done at once is done, whatever became of the others");
        let late = waiting(&NoNews, Duration::from_millis(20)).until(|| Ok(false)).unwrap_err();
        assert!(matches!(late, EngineError::Deadline { rank: 1, sequence: 3, bytes: 8, .. }), "{late}");
        let told = waiting(&GaveUp(0), for_ever).until(|| Ok(false)).unwrap_err();
        assert!(matches!(told, EngineError::Peer { peer: 0, code: 7, .. }), "{told}");
        // What this rank told itself is not news.
        let own = waiting(&GaveUp(1), Duration::from_millis(20)).until(|| Ok(false)).unwrap_err();
        assert!(matches!(own, EngineError::Deadline { .. }), "{own}");
    }
}
