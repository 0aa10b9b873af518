//! A training run: this process's ranks, each a thread, around one loop of global steps.
//!
//! Per step, in this order: step → validate → save → stop (`docs/step.md` §5). Everything a reader of the run sees goes
//! through an [`Observer`]; the loop knows no file but checkpoints.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::data::TrainData;
use super::error::TrainError;
use super::group;
use super::lock::RunLock;
use super::ready::{Beginning, Ready};
use super::replicas;
use super::run_folder::RunFolder;
use super::saver::{Place, Saver};
use super::state::{self, Best, RunState};
use super::step::{LaneBatch, StepOutcome, StepRunner};
use super::step_state::StepState;
use super::stragglers::Stragglers;
use super::validate::{is_better, validate};
use crate::engine::peers::NoNews;
use crate::engine::watchdog::Watched;
use crate::engine::{Engine, ThreadsEngine};
use crate::model::Model;
use crate::model::params::ParamSpec;

/// Parameters that kernels on a device count with 32 bits, two moments of each.
const MOST_THERE: usize = (1 << 31) - 1;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps done.
    Finished,
    /// Stopped by a vote, saved; run again to go on.
    Stopped {
        /// Batches consumed.
        global_step: u64,
    },
}

/// What rank 0 sees of a run, in order.
pub trait Observer: Send {
    /// Before the first step: where the run starts and on how many ranks.
    fn start(&mut self, start: &Start<'_>);
    /// After a step.
    fn step(&mut self, global_step: u64, outcome: &StepOutcome, elapsed: Duration);
    /// After a validation; `best` tells whether it is the lowest so far.
    fn validation(&mut self, global_step: u64, value: f64, best: bool);
    /// After a checkpoint was handed to the saver.
    fn saving(&mut self, global_step: u64);
    /// Parameters by name, now and then, for histograms.
    fn parameters(&mut self, global_step: u64, specs: &[ParamSpec], values: &[f32]);
    /// A warning that does not end the run.
    fn warn(&mut self, message: &str);
    /// Record ids a rank consumed (`log.record_ids`), from any rank.
    fn consumed(&mut self, rank: usize, global_step: u64, lane: usize, ids: &[u64]);
}

/// Facts at the start of a run.
#[derive(Debug)]
pub struct Start<'a> {
    /// Batches consumed already.
    pub global_step: u64,
    /// Ranks.
    pub world_size: usize,
    /// The data in order.
    pub data: &'a TrainData,
    /// Parameters that train.
    pub n_parameters: usize,
    /// Parameters that stay as they are.
    pub n_frozen: usize,
    /// Name of the checkpoint it goes on from.
    pub resumed_from: Option<String>,
}

/// What a run needs.
pub struct Run<'a> {
    /// Config, data and model.
    pub ready: &'a Ready<'a>,
    /// Where it starts: [`Ready::state`].
    pub beginning: Beginning,
    /// Name of the checkpoint it goes on from.
    pub resumed_from: Option<String>,
    /// The run folder.
    pub folder: &'a RunFolder,
    /// The right to write to it: of the process that has rank 0.
    pub lock: Option<Arc<RunLock>>,
    /// Set when the run shall stop at the next step boundary.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Who is told.
    pub observer: &'a Mutex<dyn Observer>,
}

/// What the ranks of a process share.
struct Shared<'a> {
    run: &'a Run<'a>,
    ready: &'a Ready<'a>,
    /// Of the process that has rank 0, until the end of the run.
    saver: Mutex<Option<Saver>>,
}

/// `world_size` ranks as threads of this process.
pub fn thread_ranks(world_size: usize, deadline: Duration) -> Vec<Watched> {
    let group = ThreadsEngine::group(world_size, deadline).into_iter();
    group.map(|engine| Watched::recorded(Box::new(engine), Arc::new(NoNews))).collect()
}

