//! What all fills of unseen genes have to keep to.

use super::*;
use crate::evaluate::gene_metrics::{Entries, Metric, Undefined, over_genes, per_gene};

const SHORT: Effort = Effort { mlp_steps: 60, mlp_seeds: 2, tangram_steps: 100 };

/// `n` records along a curve in 9 genes, in another unit on each side; where each is.
fn side(n: usize, by: f32, phase: f32) -> (Matrix<f32>, Vec<[f32; 3]>) {
    let t = |i: usize| i as f32 / n as f32 * 6.0 + phase;
    let gene = move |i: usize, g: usize| by * (1.5 + (t(i) * (1.0 + (g % 3) as f32 * 0.5) + g as f32).sin());
    let values = (0..n).flat_map(|i| (0..9).map(move |g| gene(i, g))).collect();
    (Matrix { n_cols: 9, values }, (0..n).map(|i| [i as f32, 0.0, 0.0]).collect())
}

const FOLD_OF: [u32; 9] = [0, 1, 2, 1, 2, 0, 2, 0, 1];

#[test]
fn every_fill_finds_what_follows_and_the_mean_does_not() {
    let ((spots, xyz), (cells, _)) = (side(80, 2.0, 0.05), side(120, 1.0, 0.0));
    let found = over_folds(&spots, &xyz, &cells, &FOLD_OF, &ReferenceFill::ALL, &SHORT);
    assert_eq!(found.len(), ReferenceFill::ALL.len());
    for (fill, imputed) in &found {
        let scores = per_gene(&spots, imputed, Entries::All, Undefined::Ours);
        let pcc = over_genes(&scores, Metric::Pcc).mean;
        let least = if *fill == ReferenceFill::GeneMean { -1e-9..1e-9 } else { 0.7..1.0 };
        assert!(least.contains(&pcc), "{}: {pcc}", fill.name());
        // In the cells' unit, which is half of the spots'; Tangram puts one cell and a half into each spot.
        let share = if *fill == ReferenceFill::Tangram { 1.5 } else { 1.0 };
        let mean = imputed.values.iter().sum::<f32>() / imputed.values.len() as f32 / share;
        assert!((mean - 1.5).abs() < 0.35, "{}: {mean}", fill.name());
    }
}

#[test]
fn a_folds_values_of_the_spots_reach_no_fill_of_it() {
    let ((spots, xyz), (cells, _)) = (side(40, 2.0, 0.05), side(60, 1.0, 0.0));
    let mut other = spots.clone();
    let hidden = |at: usize| FOLD_OF[at % 9] == 1;
    (0..other.values.len()).filter(|&at| hidden(at)).for_each(|at| other.values[at] = 50.0 - at as f32);
    let of = |spots: &Matrix<f32>| over_folds(spots, &xyz, &cells, &FOLD_OF, &ReferenceFill::ALL, &SHORT);
    for ((fill, a), (_, b)) in of(&spots).iter().zip(of(&other).iter()) {
        let same =
            (0..a.values.len()).filter(|&at| hidden(at)).all(|at| a.values[at].to_bits() == b.values[at].to_bits());
        assert!(same, "{} saw what is hidden", fill.name());
    }
}

#[test]
fn threads_change_no_bit() {
    let ((spots, xyz), (cells, _)) = (side(200, 2.0, 0.05), side(150, 1.0, 0.0));
    let on = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| {
            over_folds(
                &spots,
                &xyz,
                &cells,
                &FOLD_OF,
                &ReferenceFill::ALL,
                &Effort { tangram_steps: 5, mlp_steps: 5, ..SHORT },
            )
        })
    };
    let (one, four) = (on(1), on(4));
    for (fill, values) in &one {
        assert_eq!(values, &four[fill], "{}", fill.name());
    }
}

#[test]
fn the_fifty_nearest_are_weighted_as_in_the_specification() {
    // Cosines of a spot with four cells (spotdiff.md §3), the two best.
    let spot = alike::unit(&Matrix { n_cols: 3, values: vec![1., 0., 2.] });
    let cells = Matrix { n_cols: 3, values: vec![1., 0., 1.9, 0., 1., 0., 2., 0.5, 3., 1., 1., 1.] };
    let best = alike::best(&spot, &alike::unit(&cells));
    let near = |ours: f64, known: f64| assert!((ours - known).abs() < 2e-7, "{ours} against {known}");
    let order: Vec<u32> = best[0].iter().map(|of| of.0).collect();
    assert_eq!(order, [0, 2, 3, 1]);
    for (ours, known) in best[0].iter().zip([0.99978306, 0.98287219, 0.77459667, 0.0]) {
        near(f64::from(ours.1), known);
    }
    // The rest in f64: 1 − cosine would lose four digits in f32.
    let two = [0.99978306, 0.98287219];
    let plain = knn::positive(&two);
    near(plain[0], 0.5042647);
    near(plain[1], 0.4957353);
    let spage = spage::by_distance(&two);
    assert!((spage[0] - 0.98749228).abs() < 5e-7 && (spage[1] - 0.01250772).abs() < 5e-7, "{spage:?}");
    assert_eq!(spage::by_distance(&[0.5, -0.2]), [1.0, 0.0]);
    assert_eq!(knn::positive(&[-0.1, 0.0]), [0.0, 0.0]);
    let mean = alike::weighted_mean(&[vec![(0, two[0] as f32), (2, two[1] as f32)]], &cells, knn::positive);
    for (ours, known) in mean.values.iter().zip([1.4957353, 0.24786765, 2.44530883]) {
        near(f64::from(*ours), known);
    }
    let none = alike::weighted_mean(&[vec![(0, -0.5), (2, -0.5)]], &cells, knn::positive);
    assert_eq!(none.row(0)[0], 1.5, "the same weight for all where none has any");
}
