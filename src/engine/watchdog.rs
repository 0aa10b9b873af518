//! An engine that is watched: every operation enters the flight record and the news to the peers, and a call that does
//! not return before the deadline, or after a peer gave up, ends the process with the words the error would have had.
//!
//! A library that waits for a lost peer inside a call cannot be asked to give up: Open MPI waited for eight minutes, and
//! for ever, when a link was cut. So the process ends (`_exit`, no clean-up that could wait again).

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::flight::{Flight, FlightRecord};
use super::peers::Peers;
use super::{Convert, Engine, EngineError, HalvesThere, PANICKED, Sum};

/// How long after a peer gave up an operation may still run: the engine's own error is the better one.
const GRACE: Duration = Duration::from_secs(3);
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(100);

/// What happens when a call does not return: tells, writes the record, ends the process. Never returns in a run; a test's may.
pub type OnExpiry = Box<dyn Fn(&EngineError, FlightRecord) + Send>;

/// An engine under watch.
pub struct Watched {
    /// First of all to be dropped: what it shares must not be its to drop.
    watchdog: Option<Watchdog>,
    engine: Box<dyn Engine>,
    flight: Arc<Flight>,
    peers: Arc<dyn Peers>,
}

/// The thread that looks at one rank's flight record; ends when dropped.
struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    /// Keeps the record only: for engines whose own waits all have a deadline.
    pub fn recorded(engine: Box<dyn Engine>, peers: Arc<dyn Peers>) -> Self {
        let flight = Arc::new(Flight::new(engine.rank(), engine.world_size()));
        Self { engine, flight, peers, watchdog: None }
    }

    /// Keeps the record and ends what does not return within `deadline` and a little: the engine's own error comes first.
    pub fn guarded(engine: Box<dyn Engine>, peers: Arc<dyn Peers>, deadline: Duration, on_expiry: OnExpiry) -> Self {
        let mut watched = Self::recorded(engine, peers);
        watched.watchdog = Some(Watchdog::start(&watched.flight, &watched.peers, deadline, on_expiry));
        watched
    }

    /// Whether the process would be ended for a call that does not return: one of several.
    pub fn is_guarded(&self) -> bool {
        self.watchdog.is_some()
    }

    /// The rank's record.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    fn during<T>(&mut self, operation: &'static str, bytes: usize, f: impl FnOnce(&mut dyn Engine) -> T) -> T {
        let sequence = self.flight.enter(operation, bytes);
        self.peers.enter(sequence, operation);
        let result = f(self.engine.as_mut());
        self.peers.leave();
        self.flight.leave();
        result
    }
}

impl Engine for Watched {
    fn rank(&self) -> usize {
        self.engine.rank()
    }

    fn world_size(&self) -> usize {
        self.engine.world_size()
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        self.during(operation, 8 * data.len(), |e| e.all_reduce_i64(operation, data))
    }

    fn all_reduce_converted(
        &mut self,
        operation: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        self.during(operation, 8 * words.len(), |e| e.all_reduce_converted(operation, words, tail, convert, out))
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.during(operation, 4 * data.len(), |e| e.all_reduce_f32(operation, data))
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.during(operation, 2 * data.len(), |e| e.all_reduce_bf16(operation, data))
    }

    fn sums_there(&self) -> bool {
        self.engine.sums_there()
    }

    unsafe fn all_reduce_there(
        &mut self,
        operation: &'static str,
        address: u64,
        length: usize,
        of: Sum,
    ) -> Result<(), EngineError> {
        // SAFETY: the caller's word.
        self.during(operation, of.bytes() * length, |e| unsafe { e.all_reduce_there(operation, address, length, of) })
    }

    unsafe fn all_reduce_bf16_there(
        &mut self,
        operation: &'static str,
        at: HalvesThere,
        add: &mut dyn FnMut() -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let bytes = 2 * at.segment * self.world_size();
        // SAFETY: the caller's word.
        self.during(operation, bytes, |e| unsafe { e.all_reduce_bf16_there(operation, at, add) })
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.during(operation, 0, |e| e.barrier(operation))
    }

    fn abort(&mut self, reason: &str, code: u8) {
        self.peers.abort(reason, code);
        self.engine.abort(reason, code);
    }

    fn overlaps(&self) -> bool {
        self.engine.overlaps()
    }

    fn waited(&self) -> Duration {
        self.engine.waited()
    }

    /// After the last meeting nobody is watched: a rank that ends a moment later than the others has lost nothing.
    fn leave(&mut self) {
        self.watchdog = None;
        self.engine.leave();
    }
}

impl Drop for Watched {
    /// A rank that leaves by a panic must not leave the others waiting.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.peers.abort("its thread panicked", PANICKED);
        }
    }
}

