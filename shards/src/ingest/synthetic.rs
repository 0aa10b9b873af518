//! A tissue with known truth: a hexagonal lattice of spots whose counts follow a model written down here.
//!
//! Knows no filter, no layer and no learner. All draws are keyed (`draw`), all functions are `libm`'s: a spec gives the same
//! section on every machine.
//!
//! # The model
//! Every spot i has [`N_SMOOTH`] smooth factors s (random waves no shorter than about ten spots), [`N_OWN`] own states z and
//! [`N_SENT`] sent states t; z and t are drawn for each spot alone, uniform with mean 0 and variance 1. t̄ is the mean of t over
//! the 18 nearest spots (the two hops around i, without i), brought to variance 1 over the section and cut at ±[`MAX_SENT`].
//! In doublings (log2 of the expected count), by kind of gene:
//!
//! | genes | count | log2 expected count |
//! |---|---|---|
//! | smooth markers | [`N_SMOOTH`] × [`SMOOTH_MARKERS`] | log2 [`BASE_COUNT`] + [`SMOOTH_LOADING`] · s_f |
//! | own markers | [`N_OWN`] × [`OWN_MARKERS`] | log2 [`BASE_COUNT`] + [`STATE_LOADING`] · z_c |
//! | sent markers | [`N_SENT`] × [`SENT_MARKERS`] | log2 [`BASE_COUNT`] + [`STATE_LOADING`] · t_d |
//! | product genes | [`N_OWN`] × [`N_SENT`], each its own pair (c, d) | log2 [`BASE_COUNT`] + [`PRODUCT_LOADING`] · z_c · t̄_d |
//! | housekeeping | [`N_HOUSEKEEPING`] | log2 [`HOUSEKEEPING_COUNT`] |
//! | context (none unless asked for) | any | log2 [`BASE_COUNT`] + ½ [`SMOOTH_LOADING`] · s_f + ½ [`STATE_LOADING`] · z_c |
//!
//! Counts are Poisson about the expected count times the spot's depth (log-normal, σ = [`DEPTH_SIGMA`]); then every entry but
//! those of housekeeping genes is lost with probability [`DROPOUT`], so that about 30 % of the former are 0 in all.
//! With `product = false` the product genes keep their base and lose the term z · t̄; nothing else changes, not even a draw.
//! A spot's niche is the index of its largest smooth factor.
//!
//! # Why a product
//! z has mean 0 and is independent of all neighbours' states, so z · t̄ is uncorrelated with everything linear in a spot's own
//! and its neighbours' values, and its spatial mean is 0: neither the mean over a ring nor a ridge on own values and ring means
//! can see it, and no two product genes share a pair, so one does not give away another. A model that decodes z from the
//! spot's own markers and t̄ from the neighbours' markers, and multiplies, can. The markers are many and weak, so
//! that without the product a linear fit leaves little to gain.
//!
//! Measured with a prototype of this model in numpy (two sections of 4,000 spots, `cp10k`, hidden by the release rule at .3;
//! masked MSE on the second section): ring3_mean .623, ridge_local .479, the true expectation .246; a two-layer transformer
//! over a spot and its 18 neighbours .380 after 1,000 steps of 96, and .480 where it sees the spot alone. Without the
//! product: .443, .324, .248, and the transformer .301: what it gains falls from 21 % of the ridge's error to 7 %, which is
//! the ridge's own estimation noise (177 weights a gene from some 1,200 entries).

use rayon::prelude::*;

use crate::draw::{DrawKey, Purpose, bernoulli, normal_pair};
use crate::nearest::knn;
use crate::processed::NO_NEIGHBOUR;
use crate::section::{Csr, Gene, ObsLabels, Section};

