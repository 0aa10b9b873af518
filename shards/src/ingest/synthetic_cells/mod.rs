//! A cohort of cells with known truth: counts, an image per section, niches and tissues.
//!
//! Knows no filter and no learner. All draws are keyed (`draw`), all functions are `libm`'s: a spec gives the same sections
//! on every machine, one section without the others.
//!
//! # The model
//! Cells lie on a square lattice of `crop_px` pixels ([`PITCH_UM`] µm), each moved by up to [`JITTER`] of the pitch, so that a
//! niche's square of 54.4 µm holds 16 and a tissue's 256. From the outside in:
//!
//! - **Tissue type** of a square of 4 × 4 niches: one of [`N_TISSUE_TYPES`], which says how often each niche type occurs.
//! - **Niche type** of a square of 4 × 4 cells: one of four. Type k holds the cell types k and k + 1 (mod 4) with
//!   probability [`COMMON`] each and the other two rarely, so one cell tells little of its niche and sixteen tell it.
//! - **Cell type** 2a + b, two factors: a is told by genes only (`TYPEA0_*`, `TYPEA1_*`), b by the picture only: its cells are
//!   drawn out, 1 : [`ELONGATION`], and take a green stain, as of a protein that the panel does not hold. Neither genes nor
//!   picture alone can name the four types.
//! - **Shape**: radius, texture and nucleus of a cell are uniform on 0..1 each, whatever its type, and drive both picture and
//!   genes: `RADIUS1..3`, `TEX1..3`, `NUC1..3` are expected [`SHAPE_COUNT`] · 2^([`SHAPE_LOADING`] · (u − ½)).
//!
//! The picture (RGB): red is the cell's body, an ellipse of the mean radius [`RADII`] · pitch with stripes as deep as its
//! texture; green its membrane, and the body where it is stained; blue the nucleus, as bright as its depth. Background and pixel noise are dim.
//! Counts are Poisson about the expectation times a depth (log-normal, σ = [`DEPTH_SIGMA`]); noise genes fill the panel up.
//!
//! Truth is in `obs` as text: `cell_type`, `niche_type`, `tissue_type`, and `truth_radius` (pixels), `truth_texture`,
//! `truth_nucleus` (0..1).

mod draw_cell;

use rayon::prelude::*;

use super::synthetic::{poisson, unit};
use crate::draw::{DrawKey, Purpose, normal_pair};
use crate::section::{Csr, Gene, ObsLabels, Section};
use draw_cell::{Canvas, Shape};

/// Distance of neighbouring cells, µm: 64 pixels of 0.2125 µm, a quarter of a niche's side.
pub const PITCH_UM: f64 = 13.6;
/// Largest shift of a cell along each axis, of the pitch.
pub const JITTER: f64 = 0.08;
/// Cells a side of a niche.
pub const NICHE_CELLS: usize = 4;
/// Niches a side of a tissue.
pub const TISSUE_NICHES: usize = 4;
/// Tissue types.
pub const N_TISSUE_TYPES: usize = 2;
/// Cell types, and niche types.
pub const N_TYPES: usize = 4;
/// Probability of each of a niche type's two common cell types.
pub const COMMON: f64 = 0.42;
/// Length over width of the cells with b = 1.
pub const ELONGATION: f64 = 2.2;
/// Smallest and largest mean radius, of the pitch.
pub const RADII: [f64; 2] = [0.15, 0.36];
/// Expected count of a shape gene at the middle of its range.
pub const SHAPE_COUNT: f64 = 8.0;
/// Doublings of a shape gene over the whole range.
pub const SHAPE_LOADING: f64 = 3.0;
/// Genes of each shape variable.
pub const SHAPE_GENES: usize = 3;
/// Marker genes of each value of a.
pub const TYPE_MARKERS: usize = 6;
/// Expected count of a marker in its type, and outside of it.
pub const MARKER_COUNTS: [f64; 2] = [9.0, 1.0];
/// Genes of constant expectation.
pub const N_HOUSEKEEPING: usize = 6;
/// Expected count of a housekeeping gene.
pub const HOUSEKEEPING_COUNT: f64 = 15.0;
/// Genes in all; those left are noise.
pub const N_GENES: usize = 64;
/// Expected count of a noise gene.
pub const NOISE_COUNT: f64 = 0.6;
/// Standard deviation of the natural logarithm of a cell's depth.
pub const DEPTH_SIGMA: f64 = 0.15;

/// How often each tissue type holds each niche type.
const NICHES_OF_TISSUE: [[f64; N_TYPES]; N_TISSUE_TYPES] = [[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]];

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellsSpec {
    /// Name of the cohort; sections are called after it.
    pub name: String,
    /// Cells in all.
    pub n_cells: u32,
    /// Sections to deal them out to.
    pub n_sections: u32,
    /// Sections of a donor.
    pub sections_per_donor: u32,
    /// Side of a cell's place in pixels.
    pub crop_px: u32,
    /// Seed of all draws.
    pub seed: u64,
}

