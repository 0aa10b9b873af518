//! A rank's side of the store: blocking calls for a trainer that is not async, and a thread that beats. Must not know
//! frames, nor what the store keeps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::link::{Link, knock};
use super::protocol::{self, Hello, Request, Response, Role, refused};
use super::{Abort, Identity, Lost, Peer, PeerState, Progress, StoreError, Timing};

/// An abort waits at most so long for its delivery, and a goodbye for its answer.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Up to so many ranks, every beat brings the table of peers; of 1,024 ranks, every 16th: 150 bytes per row and rank.
const TABLE_EVERY: u32 = 64;

/// A rank's connection to the store. Dropped, it says goodbye, unless the thread is panicking.
#[derive(Debug)]
pub struct StoreClient {
    shared: Arc<Shared>,
    /// None after an answer did not come: what would come next answers another question.
    calls: Mutex<Option<Link>>,
    beats: Option<JoinHandle<()>>,
}

impl StoreClient {
    /// Tries the candidates (`host:port`) in turn until one lets us in; the server may start later than this rank.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] at the deadline; at once what the store says ([`StoreError::Stale`],
    /// [`StoreError::Taken`], …) when every candidate refuses, or at the deadline when only some do: an address of a
    /// private network may lead to another job's store.
    pub fn connect(
        candidates: &[String],
        who: &Identity,
        timing: Timing,
        deadline: Duration,
    ) -> Result<StoreClient, StoreError> {
        let mut hello = Hello {
            generation: who.generation.clone(),
            world_size: who.world_size,
            rank: who.rank,
            host: protocol::cut(&who.host),
            pid: std::process::id(),
            token: RandomState::new().build_hasher().finish(),
            patience_ms: millis(timing.patience),
            role: Role::Beats,
        };
        let (beats, address) = knock(candidates, &hello, deadline)?;
        hello.role = Role::Calls;
        let calls = Link::open(address, &hello, protocol::HELLO_TIME)?;
        let shared = Arc::new(Shared {
            who: who.clone(),
            timing,
            progress: Progress::default(),
            news: Mutex::new(News::new()),
            changed: Condvar::new(),
        });
        let beating = Arc::clone(&shared);
        let thread = thread::Builder::new().name("store-beats".into()).spawn(move || beating.beat(beats));
        let thread = thread.map_err(|e| refused(format!("no thread for the heartbeats: {e}")))?;
        Ok(StoreClient { shared, calls: Mutex::new(Some(calls)), beats: Some(thread) })
    }

    /// Sets a key, and wakes who waits for it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] beyond the limits; [`StoreError::Lost`], as every call.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.call(&Request::Set { key: key.into() }, value, Duration::ZERO).map(|_| ())
    }

    /// The value of a key, if it is set.
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (response, value) = self.call(&Request::Get { key: key.into() }, &[], Duration::ZERO)?;
        Ok(matches!(response, Response::Value).then_some(value))
    }

    /// The value of a key as soon as it is set. Calls of other threads wait behind it; beats go on.
    ///
    /// # Errors
    /// [`StoreError::Deadline`] with the ranks that are not there; [`StoreError::Aborted`] as soon as some rank aborts.
    pub fn wait(&self, key: &str, deadline: Duration) -> Result<Vec<u8>, StoreError> {
        let request = Request::Wait { key: key.into(), deadline_ms: millis(deadline) };
        self.call(&request, &[], deadline).map(|(_, value)| value)
    }

    /// Adds to a counter, which starts at 0; the sum. `get` shows it in decimal.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the value is no number, or the sum none of 64 bits.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        match self.call(&Request::Add { key: key.into(), amount }, &[], Duration::ZERO)? {
            (Response::Sum(sum), _) => Ok(sum),
            (other, _) => Err(refused(format!("an answer to another question: {other:?}"))),
        }
    }

    /// Returns when every rank has arrived here. A name may be used again. Who gives up is taken out, so the others do
    /// not pass without it.
    ///
    /// # Errors
    /// [`StoreError::Deadline`] with the ranks that have not arrived; [`StoreError::Aborted`] as soon as some rank
    /// aborts.
    pub fn barrier(&self, name: &str, deadline: Duration) -> Result<(), StoreError> {
        let request = Request::Barrier { name: name.into(), deadline_ms: millis(deadline) };
        self.call(&request, &[], deadline).map(|_| ())
    }

    /// Where the training thread notes what it does; every beat tells it to the others.
    pub fn progress(&self) -> Progress {
        self.shared.progress.clone()
    }

    /// Every rank as the last beat told, older by the time since; empty before the first answer. In worlds of more than
    /// 64 ranks the table comes every few beats only.
    pub fn peers(&self) -> Vec<Peer> {
        let news = self.shared.news();
        let age = news.told.elapsed().as_secs_f64();
        let mut peers = news.peers.clone();
        for peer in &mut peers {
            if peer.rank == self.shared.who.rank {
                peer.doing = self.shared.progress.now();
                peer.silent_s = 0.0;
            } else if peer.state != PeerState::Absent {
                peer.silent_s += age;
            }
        }
        peers
    }

    /// The first abort of any rank, once it is known here.
    pub fn aborted(&self) -> Option<Abort> {
        self.shared.news().abort.clone()
    }

    /// Ends the run for all: every rank hears it with its next beat, waits end at once. Returns when the store has it,
    /// with the abort that counts (the first), or None if the store is lost or does not answer for 5 s.
    pub fn abort(&self, reason: &str, code: u8) -> Option<Abort> {
        let mut news = self.shared.news();
        if news.abort.is_none() {
            news.to_post = Some(Abort { rank: self.shared.who.rank, reason: protocol::cut(reason), code });
            self.shared.changed.notify_all();
        }
        let undecided = |news: &mut News| news.abort.is_none() && news.broken.is_none();
        let waited = self.shared.changed.wait_timeout_while(news, LAST_WORD, undecided);
        waited.unwrap_or_else(PoisonError::into_inner).0.abort.clone()
    }

    /// Whether the store answers no more: its connection broke, or it was silent for longer than our patience. It never
    /// comes back.
    pub fn lost(&self) -> Option<Lost> {
        self.shared.lost()
    }

    /// One request and its answer; `waits` is how long the store may think about it.
    fn call(&self, request: &Request, body: &[u8], waits: Duration) -> Result<(Response, Vec<u8>), StoreError> {
        let frame = protocol::encode(request, body)?;
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Lost { for_s: self.shared.silent_s(), reason: "the connection broke at an earlier call".into() };
        let mut link = calls.take().ok_or_else(|| StoreError::Lost(self.lost().unwrap_or_else(gone)))?;
        let start = Instant::now();
        let limit = waits.saturating_add(self.shared.timing.patience);
        let give_up = || match self.lost() {
            Some(lost) => Some(lost.reason),
            None => (start.elapsed() > limit).then(|| format!("no answer within {:.1} s", limit.as_secs_f64())),
        };
        let answer = link.ask(&frame, &give_up);
        let answer = answer.map_err(|reason| StoreError::Lost(Lost { for_s: self.shared.silent_s(), reason }))?;
        *calls = Some(link);
        match answer {
            (Response::No(error), _) => {
                if let StoreError::Aborted(abort) = &error {
                    self.shared.news().abort.get_or_insert_with(|| abort.clone());
                }
                Err(error)
            }
            answer => Ok(answer),
        }
    }
}

