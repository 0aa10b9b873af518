//! `tangram`: a soft map of cells to spots (the idea of Tangram, Biancalani et al. 2021, by `systems.md` §2).
//!
//! P = softmax over spots of a free matrix `[cells, spots]`; Pᵀ times the cells' genes is to have the spots' genes' cosines, and
//! P's mean over cells the spots' density. Adam at .1, every cell and spot in each step. Products go spot by spot and cell by
//! cell in blocks, so that their sums have one order whatever the threads.

use rayon::prelude::*;
use syncytia_shards::draw::{DrawKey, Purpose, normals};
use syncytia_shards::processed::Matrix;

use super::Given;
use super::product::{product, view};
use crate::elementwise::exp::exp;
use crate::optim::schedule::Schedule;
use crate::optim::{OptimConfig, adamw};

/// Adam's rate.
const RATE: f64 = 0.1;
/// Rows of a product on one thread.
const BLOCK: usize = 64;

/// The map, its loss and what it tells, on `n` spots and `c` cells.
struct Map<'a> {
    /// `[c, V]`.
    cells: &'a Matrix<f32>,
    /// `[n, V]`.
    spots: &'a Matrix<f32>,
    /// Share of all counts in each spot, `[n]`.
    density: Vec<f64>,
}

/// Predictions `[n, H]` after this many steps, in the cells' unit; values below 0 on either side count as 0.
pub(super) fn fill(given: &Given, steps: u64) -> Matrix<f32> {
    let kept =
        |rows: &Matrix<f32>| Matrix { n_cols: rows.n_cols, values: rows.values.iter().map(|v| v.max(0.0)).collect() };
    let (cells, spots) = (kept(given.cells), kept(given.spots));
    let map = Map { density: shares(&spots), cells: &cells, spots: &spots };
    let mut free = vec![0.0f32; cells.n_rows() * spots.n_rows()];
    normals(DrawKey::new(0, Purpose::ReferenceFill), [0, 0, u32::MAX], &mut free);
    map.fit(&mut free, steps);
    let mut shares = vec![0.0; free.len()];
    softmax(&free, spots.n_rows(), &mut shares);
    mapped(&shares, given.unseen)
}

/// Of all values, each spot's part; even where there are none.
fn shares(spots: &Matrix<f32>) -> Vec<f64> {
    let n = spots.n_rows();
    let sums: Vec<f64> = (0..n).map(|i| spots.row(i).iter().map(|&v| f64::from(v)).sum()).collect();
    let all: f64 = sums.iter().sum();
    sums.iter().map(|sum| if all > 0.0 { sum / all } else { 1.0 / n as f64 }).collect()
}

/// Rows of a free matrix `[c, n]` as shares of 1.
fn softmax(free: &[f32], n: usize, shares: &mut [f32]) {
    shares.par_chunks_mut(n).zip(free.par_chunks(n)).for_each(|(out, row)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        exponentials(row, most, out);
        let sum = (1.0 / out.iter().map(|&v| f64::from(v)).sum::<f64>()) as f32;
        out.iter_mut().for_each(|v| *v *= sum);
    });
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl", "x86_64+avx2"))]
fn exponentials(row: &[f32], most: f32, out: &mut [f32]) {
    out.iter_mut().zip(row).for_each(|(out, &v)| *out = exp(v - most));
}

/// Pᵀ · values, `[n, k]`.
fn mapped(shares: &[f32], values: &Matrix<f32>) -> Matrix<f32> {
    let (c, k) = (values.n_rows(), values.n_cols);
    let n = shares.len() / c;
    let mut out = vec![0.0; n * k];
    let columns = view(shares, c, n).transpose(); // [n, c]
    out.par_chunks_mut(BLOCK * k).enumerate().for_each(|(block, out)| {
        product(columns.subrows(block * BLOCK, out.len() / k), view(&values.values, c, k), out);
    });
    Matrix { n_cols: k, values: out }
}