impl Watchdog {
    fn start(flight: &Arc<Flight>, peers: &Arc<dyn Peers>, deadline: Duration, on_expiry: OnExpiry) -> Watchdog {
        let (flight, peers) = (Arc::clone(flight), Arc::clone(peers));
        let (stop, stopped) = channel();
        let watch = move || {
            let mut peer_gave_up: Option<Instant> = None;
            while matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                let Some((running, since)) = flight.running() else { continue };
                let rank = flight.rank();
                let (operation, sequence, bytes) = (running.operation, running.sequence, running.bytes);
                let aborted = peers.aborted().filter(|a| a.rank != rank);
                let error = if let Some(aborted) = aborted {
                    let asked = *peer_gave_up.get_or_insert_with(Instant::now);
                    if asked.elapsed() < GRACE {
                        continue;
                    }
                    let (peer, reason, code) = (aborted.rank, aborted.reason, aborted.code);
                    EngineError::Peer { rank, operation, sequence, peer, reason, code }
                } else if since >= deadline + GRACE {
                    let missing = peers.missing(sequence);
                    let waited_s = since.as_secs();
                    let (missing, seen) = (missing.ranks, missing.seen);
                    EngineError::Deadline { rank, operation, sequence, bytes, waited_s, missing, seen }
                } else {
                    continue;
                };
                on_expiry(&error, flight.record(&error.to_string()));
                return;
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch);
        Watchdog { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it holds nothing that a panic could have left half done
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::ThreadsEngine;
    use crate::engine::peers::{Aborted, Missing, NoNews};

    /// An engine of the second of two ranks, whose first never comes; its own deadline is far away.
    fn stuck() -> Box<dyn Engine> {
        let mut group = ThreadsEngine::group(2, Duration::from_secs(8));
        Box::new(group.remove(1))
    }

    #[derive(Debug, Default)]
    struct News {
        aborted: Option<Aborted>,
        told: Mutex<Vec<(String, u8)>>,
    }

    impl Peers for News {
        fn aborted(&self) -> Option<Aborted> {
            self.aborted.clone()
        }

        fn missing(&self, sequence: u64) -> Missing {
            Missing { ranks: vec![0], seen: vec![format!("rank 0 on n1: not yet in operation {sequence}")] }
        }

        fn abort(&self, reason: &str, code: u8) {
            self.told.lock().unwrap().push((reason.to_owned(), code));
        }

        fn enter(&self, _: u64, _: &'static str) {}

        fn leave(&self) {}
    }

    fn expiry_of(aborted: Option<Aborted>, deadline: Duration) -> (EngineError, FlightRecord) {
        let (tell, told) = channel();
        let on_expiry: OnExpiry = Box::new(move |error, record| tell.send((error.clone(), record)).unwrap());
        let peers: Arc<dyn Peers> = Arc::new(News { aborted, ..News::default() });
        let mut engine = Watched::guarded(stuck(), peers, deadline, on_expiry);
        let waiting = std::thread::spawn(move || drop(engine.barrier("start")));
        let expired = told.recv_timeout(Duration::from_secs(7)).unwrap();
        waiting.join().unwrap();
        expired
    }

    #[test]
    fn a_call_that_does_not_return_is_told_with_rank_operation_and_who_is_missing() {
        let (error, record) = expiry_of(None, Duration::from_millis(100));
        let words = error.to_string();
        assert!(words.starts_with("rank 1: start (operation 1, 0 bytes) waited"), "{words}");
        assert!(words.contains("rank 0 on n1: not yet in operation 1"), "{words}");
        assert_eq!((record.operations.len(), record.operations[0].took_s), (1, None));
    }

    #[test]
    fn a_peer_that_gave_up_ends_the_wait_with_its_reason() {
        let aborted = Aborted { rank: 0, reason: "its disk is full".into(), code: 7 };
        let (error, _) = expiry_of(Some(aborted), Duration::from_secs(600));
        assert!(matches!(&error, EngineError::Peer { peer: 0, code: 7, .. }), "{error}");
    }

    #[test]
    fn a_rank_that_panics_tells_its_peers_and_one_that_ends_tells_nothing() {
        let news = Arc::new(News::default());
        let end_with = |end: fn()| {
            let engine = Watched::recorded(stuck(), Arc::clone(&news) as Arc<dyn Peers>);
            let rank = move || {
                let _engine = engine;
                end();
            };
            std::thread::spawn(rank).join().is_ok()
        };
        assert!(end_with(|| {}) && news.told.lock().unwrap().is_empty());
        assert!(!end_with(|| std::panic::resume_unwind(Box::new("a bug"))));
        assert_eq!(*news.told.lock().unwrap(), [("its thread panicked".to_owned(), PANICKED)]);
    }

    #[test]
    fn operations_in_time_leave_the_watchdog_silent() {
        let mut group = ThreadsEngine::group(1, Duration::from_secs(5));
        let on_expiry: OnExpiry = Box::new(|error, _| panic!("{error}"));
        let mut engine =
            Watched::guarded(Box::new(group.remove(0)), Arc::new(NoNews), Duration::from_millis(1), on_expiry);
        engine.barrier("start").unwrap();
        std::thread::sleep(Duration::from_millis(250));
        assert!(engine.flight().running().is_none());
    }
}
