//! What an engine may ask about the other ranks while it waits. The store of rank 0 answers for processes; thread-ranks
//! see each other. Knows no transport.

use std::fmt::Debug;

/// The rank that gave up first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aborted {
    /// Which one.
    pub rank: usize,
    /// Why.
    pub reason: String,
    /// The exit code it ended with.
    pub code: u8,
}

/// Who has not arrived at an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Ranks.
    pub ranks: Vec<usize>,
    /// What was last heard of each, in words.
    pub seen: Vec<String>,
}

/// News of the other ranks. Every method answers at once from what was last heard.
pub trait Peers: Send + Sync + Debug {
    /// The first rank that gave up, if one did.
    fn aborted(&self) -> Option<Aborted>;
    /// Who has not entered operation `sequence`.
    fn missing(&self, sequence: u64) -> Missing;
    /// Tells all that this rank gives up.
    fn abort(&self, reason: &str, code: u8);
    /// This rank enters operation `sequence`.
    fn enter(&self, sequence: u64, operation: &'static str);
    /// This rank has left it.
    fn leave(&self);
}

/// No news: a group without a store.
#[derive(Debug, Clone, Copy)]
pub struct NoNews;

impl Peers for NoNews {
    fn aborted(&self) -> Option<Aborted> {
        None
    }

    fn missing(&self, _: u64) -> Missing {
        Missing::default()
    }

    fn abort(&self, _: &str, _: u8) {}

    fn enter(&self, _: u64, _: &'static str) {}

    fn leave(&self) {}
}
