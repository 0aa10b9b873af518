//! A micro-batch of cells on the host.

use crate::model::spatia::CellInput;
use crate::model::spatia::gene_encoder::GeneInput;
use crate::model::spatia::heads::Expression;
use crate::model::spatia::image_encoder::ImageInput;
use crate::model::spatia::patches::Kept;
use crate::task::losses::negative_binomial::zinb;
use crate::tensor::{Device, Padding, Tensor, Values};

/// A micro-batch on the host.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Record ids in slot order.
    pub ids: Vec<u64>,
    /// Genes of the longest list.
    pub k: usize,
    /// `[b, k]`: rows of the gene table; its last where padded.
    pub genes: Values<i64>,
    /// `[b, k]`: count / Σ counts, of the thinned counts.
    pub values: Values<f32>,
    /// `[b]`: Σ thinned counts of the cell.
    pub depth: Values<f32>,
    /// `[b, k]`: counts as they were, 0 where padded.
    pub counts: Values<f32>,
    /// `[b]`: Σ of them.
    pub listed: Values<f32>,
    /// `[b, k]`: whether padded.
    pub padding: Values<bool>,
    /// `[b, channels, size, size]`.
    pub pixels: Values<f32>,
    /// The patches that are seen.
    pub kept: Kept,
    /// Side and channels of the pictures.
    pub(super) picture: [usize; 2],
    /// `[b]` of every family with classes: its number in `ClassFamily::number`'s order.
    pub labels: Vec<Vec<i32>>,
    /// W_k.
    pub weights: Vec<f64>,
}

impl Prepared {
    /// The model's input on `device`.
    pub fn input(&self, device: &Device) -> CellInput {
        let (b, k, [channels, size]) = (self.ids.len(), self.k, self.picture);
        let genes = GeneInput {
            genes: self.genes.tensor([b, k], device),
            values: self.values.tensor([b, k], device),
            depth: self.depth.tensor([b], device),
            bins: None,
            padding: self.padding(),
        };
        let pixels = self.pixels.tensor([b, channels, size, size], device);
        CellInput { genes: Some(genes), image: Some(ImageInput { pixels, kept: Some(self.kept.clone()) }) }
    }

    /// `[b]`: −log p of each cell's counts as they were under `expression`, summed over its genes.
    pub fn unlikely(&self, expression: Expression, device: &Device) -> Tensor<1> {
        let counts = self.counts.tensor([self.ids.len(), self.k], device);
        let Expression { mean, dispersion, dropout_logit } = expression;
        let entries = zinb(counts, mean, dispersion, dropout_logit);
        let entries = match self.padding() {
            Some(padding) => entries.mask_fill(padding.mask(device), 0.0),
            None => entries,
        };
        entries.sum_dim(1).squeeze_dim(1)
    }

    /// `[b]`: Σ of the counts that are predicted.
    pub fn listed(&self, device: &Device) -> Tensor<1> {
        self.listed.tensor([self.ids.len()], device)
    }

    /// Genes of cell `i` that are read.
    pub fn n_listed(&self, i: usize) -> usize {
        self.padding[i * self.k..(i + 1) * self.k].iter().filter(|p| !**p).count()
    }

    /// Genes that are read, of all cells.
    pub fn n_entries(&self) -> f64 {
        (0..self.ids.len()).map(|i| self.n_listed(i)).sum::<usize>() as f64
    }

    /// Sends what a step reads to `device`, ahead of it; gives how many values.
    pub fn send(&mut self, device: &Device) -> usize {
        let values = [&mut self.values, &mut self.depth, &mut self.counts, &mut self.listed, &mut self.pixels];
        let values: usize = values.into_iter().map(|values| values.send(device)).sum();
        values + self.genes.send(device) + self.padding.send(device)
    }

    fn padding(&self) -> Option<Padding> {
        Padding::of(self.padding.clone(), [self.ids.len(), self.k])
    }
}
