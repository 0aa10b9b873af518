//! From values as ingested to what a model sees, and back.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::holdout::Transform;
use crate::matrix::Matrix;

/// Standardised values are cut here, in deviations, and divided by it.
const CLIP: f64 = 3.0;
/// What totals are brought to.
const TOTAL: f64 = 1e4;

/// What levels are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleKind {
    /// The greatest visible level: of the spot where values are counts, of the gene where they are not (`spotdiff.md` §1). In [0, 1].
    Maximum,
    /// Per gene: less the mean, divided by the deviation of its visible levels, cut at ±3, divided by 3. In [−1, 1].
    Standardised,
}

/// How the values of a set of rows were made.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// What levels were divided by.
    pub kind: ScaleKind,
    /// What made levels of values as ingested; never `Auto`.
    pub transform: Transform,
    /// Sum of each row's visible values as ingested `[n]`; of a cell, of all its genes.
    pub totals: Vec<f64>,
    /// The numbers.
    pub by: Factors,
}

/// The numbers of a scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Factors {
    /// scaled = level / factor of the row `[n]`.
    Rows(Vec<f64>),
    /// scaled = (level − shift) / factor of the gene. A gene that no row shows has the median shift and factor of the others
    /// (`known` is false): the way back then gives it the place of a typical gene.
    Genes {
        /// `[G]`; 0 with [`ScaleKind::Maximum`].
        shift: Vec<f64>,
        /// `[G]`, above 0; 1 for a gene that does not vary, or is nowhere above 0.
        factor: Vec<f64>,
        /// `[G]`: whether they were measured.
        known: Vec<bool>,
    },
}

impl Scale {
    /// With no numbers yet.
    pub(super) fn of_rows(kind: ScaleKind, transform: Transform, totals: Vec<f64>) -> Scale {
        Scale { kind, transform, totals, by: Factors::Rows(Vec::new()) }
    }

    /// The level of a value as ingested: what a hidden truth is brought to, with the factors of what was visible.
    pub fn level(&self, row: usize, raw: f32) -> f64 {
        let raw = f64::from(raw);
        match self.transform {
            Transform::TotalLog1p => libm::log1p(TOTAL * raw / self.totals[row]),
            Transform::Log1p => libm::log1p(raw),
            Transform::None | Transform::Auto => raw,
        }
    }

    /// The value as ingested of a level.
    pub fn raw(&self, row: usize, level: f64) -> f64 {
        match self.transform {
            Transform::TotalLog1p => libm::expm1(level) * self.totals[row] / TOTAL,
            Transform::Log1p => libm::expm1(level),
            Transform::None | Transform::Auto => level,
        }
    }

    /// What a model sees of a level.
    pub fn scaled(&self, row: usize, gene: usize, level: f64) -> f32 {
        match (&self.by, self.kind) {
            (Factors::Rows(factor), _) => (level / factor[row]) as f32,
            (Factors::Genes { shift, factor, .. }, ScaleKind::Maximum) => ((level - shift[gene]) / factor[gene]) as f32,
            (Factors::Genes { shift, factor, .. }, ScaleKind::Standardised) => {
                (((level - shift[gene]) / factor[gene]).clamp(-CLIP, CLIP) / CLIP) as f32
            }
        }
    }

    /// The level of what a model says.
    pub fn unscaled(&self, row: usize, gene: usize, scaled: f32) -> f64 {
        let scaled = f64::from(scaled);
        match (&self.by, self.kind) {
            (Factors::Rows(factor), _) => scaled * factor[row],
            (Factors::Genes { shift, factor, .. }, ScaleKind::Maximum) => scaled * factor[gene] + shift[gene],
            (Factors::Genes { shift, factor, .. }, ScaleKind::Standardised) => {
                scaled * CLIP * factor[gene] + shift[gene]
            }
        }
    }

    /// All levels of what a model says, `[n, G]`.
    pub fn levels(&self, scaled: &Matrix<f32>) -> Matrix<f32> {
        self.each(scaled, |row, gene, value| self.unscaled(row, gene, value) as f32)
    }

    /// All levels of values as ingested, `[n, G]`.
    pub fn levels_of_raw(&self, raw: &Matrix<f32>) -> Matrix<f32> {
        self.each(raw, |row, _, value| self.level(row, value) as f32)
    }

    /// What a model sees of values as ingested: 0 where hidden.
    pub(super) fn scale_all(&self, raw: &Matrix<f32>, bits: &[bool]) -> Matrix<f32> {
        let g = raw.n_cols;
        self.each(
            raw,
            |row, gene, value| {
                if bits[row * g + gene] { self.scaled(row, gene, self.level(row, value)) } else { 0.0 }
            },
        )
    }

    fn each(&self, from: &Matrix<f32>, value: impl Fn(usize, usize, f32) -> f32 + Sync) -> Matrix<f32> {
        let g = from.n_cols;
        let mut values = vec![0.0; from.values.len()];
        values.par_chunks_mut(g.max(1)).zip(from.values.par_chunks(g.max(1))).enumerate().for_each(
            |(row, (out, from))| {
                for (gene, (out, &from)) in out.iter_mut().zip(from).enumerate() {
                    *out = value(row, gene, from);
                }
            },
        );
        Matrix { n_cols: g, values }
    }
}

/// The greatest visible level of each row; hidden values are 0 in `raw`, and levels are never negative.
pub(super) fn row_maxima(scale: &Scale, raw: &Matrix<f32>) -> Factors {
    let greatest = |row: usize| raw.row(row).iter().fold(0.0f64, |most, &v| most.max(scale.level(row, v)));
    Factors::Rows((0..raw.n_rows()).map(greatest).map(positive).collect())
}

/// The numbers of each gene over visible entries; `Rows` (empty) where they belong to rows.
pub(super) fn fit(scale: &Scale, raw: &Matrix<f32>, bits: &[bool], hides: &[bool]) -> Factors {
    if scale.kind == ScaleKind::Maximum && scale.transform != Transform::None {
        return Factors::Rows(Vec::new());
    }
    let g = raw.n_cols;
    let measured: Vec<Option<(f64, f64)>> = (0..g)
        .into_par_iter()
        .map(|gene| {
            let visible = || {
                let rows = (0..raw.n_rows()).filter(|row| bits[row * g + gene]);
                rows.map(|row| scale.level(row, raw.values[row * g + gene]))
            };
            let n = visible().count();
            if hides[gene] || n == 0 {
                return None;
            }
            Some(match scale.kind {
                ScaleKind::Maximum => (0.0, positive(visible().fold(0.0, f64::max))),
                ScaleKind::Standardised => {
                    let mean = visible().sum::<f64>() / n as f64;
                    let variance = visible().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
                    // rounding makes the variance of equal values a little more than 0
                    let varies = variance.sqrt() > 1e-9 * mean.abs();
                    (mean, if varies { variance.sqrt() } else { 1.0 })
                }
            })
        })
        .collect();
    let typical = [
        median(measured.iter().flatten().map(|m| m.0).collect()).unwrap_or(0.0),
        median(measured.iter().flatten().map(|m| m.1).collect()).unwrap_or(1.0),
    ];
    Factors::Genes {
        shift: measured.iter().map(|m| m.map_or(typical[0], |m| m.0)).collect(),
        factor: measured.iter().map(|m| m.map_or(typical[1], |m| m.1)).collect(),
        known: measured.iter().map(Option::is_some).collect(),
    }
}

fn positive(value: f64) -> f64 {
    if value > 0.0 { value } else { 1.0 }
}

/// The lower middle value.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
