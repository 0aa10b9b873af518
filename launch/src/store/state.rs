//! What the store keeps: who has which rank, values, counters, barriers. Every method is one short step under the
//! server's mutex. Must not know sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use tokio::sync::watch;

use super::protocol::{self, Greeting, Hello, Version, refused};
use super::{Doing, Peer, PeerState, StoreError};

/// All keys and values together.
const MAX_STORED: usize = 256 << 20;

/// Everything of one generation.
#[derive(Debug)]
pub(super) struct State {
    generation: String,
    world_size: u32,
    holders: BTreeMap<u32, Holder>,
    values: BTreeMap<String, Vec<u8>>,
    /// Bytes of keys and values.
    n_stored: usize,
    /// Turns true when the key is set.
    awaited: BTreeMap<String, watch::Sender<bool>>,
    /// Those that are filling; a full one is taken out, and the name is free for the next round.
    barriers: BTreeMap<String, Barrier>,
}

/// The process that has a rank.
#[derive(Debug)]
struct Holder {
    token: u64,
    host: String,
    pid: u32,
    patience: Duration,
    last_sign: Instant,
    ended: Option<PeerState>,
    doing: Doing,
}

#[derive(Debug, Default)]
struct Barrier {
    arrived: BTreeSet<u32>,
    full: watch::Sender<bool>,
}

impl Holder {
    fn state(&self) -> PeerState {
        let silent = self.last_sign.elapsed() > self.patience;
        self.ended.unwrap_or(if silent { PeerState::Silent } else { PeerState::Alive })
    }
}

impl State {
    pub(super) fn new(generation: &str, world_size: u32) -> State {
        let generation = generation.to_owned();
        let (holders, values, awaited, barriers) = Default::default();
        State { generation, world_size, holders, values, n_stored: 0, awaited, barriers }
    }

    /// Lets a connection in, or says why not.
    pub(super) fn admit(&mut self, head: &[u8]) -> Result<Hello, StoreError> {
        let theirs = Version::ours();
        let ours = protocol::decode::<Greeting<IgnoredAny>>(head)?.version;
        if ours.magic != theirs.magic {
            return Err(refused("this is not a client of the store"));
        }
        if (ours.protocol, &ours.version) != (theirs.protocol, &theirs.version) {
            return Err(StoreError::Version { ours: ours.words(), theirs: theirs.words() });
        }
        let hello = protocol::decode::<Greeting<Hello>>(head)?.hello;
        if hello.generation != self.generation {
            return Err(StoreError::Stale { ours: hello.generation, theirs: self.generation.clone() });
        }
        let Hello { rank, world_size, token, pid, .. } = hello;
        if world_size != self.world_size || rank >= world_size {
            return Err(StoreError::WorldSize { rank, ours: world_size, theirs: self.world_size });
        }
        match self.holders.get(&rank) {
            Some(h) if h.token != token && h.state() == PeerState::Alive => {
                return Err(StoreError::Taken { rank, host: h.host.clone(), pid: h.pid });
            }
            Some(h) if h.token == token => {}
            _ => {
                let (patience, last_sign) = (Duration::from_millis(hello.patience_ms), Instant::now());
                let (host, doing) = (protocol::cut(&hello.host), Doing::default());
                self.holders.insert(rank, Holder { token, host, pid, patience, last_sign, ended: None, doing });
            }
        }
        Ok(hello)
    }

    /// Refuses a process that lost its rank to another.
    pub(super) fn check_holder(&self, hello: &Hello) -> Result<(), StoreError> {
        match self.holders.get(&hello.rank) {
            Some(h) if h.token != hello.token => {
                Err(StoreError::Taken { rank: hello.rank, host: h.host.clone(), pid: h.pid })
            }
            _ => Ok(()),
        }
    }

    /// A beat arrived.
    pub(super) fn hear(&mut self, who: &Hello, doing: Doing) {
        if let Some(holder) = self.holders.get_mut(&who.rank) {
            holder.last_sign = Instant::now();
            holder.doing = doing;
        }
    }

    /// Notes that the claim of a connection ended; only once, and only if another process has not taken the rank.
    pub(super) fn end(&mut self, hello: &Hello, how: PeerState) {
        if let Some(holder) = self.holders.get_mut(&hello.rank)
            && holder.token == hello.token
            && holder.ended.is_none()
        {
            holder.ended = Some(how);
            holder.last_sign = Instant::now();
        }
    }