/// A section with its image.
#[derive(Debug, Clone, PartialEq)]
pub struct CellsSection {
    /// As an ingest would have read it, with the truth as label columns; coordinates are pixels of the image.
    pub section: Section,
    /// RGB, row-major.
    pub image: image::RgbImage,
}

/// Streams of draws; the number is the last counter word, the section the one before it.
#[derive(Clone, Copy)]
enum Site {
    Tissue = 32,
    Niche = 33,
    Cell = 34,
    Shape = 35,
    Place = 36,
    Depth = 37,
    Count = 38,
    Pixel = 39,
}

/// What a cell is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Truth {
    tissue_type: usize,
    niche_type: usize,
    cell_type: usize,
    /// Radius, texture, nucleus: 0..1.
    shape: [f64; 3],
}

/// Number of cells of a section: equal to within one.
pub fn n_cells_of(spec: &CellsSpec, section: u32) -> u32 {
    let (n, of) = (u64::from(spec.n_cells), u64::from(spec.n_sections));
    ((u64::from(section) + 1) * n / of - u64::from(section) * n / of) as u32
}

/// Makes one section of a cohort.
pub fn synthesize(spec: &CellsSpec, section: u32) -> CellsSection {
    let key = DrawKey::new(spec.seed, Purpose::Synthetic);
    let n = n_cells_of(spec, section) as usize;
    let across = side(n);
    let draws = Draws { key, section };
    let truths: Vec<Truth> = (0..n).map(|i| truth(&draws, i % across, i / across, i)).collect();
    let pitch = f64::from(spec.crop_px);
    let xy: Vec<[f64; 2]> = (0..n)
        .map(|i| {
            let [dx, dy] = draws.two(Site::Place, i as u32, 0).map(|u| (2.0 * u - 1.0) * JITTER);
            [((i % across) as f64 + 0.5 + dx) * pitch, ((i / across) as f64 + 0.5 + dy) * pitch]
        })
        .collect();
    let height = n.div_ceil(across) as u32 * spec.crop_px;
    let mut canvas = Canvas::new(across as u32 * spec.crop_px, height, |pixel| draws.word(Site::Pixel, pixel));
    for (i, (truth, &centre)) in truths.iter().zip(&xy).enumerate() {
        let angle = draws.two(Site::Place, i as u32, 1)[0] * std::f64::consts::PI;
        canvas.draw(&Shape {
            centre,
            radius: radius(truth, pitch),
            elongation: if truth.cell_type % 2 == 1 { ELONGATION } else { 1.0 },
            angle,
            stained: truth.cell_type % 2 == 1,
            texture: truth.shape[1],
            nucleus: truth.shape[2],
            pitch,
        });
    }
    let library_id = format!("{}-{section:03}", spec.name);
    let section = Section {
        donor_id: Some(format!("donor-{:02}", section / spec.sections_per_donor.max(1))),
        source: format!("{library_id}.h5ad").into(),
        format: "synthetic",
        obs_ids: (0..n).map(|i| format!("{library_id}_{i:06}")).collect(),
        genes: genes(),
        counts: counts(&draws, &truths),
        xy,
        z: None,
        um_per_unit: Some(PITCH_UM / pitch),
        array_row_col: None,
        labels: labels(&truths, pitch),
        features: Vec::new(),
        image: None,
        pictures: None,
        boxes: None,
        notes: Vec::new(),
        library_id,
    };
    CellsSection { section, image: canvas.into_image() }
}

/// Cells across: whole niches, about as many as make the section square.
fn side(n: usize) -> usize {
    let niches = (libm::sqrt(n as f64) / NICHE_CELLS as f64).round().max(1.0) as usize;
    niches * NICHE_CELLS
}

fn radius(truth: &Truth, pitch: f64) -> f64 {
    (RADII[0] + (RADII[1] - RADII[0]) * truth.shape[0]) * pitch
}

struct Draws {
    key: DrawKey,
    section: u32,
}

impl Draws {
    fn block(&self, site: Site, a: u32, b: u32) -> [u32; 4] {
        self.key.block([a, b, self.section, site as u32])
    }

    /// Two uniforms.
    fn two(&self, site: Site, a: u32, b: u32) -> [f64; 2] {
        let words = self.block(site, a, b);
        [unit(words[0], words[1]), unit(words[2], words[3])]
    }

    fn word(&self, site: Site, element: u32) -> u32 {
        self.block(site, element / 4, 0)[(element % 4) as usize]
    }
}

fn choose(u: f64, probabilities: &[f64]) -> usize {
    let mut below = 0.0;
    let found = probabilities.iter().position(|p| {
        below += p;
        u < below
    });
    found.unwrap_or(probabilities.len() - 1)
}

