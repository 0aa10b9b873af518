//! News of the other ranks from the store of rank 0: who gave up, who is silent, who is missing.

use std::net::TcpListener;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncytia_launch::ExitCode;
use syncytia_launch::store::{
    Abort, Identity, Peer, PeerState, Progress, StoreClient, StoreError, StoreServer, Timing, who_is_missing,
};
use syncytia_launch::world::World;

use super::error::TrainError;
use crate::engine::messages::broadcast;
use crate::engine::peers::{Aborted, Missing, Peers};
use crate::engine::{Engine, EngineError};

/// How long a peer whose connection broke may be away before the wait for it ends: its own last word may be on the way.
const GONE_S: f64 = 3.0;
/// How long rank 0 keeps its store open for the last words of the others.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// This rank's line to the store; rank 0 has the store as well.
#[derive(Debug)]
pub struct StoreNews {
    rank: usize,
    progress: Progress,
    client: Option<StoreClient>,
    server: Option<StoreServer>,
}

/// What rank 0 tells of its store, by the engine's own way.
#[derive(Debug, Serialize, Deserialize)]
struct Invitation {
    candidates: Vec<String>,
    generation: String,
}

impl StoreNews {
    /// Opens the store on rank 0 and connects every rank to it. The address goes over `engine`, which is joined already, so
    /// no port has to be agreed on; the generation is drawn, so no rank of an earlier start can know it.
    ///
    /// # Errors
    /// [`TrainError::Engine`] when the store cannot be opened or reached.
    pub fn meet(engine: &mut dyn Engine, world: &World, deadline: Duration) -> Result<StoreNews, TrainError> {
        let join = |what: String| TrainError::Engine(EngineError::Join(what));
        let mut server = None;
        let mut invitation = Invitation { candidates: vec![], generation: String::new() };
        if engine.rank() == 0 {
            let listener =
                TcpListener::bind(("0.0.0.0", 0)).map_err(|e| join(format!("no port for the store: {e}")))?;
            let generation = format!("{:032x}", rand_word());
            let opened = StoreServer::start(listener, &generation, world.world_size);
            let opened = opened.map_err(|e| join(format!("the store does not start: {e}")))?;
            invitation = Invitation { candidates: addresses(opened.port(), &world.node), generation };
            server = Some(opened);
        }
        let bytes = serde_json::to_vec(&invitation).expect("an invitation is plain data");
        let bytes = broadcast(engine, "address of the store", &bytes)?;
        let Invitation { candidates, generation } =
            serde_json::from_slice(&bytes).map_err(|e| join(format!("rank 0's invitation is not understood: {e}")))?;
        StoreNews::connect(&candidates, generation, world, deadline, server)
    }

