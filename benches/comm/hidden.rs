//! How much of a slow network a step hides: real steps of a large SpaCKLE on engines that sleep for latency + bytes ÷
//! bandwidth in every operation, against the same steps without the sleep, in turn. `benches/comm.py` starts it and reads
//! the JSON lines it prints.
//!
//! Usage: hidden SHARDS RANKS MICRO_BATCH GBITS ROUNDS
//!
//! RANKS `mpi`: one of the processes that an mpirun started, over whatever network they have, which is never off; GBITS is
//! only written down. `benches/comm/two_hosts.sh` starts it over two network namespaces.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncytia::config;
use syncytia::engine::buckets;
use syncytia::engine::mpi::MpiEngine;
use syncytia::engine::{Convert, Engine, EngineError, ThreadsEngine};
use syncytia::train::config::TrainConfig;
use syncytia::train::ready::Ready;
use syncytia::train::step::{LaneBatch, StepRunner};
use syncytia::train::step_state::StepState;
use syncytia_shards::reader::Shards;

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an operation waits before it begins.
const LATENCY: Duration = Duration::from_micros(50);

/// Thread-ranks with a network between them.
struct Networked {
    engine: Box<dyn Engine>,
    /// None: a network that takes no time.
    bytes_per_s: Option<f64>,
    /// Seconds slept, as asked for.
    slept_s: f64,
    operations: usize,
}

/// One rank's seconds of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// One kind of step after the other: sums at the end, beside backward, beside backward on the network.
    steps: [f64; 3],
    /// Of each: what was still to do when backward had ended.
    left: [f64; 3],
    /// The network alone.
    alone: f64,
    operations: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [shards, ranks, micro_batch, gbits, rounds] = &arguments[..] else {
        panic!("SHARDS RANKS MICRO_BATCH GBITS ROUNDS");
    };
    let rounds: usize = rounds.parse().unwrap();
    let of_mpi = (ranks == "mpi").then(|| MpiEngine::join(Duration::from_secs(120)).unwrap());
    let ranks = of_mpi.as_ref().map_or_else(|| ranks.parse().unwrap(), Engine::world_size);
    let bytes_per_s = gbits.parse::<f64>().unwrap() * 1e9 / 8.0;
    let sets = [
        "model.spackle.d=1024".to_owned(),
        "model.spackle.layers=3".to_owned(),
        format!("train.lanes={ranks}"),
        format!("train.micro_batch={micro_batch}"),
    ];
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/spackle/paper.toml");
    let config: TrainConfig = config::load(&paper, &sets).unwrap();
    let shards = Arc::new(Shards::open(Path::new(shards)).unwrap());
    let ready = Ready::new(&config, &shards).unwrap();
    if let Some(engine) = of_mpi {
        return in_own_pool(|| over_mpi(&ready, engine, gbits, rounds));
    }
    let group = ThreadsEngine::group(ranks, Duration::from_secs(300));
    let all: Vec<Vec<Round>> = std::thread::scope(|scope| {
        let ready = &ready;
        let one = |engine| scope.spawn(move || in_own_pool(|| rank(ready, engine, bytes_per_s, rounds)));
        let ranks: Vec<_> = group.into_iter().map(one).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let parameters: usize = ready.parts.tensors.iter().map(ExactSizeIterator::len).sum();
    let of = |f: &dyn Fn(&Round) -> f64| -> Vec<f64> { all[0].iter().map(f).collect() };
    println!(
        r#"{{"ranks": {ranks}, "micro_batch": {micro_batch}, "gbits": {gbits}, "parameters": {parameters}, "operations": {}, "alone": {}, "plain": {:?}, "beside": {:?}, "networked": {:?}, "left_beside": {:?}, "left_networked": {:?}}}"#,
        all[0][0].operations,
        all[0][0].alone,
        of(&|r| r.steps[0]),
        of(&|r| r.steps[1]),
        of(&|r| r.steps[2]),
        of(&|r| r.left[1]),
        of(&|r| r.left[2]),
    );
}

/// As the trainer runs a rank: one kernel thread.
fn in_own_pool<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(16 << 20).build().unwrap().install(f)
}

/// A rank's steps: seconds of a whole one, and of what was left when backward had ended.
fn steps<'a>(
    ready: &'a Ready<'_>,
    lane: usize,
) -> impl FnMut(&mut StepRunner<'_>, &mut dyn Engine) -> (f64, f64) + use<'a> {
    let mut state = StepState::new(ready.model.to_flat(), ready.parts.tensors.len(), false);
    let mut model = Some(ready.model.clone());
    move |runner, engine| {
        let of = |lane| ready.train.batch(&ready.task, ready.config, state.global_step, lane).unwrap();
        let all: Vec<LaneBatch> = (0..ready.config.train.lanes).map(of).collect();
        let terms = all[0].batch.weights().len();
        let weights: Vec<f64> = (0..terms).map(|k| all.iter().map(|b| b.batch.weights()[k]).sum()).collect();
        let batches = [all.into_iter().nth(lane).unwrap()];
        engine.barrier("before a step").unwrap();
        let begun = Instant::now();
        let next = [vec![0.0; terms]];
        let outcome = runner.run(engine, &mut model, &mut state, &batches, &weights, &next, 0.0, false).unwrap();
        (begun.elapsed().as_secs_f64(), outcome.seconds[lane][2])
    }
}

/// Sums at the end and beside backward.
fn runners<'a>(ready: &'a Ready<'_>) -> [StepRunner<'a>; 2] {
    let of = |overlaps| StepRunner::new(ready.config, &ready.task, &ready.parts.tensors, overlaps, &ready.device);
    [false, true].map(of)
}

