//! A gene on a section in the first assay: measured, hidden, predicted per spot. Which genes are shown.

use super::map::{self, Scale};
use crate::evaluate::block::Block;
use crate::evaluate::completion::{Outcome, Shown};

/// One gene on one section in the first assay.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneMap {
    /// Symbol.
    pub gene: String,
    /// Section.
    pub section: String,
    /// Native coordinates.
    pub xy: Vec<[f64; 2]>,
    /// Measured value where measured.
    pub measured: Vec<Option<f32>>,
    /// Hidden from the model; only what was measured is.
    pub hidden: Vec<bool>,
    /// What the model says.
    pub predicted: Vec<f32>,
}

/// Genes shown as maps: best, median and worst predicted.
const MAPS: usize = 3;

/// Maps of the best, the median and the worst predicted gene on the first block.
pub fn maps_of(blocks: &[Block], outcome: &Outcome, symbols: &[String]) -> Vec<GeneMap> {
    let (Some(block), Some(shown)) = (blocks.first(), outcome.first_assay.first()) else { return Vec::new() };
    let mut order: Vec<(usize, f64)> =
        outcome.pcc_per_gene.iter().enumerate().filter_map(|(g, r)| r.map(|r| (g, r))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut chosen: Vec<usize> = match order.len() {
        0 => return Vec::new(),
        n => (0..MAPS.min(n)).map(|i| order[i * (n - 1) / (MAPS - 1)].0).collect(),
    };
    chosen.dedup();
    chosen.into_iter().map(|g| gene_map(block, shown, g, &symbols[g])).collect()
}

fn gene_map(block: &Block, shown: &Shown, g: usize, symbol: &str) -> GeneMap {
    let spots = 0..block.n_obs();
    GeneMap {
        gene: symbol.to_owned(),
        section: block.piece.library_id.clone(),
        xy: block.piece.xy.clone(),
        measured: spots.clone().map(|i| block.piece.measured.row(i)[g].then(|| block.target.row(i)[g])).collect(),
        hidden: spots.clone().map(|i| shown.hidden.row(i)[g]).collect(),
        predicted: spots.map(|i| shown.predicted.row(i)[g]).collect(),
    }
}

impl GeneMap {
    /// Measured and visible: what the model was given.
    pub fn visible(&self) -> Vec<Option<f32>> {
        self.measured.iter().zip(&self.hidden).map(|(&m, &hidden)| if hidden { None } else { m }).collect()
    }

    /// Visible values and, where hidden, predictions.
    pub fn completed(&self) -> Vec<Option<f32>> {
        let visible = self.visible().into_iter();
        let given = visible.zip(self.hidden.iter().zip(&self.predicted));
        given.map(|(visible, (&hidden, &p))| if hidden { Some(p) } else { visible }).collect()
    }

    /// Prediction less measurement where hidden.
    pub fn error(&self) -> Vec<Option<f32>> {
        let judged = self.measured.iter().zip(self.hidden.iter().zip(&self.predicted));
        judged.map(|(m, (&hidden, p))| m.filter(|_| hidden).map(|m| p - m)).collect()
    }

    /// The completed values as a PNG.
    pub fn completed_png(&self) -> Vec<u8> {
        map::png(&self.xy, &self.completed(), self.value_scale())
    }

    /// One scale for measured, visible and completed values: the measured range.
    pub fn value_scale(&self) -> Scale {
        let values = || self.measured.iter().flatten().copied();
        Scale::Sequential(values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
    }
}