impl Drop for StoreClient {
    fn drop(&mut self) {
        let how = if thread::panicking() { Stop::Silently } else { Stop::WithGoodbye };
        self.shared.news().stop = Some((how, Instant::now()));
        self.shared.changed.notify_all();
        if let Some(beats) = self.beats.take() {
            let _ = beats.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    who: Identity,
    timing: Timing,
    progress: Progress,
    news: Mutex<News>,
    changed: Condvar,
}

/// What passes between the beating thread and the others.
#[derive(Debug)]
struct News {
    peers: Vec<Peer>,
    /// When the table came.
    told: Instant,
    /// When any answer came.
    heard: Instant,
    abort: Option<Abort>,
    to_post: Option<Abort>,
    broken: Option<String>,
    stop: Option<(Stop, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    WithGoodbye,
    Silently,
}

impl News {
    fn new() -> News {
        let now = Instant::now();
        News { peers: Vec::new(), told: now, heard: now, abort: None, to_post: None, broken: None, stop: None }
    }
}

impl Shared {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent_s(&self) -> f64 {
        self.news().heard.elapsed().as_secs_f64()
    }

    fn lost(&self) -> Option<Lost> {
        let news = self.news();
        let for_s = news.heard.elapsed().as_secs_f64();
        news.broken.clone().map(|reason| Lost { for_s, reason })
    }

    /// The beating thread: a beat at once, then one per interval, sooner when there is an abort to post.
    fn beat(&self, mut link: Link) {
        let every = u64::from(self.who.world_size.div_ceil(TABLE_EVERY).max(1));
        for n_beats in 0_u64.. {
            let start = Instant::now();
            let (stop, abort) = {
                let mut news = self.news();
                (news.stop, news.to_post.take())
            };
            let mut doing = self.progress.now();
            doing.operation = protocol::cut(&doing.operation);
            let request = match stop {
                Some((Stop::Silently, _)) => return,
                Some((Stop::WithGoodbye, _)) => Request::Bye { doing },
                None => Request::Beat { doing, abort, table: n_beats % every == 0 },
            };
            let answer = protocol::encode(&request, &[])
                .map_err(|e| e.to_string())
                .and_then(|frame| link.ask(&frame, &|| self.tired_of(start)));
            if let Err(reason) = self.take_in(answer) {
                self.news().broken = Some(reason);
                self.changed.notify_all();
                return;
            }
            if stop.is_some() {
                return;
            }
            let idle = |news: &mut News| news.stop.is_none() && news.to_post.is_none();
            let pause = self.timing.interval.saturating_sub(start.elapsed());
            drop(self.changed.wait_timeout_while(self.news(), pause, idle));
        }
    }

    /// Why to wait no longer for the answer to a beat sent at `start`.
    fn tired_of(&self, start: Instant) -> Option<String> {
        if self.news().stop.is_some_and(|(_, since)| since.elapsed() > LAST_WORD) {
            return Some("no answer to the goodbye".into());
        }
        let patience = self.timing.patience;
        (start.elapsed() > patience).then(|| format!("no answer within {:.1} s", patience.as_secs_f64()))
    }

    fn take_in(&self, answer: Result<(Response, Vec<u8>), String>) -> Result<(), String> {
        let mut news = self.news();
        match answer?.0 {
            Response::News { abort, peers } => {
                news.heard = Instant::now();
                if let Some(peers) = peers {
                    (news.peers, news.told) = (peers, news.heard);
                }
                if let (None, Some(abort)) = (&news.abort, abort) {
                    news.abort = Some(abort);
                }
            }
            Response::No(error) => return Err(error.to_string()),
            _ => {}
        }
        self.changed.notify_all();
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