/// Smooth factors, and niches.
pub const N_SMOOTH: usize = 3;
/// Marker genes of each smooth factor.
pub const SMOOTH_MARKERS: usize = 3;
/// Doublings per unit of a smooth factor.
pub const SMOOTH_LOADING: f64 = 0.8;
/// Own states z.
pub const N_OWN: usize = 2;
/// Marker genes of each own state.
pub const OWN_MARKERS: usize = 10;
/// Sent states t.
pub const N_SENT: usize = 2;
/// Marker genes of each sent state.
pub const SENT_MARKERS: usize = 10;
/// Doublings per unit of an own or sent state.
pub const STATE_LOADING: f64 = 0.5;
/// Doublings per unit of the product.
pub const PRODUCT_LOADING: f64 = 2.0;
/// Where the neighbours' mean of a sent state is cut, in its standard deviations.
pub const MAX_SENT: f64 = 1.5;
/// Genes of constant expectation, which no entry loses.
pub const N_HOUSEKEEPING: usize = 6;
/// Expected count of a housekeeping gene.
pub const HOUSEKEEPING_COUNT: f64 = 60.0;
/// Expected count of the others where all factors are 0.
pub const BASE_COUNT: f64 = 10.0;
/// Standard deviation of the natural logarithm of a spot's depth.
pub const DEPTH_SIGMA: f64 = 0.15;
/// Probability that an entry is lost.
pub const DROPOUT: f64 = 0.28;
/// Distance of neighbouring spots, µm.
pub const SPACING_UM: f64 = 100.0;
/// Spots whose sent states reach a spot: its two hops.
const N_REACHING: usize = 18;
/// Waves of a smooth factor.
const N_WAVES: usize = 8;
/// Standard deviation of a wave's frequency along each axis, cycles per µm.
const WAVE_FREQUENCY: f64 = 1.0 / 1250.0;

/// Genes of a synthetic section, context genes not counted; those come after them and change no draw of theirs.
pub const N_GENES: usize =
    N_SMOOTH * SMOOTH_MARKERS + N_OWN * OWN_MARKERS + N_SENT * SENT_MARKERS + N_OWN * N_SENT + N_HOUSEKEEPING;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticSpec {
    /// Name of the section; observations are named after it.
    pub library_id: String,
    /// Number of spots; the lattice is about as wide as it is high.
    pub n_obs: u32,
    /// Seed of the factors, states and counts. Loadings are constants: sections of any seeds belong together.
    pub seed: u64,
    /// Whether product genes follow z · t̄.
    pub product: bool,
    /// Genes beyond [`N_GENES`], weakly bound to smooth factors and own states in turn.
    pub context_genes: u32,
}

/// A section and what made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    /// As an ingest would have read it, with the niche as a label column.
    pub section: Section,
    /// Expected count of every entry before depth and dropout, `[n_obs, genes]`, row-major.
    pub expected: Vec<f64>,
}