/// Runs this process's ranks, one per engine, to the end, a stop or an error; every rank ends alike. Gives back the engines:
/// who is one of several processes leaves the others when it has nothing left to do.
pub fn train(run: &Run<'_>, mut engines: Vec<Watched>) -> Result<(End, Vec<Watched>), TrainError> {
    let ready = run.ready;
    let saving = &ready.config.checkpoint;
    let saver = run.lock.as_ref().map(|lock| Saver::start(Arc::clone(lock), saving)).transpose();
    let saver = saver.map_err(|error| {
        let error = TrainError::from(error);
        engines.iter_mut().for_each(|engine| engine.abort(&error.to_string(), error.exit_code()));
        error
    })?;
    let shared = Shared { run, ready, saver: Mutex::new(saver) };
    let results: Vec<Result<(End, Watched), TrainError>> = std::thread::scope(|scope| {
        let shared = &shared;
        let ranks: Vec<_> = engines
            .into_iter()
            .map(|engine| {
                std::thread::Builder::new()
                    .name(format!("rank {}", engine.rank()))
                    .stack_size(16 << 20)
                    .spawn_scoped(scope, move || in_own_pool(shared, engine))
                    .expect("the system gives a thread per rank")
            })
            .collect();
        ranks.into_iter().map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    first_cause(results)
}

/// Warns of saves that failed; the next one tries again.
fn report_saves(run: &Run<'_>, outcomes: Vec<super::saver::Outcome>) {
    let mut observer = run.observer.lock().unwrap_or_else(PoisonError::into_inner);
    for outcome in outcomes {
        if let Err(problem) = &outcome.result {
            observer.warn(&format!("step {}: a save failed, the next one tries again: {problem}", outcome.global_step));
        }
    }
}

/// The error that began it: a peer's end is only its echo.
fn first_cause(results: Vec<Result<(End, Watched), TrainError>>) -> Result<(End, Vec<Watched>), TrainError> {
    let (mut end, mut echo, mut engines) = (None, None, Vec::new());
    for result in results {
        match result {
            Ok((e, engine)) => {
                end = Some(e);
                engines.push(engine);
            }
            Err(TrainError::Engine(e)) => echo = echo.or(Some(TrainError::Engine(e))),
            Err(cause) => return Err(cause),
        }
    }
    match (echo, end) {
        (Some(echo), _) => Err(echo),
        (None, end) => Ok((end.expect("a group has at least one rank"), engines)),
    }
}

/// A rank runs its step inside its own pool of kernel threads.
fn in_own_pool(shared: &Shared<'_>, mut engine: Watched) -> Result<(End, Watched), TrainError> {
    let threads = shared.ready.config.train.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(16 << 20)
        .build()
        .map_err(|e| TrainError::Data(format!("cannot start {threads} kernel threads: {e}")));
    let result = pool.and_then(|pool| pool.install(|| rank(shared, &mut engine)));
    if let Err(error) = &result {
        engine.abort(&error.to_string(), error.exit_code());
        if matches!(error, TrainError::Engine(_)) {
            group::write_flight(shared.run.folder, &engine.flight().record(&error.to_string()));
            if engine.is_guarded() {
                group::let_the_others_speak();
            }
        }
    }
    result.map(|end| (end, engine))
}

/// One rank's run.
fn rank(shared: &Shared<'_>, engine: &mut dyn Engine) -> Result<End, TrainError> {
    let end = steps(shared, engine)?;
    until_saved(shared, engine)?;
    Ok(end)
}

/// Waits until everything is on the disk, before any rank ends: the first that ended would take the others along. Rank 0
/// says every second that it is at it, so that a slow disk is no lost peer.
fn until_saved(shared: &Shared<'_>, engine: &mut dyn Engine) -> Result<(), TrainError> {
    let mut saver = match engine.rank() {
        0 => shared.saver.lock().unwrap_or_else(PoisonError::into_inner).take(),
        _ => None,
    };
    loop {
        let done = saver.as_mut().is_none_or(|saver| saver.is_done_within(Duration::from_secs(1)));
        let mut at_it = vec![i64::from(!done)];
        engine.all_reduce_i64("whether everything is saved", &mut at_it)?;
        if at_it[0] == 0 {
            break;
        }
    }
    if let Some(saver) = saver {
        report_saves(shared.run, saver.finish()?);
    }
    Ok(engine.barrier("everything is saved")?)
}

/// The steps of one rank.
fn steps(shared: &Shared<'_>, engine: &mut dyn Engine) -> Result<End, TrainError> {
    let (ready, config) = (shared.ready, shared.ready.config);
    let lanes: Vec<usize> = (engine.rank()..config.train.lanes).step_by(engine.world_size()).collect();
    let beginning = &shared.run.beginning;
    let mut rank = Rank {
        shared,
        state: beginning.step.clone(),
        run_state: beginning.run.clone(),
        model: Some(ready.parts.model(&ready.model, &beginning.step.parameters, &beginning.frozen, &ready.device)),
    };
    let first = rank.state.global_step;
    replicas::agree(engine, first, &beginning.frozen)?;
    replicas::agree(engine, first, &rank.state.parameters)?;
    if engine.rank() == 0 {
        observe(shared, |o| {
            o.start(&Start {
                global_step: first,
                world_size: engine.world_size(),
                data: &shared.ready.train,
                n_parameters: rank.state.parameters.len(),
                n_frozen: beginning.frozen.len(),
                resumed_from: shared.run.resumed_from.clone(),
            });
        });
    }
    if first == 0 && engine.rank() == 0 && rank.run_state.parent.is_some() {
        rank.save()?; // another life must begin with the same weights, whatever became of the parent
    }
    if rank.run_state.validation_due {
        rank.validate(engine)?;
    }
    let max_steps = config.train.max_steps;
    if first >= max_steps {
        return Ok(End::Finished);
    }
    std::thread::scope(|scope| {
        // The cores have their batches at hand; a GPU gets them while it is at the step before.
        let device = config.train.device.is_elsewhere().then_some(&ready.device);
        let mut feed = ready.train.feed(scope, &ready.task, config, lanes, first..max_steps, device);
        let overlaps = config.train.overlap.unwrap_or_else(|| engine.overlaps());
        let n = ready.parts.tensors.last().map_or(0, |last| last.end);
        if config.train.keeps_there() && n > MOST_THERE {
            return Err(TrainError::Config(vec![format!(
                "train.keep = \"device\": {n} parameters train, and kernels count up to {MOST_THERE}; set train.keep = \"host\""
            )]));
        }
        let mut runner = StepRunner::new(config, &ready.task, &ready.parts.tensors, overlaps, &ready.device);
        let mut stragglers = Stragglers::new(config.train.lanes, engine.world_size());
        let mut batches = feed.of_next_step()?;
        let mut weights = rank.first_weights(engine, &runner, &batches)?;
        loop {
            let started = Instant::now();
            let following = if rank.state.global_step + 1 < max_steps { Some(feed.of_next_step()?) } else { None };
            let data_s = started.elapsed().as_secs_f64();
            rank.log_ids(engine, &batches);
            let next_weights: Vec<Vec<f64>> = match &following {
                Some(following) => following.iter().map(|b| b.batch.weights().to_vec()).collect(),
                None => batches.iter().map(|b| vec![0.0; b.batch.weights().len()]).collect(),
            };
            let vote = (shared.run.stop)();
            let (model, state) = (&mut rank.model, &mut rank.state);
            let outcome = runner.run(engine, model, state, &batches, &weights, &next_weights, data_s, vote)?;
            if engine.rank() == 0 {
                observe(shared, |o| o.step(rank.state.global_step, &outcome, started.elapsed()));
                if let Some(slow) = stragglers.look(&outcome.seconds) {
                    observe(shared, |o| o.warn(&format!("step {}: {slow}", rank.state.global_step)));
                }
            }
            weights.clone_from(&outcome.next_weights);
            if let Some(end) = rank.after_step(engine, &runner, &outcome)? {
                return Ok(end);
            }
            batches = following.expect("a run that goes on has a next step");
        }
    })
}

/// One rank's own copies.
struct Rank<'a> {
    shared: &'a Shared<'a>,
    state: StepState,
    run_state: RunState,
    model: Option<Model>,
}

impl Rank<'_> {
    /// The weights of the first step after a start or resume travel in a reduction of their own.
    fn first_weights(
        &self,
        engine: &mut dyn Engine,
        runner: &StepRunner<'_>,
        batches: &[LaneBatch],
    ) -> Result<Vec<f64>, TrainError> {
        let (lanes, terms) = (runner.layout.lanes, runner.layout.terms);
        let mut words = vec![0i64; lanes * terms];
        for LaneBatch { lane, batch } in batches {
            for (k, weight) in batch.weights().iter().enumerate() {
                words[lane * terms + k] = weight.to_bits() as i64;
            }
        }
        engine.all_reduce_i64("weights of the first step", &mut words)?;
        let of_term = |k| words.iter().skip(k).step_by(terms).map(|&w| f64::from_bits(w as u64)).sum();
        Ok((0..terms).map(of_term).collect())
    }

    /// Validate → save → stop.
    fn after_step(
        &mut self,
        engine: &mut dyn Engine,
        runner: &StepRunner<'_>,
        outcome: &StepOutcome,
    ) -> Result<Option<End>, TrainError> {
        if let Some(lock) = &self.shared.run.lock
            && engine.rank() == 0
            && lock.is_lost()
        {
            lock.check()?;
        }
        let config = self.shared.ready.config;
        let step = self.state.global_step;
        let last = step >= config.train.max_steps;
        let due = last || step.is_multiple_of(config.train.validate_every);
        let stop = outcome.stop && !last;
        let save = last || stop || step.is_multiple_of(config.checkpoint.every);
        let digest = save || step.is_multiple_of(config.train.digest_every);
        if due || digest {
            runner.bring(&mut self.state); // whoever looks at more of it than its counts is below
        }
        if due && stop {
            self.run_state.validation_due = true;
        } else if due {
            self.validate(engine)?;
        }
        if digest {
            replicas::agree(engine, step, &self.state.parameters)?;
        }
        if save && engine.rank() == 0 {
            self.save()?;
        }
        if engine.rank() == 0 && due {
            observe(self.shared, |o| o.parameters(step, &self.shared.ready.parts.trained, &self.state.parameters));
        }
        Ok(match (last, stop) {
            (true, _) => Some(End::Finished),
            (_, true) => Some(End::Stopped { global_step: step }),
            _ => None,
        })
    }

    fn validate(&mut self, engine: &mut dyn Engine) -> Result<(), TrainError> {
        self.run_state.validation_due = false;
        let Some(val) = &self.shared.ready.val else { return Ok(()) };
        let model = self.model.as_ref().expect("a model is always put back");
        let ready = self.shared.ready;
        let value = validate(engine, model, &self.state, ready, &self.shared.run.beginning.frozen, val)?;
        let step = self.state.global_step;
        let best = is_better(value, self.run_state.best.map(|b| b.value));
        if best {
            self.run_state.best = Some(Best { global_step: step, value });
        }
        if engine.rank() == 0 {
            observe(self.shared, |o| o.validation(step, value, best));
            if best {
                self.submit(Place::Best)?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<(), TrainError> {
        self.submit(Place::Step)?;
        observe(self.shared, |o| o.saving(self.state.global_step));
        Ok(())
    }

    /// Hands a copy of the state to the saver and goes on.
    fn submit(&self, place: Place) -> Result<(), TrainError> {
        let frozen = &self.shared.run.beginning.frozen;
        let contents = state::to_contents(&self.run_state, &self.state, &self.shared.ready.parts, frozen);
        let saver = self.shared.saver.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saver) = saver.as_ref() else { return Ok(()) };
        saver.submit(place, self.state.global_step, contents)?;
        report_saves(self.shared.run, saver.outcomes());
        Ok(())
    }

    fn log_ids(&self, engine: &dyn Engine, batches: &[LaneBatch]) {
        if self.shared.ready.config.log.record_ids {
            let (rank, step) = (engine.rank(), self.state.global_step);
            observe(self.shared, |o| batches.iter().for_each(|b| o.consumed(rank, step, b.lane, b.batch.ids())));
        }
    }
}

fn observe(shared: &Shared<'_>, f: impl FnOnce(&mut (dyn Observer + '_))) {
    f(&mut *shared.run.observer.lock().unwrap_or_else(PoisonError::into_inner));
}