    /// The same where no engine is joined yet: rank 0 opens the store at `address` (`host:port`), which all know.
    ///
    /// # Errors
    /// [`TrainError::Engine`] when the store cannot be opened or reached.
    pub fn at(address: &str, generation: &str, world: &World, deadline: Duration) -> Result<StoreNews, TrainError> {
        let join = |what: String| TrainError::Engine(EngineError::Join(what));
        let mut candidates = vec![address.to_owned()];
        let mut server = None;
        if world.rank == 0 {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| join(format!("{address} is not host:port")))?;
            let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|e| {
                join(format!(
                    "port {port} for the store is not free here ({e}): choose another with SYNCYTIA_STORE=HOST:PORT"
                ))
            })?;
            let opened = StoreServer::start(listener, generation, world.world_size);
            server = Some(opened.map_err(|e| join(format!("the store does not start: {e}")))?);
            candidates = vec![format!("127.0.0.1:{port}")];
        }
        StoreNews::connect(&candidates, generation.to_owned(), world, deadline, server)
    }

    fn connect(
        candidates: &[String],
        generation: String,
        world: &World,
        deadline: Duration,
        server: Option<StoreServer>,
    ) -> Result<StoreNews, TrainError> {
        let (world_size, rank, host) = (world.world_size, world.rank, world.node.clone());
        let who = Identity { generation, world_size, rank, host };
        // Half the time that any wait has: a rank 0 that is paused is no more lost than another.
        let patience = (deadline / 2).max(Duration::from_secs(1));
        let timing = Timing { patience, ..Timing::default() };
        let client = StoreClient::connect(candidates, &who, timing, deadline);
        let client = client.map_err(|e| TrainError::Engine(EngineError::Join(e.to_string())))?;
        Ok(StoreNews { rank: world.rank as usize, progress: client.progress(), client: Some(client), server })
    }

    /// Tells all a value.
    ///
    /// # Errors
    /// [`EngineError::Join`] when the store is gone.
    pub fn tell(&self, key: &str, value: &[u8]) -> Result<(), EngineError> {
        self.client().set(key, value).map_err(|e| EngineError::Join(e.to_string()))
    }

    /// The value of a key as soon as somebody told it.
    ///
    /// # Errors
    /// [`EngineError::Join`] at the deadline or when the store is gone; [`EngineError::Peer`] when a rank gave up.
    pub fn hear(&self, key: &str, deadline: Duration) -> Result<Vec<u8>, EngineError> {
        self.client().wait(key, deadline).map_err(|error| match error {
            StoreError::Aborted(Abort { rank: peer, reason, code }) => EngineError::Peer {
                rank: self.rank,
                operation: "joining the others over NCCL",
                sequence: 0,
                peer: peer as usize,
                reason,
                code,
            },
            error => EngineError::Join(error.to_string()),
        })
    }

    fn client(&self) -> &StoreClient {
        self.client.as_ref().expect("only drop takes it")
    }
}

impl Peers for StoreNews {
    fn aborted(&self) -> Option<Aborted> {
        if let Some(abort) = self.client().aborted() {
            return Some(Aborted { rank: abort.rank as usize, reason: abort.reason, code: abort.code });
        }
        let code = ExitCode::Peers.code();
        if let Some(lost) = self.client().lost() {
            let reason = format!("its store does not answer: {lost}");
            return (self.rank != 0).then_some(Aborted { rank: 0, reason, code });
        }
        // Who has left in order was in every operation it had to be in; only one that others still wait for is missed.
        let mine = self.progress.now().sequence;
        let missed = |p: &Peer| match p.state {
            PeerState::Gone => true,
            PeerState::Left => p.doing.sequence < mine,
            _ => false,
        };
        let peer = self.client().peers().into_iter().find(|p| missed(p) && p.silent_s > GONE_S)?;
        Some(Aborted { rank: peer.rank as usize, reason: peer.to_string(), code })
    }

    fn missing(&self, sequence: u64) -> Missing {
        let missing = who_is_missing(&self.client().peers(), sequence);
        let seen = missing.iter().map(Peer::to_string).collect();
        Missing { ranks: missing.into_iter().map(|p| p.rank as usize).collect(), seen }
    }

    fn abort(&self, reason: &str, code: u8) {
        self.client().abort(reason, code);
    }

    fn enter(&self, sequence: u64, operation: &'static str) {
        self.progress.enter(sequence, operation);
    }

    fn leave(&self) {
        self.progress.leave();
    }
}

impl Drop for StoreNews {
    fn drop(&mut self) {
        drop(self.client.take()); // says goodbye
        if let Some(server) = self.server.take() {
            let still_there = server.close(LAST_WORDS);
            if !still_there.is_empty() {
                tracing::debug!(?still_there, "the store closes with ranks connected");
            }
        }
    }
}

/// Where the store may be reached from other nodes, the likeliest first, and from this one.
fn addresses(port: u16, node: &str) -> Vec<String> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let outside = interfaces.iter().filter(|i| !i.is_loopback() && i.ip().is_ipv4()).map(|i| i.ip().to_string());
    let mut hosts: Vec<String> = outside.collect();
    hosts.extend([node.to_owned(), "127.0.0.1".to_owned()]);
    hosts.into_iter().map(|host| format!("{host}:{port}")).collect()
}

