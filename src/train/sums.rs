//! From lanes' gradients to their sum over all ranks: fixed point, buckets, and a thread that sends what is complete while
//! backward goes on (`docs/step.md` §5). Knows no model and no task.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::config::Reduction;
use super::own_time::OwnTime;
use crate::elementwise::bf16;
use crate::engine::buckets::{self, Bucket};
use crate::engine::reduce::{self, Scan};
use crate::engine::tail::TailLayout;
use crate::engine::{Engine, EngineError};
use crate::optim::clip;
use crate::tensor::{Listener, TensorData, cause};

/// The reduction's buffers, kept from step to step.
pub struct Sums<'a> {
    tensors: &'a [Range<usize>],
    reduction: Reduction,
    layout: TailLayout,
    buckets: Vec<Bucket>,
    /// The bucket a tensor travels in.
    bucket_of: Vec<usize>,
    /// Per bucket its fixed-point values (`reduction = "exact"`); the tail follows those of the last.
    words: Vec<Vec<i64>>,
    /// Per bucket its values in f32 (`reduction = "fast"`, `"fast_bf16"`).
    floats: Vec<Vec<f32>>,
    /// A bucket on its way as bf16.
    halves: Vec<u16>,
    /// Per tensor the shift of its fixed point, where its exponent is known.
    shifts: Vec<Option<i32>>,
    /// The whole gradient, after [`Sums::finish`].
    pub gradient: Vec<f32>,
    /// Buckets that have left in this attempt.
    sent: usize,
    /// Time in the engine of this attempt, less waiting for others.
    own: Duration,
}

/// The operation of every bucket but an exact last one.
const GRADIENTS: &str = "sum of gradients";

/// What a lane's gradient looked like, tensor by tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSeen {
    /// Values that are NaN or infinite.
    pub non_finite: u64,
    /// Largest |g| of each tensor, as f32 bits.
    pub max_bits: Vec<u32>,
    /// Tensors that overflowed and count as zeros.
    pub overflow: Vec<bool>,
}

/// A lane whose gradients come one by one.
struct Coming {
    seen: LaneSeen,
    arrived: Vec<bool>,
}

/// From the thread that runs backward to the one that sends.
enum Told {
    Gradient(usize, Result<TensorData, String>),
    End,
}

/// The backward side of [`Sums::overlapped`]: tells of the end also when it leaves by a panic.
struct End(Sender<Told>);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.send(Told::End); // nobody listens when the other side has failed: its error is the one to tell
    }
}

impl Coming {
    fn new(tensors: usize) -> Coming {
        let seen = LaneSeen { non_finite: 0, max_bits: vec![0; tensors], overflow: vec![false; tensors] };
        Coming { seen, arrived: vec![false; tensors] }
    }
}

impl<'a> Sums<'a> {
    /// Buffers for the tensors of a model. With `overlaps` they are cut into buckets that leave one by one.
    pub fn new(tensors: &'a [Range<usize>], reduction: Reduction, layout: TailLayout, overlaps: bool) -> Self {
        let buckets = if overlaps { buckets::plan(tensors, buckets::BY_HOST) } else { buckets::whole(tensors) };
        let n = tensors.last().map_or(0, |t| t.end);
        let exact = reduction == Reduction::Exact;
        let of = |there: bool| buckets.iter().map(move |b| if there { b.values.len() } else { 0 });
        let mut words: Vec<Vec<i64>> = of(exact).map(|n| vec![0; n]).collect();
        let last = words.last_mut().expect("there is always a bucket for the tail");
        last.resize(last.len() + layout.len(), 0);
        let floats = of(!exact).map(|n| vec![0.0; n]).collect();
        Self {
            tensors,
            reduction,
            layout,
            bucket_of: buckets::of_tensors(&buckets),
            words,
            floats,
            halves: Vec::new(),
            shifts: vec![None; tensors.len()],
            gradient: vec![0.0; n],
            sent: 0,
            own: Duration::ZERO,
            buckets,
        }
    }

