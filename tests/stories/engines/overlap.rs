//! Sums beside backward: buckets that leave while it runs change no bit, and leave in the order of all ranks.

use std::sync::Arc;
use std::time::Duration;

use syncytia::engine::peers::NoNews;
use syncytia::engine::watchdog::Watched;
use syncytia::engine::{Convert, Engine, EngineError, ThreadsEngine};
use syncytia::train::config::Reduction;
use syncytia::train::sums::Sums;

use crate::stage::{Theatre, tiny};

/// An engine that says whether it sums beside backward (thread-ranks can when asked), and that pauses before it sums
/// gradients.
pub struct Beside {
    pub engine: Box<dyn Engine>,
    pub overlaps: bool,
    pub pause: Duration,
}

impl Engine for Beside {
    fn rank(&self) -> usize {
        self.engine.rank()
    }

    fn world_size(&self) -> usize {
        self.engine.world_size()
    }

    fn all_reduce_i64(&mut self, operation: &'static str, data: &mut Vec<i64>) -> Result<(), EngineError> {
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
        std::thread::sleep(self.pause);
        self.engine.all_reduce_converted(operation, words, tail, convert, out)
    }

    fn all_reduce_f32(&mut self, operation: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.engine.all_reduce_f32(operation, data)
    }

    fn all_reduce_bf16(&mut self, operation: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.engine.all_reduce_bf16(operation, data)
    }

    fn barrier(&mut self, operation: &'static str) -> Result<(), EngineError> {
        self.engine.barrier(operation)
    }

    fn abort(&mut self, reason: &str, code: u8) {
        self.engine.abort(reason, code);
    }

    fn overlaps(&self) -> bool {
        self.overlaps
    }

    fn waited(&self) -> Duration {
        self.engine.waited()
    }
}

/// Thread-ranks in [`Beside`]; `pause`: of each rank.
pub fn beside(n: usize, overlaps: bool, pause: impl Fn(usize) -> Duration) -> Vec<Watched> {
    let group = ThreadsEngine::group(n, Duration::from_secs(60)).into_iter();
    let one = |engine: ThreadsEngine| {
        let pause = pause(engine.rank());
        let engine = Beside { engine: Box::new(engine), overlaps, pause };
        Watched::recorded(Box::new(engine), Arc::new(NoNews))
    };
    group.map(one).collect()
}

/// Buckets that leave during backward change no bit: of any recipe, any number of lanes per rank, after an overflow too.
#[test]
fn sums_beside_backward_have_the_same_bits() {
    for (name, change) in [("paper", false), ("best", false), ("tiny", true)] {
        let mut config = crate::stage::shipped(name);
        config.train.max_steps = 4;
        config.train.micro_batch = 4;
        config.train.validate_every = 4;
        if change {
            config = tiny(|c| c.train.max_steps = 6);
        }
        let run = |ranks: usize, overlaps: bool| {
            let theatre = Theatre::new();
            let engines = |n| beside(n, overlaps, |_| Duration::ZERO);
            let (_, seen) = theatre.run_with(crate::stage::shards(), &config, ranks, None, engines).unwrap();
            assert!(seen.reruns.contains(&1), "the first step runs again for its exponents");
            (theatre.last(), seen.losses)
        };
        let plain = run(1, false);
        for ranks in [1, 3, 8] {
            assert!(run(ranks, true) == plain, "{name}.toml on {ranks} ranks");
        }
    }
}

/// The same of sums that promise a tolerance: on threads, which add in rank order, a bucket is no other order.
#[test]
fn fast_sums_beside_backward_have_the_bits_of_fast_sums_after_it() {
    for reduction in [Reduction::Fast, Reduction::FastBf16] {
        let config = tiny(|c| {
            c.train.max_steps = 4;
            c.train.reduction = reduction;
        });
        for ranks in [1, 3] {
            let run = |overlaps: bool| {
                let theatre = Theatre::new();
                let engines = |n| beside(n, overlaps, |_| Duration::ZERO);
                let (_, seen) = theatre.run_with(crate::stage::shards(), &config, ranks, None, engines).unwrap();
                (theatre.last(), seen.losses)
            };
            assert!(run(false) == run(true), "{reduction:?} on {ranks} ranks");
        }
    }
}

