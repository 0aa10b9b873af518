//! Dropout by key: the mask is a function of (seed, global_step, slot, site, element), never of rank, thread or clock.

use syncytia_shards::draw;

use super::Training;
use crate::tensor::{Tensor, TensorData};

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
        let Some(training) = training else { return x };
        if self.p == 0.0 {
            return x;
        }
        let shape = x.dims();
        let n: usize = shape.iter().product();
        let mut mask = vec![0.0f32; n];
        draw::dropout_mask_slots(
            &mut mask,
            n / shape[0],
            self.p,
            training.dropout_key(),
            training.first_slot(),
            training.global_step(),
            self.site,
        );
        let device = x.device().without_autodiff();
        x * Tensor::from_data(TensorData::new(mask, shape), &device).autodiff()
    }
}