    /// Whether buckets leave while backward runs.
    pub fn overlaps(&self) -> bool {
        self.buckets.len() > 1
    }

    /// An attempt at a step begins, with these exponents.
    pub fn begin(&mut self, exponents: &[Option<i16>]) {
        let lanes = self.layout.lanes;
        self.shifts = exponents.iter().map(|e| e.map(|e| reduce::shift(e, lanes))).collect();
        (self.sent, self.own) = (0, Duration::ZERO);
        self.tail().fill(0);
    }

    /// The tail, to be written before [`Sums::finish`] and read after it.
    pub fn tail(&mut self) -> &mut [i64] {
        let length = self.layout.len();
        let last = self.words.last_mut().expect("there is always a bucket for the tail");
        let at = last.len() - length;
        &mut last[at..]
    }

    /// Adds a lane's gradients as `feed` gives them, in any order; those it does not give are zero. `first`: nothing was
    /// added in this attempt.
    pub fn lane(&mut self, first: bool, feed: impl FnOnce(&mut dyn FnMut(usize, TensorData))) -> LaneSeen {
        let mut lane = Coming::new(self.tensors.len());
        feed(&mut |place, gradient| self.add(&mut lane, first, place, &gradient));
        self.add_zeros(&lane, first);
        lane.seen
    }