#[test]
fn a_rank_that_is_slow_to_sum_is_named_within_twenty_steps() {
    let config = tiny(|c| c.train.max_steps = 20);
    for overlaps in [false, true] {
        let slow = |rank| if rank == 1 { Duration::from_millis(100) } else { Duration::ZERO };
        let engines = |n| beside(n, overlaps, slow);
        let (_, seen) = Theatre::new().run_with(crate::stage::shards(), &config, 3, None, engines).unwrap();
        assert!(seen.warnings.iter().any(|w| w.contains(": rank 1 is slow in reduce: ")), "{:?}", seen.warnings);
    }
}

/// The buckets of a model with several blocks do leave before backward has ended: the later blocks first.
#[test]
fn buckets_leave_in_the_order_in_which_backward_finishes() {
    for reduction in [Reduction::Exact, Reduction::Fast, Reduction::FastBf16] {
        // see `train::sums`: the plan has several buckets, and the taps tell all but the first block's tensors
        let layout = syncytia::engine::tail::TailLayout { lanes: 1, terms: 1, tensors: 4 };
        let tensors = [0..10, 10..20, 20..30, 30..40];
        let mut sums = Sums::new(&tensors, reduction, layout, true);
        assert!(sums.overlaps());
        sums.begin(&[Some(0); 4]);
        let (tell, told) = std::sync::mpsc::channel();
        let mut engine = Spy(tell);
        let data = |v: f32| syncytia::tensor::flat::values(vec![v; 10], &syncytia::tensor::cpu());
        let soon = Duration::from_secs(5);
        let ((), seen) = sums
            .overlapped(&mut engine, true, |listener| {
                listener.tell(3, data(3.0));
                assert_eq!(told.recv_timeout(soon).unwrap(), 10, "the last tensor is on its way already");
                listener.tell(1, data(1.0));
                assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "out of order: it waits for its turn");
                listener.tell(2, data(2.0));
                assert_eq!((told.recv_timeout(soon).unwrap(), told.recv_timeout(soon).unwrap()), (10, 10));
            })
            .unwrap();
        assert_eq!(seen.max_bits, [0, 1f32.to_bits(), 2f32.to_bits(), 3f32.to_bits()]);
        sums.finish(&mut engine).unwrap();
        let expected: Vec<f32> = [0.0f32, 1.0, 2.0, 3.0].iter().flat_map(|&v| [v; 10]).collect();
        assert_eq!(sums.gradient, expected);
    }
}

/// One rank; tells the length of what it sums.
struct Spy(std::sync::mpsc::Sender<usize>);

impl Engine for Spy {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_i64(&mut self, _: &'static str, _: &mut Vec<i64>) -> Result<(), EngineError> {
        Ok(())
    }

    fn all_reduce_converted(
        &mut self,
        _: &'static str,
        words: &mut Vec<i64>,
        tail: usize,
        convert: Convert<'_>,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        convert(0, &words[..words.len() - tail], out);
        self.0.send(out.len()).unwrap();
        Ok(())
    }

    fn all_reduce_f32(&mut self, _: &'static str, data: &mut Vec<f32>) -> Result<(), EngineError> {
        self.0.send(data.len()).unwrap();
        Ok(())
    }

    fn all_reduce_bf16(&mut self, _: &'static str, data: &mut Vec<u16>) -> Result<(), EngineError> {
        self.0.send(data.len()).unwrap();
        Ok(())
    }

    fn barrier(&mut self, _: &'static str) -> Result<(), EngineError> {
        Ok(())
    }

    fn abort(&mut self, _: &str, _: u8) {}

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}
