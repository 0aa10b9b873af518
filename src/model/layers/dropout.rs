//! Dropout by key: the mask is a function of (seed, global_step, slot, site, element), never of rank, thread or clock.

use syncytia_shards::draw::{self, DrawKey, Purpose};

use crate::tensor::{Tensor, TensorData};

/// What a training forward draws with: the key of the run and the place of this micro-batch in it.
#[derive(Debug, Clone, Copy)]
pub struct DrawContext {
    key: DrawKey,
    global_step: u32,
    first_slot: u32,
}

impl DrawContext {
    /// The context of lane `lane` at `global_step`.
    pub fn new(seed: u64, global_step: u64, first_slot: usize) -> Self {
        let global_step = u32::try_from(global_step).expect("max_steps is checked to fit 32 bits");
        Self { key: DrawKey::new(seed, Purpose::Dropout), global_step, first_slot: first_slot as u32 }
    }
}

/// Zeroes elements with probability `p` and scales the rest; the identity outside training.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of a zero.
    pub p: f64,
    /// Ordinal of this drawing module in declaration order.
    pub site: u32,
}

impl Dropout {
    /// `x`'s first axis is the slot of the micro-batch; `draws = None` outside training.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, draws: Option<&DrawContext>) -> Tensor<D> {
        let Some(draws) = draws else { return x };
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
            draws.key,
            draws.first_slot,
            draws.global_step,
            self.site,
        );
        let device = x.device().without_autodiff();
        x * Tensor::from_data(TensorData::new(mask, shape), &device).autodiff()
    }
}