    /// As [`Sums::lane`] for a rank's last lane: `backward` runs here and tells its listener of gradients as they become
    /// complete; beside it a thread adds them and sends every bucket that is whole, in the order all ranks keep.
    pub fn overlapped<T>(
        &mut self,
        engine: &mut dyn Engine,
        first: bool,
        backward: impl FnOnce(Listener) -> T,
    ) -> Result<(T, LaneSeen), EngineError> {
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            let sending = std::thread::Builder::new()
                .name("communication".to_owned())
                .spawn_scoped(scope, move || self.send_as_told(engine, first, &told))
                .expect("the system gives a thread for communication");
            let end = End(tell.clone());
            let result = backward(Listener::new(move |place, gradient| {
                let data = gradient.try_into_data().map_err(|error| cause(&error.to_string()));
                let _ = tell.send(Told::Gradient(place, data)); // see `End`
            }));
            drop(end);
            let seen = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((result, seen))
        })
    }

    fn send_as_told(
        &mut self,
        engine: &mut dyn Engine,
        first: bool,
        told: &Receiver<Told>,
    ) -> Result<LaneSeen, EngineError> {
        let mut lane = Coming::new(self.tensors.len());
        let last = self.buckets.len() - 1;
        let rank = engine.rank();
        while let Ok(Told::Gradient(place, gradient)) = told.recv() {
            let lost = |message| EngineError::Memory { rank, operation: GRADIENTS, message };
            let gradient = gradient.map_err(lost)?;
            self.add(&mut lane, first, place, &gradient);
            while self.sent < last && lane.arrived[self.buckets[self.sent].tensors.clone()].iter().all(|&a| a) {
                self.send(engine)?;
            }
        }
        self.add_zeros(&lane, first);
        while self.sent < last {
            self.send(engine)?;
        }
        Ok(lane.seen)
    }

    /// Sums what has not left yet, last the bucket with the tail; then the gradient is whole.
    pub fn finish(&mut self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        while self.sent < self.buckets.len() {
            self.send(engine)?;
        }
        Ok(())
    }

    /// The gradient's norm, after [`Sums::finish`].
    pub fn norm(&self) -> f64 {
        clip::global_norm(&self.gradient, self.tensors)
    }

    /// Time in the engine since [`Sums::begin`], hidden or not, less waiting for others.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// Sums the next bucket.
    fn send(&mut self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let clock = OwnTime::start(engine);
        let last = self.sent + 1 == self.buckets.len();
        match self.reduction {
            Reduction::Exact => self.send_exact(engine, last)?,
            Reduction::Fast | Reduction::FastBf16 => self.send_fast(engine, last)?,
        }
        self.sent += 1;
        self.own += clock.stop(engine);
        Ok(())
    }

    fn send_exact(&mut self, engine: &mut dyn Engine, last: bool) -> Result<(), EngineError> {
        let (tail, operation) = match last {
            true => (self.layout.len(), "sum of gradients and tail"),
            false => (0, GRADIENTS),
        };
        let values = self.buckets[self.sent].values.clone();
        let (tensors, shifts) = (self.tensors, &self.shifts);
        let convert = |first: usize, sums: &[i64], out: &mut [f32]| {
            reduce::dequantise_segment(tensors, shifts, values.start + first, sums, out);
        };
        let out = &mut self.gradient[values.clone()];
        engine.all_reduce_converted(operation, &mut self.words[self.sent], tail, &convert, out)
    }

    fn send_fast(&mut self, engine: &mut dyn Engine, last: bool) -> Result<(), EngineError> {
        if last {
            engine.all_reduce_i64("tail", &mut self.words[self.sent])?;
        }
        let out = &mut self.gradient[self.buckets[self.sent].values.clone()];
        let floats = &mut self.floats[self.sent];
        if self.reduction == Reduction::FastBf16 {
            self.halves.resize(floats.len(), 0);
            bf16::narrow(floats, &mut self.halves);
            engine.all_reduce_bf16(GRADIENTS, &mut self.halves)?;
            bf16::widen(&self.halves, out);
        } else {
            engine.all_reduce_f32(GRADIENTS, floats)?;
            out.copy_from_slice(floats);
        }
        Ok(())
    }

    fn add(&mut self, lane: &mut Coming, first: bool, place: usize, gradient: &TensorData) {
        let gradient = gradient.as_slice::<f32>().expect("gradients are f32");
        let shift = self.note(lane, place, reduce::scan(gradient));
        if self.reduction != Reduction::Exact {
            let sums = self.floats_of(place).iter_mut().zip(gradient);
            return if first { sums.for_each(|(sum, g)| *sum = *g) } else { sums.for_each(|(sum, g)| *sum += g) };
        }
        let sum = self.words_of(place);
        match shift {
            Some(shift) if first => reduce::quantise(gradient, shift, sum),
            Some(shift) => reduce::quantise_add(gradient, shift, sum),
            None if first => sum.fill(0),
            None => {}
        }
    }

    /// Writes down what a gradient looked like; gives its shift where it adds something.
    fn note(&self, lane: &mut Coming, place: usize, Scan { non_finite, max_bits }: Scan) -> Option<i32> {
        let Coming { seen, arrived } = lane;
        assert!(!arrived[place], "a gradient is told once: a shared parameter cannot be tapped");
        arrived[place] = true;
        seen.non_finite += non_finite;
        seen.max_bits[place] = max_bits;
        let (lanes, finite) = (self.layout.lanes, max_bits < f32::INFINITY.to_bits());
        seen.overflow[place] = self.reduction == Reduction::Exact
            && finite
            && self.shifts[place].is_some_and(|shift| reduce::overflows(max_bits, shift, lanes));
        self.shifts[place].filter(|_| max_bits != 0 && !seen.overflow[place])
    }

    /// The tensors that no gradient came for.
    fn add_zeros(&mut self, lane: &Coming, first: bool) {
        for place in (0..self.tensors.len()).filter(|&place| !lane.arrived[place]) {
            match self.reduction {
                _ if !first => {}
                Reduction::Exact => self.words_of(place).fill(0),
                Reduction::Fast | Reduction::FastBf16 => self.floats_of(place).fill(0.0),
            }
        }
    }

    fn words_of(&mut self, place: usize) -> &mut [i64] {
        let (bucket, range) = self.place_of(place);
        &mut self.words[bucket][range]
    }

    fn floats_of(&mut self, place: usize) -> &mut [f32] {
        let (bucket, range) = self.place_of(place);
        &mut self.floats[bucket][range]
    }

    /// The bucket of a tensor, and its values there.
    fn place_of(&self, place: usize) -> (usize, Range<usize>) {
        let bucket = self.bucket_of[place];
        let (tensor, first) = (&self.tensors[place], self.buckets[bucket].values.start);
        (bucket, tensor.start - first..tensor.end - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ThreadsEngine;

    const TENSORS: [Range<usize>; 3] = [0..2, 2..3, 3..5];

    fn sums(reduction: Reduction, overlaps: bool) -> Sums<'static> {
        Sums::new(&TENSORS, reduction, TailLayout { lanes: 2, terms: 1, tensors: 3 }, overlaps)
    }

    fn data(values: &[f32]) -> TensorData {
        TensorData::new(values.to_vec(), [values.len()])
    }

    /// Two attempts on one set of buffers: what the first left behind must not be in the second.
    #[test]
    fn a_tensor_without_a_gradient_is_zero_whatever_was_there_before() {
        let reductions = [Reduction::Exact, Reduction::Fast, Reduction::FastBf16];
        for (reduction, overlaps) in reductions.into_iter().flat_map(|r| [(r, false), (r, true)]) {
            let mut sums = sums(reduction, overlaps);
            let mut engine = ThreadsEngine::group(1, Duration::from_secs(5)).remove(0);
            for gradient_of_1 in [Some(8.0), None] {
                sums.begin(&[Some(3); 3]);
                let seen = sums.lane(true, |add| {
                    add(2, data(&[1.0, -2.0]));
                    gradient_of_1.into_iter().for_each(|g| add(1, data(&[g])));
                });
                sums.lane(false, |add| add(2, data(&[0.5, 0.25])));
                sums.finish(&mut engine).unwrap();
                let expected = [0.0, 0.0, gradient_of_1.unwrap_or(0.0), 1.5, -1.75];
                assert_eq!(sums.gradient, expected, "{reduction:?}, overlaps: {overlaps}");
                assert_eq!(seen.max_bits[2], 2f32.to_bits());
            }
        }
    }

    /// Lanes of a rank are added in f32, and the rank's sum is rounded: 256 + 1 + 1 is 258, of which no addition in bf16 knows.
    #[test]
    fn bf16_is_between_ranks_and_f32_within_one() {
        for overlaps in [false, true] {
            let mut sums = sums(Reduction::FastBf16, overlaps);
            let mut engine = ThreadsEngine::group(1, Duration::from_secs(5)).remove(0);
            sums.begin(&[None; 3]);
            for (first, value) in [(true, 256.0), (false, 1.0), (false, 1.0)] {
                sums.lane(first, |add| add(2, data(&[value, value / 3.0])));
            }
            sums.finish(&mut engine).unwrap();
            let third =
                f32::from_bits((256.0f32 / 3.0 + 1.0 / 3.0 + 1.0 / 3.0).to_bits().wrapping_add(0x8000) & 0xffff_0000);
            assert_eq!(sums.gradient[3..], [258.0, third], "overlaps: {overlaps}");
        }
    }

    #[test]
    fn a_lane_that_overflows_counts_as_zeros_and_says_so() {
        let mut sums = sums(Reduction::Exact, true);
        sums.begin(&[Some(0); 3]);
        let mut engine = ThreadsEngine::group(1, Duration::from_secs(5)).remove(0);
        let seen = sums.lane(true, |add| {
            add(0, data(&[1e9, 1.0]));
            add(1, data(&[f32::NAN]));
        });
        assert_eq!((seen.overflow.clone(), seen.non_finite), (vec![true, false, false], 1));
        sums.finish(&mut engine).unwrap();
        assert_eq!(sums.gradient[..2], [0.0, 0.0]);
    }
}
