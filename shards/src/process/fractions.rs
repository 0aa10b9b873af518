//! Expressed fractions and the gene prefix they select (`spared.md` §2).

use crate::section::Csr;

/// Shares of observations with a count, per gene.
#[derive(Debug, Clone, PartialEq)]
pub struct Fractions {
    /// Minimum over sections of the share within the section.
    pub exp_frac: Vec<f64>,
    /// Share over all observations.
    pub glob_exp_frac: Vec<f64>,
}

/// Fractions on raw counts, after the observation filter and before the gene filters. Sections without a row are passed over.
pub fn expressed(counts: &[Csr]) -> Fractions {
    let n_genes = counts.first().map_or(0, |c| c.n_cols);
    let mut exp_frac = vec![1.0_f64; n_genes];
    let mut expressing_overall = vec![0_u64; n_genes];
    let mut n_obs = 0_usize;
    for section in counts.iter().filter(|c| c.n_rows() > 0) {
        let mut expressing = vec![0_u64; n_genes];
        for &column in &section.indices {
            expressing[column as usize] += 1;
        }
        for gene in 0..n_genes {
            exp_frac[gene] = exp_frac[gene].min(expressing[gene] as f64 / section.n_rows() as f64);
            expressing_overall[gene] += expressing[gene];
        }
        n_obs += section.n_rows();
    }
    let glob_exp_frac = expressing_overall.iter().map(|&n| n as f64 / n_obs.max(1) as f64).collect();
    Fractions { exp_frac, glob_exp_frac }
}

/// The largest k whose first k genes, sorted by `exp_frac` descending (ties by position, that is by id), have a mean
/// `glob_exp_frac` of at least `real_data_percentage`; returned as positions ascending.
pub fn select_prefix(genes: &[u32], fractions: &Fractions, real_data_percentage: f64) -> Vec<u32> {
    let mut order = genes.to_vec();
    order.sort_by(|&a, &b| fractions.exp_frac[b as usize].total_cmp(&fractions.exp_frac[a as usize]).then(a.cmp(&b)));
    let mut sum = 0.0;
    let mut kept = 0;
    for (i, &gene) in order.iter().enumerate() {
        sum += fractions.glob_exp_frac[gene as usize];
        if sum / (i + 1) as f64 >= real_data_percentage {
            kept = i + 1;
        }
    }
    order.truncate(kept);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fixture::csr;

    #[test]
    fn the_example_of_the_specification_keeps_five_genes() {
        let glob_exp_frac = vec![0.95, 0.9, 0.8, 0.6, 0.5, 0.3, 0.2, 0.1];
        // sorted by exp_frac, which need not be the order of glob_exp_frac's columns
        let exp_frac = vec![0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
        let all: Vec<u32> = (0..8).collect();
        let fractions = Fractions { exp_frac, glob_exp_frac };
        assert_eq!(select_prefix(&all, &fractions, 0.7), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_largest_prefix_counts_not_the_first_that_fails() {
        // running means .5, .7, .8: the first prefix fails, the third passes
        let fractions = Fractions { exp_frac: vec![0.9, 0.8, 0.7], glob_exp_frac: vec![0.5, 0.9, 1.0] };
        assert_eq!(select_prefix(&[0, 1, 2], &fractions, 0.7), [0, 1, 2]);
    }

    #[test]
    fn the_minimum_over_sections_and_the_share_over_all() {
        let a = csr(&[&[1.0, 0.0], &[2.0, 0.0], &[0.0, 3.0], &[1.0, 1.0]]);
        let b = csr(&[&[1.0, 1.0], &[0.0, 2.0]]);
        let got = expressed(&[a, b]);
        assert_eq!(got.exp_frac, [0.5, 0.5]);
        assert_eq!(got.glob_exp_frac, [4.0 / 6.0, 4.0 / 6.0]);
    }
}
