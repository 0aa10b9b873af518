//! The rendezvous store: what ranks tell each other before and beside the engine. Rank 0 serves it, every rank (0 too)
//! is a client. It carries kilobytes: addresses, an id for NCCL, counters, barriers, heartbeats, the word to abort.
//! Gradients never pass here. Must not know engines, nor where the address and the generation come from.
//!
//! ```text
//! rank 0   StoreServer::start(listener, generation, world_size)      one thread, one tokio runtime
//! all      StoreClient::connect(candidates, who, timing, deadline)   two connections:
//!            calls   set · get · wait · add · barrier                blocking, one at a time
//!            beats   every second: progress →, ← abort, table of peers
//! the end  drop(client) on every rank (says goodbye); rank 0 then server.close(grace)
//! ```
//!
//! A generation names one start of the job, so a rank of an earlier start cannot join. Only [`std::time::Instant`]s
//! are compared, each with others of the same host: a clock that jumps changes nothing. There is no password; who can
//! reach the port and knows the generation may write, as with torch's store: keep it inside the cluster's network.

mod client;
mod link;
mod peers;
mod protocol;
mod server;
mod state;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::StoreClient;
pub use peers::{Doing, Peer, PeerState, Progress, who_is_missing};
pub use protocol::{MAX_KEY, MAX_MESSAGE};
pub use server::StoreServer;

/// Who knocks at the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// This start of the job, as [`crate::World::generation`] or the engine tells it.
    pub generation: String,
    /// Ranks in the world.
    pub world_size: u32,
    /// This one.
    pub rank: u32,
    /// Its node, for the words others read about it.
    pub host: String,
}

/// How often a rank is heard, and when its silence means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two beats.
    pub interval: Duration,
    /// Without an answer for so long, the store is lost; not heard for so long, a peer is silent and its rank free.
    pub patience: Duration,
}

impl Default for Timing {
    /// A beat a second. 30 s of patience: a node that swaps or an overloaded file system stalls a process for ten.
    fn default() -> Timing {
        Timing { interval: Duration::from_secs(1), patience: Duration::from_secs(30) }
    }
}

/// The word of a rank that ends the run for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Who.
    pub rank: u32,
    /// Why, in words.
    pub reason: String,
    /// With which exit code.
    pub code: u8,
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} aborted the run (exit code {}): {}", self.rank, self.code, self.reason)
    }
}

/// The store answers no more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// Seconds since its last answer.
    pub for_s: f64,
    /// How we know.
    pub reason: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost the store of rank 0 ({}; its last answer came {:.1} s ago)", self.reason, self.for_s)
    }
}

/// What the store refused, or what became of it. *Ours* is the asking rank's, *theirs* the store's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum StoreError {
    /// No candidate let us in before the deadline.
    #[error("no store of rank 0 after {after_s:.1} s; tried {}", .tried.join("; "))]
    Unreachable {
        /// Seconds.
        after_s: f64,
        /// Each candidate and what it said last.
        tried: Vec<String>,
    },
    /// The store belongs to another start of the job, or to another job.
    #[error(
        "this rank belongs to generation `{ours}`, the store to `{theirs}`: one of them is left from another start"
    )]
    Stale {
        /// The rank's generation.
        ours: String,
        /// The store's.
        theirs: String,
    },
    /// Another version of the program.
    #[error("this rank runs syncytia {ours}, rank 0 runs {theirs}: start all ranks from the same file")]
    Version {
        /// The rank's version and protocol.
        ours: String,
        /// The store's.
        theirs: String,
    },
    /// Another idea of the world.
    #[error("this is rank {rank} of {ours}, the store is for {theirs} ranks")]
    WorldSize {
        /// The rank.
        rank: u32,
        /// World size it believes.
        ours: u32,
        /// World size of the store.
        theirs: u32,
    },
    /// Another process has the rank and is alive.
    #[error("rank {rank} is taken by process {pid} on {host}, which is alive: two processes were given the same rank")]
    Taken {
        /// The rank.
        rank: u32,
        /// Holder's node.
        host: String,
        /// Holder's process.
        pid: u32,
    },
    /// Something did not come in time.
    #[error("waited {after_s:.1} s for {what}; {}", peers::listed(.missing))]
    Deadline {
        /// The key or the barrier.
        what: String,
        /// Seconds.
        after_s: f64,
        /// Who has not arrived at the barrier; for a key, who is not there to set it.
        missing: Vec<Peer>,
    },
    /// Some rank ended the run while we waited.
    #[error("{0}")]
    Aborted(Abort),
    /// The store is gone.
    #[error("{0}")]
    Lost(Lost),
    /// A request beyond the limits, or one that makes no sense.
    #[error("the store refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
