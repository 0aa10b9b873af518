//! Buckets that leave while backward goes on: its thread adds gradients as they become complete and asks the device for an event
//! behind each bucket; a thread beside it waits for that event and for the other ranks.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::added::{Added, Seen};
use super::leaving::{Arrived, By, Leaving};
use crate::engine::buckets::Bucket;
use crate::engine::{Engine, EngineError};
use crate::tensor::{Listener, Tensor};

/// The side of backward.
struct Coming {
    added: Added,
    buckets: Vec<Bucket>,
    /// This rank's lane.
    at: usize,
    arrived: Vec<bool>,
    /// Buckets that have left.
    left: usize,
    by: By,
    tell: Sender<Leaving>,
}

impl Coming {
    fn take(&mut self, place: usize, gradient: Tensor<1>) {
        assert!(!self.arrived[place], "a gradient is told once: a shared parameter cannot be tapped");
        self.arrived[place] = true;
        self.added.add(self.at, place, gradient);
        let whole = |bucket: &Bucket| self.arrived[bucket.tensors.clone()].iter().all(|&arrived| arrived);
        while self.buckets.get(self.left).is_some_and(whole) {
            let leaving = Leaving::begin(self.added.take(self.left), self.by);
            self.left += 1;
            let _ = self.tell.send(leaving); // nobody listens when the other side has failed: its error is the one to tell
        }
    }
}

/// What a listener holds, which may live as long as a graph: taken from it at the end, also by a panic.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Coming>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Coming>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of backward, however it comes: the other side has nothing more to wait for.
struct End(Shared);

impl Drop for End {
    fn drop(&mut self) {
        drop(self.0.lock().take());
    }
}

/// What came of it.
pub struct Beside<T> {
    /// Backward's own.
    pub result: T,
    /// With the buckets that left, and are sums of all ranks.
    pub added: Added,
    /// What this rank's lanes looked like.
    pub seen: Seen,
    /// How many buckets left.
    pub left: usize,
    /// Time in the engine, less waiting for others.
    pub own: Duration,
}

/// Runs `backward`, of this rank's lane `at`, which tells its listener of all gradients it has; every bucket that is whole leaves, in
/// the order that all ranks keep.
pub fn run<T>(
    added: Added,
    buckets: &[Bucket],
    at: usize,
    engine: &mut dyn Engine,
    backward: impl FnOnce(Listener) -> T,
) -> Result<Beside<T>, EngineError> {
    let (tell, told) = channel::<Leaving>();
    let tensors = buckets.iter().map(|bucket| bucket.tensors.len()).sum();
    let (by, device) = (By::of(engine), added.device());
    let coming = Coming { added, buckets: buckets.to_vec(), at, arrived: vec![false; tensors], left: 0, by, tell };
    let shared = Shared(Arc::new(Mutex::new(Some(coming))));
    std::thread::scope(|scope| {
        let sending = std::thread::Builder::new()
            .name("communication".to_owned())
            .spawn_scoped(scope, move || -> Result<(Vec<Arrived>, Duration), EngineError> {
                let (mut arrived, mut own) = (Vec::new(), Duration::ZERO);
                for leaving in told {
                    arrived.push(leaving.sum(engine, &mut own)?);
                }
                Ok((arrived, own))
            })
            .expect("the system gives a thread for communication");
        let end = End(shared.clone());
        let listener = {
            let shared = shared.clone();
            Listener::new(move |place, gradient| {
                if let Some(coming) = shared.lock().as_mut() {
                    coming.take(place, gradient);
                }
            })
        };
        let result = backward(listener);
        let Coming { mut added, left, tell, .. } = shared.lock().take().expect("it ends once");
        drop((tell, end));
        // Before the others are waited for: the time is this rank's own.
        let seen = added.seen();
        let (arrived, own) = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        for (k, sum) in arrived.into_iter().enumerate() {
            added.come_back(k, sum.there(&device));
        }
        Ok(Beside { result, added, seen, left, own })
    })
}