/// Makes the section of a spec.
pub fn synthesize(spec: &SyntheticSpec) -> Synthetic {
    let n_obs = spec.n_obs as usize;
    let key = DrawKey::new(spec.seed, Purpose::Synthetic);
    let (xy, array_row_col) = lattice(n_obs);
    let smooth: Vec<Vec<f64>> = (0..N_SMOOTH).map(|f| smooth_factor(key, f, &xy)).collect();
    let own: Vec<Vec<f64>> = (0..N_OWN).map(|c| states(key, Site::Own, c, n_obs)).collect();
    let sent: Vec<Vec<f64>> = (0..N_SENT).map(|d| states(key, Site::Sent, d, n_obs)).collect();
    let reaching = knn(&xy, N_REACHING);
    let received: Vec<Vec<f64>> = sent.iter().map(|t| mean_received(t, &reaching.values)).collect();

    let mut genes = Vec::with_capacity(N_GENES);
    let mut doublings: Vec<Vec<f64>> = Vec::with_capacity(N_GENES);
    let mut add = |symbol: String, base: f64, term: Vec<f64>| {
        genes.push(Gene { id: format!("SYN{:05}", genes.len() + 1), symbol });
        doublings.push(term.into_iter().map(|t| libm::log2(base) + t).collect());
    };
    let scaled = |factor: &[f64], loading: f64| factor.iter().map(|v| loading * v).collect::<Vec<f64>>();
    for (kind, factors, n_markers, loading) in [
        ("smooth", &smooth, SMOOTH_MARKERS, SMOOTH_LOADING),
        ("own", &own, OWN_MARKERS, STATE_LOADING),
        ("sent", &sent, SENT_MARKERS, STATE_LOADING),
    ] {
        for (f, factor) in factors.iter().enumerate() {
            (0..n_markers).for_each(|m| add(format!("{kind}{f}_{m}"), BASE_COUNT, scaled(factor, loading)));
        }
    }
    for (c, z) in own.iter().enumerate() {
        for (d, t) in received.iter().enumerate() {
            let loading = if spec.product { PRODUCT_LOADING } else { 0.0 };
            let product = z.iter().zip(t).map(|(z, t)| loading * z * t).collect();
            add(format!("product{c}x{d}"), BASE_COUNT, product);
        }
    }
    (0..N_HOUSEKEEPING).for_each(|h| add(format!("housekeeping{h}"), HOUSEKEEPING_COUNT, vec![0.0; n_obs]));
    for k in 0..spec.context_genes as usize {
        let (s, z) = (&smooth[k % N_SMOOTH], &own[k % N_OWN]);
        let term = s.iter().zip(z).map(|(s, z)| 0.5 * (SMOOTH_LOADING * s + STATE_LOADING * z)).collect();
        add(format!("context{k}"), BASE_COUNT, term);
    }

    let expected: Vec<f64> = (0..n_obs).flat_map(|i| doublings.iter().map(move |gene| libm::exp2(gene[i]))).collect();
    let section = Section {
        library_id: spec.library_id.clone(),
        donor_id: Some(format!("synthetic_{}", spec.seed)),
        source: format!("{}.h5ad", spec.library_id).into(),
        format: "synthetic",
        obs_ids: (0..n_obs).map(|i| format!("{}_{i:06}", spec.library_id)).collect(),
        genes,
        counts: counts(key, n_obs, &expected),
        xy,
        z: None,
        um_per_unit: Some(1.0),
        array_row_col: Some(array_row_col),
        labels: vec![ObsLabels {
            name: "niche".to_string(),
            values: (0..n_obs).map(|i| Some(niche(&smooth, i))).collect(),
        }],
        features: Vec::new(),
        image: None,
        pictures: None,
        boxes: None,
        notes: Vec::new(),
    };
    Synthetic { section, expected }
}

/// Streams of draws; the number is the last counter word.
#[derive(Clone, Copy)]
enum Site {
    Wave = 0,
    Own = 1,
    Sent = 2,
    Depth = 3,
    Dropout = 4,
    /// Pieces of a Poisson count use `Count` and the numbers above it.
    Count = 16,
}

/// Rows about as many as make the section square; odd rows are shifted by half a spacing, as Visium numbers them.
fn lattice(n_obs: usize) -> (Vec<[f64; 2]>, Vec<[i32; 2]>) {
    let row_distance = SPACING_UM * libm::sqrt(0.75);
    let n_rows = (libm::sqrt(n_obs as f64 * SPACING_UM / row_distance).round() as usize).max(1);
    let n_cols = n_obs.div_ceil(n_rows).max(1);
    (0..n_obs)
        .map(|i| {
            let (row, col) = (i / n_cols, i % n_cols);
            let shift = row % 2;
            let x = SPACING_UM * (col as f64 + 0.5 * shift as f64);
            ([x, row_distance * row as f64], [row as i32, (2 * col + shift) as i32])
        })
        .unzip()
}

/// A sum of random waves, brought to mean 0 and variance 1 over the section.
fn smooth_factor(key: DrawKey, factor: usize, xy: &[[f64; 2]]) -> Vec<f64> {
    let waves: Vec<[f64; 3]> = (0..N_WAVES)
        .map(|w| {
            let words = key.block([w as u32, factor as u32, 0, Site::Wave as u32]);
            let [fx, fy] =
                normal_pair(words[0], words[1]).map(|v| f64::from(v) * WAVE_FREQUENCY * std::f64::consts::TAU);
            [fx, fy, unit(words[2], words[3]) * std::f64::consts::TAU]
        })
        .collect();
    let sum = |p: &[f64; 2]| waves.iter().map(|[fx, fy, phase]| libm::cos(fx * p[0] + fy * p[1] + phase)).sum();
    standardised(xy.iter().map(sum).collect())
}

