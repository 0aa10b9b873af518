//! A rank's own time in the engine.

use std::time::{Duration, Instant};

use crate::engine::Engine;

/// A clock that stands still while the engine waits for others.
pub(super) struct OwnTime {
    begun: Instant,
    waited: Duration,
}

impl OwnTime {
    pub fn start(engine: &dyn Engine) -> Self {
        Self { begun: Instant::now(), waited: engine.waited() }
    }

    pub fn stop(self, engine: &dyn Engine) -> Duration {
        self.begun.elapsed().saturating_sub(engine.waited() - self.waited)
    }
}