fn rank(ready: &Ready<'_>, engine: ThreadsEngine, bytes_per_s: f64, rounds: usize) -> Vec<Round> {
    let mut step = steps(ready, engine.rank());
    let mut engine = Networked { engine: Box::new(engine), bytes_per_s: None, slept_s: 0.0, operations: 0 };
    let [mut at_the_end, mut beside] = runners(ready);
    // exponents are known after the first step, and memory is warm
    step(&mut at_the_end, &mut engine);
    step(&mut beside, &mut engine);
    let mut seen = Vec::new();
    for round in 0..rounds {
        let mut of = Round { steps: [0.0; 3], left: [0.0; 3], alone: 0.0, operations: 0 };
        for way in (0..3).map(|k| (k + round) % 3) {
            engine.bytes_per_s = (way == 2).then_some(bytes_per_s);
            (engine.slept_s, engine.operations) = (0.0, 0);
            let runner = if way == 0 { &mut at_the_end } else { &mut beside };
            (of.steps[way], of.left[way]) = step(runner, &mut engine);
            if way == 2 {
                (of.alone, of.operations) = (engine.slept_s, engine.operations);
            }
        }
        seen.push(of);
    }
    seen
}

/// As [`rank`] for a process; instead of a network that takes no time, the sums without anything beside them.
fn over_mpi(ready: &Ready<'_>, mut engine: MpiEngine, gbits: &str, rounds: usize) {
    let mut step = steps(ready, engine.rank());
    let [mut at_the_end, mut beside] = runners(ready);
    step(&mut at_the_end, &mut engine);
    step(&mut beside, &mut engine);
    let plan = buckets::plan(&ready.parts.tensors, buckets::BY_HOST);
    let buffers = plan.iter().map(|b| (vec![1; b.values.len()], vec![0.0; b.values.len()]));
    let mut buffers: Vec<(Vec<i64>, Vec<f32>)> = buffers.collect();
    let mut seen: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 0..rounds {
        for way in (0..3).map(|k| (k + round) % 3) {
            seen[way].push(match way {
                0 => step(&mut at_the_end, &mut engine),
                1 => step(&mut beside, &mut engine),
                _ => alone(&mut engine, &mut buffers),
            });
        }
    }
    if engine.rank() == 0 {
        let whole = |way: usize| -> Vec<f64> { seen[way].iter().map(|s| s.0).collect() };
        let left = |way: usize| -> Vec<f64> { seen[way].iter().map(|s| s.1).collect() };
        println!(
            r#"{{"library": "{}", "ranks": {}, "micro_batch": {}, "gbits": {gbits}, "operations": {}, "plain": {:?}, "beside": {:?}, "left_plain": {:?}, "left_beside": {:?}, "alone": {:?}}}"#,
            MpiEngine::library(),
            engine.world_size(),
            ready.config.train.micro_batch,
            plan.len(),
            whole(0),
            whole(1),
            left(0),
            left(1),
            whole(2),
        );
    }
    engine.finish().unwrap();
}

/// The sums of a step with nothing beside them.
fn alone(engine: &mut MpiEngine, buffers: &mut [(Vec<i64>, Vec<f32>)]) -> (f64, f64) {
    engine.barrier("before the sums alone").unwrap();
    let begun = Instant::now();
    for (words, out) in buffers {
        let convert = |_: usize, sums: &[i64], out: &mut [f32]| {
            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum as f32);
        };
        engine.all_reduce_converted("sums alone", words, 0, &convert, out).unwrap();
    }
    (begun.elapsed().as_secs_f64(), 0.0)
}

impl Networked {
    fn travel(&mut self, bytes: usize) {
        if let Some(bytes_per_s) = self.bytes_per_s {
            let takes = LATENCY + Duration::from_secs_f64(bytes as f64 / bytes_per_s);
            std::thread::sleep(takes);
            self.slept_s += takes.as_secs_f64();
            self.operations += 1;
        }
    }
}

impl Engine for Networked {
    fn rank(&self) -> usize {
        self.engine.rank()
    }

    fn world_size(&self) -> usize {
        self.engine.world_size()
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
        self.travel(8 * data.len());
        self.engine.all_reduce_i64(operation, data)
    }

    fn all_reduce_converted(
        &mut self,
        operation: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        self.travel(8 * words.len());
        self.engine.all_reduce_converted(operation, words, tail, convert, out)
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.travel(4 * data.len());
        self.engine.all_reduce_f32(operation, data)
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.travel(2 * data.len());
        self.engine.all_reduce_bf16(operation, data)
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.engine.barrier(operation)
    }

    fn abort(&mut self, reason: &str, code: u8) {
        self.engine.abort(reason, code);
    }

    fn waited(&self) -> Duration {
        self.engine.waited()
    }
}