impl Map<'_> {
    fn fit(&self, free: &mut [f32], steps: u64) {
        let n = self.spots.n_rows();
        let config = OptimConfig {
            lr: RATE,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: None,
            ema: None,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            schedule_steps: None,
        };
        // As large as all spots times all cells, so they are made once.
        let [mut first, mut second, mut shares, mut gradient] = [(); 4].map(|()| vec![0.0; free.len()]);
        for step in 1..=steps {
            softmax(free, n, &mut shares);
            self.gradient(&shares, &mut gradient);
            let rows = gradient.par_chunks(n).zip(free.par_chunks_mut(n));
            rows.zip(first.par_chunks_mut(n).zip(second.par_chunks_mut(n))).for_each(|((g, p), (m, v))| {
                adamw::update(&config, RATE, step, g, p, m, v);
            });
        }
    }

    /// −mean over genes of the cosine of what is mapped and what is there, over spots; and KL(density ‖ mean of P over cells).
    #[cfg(test)]
    fn loss(&self, shares: &[f32]) -> [f64; 2] {
        let told = mapped(shares, self.cells);
        let cosines = self.cosines(&told);
        let mean = self.mean_over_cells(shares);
        let divergence = self.density.iter().zip(&mean).filter(|(d, _)| **d > 0.0).map(|(d, m)| d * libm::log(d / m));
        [-cosines.iter().map(|of| of.cosine).sum::<f64>() / cosines.len() as f64, divergence.sum()]
    }

    /// Of each spot.
    fn mean_over_cells(&self, shares: &[f32]) -> Vec<f64> {
        let n = self.spots.n_rows();
        let mut sums = vec![0.0; n];
        shares.chunks(n).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v)));
        let cells = self.cells.n_rows() as f64;
        sums.into_iter().map(|sum| sum / cells).collect()
    }

    fn cosines(&self, told: &Matrix<f32>) -> Vec<Cosine> {
        let genes = told.n_cols;
        let mut sums = vec![[0.0f64; 3]; genes];
        for (told, real) in told.values.chunks(genes).zip(self.spots.values.chunks(genes)) {
            for ((sums, &t), &r) in sums.iter_mut().zip(told).zip(real) {
                let (t, r) = (f64::from(t), f64::from(r));
                *sums = [sums[0] + t * t, sums[1] + r * r, sums[2] + t * r];
            }
        }
        let of = |[tt, rr, tr]: [f64; 3]| {
            let (told, real) = (tt.sqrt().max(1e-8), rr.sqrt().max(1e-8));
            Cosine { cosine: tr / (told * real), told, real }
        };
        sums.into_iter().map(of).collect()
    }

    /// Fills `gradient` with that of the loss in the free matrix, `[c, n]`.
    fn gradient(&self, shares: &[f32], gradient: &mut [f32]) {
        let (n, c, genes) = (self.spots.n_rows(), self.cells.n_rows(), self.cells.n_cols);
        let told = mapped(shares, self.cells);
        let cosines = self.cosines(&told);
        let at = |i: usize| {
            let of = &cosines[i % genes];
            let slope = f64::from(self.spots.values[i]) / (of.told * of.real)
                - of.cosine * f64::from(told.values[i]) / (of.told * of.told);
            (-slope / genes as f64) as f32
        };
        let by_told: Vec<f32> = (0..n * genes).into_par_iter().map(at).collect(); // [n, V]
        let mean = self.mean_over_cells(shares);
        let by_mean: Vec<f32> =
            self.density.iter().zip(&mean).map(|(d, m)| (-d / (m.max(1e-30) * c as f64)) as f32).collect();
        let blocks = gradient.par_chunks_mut(BLOCK * n).zip(shares.par_chunks(BLOCK * n));
        blocks.zip(self.cells.values.par_chunks(BLOCK * genes)).for_each(|((out, shares), cells)| {
            let rows = cells.len() / genes;
            product(view(cells, rows, genes), view(&by_told, n, genes).transpose(), out);
            for (out, shares) in out.chunks_mut(n).zip(shares.chunks(n)) {
                through_softmax(out, shares, &by_mean);
            }
        });
    }
}