    /// Every rank of the world, in order.
    pub(super) fn table(&self) -> Vec<Peer> {
        let row = |rank| match self.holders.get(&rank) {
            None => {
                let (host, doing) = (String::new(), Doing::default());
                Peer { rank, host, pid: 0, state: PeerState::Absent, silent_s: 0.0, doing }
            }
            Some(h) => {
                let (host, doing, silent_s) = (h.host.clone(), h.doing.clone(), h.last_sign.elapsed().as_secs_f64());
                Peer { rank, host, pid: h.pid, state: h.state(), silent_s, doing }
            }
        };
        (0..self.world_size).map(row).collect()
    }

    /// Ranks that joined, have not ended and are heard: one behind a cut link never says goodbye.
    pub(super) fn there(&self) -> Vec<u32> {
        self.holders.iter().filter(|(_, h)| h.state() == PeerState::Alive).map(|(rank, _)| *rank).collect()
    }

    pub(super) fn value(&self, key: &str) -> Option<&Vec<u8>> {
        self.values.get(key)
    }

    /// Turns true when the key is set.
    pub(super) fn await_key(&mut self, key: &str) -> watch::Receiver<bool> {
        self.awaited.entry(key.to_owned()).or_default().subscribe()
    }

    /// After a wait that found nothing, with its receiver dropped.
    pub(super) fn await_no_more(&mut self, key: &str) {
        if self.awaited.get(key).is_some_and(|set| set.receiver_count() == 0) {
            self.awaited.remove(key);
        }
    }

    /// Sets a key and wakes who waits for it.
    pub(super) fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        let before = self.values.get(key).map_or(0, |old| key.len() + old.len());
        let n_stored = self.n_stored - before + key.len() + value.len();
        if n_stored > MAX_STORED {
            return Err(refused(format!("{n_stored} bytes in the store; the limit is {MAX_STORED}")));
        }
        self.n_stored = n_stored;
        self.values.insert(key.to_owned(), value);
        if let Some(awaited) = self.awaited.remove(key) {
            awaited.send_replace(true);
        }
        Ok(())
    }

    /// Adds to a decimal counter, as c10d's store does; an absent one is 0.
    pub(super) fn add(&mut self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let text = self.values.get(key).map_or("0".into(), |value| String::from_utf8_lossy(value));
        let before: i64 = text.parse().map_err(|_| refused(format!("the value of `{key}` is no number to add to")))?;
        let sum = before.checked_add(amount).ok_or_else(|| refused(format!("the counter `{key}` overflows")))?;
        self.put(key, sum.to_string().into_bytes())?;
        Ok(sum)
    }

    /// A rank arrives at a barrier; turns true when it is full.
    pub(super) fn arrive(&mut self, name: &str, rank: u32) -> watch::Receiver<bool> {
        let barrier = self.barriers.entry(name.to_owned()).or_default();
        barrier.arrived.insert(rank);
        let full = barrier.full.subscribe();
        if barrier.arrived.len() as u64 >= u64::from(self.world_size)
            && let Some(barrier) = self.barriers.remove(name)
        {
            barrier.full.send_replace(true);
        }
        full
    }

    /// Takes a rank that gave up out of a barrier, so that the others do not pass without it; who had not arrived.
    pub(super) fn withdraw(&mut self, name: &str, rank: u32) -> Vec<Peer> {
        let table = self.table();
        let Some(barrier) = self.barriers.get_mut(name) else { return Vec::new() };
        let missing = table.into_iter().filter(|p| !barrier.arrived.contains(&p.rank)).collect();
        barrier.arrived.remove(&rank);
        if barrier.arrived.is_empty() {
            self.barriers.remove(name);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_stays_small_and_a_value_set_again_counts_once() {
        let mut state = State::new("6.0.0", 1);
        let large = || vec![0; 100 << 20]; // never touched, so never in memory
        for key in ["a", "a", "b", "b"] {
            state.put(key, large()).unwrap();
        }
        assert!(state.put("c", large()).unwrap_err().to_string().contains("the limit is 268435456"));
        assert_eq!(state.value("c"), None);
        assert!(state.add("n", i64::MAX).is_ok() && state.add("n", 1).unwrap_err().to_string().contains("overflows"));
    }
}
