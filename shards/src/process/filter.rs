//! Drops observations and genes by their totals (`spared.md` §1): strict inequalities, genes counted after observations.

use crate::section::Csr;

/// Rows whose total lies strictly between the bounds, ascending.
pub fn rows_between(counts: &Csr, min: f64, max: f64) -> Vec<u32> {
    keep(&counts.row_sums(), |total| min < total && total < max)
}

/// Rows with any count, ascending.
pub fn rows_with_counts(counts: &Csr) -> Vec<u32> {
    keep(&counts.row_sums(), |total| total > 0.0)
}

/// Genes whose total over all sections lies strictly between the bounds, ascending.
pub fn genes_between(counts: &[Csr], min: f64, max: f64) -> Vec<u32> {
    keep(&gene_totals(counts), |total| min < total && total < max)
}

/// Those of `genes` that at least `min_obs` observations of all sections have a count of.
pub fn genes_in(counts: &[Csr], genes: &[u32], min_obs: u32) -> Vec<u32> {
    let mut n_obs = vec![0u32; counts.first().map_or(0, |c| c.n_cols)];
    for section in counts {
        for &column in &section.indices {
            n_obs[column as usize] += 1;
        }
    }
    genes.iter().copied().filter(|&gene| n_obs[gene as usize] >= min_obs).collect()
}

/// Total of every gene over all sections, f64, in the order sections and rows come.
pub fn gene_totals(counts: &[Csr]) -> Vec<f64> {
    let mut totals = vec![0.0; counts.first().map_or(0, |c| c.n_cols)];
    for section in counts {
        for (&column, &value) in section.indices.iter().zip(&section.values) {
            totals[column as usize] += f64::from(value);
        }
    }
    totals
}

/// The positions of `0..n` that are not in `kept` (ascending).
pub(super) fn complement(kept: &[u32], n: usize) -> Vec<u32> {
    let mut is_kept = vec![false; n];
    for &k in kept {
        is_kept[k as usize] = true;
    }
    (0..n as u32).filter(|&i| !is_kept[i as usize]).collect()
}

fn keep(totals: &[f64], passes: impl Fn(f64) -> bool) -> Vec<u32> {
    (0..totals.len() as u32).filter(|&i| passes(totals[i as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::csr;

    #[test]
    fn both_bounds_are_strict() {
        let counts = csr(&[&[10.0, 0.0], &[11.0, 0.0], &[19.0, 0.0], &[15.0, 5.0]]);
        assert_eq!(rows_between(&counts, 10.0, 20.0), [1, 2]);
    }

    #[test]
    fn genes_are_counted_over_all_sections() {
        let a = csr(&[&[6.0, 10.0, 0.0]]);
        let b = csr(&[&[5.0, 0.0, 100.0]]);
        assert_eq!(genes_between(&[a, b], 10.0, 100.0), [0]);
    }

    #[test]
    fn a_gene_is_counted_in_enough_observations() {
        let counts = [csr(&[&[6.0, 1.0, 0.0], &[0.0, 1.0, 0.0]]), csr(&[&[0.0, 1.0, 3.0]])];
        assert_eq!(genes_in(&counts, &[0, 1, 2], 2), [1]);
        assert_eq!(genes_in(&counts, &[0, 2], 1), [0, 2]);
    }

    #[test]
    fn an_empty_row_is_found() {
        assert_eq!(rows_with_counts(&csr(&[&[0.0, 1.0], &[0.0, 0.0], &[2.0, 0.0]])), [0, 2]);
    }
}