fn truth(draws: &Draws, column: usize, row: usize, i: usize) -> Truth {
    let at = |k: usize, cells: usize| (k / cells) as u32;
    let of_tissue = NICHE_CELLS * TISSUE_NICHES;
    let u = draws.two(Site::Tissue, at(column, of_tissue), at(row, of_tissue))[0];
    let tissue_type = choose(u, &[1.0 / N_TISSUE_TYPES as f64; N_TISSUE_TYPES]);
    let u = draws.two(Site::Niche, at(column, NICHE_CELLS), at(row, NICHE_CELLS))[0];
    let niche_type = choose(u, &NICHES_OF_TISSUE[tissue_type]);
    let rare = (1.0 - 2.0 * COMMON) / (N_TYPES - 2) as f64;
    let is_common = |t: usize| t == niche_type || t == (niche_type + 1) % N_TYPES;
    let of_niche: [f64; N_TYPES] = std::array::from_fn(|t| if is_common(t) { COMMON } else { rare });
    let cell_type = choose(draws.two(Site::Cell, i as u32, 0)[0], &of_niche);
    let ([radius, texture], [nucleus, _]) = (draws.two(Site::Shape, i as u32, 0), draws.two(Site::Shape, i as u32, 1));
    Truth { tissue_type, niche_type, cell_type, shape: [radius, texture, nucleus] }
}

/// Symbols in the order of [`expected`].
fn genes() -> Vec<Gene> {
    let shape = ["RADIUS", "TEX", "NUC"].into_iter().flat_map(|s| (1..=SHAPE_GENES).map(move |k| format!("{s}{k}")));
    let markers = (0..2).flat_map(|a| (1..=TYPE_MARKERS).map(move |m| format!("TYPEA{a}_{m}")));
    let housekeeping = (1..=N_HOUSEKEEPING).map(|h| format!("HOUSE{h}"));
    let noise = (1..).map(|k| format!("NOISE{k}"));
    let symbols = shape.chain(markers).chain(housekeeping).chain(noise).take(N_GENES);
    symbols.map(|symbol| Gene { id: symbol.clone(), symbol }).collect()
}

fn expected(truth: &Truth) -> Vec<f64> {
    let a = truth.cell_type / 2;
    let shape = truth
        .shape
        .iter()
        .flat_map(|u| std::iter::repeat_n(SHAPE_COUNT * libm::exp2(SHAPE_LOADING * (u - 0.5)), SHAPE_GENES));
    let markers = (0..2).flat_map(|value| std::iter::repeat_n(MARKER_COUNTS[usize::from(value != a)], TYPE_MARKERS));
    let housekeeping = std::iter::repeat_n(HOUSEKEEPING_COUNT, N_HOUSEKEEPING);
    shape.chain(markers).chain(housekeeping).chain(std::iter::repeat(NOISE_COUNT)).take(N_GENES).collect()
}

fn counts(draws: &Draws, truths: &[Truth]) -> Csr {
    let row = |(i, truth): (usize, &Truth)| -> Vec<(u32, f32)> {
        let words = draws.block(Site::Depth, i as u32, 0);
        let depth = libm::exp(DEPTH_SIGMA * f64::from(normal_pair(words[0], words[1])[0]));
        let of_gene = |(gene, mean): (usize, f64)| {
            let count = poisson(mean * depth, |piece| {
                let words = draws.block(Site::Count, i as u32, gene as u32 + N_GENES as u32 * piece);
                unit(words[0], words[1])
            });
            (count > 0).then_some((gene as u32, count as f32))
        };
        expected(truth).into_iter().enumerate().filter_map(of_gene).collect()
    };
    let rows: Vec<Vec<(u32, f32)>> = truths.par_iter().enumerate().map(row).collect();
    let mut out = Csr { n_cols: N_GENES, indptr: vec![0], ..Csr::default() };
    for entries in rows {
        out.indices.extend(entries.iter().map(|e| e.0));
        out.values.extend(entries.iter().map(|e| e.1));
        out.indptr.push(out.indices.len());
    }
    out
}

fn labels(truths: &[Truth], pitch: f64) -> Vec<ObsLabels> {
    let column = |name: &str, value: &dyn Fn(&Truth) -> String| ObsLabels {
        name: name.to_owned(),
        values: truths.iter().map(|truth| Some(value(truth))).collect(),
    };
    vec![
        column("cell_type", &|t| format!("type_{}", t.cell_type)),
        column("niche_type", &|t| format!("niche_{}", t.niche_type)),
        column("tissue_type", &|t| format!("tissue_{}", t.tissue_type)),
        column("truth_nucleus", &|t| format!("{:.4}", t.shape[2])),
        column("truth_radius", &|t| format!("{:.4}", radius(t, pitch))),
        column("truth_texture", &|t| format!("{:.4}", t.shape[1])),
    ]
}

#[cfg(test)]
mod tests;
