//! Rows of ψ's forward on the host: what is seen of a spot or a cell, what is asked, and what its prompt is made of.

use crate::tensor::{Device, Values};

/// Rows of a forward on the host, `[n, G]` row-major.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Visible values, hidden ones 0.
    pub visible: Values<f32>,
    /// 1 where visible.
    pub bits: Values<f32>,
    /// 1 where asked for.
    pub asked: Values<f32>,
    /// x_t where asked for, else the visible value.
    pub noisy: Values<f32>,
    /// What the network is to say where it is asked, else 0.
    pub target: Values<f32>,
    /// Paired cells' genes.
    pub pair: Values<f32>,
    /// What neighbours show, `[n, AROUND · G]`; none where they are not read.
    pub around: Values<f32>,
    /// `[n]`: t.
    pub times: Vec<usize>,
    /// What their prompts are made of.
    pub text: Text,
    /// Rows.
    pub n: usize,
    /// G.
    pub genes: usize,
}

/// What prompts are made of: of `hash` numbers, `[n, most + least]` each, of `t5` vectors.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// Genes that are named; 0 where absent.
    pub genes: Vec<u32>,
    /// Buckets of their values.
    pub buckets: Vec<u8>,
    /// Where a row has no further gene to name.
    pub absent: Vec<bool>,
    pub(super) encoded: Values<f32>,
    pub(super) of_genes: Values<f32>,
}

impl Rows {
    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let seen = [&mut self.visible, &mut self.bits, &mut self.pair, &mut self.around];
        let text = [&mut self.text.encoded, &mut self.text.of_genes];
        let asked = [&mut self.asked, &mut self.noisy, &mut self.target];
        seen.into_iter().chain(text).chain(asked).map(|values| values.send(device)).sum()
    }

    /// Entries that are asked for.
    pub fn n_asked(&self) -> f64 {
        self.asked.iter().filter(|a| **a > 0.0).count() as f64
    }
}