/// One state per spot, uniform on ±√3.
fn states(key: DrawKey, site: Site, factor: usize, n_obs: usize) -> Vec<f64> {
    (0..n_obs)
        .map(|i| {
            let words = key.block([i as u32, factor as u32, 0, site as u32]);
            (2.0 * unit(words[0], words[1]) - 1.0) * libm::sqrt(3.0)
        })
        .collect()
}

/// Mean over the spots that reach each spot, standardised and cut.
fn mean_received(sent: &[f64], reaching: &[u32]) -> Vec<f64> {
    let mean = |near: &[u32]| {
        let present = near.iter().filter(|&&j| j != NO_NEIGHBOUR);
        present.clone().map(|&j| sent[j as usize]).sum::<f64>() / present.count().max(1) as f64
    };
    let received = standardised(reaching.chunks(N_REACHING).map(mean).collect());
    received.into_iter().map(|t| t.clamp(-MAX_SENT, MAX_SENT)).collect()
}

fn standardised(mut values: Vec<f64>) -> Vec<f64> {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = libm::sqrt(values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n);
    values.iter_mut().for_each(|v| *v = if deviation > 0.0 { (*v - mean) / deviation } else { 0.0 });
    values
}

fn niche(smooth: &[Vec<f64>], i: usize) -> String {
    let mut largest = 0;
    for f in 1..smooth.len() {
        if smooth[f][i] > smooth[largest][i] {
            largest = f;
        }
    }
    format!("niche_{largest}")
}

fn counts(key: DrawKey, n_obs: usize, expected: &[f64]) -> Csr {
    let n_genes = expected.len() / n_obs.max(1);
    let rows: Vec<(Vec<u32>, Vec<f32>)> = (0..n_obs)
        .into_par_iter()
        .map(|i| {
            let words = key.block([i as u32, 0, 0, Site::Depth as u32]);
            let depth = libm::exp(DEPTH_SIGMA * f64::from(normal_pair(words[0], words[1])[0]));
            let (mut columns, mut values) = (Vec::new(), Vec::new());
            for (gene, mean) in expected[i * n_genes..(i + 1) * n_genes].iter().enumerate() {
                let housekeeping = (N_GENES - N_HOUSEKEEPING..N_GENES).contains(&gene);
                let lost = bernoulli(key.block([i as u32, gene as u32, 0, Site::Dropout as u32])[0], DROPOUT);
                if housekeeping || !lost {
                    let count = poisson(mean * depth, |piece| {
                        let words = key.block([i as u32, gene as u32, piece, Site::Count as u32]);
                        unit(words[0], words[1])
                    });
                    if count > 0 {
                        columns.push(gene as u32);
                        values.push(count as f32);
                    }
                }
            }
            (columns, values)
        })
        .collect();
    let mut out = Csr { n_cols: n_genes, indptr: vec![0], ..Csr::default() };
    for (columns, values) in rows {
        out.indices.extend(columns);
        out.values.extend(values);
        out.indptr.push(out.indices.len());
    }
    out
}

/// A Poisson count as the sum of counts of mean at most 30, each by inversion of its distribution function.
pub(super) fn poisson(mean: f64, uniform_of_piece: impl Fn(u32) -> f64) -> u32 {
    let n_pieces = (mean / 30.0).ceil().max(1.0) as u32;
    let mean = mean / f64::from(n_pieces);
    (0..n_pieces)
        .map(|piece| {
            let u = uniform_of_piece(piece);
            let mut probability = libm::exp(-mean);
            let mut below = probability;
            let mut count = 0;
            // 1e-17 of the distribution lies beyond 200 at a mean of 30 many times over
            while u >= below && count < 200 {
                count += 1;
                probability *= mean / f64::from(count);
                below += probability;
            }
            count
        })
        .sum()
}

/// 53 bits of two words as a uniform in [0, 1).
pub(super) fn unit(high: u32, low: u32) -> f64 {
    (((u64::from(high) << 32) | u64::from(low)) >> 11) as f64 / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests;
