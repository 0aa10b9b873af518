//! Lanes' gradients added up on the device, in the buckets in which they leave.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::buckets::{self, Bucket};
use crate::engine::reduce;
use crate::tensor::flat::{self, Facts, Fixed};
use crate::tensor::{Device, Int, Tensor};
use crate::train::sums::LaneSeen;

/// A bucket's sum.
pub enum Sum {
    /// `reduction = "exact"`.
    Fixed(Tensor<1, Int>),
    /// `reduction = "fast"`.
    Plain(Tensor<1>),
}

/// What lanes looked like, and when the device had done them; or what it could not do.
pub type Seen = Result<(Vec<LaneSeen>, Instant), String>;

/// Where tensors lie; the same in every step.
pub struct Places {
    pub tensors: Vec<Range<usize>>,
    /// In the order in which they leave.
    pub buckets: Vec<Bucket>,
    bucket_of: Vec<usize>,
    pub lanes: usize,
    pub exact: bool,
    /// Without gradients.
    pub device: Device,
}

/// The sums of an attempt at a step.
pub struct Added {
    places: Arc<Places>,
    /// Per tensor the shift of its fixed point, where its exponent is known.
    shifts: Vec<Option<i32>>,
    /// A row for each tensor of each of this rank's lanes.
    facts: Option<Facts>,
    /// Per bucket; none while one is on its way.
    sums: Vec<Option<Sum>>,
}

impl Places {
    pub fn new(tensors: &[Range<usize>], buckets: Vec<Bucket>, lanes: usize, exact: bool, device: &Device) -> Places {
        let (tensors, bucket_of) = (tensors.to_vec(), buckets::of_tensors(&buckets));
        Places { tensors, bucket_of, buckets, lanes, exact, device: device.clone().without_autodiff() }
    }

    fn values(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.end)
    }

    /// The bucket of a tensor, and where it begins there.
    fn of(&self, tensor: usize) -> (usize, usize) {
        let bucket = self.bucket_of[tensor];
        (bucket, self.tensors[tensor].start - self.buckets[bucket].values.start)
    }
}

impl Added {
    /// Nothing yet, of `lanes` lanes of this rank.
    pub fn nothing(places: &Arc<Places>, exponents: &[Option<i16>], lanes: usize) -> Added {
        let shift = |exponent: &Option<i16>| exponent.map(|e| reduce::shift(e, places.lanes));
        let nothing = |bucket: &Bucket| match places.exact {
            true => Sum::Fixed(flat::no_sums(bucket.values.len(), &places.device)),
            false => Sum::Plain(flat::zeros(bucket.values.len(), &places.device)),
        };
        Added {
            places: Arc::clone(places),
            shifts: exponents.iter().map(shift).collect(),
            facts: Some(Facts::none(lanes * places.tensors.len(), &places.device)),
            sums: places.buckets.iter().map(nothing).map(Some).collect(),
        }
    }

    /// Adds the gradient of a tensor, of this rank's lane `at`. Nothing waits for the device.
    pub fn add(&mut self, at: usize, tensor: usize, gradient: Tensor<1>) {
        let (row, (bucket, place)) = (at * self.places.tensors.len() + tensor, self.places.of(tensor));
        let facts = self.facts.take().expect("every addition puts it back").look(gradient.clone(), row);
        let sum = self.sums[bucket].take().expect("a gradient comes before its bucket leaves");
        self.sums[bucket] = Some(match (sum, self.shifts[tensor]) {
            (Sum::Fixed(sums), Some(shift)) => {
                let fixed = Fixed { at: place, row, shift, lanes: self.places.lanes };
                Sum::Fixed(flat::add_fixed(sums, gradient, &facts, fixed))
            }
            (sum @ Sum::Fixed(_), None) => sum,
            (Sum::Plain(sums), _) => Sum::Plain(flat::add(sums, gradient, place)),
        });
        self.facts = Some(facts);
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.places.device.clone()
    }

    /// Bucket `k` leaves.
    pub fn take(&mut self, k: usize) -> Sum {
        self.sums[k].take().expect("a bucket leaves once")
    }

    /// Bucket `k` is the sum of all ranks.
    pub fn come_back(&mut self, k: usize, sum: Sum) {
        self.sums[k] = Some(sum);
    }

    /// What this rank's lanes looked like, and when they were done: the host waits for all of them.
    ///
    /// # Errors
    /// What the device could not do, in its words.
    pub fn seen(&mut self) -> Seen {
        let facts = self.facts.take().expect("every addition puts it back").read()?;
        let done = Instant::now();
        let Places { lanes, exact, ref tensors, .. } = *self.places;
        let of_lane = |facts: &[(u32, u64)]| {
            let finite = |bits: u32| bits < f32::INFINITY.to_bits();
            let overflows = |(&(bits, _), shift): (&(u32, u64), &Option<i32>)| {
                exact && finite(bits) && shift.is_some_and(|shift| reduce::overflows(bits, shift, lanes))
            };
            LaneSeen {
                non_finite: facts.iter().map(|&(_, bad)| bad).sum(),
                max_bits: facts.iter().map(|&(bits, _)| bits).collect(),
                overflow: facts.iter().zip(&self.shifts).map(overflows).collect(),
            }
        };
        Ok((facts.chunks_exact(tensors.len()).map(of_lane).collect(), done))
    }

    /// The gradient, when every bucket is the sum of all ranks.
    pub fn gradient(self) -> Tensor<1> {
        let places = &self.places;
        let sums = self.sums.into_iter().map(|sum| sum.expect("every bucket has come back"));
        let mut gradient = places.exact.then(|| flat::zeros(places.values(), &places.device));
        let mut plain = Vec::new();
        for (bucket, sum) in places.buckets.iter().zip(sums) {
            match sum {
                Sum::Plain(sums) => plain.push(sums),
                Sum::Fixed(sums) => {
                    for tensor in bucket.tensors.clone() {
                        let Some(shift) = self.shifts[tensor] else { continue };
                        let (to, (_, from)) = (places.tensors[tensor].clone(), places.of(tensor));
                        gradient = gradient.map(|gradient| flat::from_fixed(gradient, &sums, from, to, shift));
                    }
                }
            }
        }
        plain.reverse(); // the last declared left first
        gradient.unwrap_or_else(|| if plain.len() == 1 { plain.remove(0) } else { Tensor::cat(plain, 0) })
    }
}
