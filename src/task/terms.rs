//! What a task's loss gives to the trainer: the terms of a lane, and a term over all lanes (`docs/step.md` §4).

use crate::model::spatia::Sides;
use crate::tensor::{Tensor, total};

/// The terms of a lane's loss, in the task's fixed order.
#[derive(Debug, Default)]
pub struct Terms {
    /// S_k: sums on the device, `[1]` each.
    pub sums: Vec<Tensor<1>>,
    /// The same for the host.
    pub values: Unread,
}

/// The values of a lane's terms, which the host reads when backward is on its way: a device is not waited for in between.
#[derive(Debug, Default)]
pub struct Unread(Vec<Term>);

#[derive(Debug)]
enum Term {
    /// `[b]`, and the records' ids.
    OfRecords(Box<Tensor<1>>, Vec<u64>),
    Known(f64),
}

impl Terms {
    /// The next term, `[b]`: its value of each record.
    pub fn push(&mut self, per_record: Tensor<1>, ids: &[u64]) {
        self.values.0.push(Term::OfRecords(Box::new(per_record.clone().inner()), ids.to_vec()));
        self.sums.push(total(per_record));
    }

    /// The next term, `[1]`, whose value the host knows.
    pub fn push_known(&mut self, sum: Tensor<1>, value: f64) {
        self.values.0.push(Term::Known(value));
        self.sums.push(sum);
    }
}

impl Unread {
    /// S_k in f64, summed per record and then in record order; and the first record whose loss is not finite, if any.
    pub fn read(self) -> (Vec<f64>, Option<u64>) {
        let mut first_bad = None;
        let mut value = |term| match term {
            Term::Known(value) => value,
            Term::OfRecords(values, ids) => {
                let values: Vec<f32> = values.into_data().try_to_vec().expect("losses are f32");
                let bad = values.iter().position(|v| !v.is_finite()).map(|i| ids[i]);
                first_bad = first_bad.or(bad);
                values.iter().map(|&v| f64::from(v)).sum()
            }
        };
        let values = self.0.into_iter().map(&mut value).collect();
        (values, first_bad)
    }
}

/// A term over the vectors of all lanes (`docs/step.md` §4), the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Across {
    /// Its value.
    pub value: f64,
    /// Its gradient with respect to the vectors of every slot, flat in slot order.
    pub gradient: Vec<f32>,
    /// The same with respect to the term's own parameters.
    pub own: Vec<f32>,
}

/// A lane's forward as far as the term needs it; backward may go through it.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What is gathered, `[b, w]`.
    pub vectors: Tensor<2>,
    /// Where the forward goes on.
    pub(super) sides: Sides,
}

/// A lane's part of it.
#[derive(Debug, Clone)]
pub struct AcrossLane<'a> {
    /// The value, in lane 0; 0 in all others.
    pub value: f64,
    /// With respect to the lane's own vectors.
    pub gradient: &'a [f32],
    /// With respect to the term's own parameters: of lane 0 alone.
    pub own: Option<&'a [f32]>,
    /// The forward that gave the vectors, where it was kept.
    pub begun: Option<Begun>,
}

impl Across {
    /// The part of one of `lanes`.
    pub fn of_lane(&self, lane: usize, lanes: usize, begun: Option<Begun>) -> AcrossLane<'_> {
        let each = self.gradient.len() / lanes;
        let gradient = &self.gradient[lane * each..(lane + 1) * each];
        let value = if lane == 0 { self.value } else { 0.0 };
        AcrossLane { value, gradient, own: (lane == 0).then_some(&self.own), begun }
    }
}