/// From the slopes in the shares, less `by_mean`, to those in the free row.
fn through_softmax(slopes: &mut [f32], shares: &[f32], by_mean: &[f32]) {
    slopes.iter_mut().zip(by_mean).for_each(|(slope, by)| *slope += by);
    let mean: f64 = slopes.iter().zip(shares).map(|(&s, &p)| f64::from(s) * f64::from(p)).sum();
    let mean = mean as f32;
    slopes.iter_mut().zip(shares).for_each(|(slope, share)| *slope = share * (*slope - mean));
}

struct Cosine {
    cosine: f64,
    /// Lengths of both columns.
    told: f64,
    real: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: [f32; 6] = [0., 1., -1., 0.5, 0., 0.2];

    fn sides() -> [Matrix<f32>; 2] {
        [vec![1., 2., 3., 1.], vec![1., 1., 2., 1., 1., 2.]].map(|values| Matrix { n_cols: 2, values })
    }

    fn shares_of(free: &[f32]) -> Vec<f32> {
        let mut shares = vec![0.0; free.len()];
        softmax(free, 3, &mut shares);
        shares
    }

    /// The vector of `systems.md`; tolerance 2e-7: f32.
    #[test]
    fn the_map_and_its_loss_are_the_known_ones() {
        let [cells, spots] = sides();
        let map = Map { cells: &cells, spots: &spots, density: vec![0.3, 0.3, 0.4] };
        let shares = shares_of(&FREE);
        let near = |ours: &[f32], known: &[f64]| {
            ours.iter()
                .zip(known)
                .for_each(|(o, k)| assert!((f64::from(*o) - k).abs() < 2e-7, "{ours:?} against {known:?}"));
        };
        near(&shares, &[0.24472847, 0.66524096, 0.09003057, 0.42601251, 0.25838965, 0.31559783]);
        let told = mapped(&shares, &cells);
        near(&told.values, &[1.52276602, 0.91546946, 1.44040991, 1.58887156, 1.03682407, 0.49565898]);
        let [genes, density] = map.loss(&shares);
        assert!((genes + 0.85052592).abs() < 1e-7 && (density - 0.10881891).abs() < 1e-7, "{genes} {density}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss_and_steps_follow_it() {
        let [cells, spots] = sides();
        let map = Map { cells: &cells, spots: &spots, density: vec![0.3, 0.3, 0.4] };
        let loss = |free: &[f32]| map.loss(&shares_of(free)).iter().sum::<f64>();
        let mut gradient = [0.0; 6];
        map.gradient(&shares_of(&FREE), &mut gradient);
        for at in 0..6 {
            let moved = |by: f32| {
                let mut free = FREE;
                free[at] += by;
                loss(&free)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            // f32 shares, and the curvature over 2e-2.
            assert!((f64::from(gradient[at]) - slope).abs() < 5e-5, "{at}: {} against {slope}", gradient[at]);
        }
        let mut free = FREE;
        map.fit(&mut free, 200);
        assert!(loss(&free) < -0.9, "{}", loss(&free));
    }

    #[test]
    fn a_gene_follows_those_it_goes_with() {
        // Cells and spots of two kinds; the unseen gene marks the second.
        let of = |n: usize| Matrix {
            n_cols: 2,
            values: (0..n).flat_map(|i| if i % 2 == 0 { [3., 0.1] } else { [0.1, 3.] }).collect(),
        };
        let unseen = Matrix { n_cols: 1, values: (0..20).map(|i| (i % 2) as f32).collect() };
        let xyz = vec![[0.0; 3]; 30];
        let found = fill(&Given { spots: &of(30), xyz: &xyz, cells: &of(20), unseen: &unseen }, 200);
        let (low, high): (Vec<f32>, Vec<f32>) = found.values.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
        let most = low.iter().copied().fold(f32::MIN, f32::max);
        assert!(high.iter().all(|v| *v > 2.0 * most), "{low:?} {high:?}");
    }
}
