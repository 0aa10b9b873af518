//! Batches ahead of the step that uses them: threads that prepare every step's in turn, and hand them over in order. What a
//! batch holds is a function of its step, so neither the number of threads nor how far they are changes anything, and nothing
//! is lost when they are stopped. Knows no data and no task.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::error::TrainError;
use super::step::LaneBatch;

/// Batches that wait, of all threads of a rank together; each thread has one more in its hands.
const AHEAD: usize = 2;

type Batches = Result<Vec<LaneBatch>, TrainError>;

/// The batches of a rank's steps, in order.
pub struct Feed {
    /// Of each thread its own; thread k prepares the steps k, k + n, … of the range.
    from: Vec<Receiver<Batches>>,
    /// Steps handed over.
    taken: usize,
}

impl Feed {
    /// Starts `loaders` threads that prepare the batches of `steps`.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        loaders: usize,
        steps: Range<u64>,
        batches: impl Fn(u64) -> Batches + Clone + Send + 'env,
    ) -> Feed
    where
        'env: 'scope,
    {
        let start = |k: usize| {
            let (sender, receiver) = sync_channel(AHEAD.div_ceil(loaders));
            let (steps, batches) = (steps.clone().skip(k).step_by(loaders), batches.clone());
            std::thread::Builder::new()
                .name(format!("loader {k}"))
                .spawn_scoped(scope, move || produce(&sender, steps, &batches))
                .expect("the system gives a thread per loader");
            receiver
        };
        Feed { from: (0..loaders).map(start).collect(), taken: 0 }
    }

    /// The next step's batches; waits for them.
    ///
    /// # Errors
    /// What went wrong in a loader, in its words.
    ///
    /// # Panics
    /// Beyond the last step.
    pub fn of_next_step(&mut self) -> Batches {
        let of = self.taken % self.from.len();
        self.taken += 1;
        self.from[of].recv().expect("the feed holds every step of the run")
    }
}

fn produce(sender: &SyncSender<Batches>, steps: impl Iterator<Item = u64>, batches: &impl Fn(u64) -> Batches) {
    for step in steps {
        let made = catch_unwind(AssertUnwindSafe(|| batches(step)));
        let made = made.unwrap_or_else(|panic| Err(TrainError::Loader { global_step: step, what: words(&*panic) }));
        let failed = made.is_err();
        // The receiver is gone when the rank stopped.
        if sender.send(made).is_err() || failed {
            return;
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
    said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;

    /// Runs `f` on a feed of the steps 10..22 whose batches are empty; `prepare` sees their steps.
    fn fed<T>(loaders: usize, prepare: impl Fn(u64) -> Batches + Sync, f: impl FnOnce(Feed) -> T) -> T {
        std::thread::scope(|scope| {
            let prepare = &prepare;
            f(Feed::start(scope, loaders, 10..22, prepare))
        })
    }

    #[test]
    fn batches_are_prepared_while_the_step_before_runs_and_only_a_few_of_them() {
        for loaders in [1, 2, 3] {
            let prepared = Mutex::new(Vec::new());
            let prepare = |step: u64| {
                prepared.lock().unwrap().push(step);
                Ok(Vec::new())
            };
            fed(loaders, prepare, |mut feed| {
                feed.of_next_step().unwrap(); // step 10 is at hand, and runs
                let begun = Instant::now();
                let ahead = |n: usize| prepared.lock().unwrap().len() >= n;
                while !ahead(1 + AHEAD) && begun.elapsed() < Duration::from_secs(10) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert!(ahead(1 + AHEAD), "{loaders}: the next steps are prepared meanwhile");
                std::thread::sleep(Duration::from_millis(50));
                let most = 1 + loaders * (1 + AHEAD.div_ceil(loaders));
                assert!(prepared.lock().unwrap().len() <= most, "{loaders}: no more than {most}");
                (11..22).for_each(|_| drop(feed.of_next_step().unwrap()));
            });
            let mut all = prepared.into_inner().unwrap();
            all.sort_unstable();
            assert_eq!(all, (10..22).collect::<Vec<_>>(), "{loaders}: every step once");
        }
    }

    /// Of several threads the slow one is waited for: steps come in order.
    #[test]
    fn steps_come_in_order_whoever_is_faster() {
        let slow = |step: u64| {
            std::thread::sleep(Duration::from_millis(if step % 3 == 1 { 10 } else { 0 }));
            Err(TrainError::Data(step.to_string()))
        };
        let told = |step: u64| if step < 13 { Ok(Vec::new()) } else { slow(step) };
        let seen: Vec<String> = fed(3, told, |mut feed| {
            (10..16).map(|_| feed.of_next_step().map_or_else(|e| e.to_string(), |_| "well".to_owned())).collect()
        });
        assert_eq!(seen, ["well", "well", "well", "13", "14", "15"]);
    }

    #[test]
    fn a_loader_that_fails_or_panics_is_an_error_in_its_words_at_its_step() {
        for loaders in [1, 2] {
            let fails = |step: u64| match step {
                12 => Err(TrainError::Data("row group 3 is damaged".into())),
                13 => panic!("a bug of step {step}"),
                _ => Ok(Vec::new()),
            };
            let (failed, ended) = fed(loaders, fails, |mut feed| {
                feed.of_next_step().unwrap();
                feed.of_next_step().unwrap();
                let failed = feed.of_next_step().unwrap_err().to_string();
                (failed, (loaders == 2).then(|| feed.of_next_step().unwrap_err()))
            });
            assert_eq!(failed, "row group 3 is damaged");
            if let Some(error) = ended {
                assert!(matches!(error, TrainError::Loader { global_step: 13, .. }), "{error}");
                assert!(error.to_string().contains("a bug of step 13"), "{error}");
            }
        }
    }

    #[test]
    fn a_rank_that_stops_leaves_no_loader_behind() {
        // the scope would wait for ever
        fed(2, |_| Ok(Vec::new()), |mut feed| drop(feed.of_next_step()));
    }
}
