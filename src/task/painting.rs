//! Pictures of cells from their counts: what `generate` asks of a trained generator.
//!
//! The input is counts and a seed, nothing else: a picture cannot reach the network, because it is not here. The same
//! record and seed give the same noise, whatever the counts: that is what makes a pair of before and after.

use rayon::prelude::*;

use crate::model::dit::noising::{self, Objective, record_stream};
use crate::model::dit::sampler::{SampleError, SampleMerging, SamplerConfig, generate};
use crate::model::generator::{Counts, GeneReader, Generator};
use crate::tensor::{Device, Tensor, TensorData};

/// The assay of generation's draws (`docs/step.md` §3).
pub const ASSAY: u32 = 12;

/// Pictures of a forward.
const BATCH: usize = 32;

/// A trained generator and how it is sampled.
#[derive(Debug)]
pub struct Painter<'a> {
    /// The network.
    pub model: &'a Generator,
    /// What it was trained on.
    pub objective: Objective,
    /// Solver, steps, guidance.
    pub sampler: SamplerConfig,
    /// Most genes of a cell that are read.
    pub context: usize,
    /// Genes of the panel.
    pub genes: usize,
    /// Seed of noise, of merging and of the genes that are read where there are too many.
    pub seed: u64,
}

impl Painter<'_> {
    /// `[n, image, image, channels]`, mostly in [−1, 1], in the cells' order. `ids`: record ids, which key the draws.
    ///
    /// # Errors
    /// [`SampleError`]: the sampler does not fit the network.
    pub fn paint(&self, ids: &[u64], cells: &[Counts<'_>], device: &Device) -> Result<Vec<f32>, SampleError> {
        let config = self.model.dit.config();
        let (size, channels) = (config.image, config.channels);
        let reader = GeneReader::new(self.seed, self.genes, self.context);
        let merging = SampleMerging::Drawn { seed: self.seed };
        let forward = |(ids, cells): (&[u64], &[Counts<'_>])| {
            let streams: Vec<_> = ids.iter().map(|&id| record_stream(id, ASSAY)).collect();
            let noise = noising::noise(self.seed, &streams, size * size * channels);
            let noise = Tensor::from_data(TensorData::new(noise, [ids.len(), size, size, channels]), device);
            let condition = self.model.condition(&reader.read(cells, &streams), vec![false; ids.len()], None, device);
            let pictures = generate(&self.model.dit, self.objective, &self.sampler, &condition, noise, merging)?;
            Ok(pictures.into_data().try_to_vec::<f32>().expect("pictures are f32"))
        };
        // Forwards side by side: the kernels of a small network do not fill the cores.
        let batches: Result<Vec<Vec<f32>>, SampleError> =
            ids.par_chunks(BATCH).zip(cells.par_chunks(BATCH)).map(forward).collect();
        Ok(batches?.concat())
    }
}

/// A value in [−1, 1] as a byte.
pub fn to_byte(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::to_byte;

    #[test]
    fn bytes_are_the_inverse_of_what_is_learned() {
        assert!((0..=255u8).all(|v| to_byte(f32::from(v) / 127.5 - 1.0) == v));
        assert_eq!([to_byte(-9.0), to_byte(9.0)], [0, 255]);
    }
}