/// A number nobody else draws.
fn rand_word() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};

    let word = || u128::from(RandomState::new().build_hasher().finish());
    word() << 64 | word()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::engine::ThreadsEngine;
    use crate::engine::watchdog::Watched;

    fn ranks<T: Send>(world_size: usize, f: impl Fn(Watched, Arc<StoreNews>) -> T + Sync) -> Vec<T> {
        let deadline = Duration::from_secs(10);
        std::thread::scope(|scope| {
            let f = &f;
            let engines = ThreadsEngine::group(world_size, deadline).into_iter().map(|mut engine| {
                scope.spawn(move || {
                    let (world_size, rank) = (engine.world_size() as u32, engine.rank() as u32);
                    let world = World { world_size, rank, ..World::local() };
                    let news = Arc::new(StoreNews::meet(&mut engine, &world, deadline).unwrap());
                    f(Watched::recorded(Box::new(engine), Arc::clone(&news) as Arc<dyn Peers>), news)
                })
            });
            let engines: Vec<_> = engines.collect();
            engines.into_iter().map(|e| e.join().unwrap()).collect()
        })
    }

    #[test]
    fn a_rank_that_gives_up_is_known_to_the_others_with_reason_and_code() {
        let heard = ranks(3, |mut engine, news| {
            engine.barrier("start").unwrap();
            if engine.rank() == 1 {
                news.abort("its disk is full", 7);
            }
            let began = std::time::Instant::now();
            while news.aborted().is_none() && began.elapsed() < Duration::from_secs(8) {
                std::thread::sleep(Duration::from_millis(20));
            }
            news.aborted()
        });
        let expected = Aborted { rank: 1, reason: "its disk is full".into(), code: 7 };
        assert!(heard.iter().all(|h| h.as_ref() == Some(&expected)), "{heard:?}");
    }

    #[test]
    fn who_has_not_come_is_named_with_what_it_does() {
        let told = AtomicBool::new(false);
        let said = ranks(2, |mut engine, news| {
            engine.barrier("start").unwrap();
            let began = std::time::Instant::now();
            let mut missing = Missing::default();
            if engine.rank() == 0 {
                news.enter(2, "validation");
            }
            // the next beat of rank 1 tells that it has left the first operation
            while !told.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(8) {
                if engine.rank() == 0 {
                    missing = news.missing(2);
                    let is_news = missing.seen.first().is_some_and(|seen| seen.contains("before operation 2"));
                    told.store(is_news, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            missing
        });
        assert_eq!(said[0].ranks, [1]);
        assert!(said[0].seen[0].contains("rank 1") && said[0].seen[0].contains("before operation 2"), "{said:?}");
    }

    /// Ranks end one after the other: who has left in order is missed only in an operation it did not enter.
    #[test]
    fn who_left_in_order_is_no_loss_until_somebody_waits_for_it() {
        let heard = ranks(2, |mut engine, news| {
            engine.barrier("end of the run").unwrap();
            if engine.rank() == 1 {
                return (None, None);
            }
            let left = |p: &Peer| p.state == PeerState::Left && p.silent_s > GONE_S;
            let began = std::time::Instant::now();
            while !news.client().peers().iter().any(left) {
                assert!(began.elapsed() < Duration::from_secs(8), "{:?}", news.client().peers());
                std::thread::sleep(Duration::from_millis(20));
            }
            let in_order = news.aborted();
            news.enter(2, "validation");
            (in_order, news.aborted())
        });
        let (in_order, missed) = &heard[0];
        assert_eq!(*in_order, None);
        let missed = missed.as_ref().unwrap();
        assert_eq!((missed.rank, missed.code), (1, ExitCode::Peers.code()));
        assert!(missed.reason.contains("left") && missed.reason.contains("after operation 1"), "{missed:?}");
    }
}
