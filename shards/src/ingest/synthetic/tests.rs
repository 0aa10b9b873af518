//! The tissue is what its model says: down to the bits, in its counts, and in what no ring mean can see.

use super::*;
use crate::process::neighbours;
use crate::process::{FilterConfig, Normalize, ProcessConfig, SplitConfig, TopMoran, process};

fn spec(n_obs: u32, seed: u64, product: bool) -> SyntheticSpec {
    SyntheticSpec { library_id: format!("synthetic_{seed}"), n_obs, seed, product, context_genes: 0 }
}

fn of_kind<'a>(section: &'a Section, kind: &'a str) -> impl Iterator<Item = usize> + 'a {
    section.genes.iter().enumerate().filter(move |(_, g)| g.symbol.starts_with(kind)).map(|(at, _)| at)
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (standardised(a.to_vec()), standardised(b.to_vec()));
    a.iter().zip(&b).map(|(x, y)| x * y).sum::<f64>() / a.len() as f64
}

fn log2_expected(made: &Synthetic, gene: usize) -> Vec<f64> {
    made.expected.iter().skip(gene).step_by(N_GENES).map(|e| e.log2()).collect()
}

#[test]
fn a_spec_is_a_section_down_to_the_bits() {
    let a = synthesize(&spec(300, 5, true));
    assert_eq!(a, synthesize(&spec(300, 5, true)));
    assert_ne!(a.section.counts, synthesize(&spec(300, 6, true)).section.counts);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(a, one.install(|| synthesize(&spec(300, 5, true))));
}

#[test]
fn about_three_in_ten_entries_are_zero() {
    let made = synthesize(&spec(2000, 1, true));
    let dropped = N_GENES - N_HOUSEKEEPING;
    let counts = &made.section.counts;
    let present = counts.indices.iter().filter(|&&g| (g as usize) < dropped).count();
    let zeros = 1.0 - present as f64 / (2000 * dropped) as f64;
    // dropout .28 and the Poisson zeros of low expectations; the binomial deviation is .001
    assert!((0.28..0.33).contains(&zeros), "{zeros}");
    let housekeeping = counts.indices.len() - present;
    assert_eq!(housekeeping, 2000 * N_HOUSEKEEPING);
}

#[test]
fn poisson_has_its_mean_and_variance() {
    for mean in [0.3, 12.0, 95.0] {
        let key = DrawKey::new(3, Purpose::Synthetic);
        let draw = |i: u32| {
            poisson(mean, |piece| {
                let words = key.block([i, piece, 0, 99]);
                unit(words[0], words[1])
            })
        };
        let counts: Vec<f64> = (0..20_000).map(|i| f64::from(draw(i))).collect();
        let got = counts.iter().sum::<f64>() / 20_000.0;
        let variance = counts.iter().map(|c| (c - got) * (c - got)).sum::<f64>() / 20_000.0;
        // five standard errors: √(mean/n), and about mean · √(2/n) + the fourth cumulant's part
        assert!((got - mean).abs() < 5.0 * (mean / 20_000.0).sqrt(), "{got} for {mean}");
        let error = ((2.0 * mean * mean + mean) / 20_000.0).sqrt();
        assert!((variance - mean).abs() < 5.0 * error, "variance {variance} for {mean}");
    }
}

/// What makes the tissue worth its name: no own value and no ring mean carries the product.
#[test]
fn the_product_is_uncorrelated_with_own_values_and_ring_means() {
    let made = synthesize(&spec(4000, 2, true));
    let rings = neighbours::symmetrised_hops(&made.section.xy, 6, 3);
    let ring_mean = |values: &[f64], h: usize| -> Vec<f64> {
        let mean = |i| {
            let near = rings.others_within(i, h);
            near.iter().map(|&j| values[j as usize]).sum::<f64>() / near.len() as f64
        };
        (0..values.len()).map(mean).collect()
    };
    for product in of_kind(&made.section, "product") {
        let target = log2_expected(&made, product);
        let deviation = target.iter().map(|v| (v - BASE_COUNT.log2()).powi(2)).sum::<f64>() / 4000.0;
        assert!(deviation > 1.0, "the product moves its genes: variance {deviation}");
        for gene in 0..N_GENES - N_HOUSEKEEPING {
            let values = log2_expected(&made, gene);
            let own = if gene == product { 0.0 } else { correlation(&target, &values) };
            let around = [1, 3].map(|h| correlation(&target, &ring_mean(&values, h)));
            // independent at n = 4,000: standard error .016; smooth factors of few waves come in at the same size
            for r in [own, around[0], around[1]] {
                assert!(r.abs() < 0.1, "gene {gene} has r = {r} with product gene {product}");
            }
        }
    }
}

#[test]
fn switching_the_product_off_changes_its_genes_only() {
    let (on, off) = (synthesize(&spec(500, 3, true)), synthesize(&spec(500, 3, false)));
    let products: Vec<usize> = of_kind(&on.section, "product").collect();
    assert_eq!(products.len(), N_OWN * N_SENT);
    for gene in 0..N_GENES {
        let same = log2_expected(&on, gene) == log2_expected(&off, gene);
        assert_eq!(same, !products.contains(&gene), "gene {gene}");
    }
    let column = |made: &Synthetic, gene: u32| made.section.counts.select_columns(&[gene]).values;
    assert_eq!(column(&on, 0), column(&off, 0), "no draw moved");
}

#[test]
fn every_gene_and_spot_passes_the_default_filters() {
    let made = synthesize(&spec(2500, 4, true)).section;
    let niches: std::collections::BTreeSet<_> = made.labels[0].values.iter().flatten().cloned().collect();
    assert_eq!(niches.len(), N_SMOOTH);
    let filter = FilterConfig { top_moran: TopMoran::Genes(N_GENES as u32), ..FilterConfig::default() };
    let config = ProcessConfig { normalize: Normalize::Cp10k, ..ProcessConfig::default() };
    let processed = process(vec![made], &filter, &config, &SplitConfig::default()).unwrap();
    assert_eq!(processed.panel.n_selected(), N_GENES);
    let n_obs: usize = processed.pieces.iter().map(|p| p.n_obs()).sum();
    let guard: u64 = processed.ledger.entries.iter().map(|e| e.n).sum();
    assert_eq!(n_obs as u64 + guard, 2500, "only the guard band is dropped");
}
