//! Counts → log2(transcripts per million + 1), or log2(counts per 10⁴ + 1) (`spared.md` §3).
//!
//! The denominator is the sum over **all** genes of the panel, whatever genes are asked for: the layers of 32 genes and a
//! strict protocol that hides some counts both go through here.

use rayon::prelude::*;

use crate::processed::Matrix;
use crate::section::Csr;

/// log2(TPM + 1) of the selected genes, `[n_obs, selected]`: q = count / length, tpm = 10⁶ · q / Σ q over all columns of
/// `counts`; an observation without any count gives zeros.
///
/// `lengths` holds one positive length per column of `counts`.
pub fn tpm_log2(counts: &Csr, lengths: &[f64], selected: &[u32]) -> Matrix<f32> {
    assert_eq!(lengths.len(), counts.n_cols, "one length per gene of the panel");
    log2_of_share(counts, 1e6, selected, |gene| lengths[gene])
}

/// TPM of the selected genes, `[n_obs, selected]`, not logged.
pub fn tpm(counts: &Csr, lengths: &[f64], selected: &[u32]) -> Matrix<f32> {
    assert_eq!(lengths.len(), counts.n_cols, "one length per gene of the panel");
    of_share(counts, selected, |gene| lengths[gene], |share| 1e6 * share)
}

/// log2(counts per 10⁴ + 1) of the selected genes, `[n_obs, selected]`; the sum runs over all columns of `counts`.
pub fn cp10k_log2(counts: &Csr, selected: &[u32]) -> Matrix<f32> {
    log2_of_share(counts, 1e4, selected, |_| 1.0)
}

fn log2_of_share(counts: &Csr, scale: f64, selected: &[u32], length: impl Fn(usize) -> f64 + Sync) -> Matrix<f32> {
    // libm: the same bits on every host
    of_share(counts, selected, length, |share| libm::log2(scale * share + 1.0))
}

/// `value` of each selected gene's share q / Σ q, q = count / length.
fn of_share(
    counts: &Csr,
    selected: &[u32],
    length: impl Fn(usize) -> f64 + Sync,
    value_of: impl Fn(f64) -> f64 + Sync,
) -> Matrix<f32> {
    const NOT_SELECTED: u32 = u32::MAX;
    let n_cols = selected.len();
    let mut layer_column = vec![NOT_SELECTED; counts.n_cols];
    for (column, &gene) in selected.iter().enumerate() {
        layer_column[gene as usize] = column as u32;
    }
    let mut values = vec![0.0_f32; counts.n_rows() * n_cols];
    if n_cols > 0 {
        values.par_chunks_mut(n_cols).enumerate().for_each(|(i, out)| {
            let (genes, row) = counts.row(i);
            let total: f64 = genes.iter().zip(row).map(|(&g, &v)| f64::from(v) / length(g as usize)).sum();
            if total <= 0.0 {
                return;
            }
            for (&gene, &value) in genes.iter().zip(row) {
                let column = layer_column[gene as usize];
                if column != NOT_SELECTED {
                    let share = f64::from(value) / length(gene as usize) / total;
                    out[column as usize] = value_of(share) as f32;
                }
            }
        });
    }
    Matrix { n_cols, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::csr;

    /// f32 of a value near 20 has a spacing of 1.9e-6.
    fn assert_near(got: &[f32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 2e-6, "{got:?} against {expected:?}");
        }
    }

    #[test]
    fn the_examples_of_the_specification() {
        let counts = csr(&[&[10.0, 0.0, 5.0], &[1.0, 20.0, 0.0], &[0.0, 0.0, 0.0]]);
        let layer = tpm_log2(&counts, &[1000.0, 2000.0, 500.0], &[0, 1, 2]);
        assert_near(layer.row(0), &[18.93157145, 0.0, 18.93157145]);
        assert_near(layer.row(1), &[16.47215282, 19.79406663, 0.0]);
        assert_eq!(layer.row(2), [0.0, 0.0, 0.0], "0/0 is 0");
    }

    #[test]
    fn a_selection_keeps_the_sum_over_the_whole_panel() {
        let counts = csr(&[&[1.0, 20.0, 7.0], &[3.0, 0.0, 2.0]]);
        let lengths = [1000.0, 2000.0, 500.0];
        let whole = tpm_log2(&counts, &lengths, &[0, 1, 2]);
        let part = tpm_log2(&counts, &lengths, &[2, 0]);
        for i in 0..2 {
            assert_eq!(part.row(i), [whole.row(i)[2], whole.row(i)[0]]);
        }
    }

    #[test]
    fn counts_per_ten_thousand() {
        // 1 of 4 counts = 2,500 per 10⁴
        let layer = cp10k_log2(&csr(&[&[1.0, 3.0]]), &[0]);
        assert_near(layer.row(0), &[2501.0_f64.log2()]);
    }
}
