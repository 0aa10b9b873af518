//! Dropout by key: the mask is a function of (seed, global_step, slot, site, element), never of rank, thread or clock.

use std::sync::Arc;

use super::Training;
use crate::tensor::{DropoutDraws, Spans, Tensor, dropout};

/// Zeroes elements with probability `p` and scales the rest; the identity outside training.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of a zero.
    pub p: f64,
    /// Ordinal of this drawing module in declaration order.
    pub site: u32,
}

impl Dropout {
    /// `x`'s first axis is the slot of the micro-batch; `training = None` outside it.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, training: Option<&Training>) -> Tensor<D> {
        let shape = x.dims();
        let rows = shape[1..D - 1].iter().product();
        self.forward_rows(x, &Spans::equal(shape[0], rows).shared(), training)
    }

    /// `x`'s rows are those of `records`, the slots of the micro-batch; elements are counted inside of a record.
    pub fn forward_rows<const D: usize>(
        &self,
        x: Tensor<D>,
        records: &Arc<Spans>,
        training: Option<&Training>,
    ) -> Tensor<D> {
        match self.draws(training) {
            Some(draws) => dropout(x, records, draws),
            None => x,
        }
    }

    /// What it draws with; `None` where nothing is dropped.
    pub fn draws(&self, training: Option<&Training>) -> Option<DropoutDraws> {
        let training = training.filter(|_| self.p > 0.0)?;
        Some(DropoutDraws {
            p: self.p,
            key: training.dropout_key(),
            first_slot: training.first_slot(),
            global_step: training.global_step(),
            site: self.site,
        })
    }
}
