//! The examples of `evaluation.md` §2. Tolerance 5e-9: they are printed with 8 decimals.

use super::*;
use crate::evaluate::gene_metrics::definitions::cosine;

const A: [[f64; 5]; 3] = [[0., 1., 2., 4., 8.], [1., 0., 0., 3., 1.], [0., 2., 1., 0., 3.]];
const B: [[f64; 5]; 3] = [[0.5, 1., 2.5, 3., 7.], [0.2, 0.4, 0.1, 1., 0.6], [0.1, 1.5, 1.2, 0.2, 2.]];
const MASK: [[u8; 3]; 5] = [[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 1]];

#[track_caller]
fn near(ours: f64, known: f64) {
    assert!((ours - known).abs() < 5e-9, "{ours} against {known}");
}

/// Columns as a matrix.
fn matrix(columns: &[[f64; 5]]) -> Matrix<f32> {
    let row = |i: usize| columns.iter().map(move |column| column[i] as f32);
    Matrix { n_cols: columns.len(), values: (0..5).flat_map(row).collect() }
}

fn hidden() -> Matrix<bool> {
    Matrix { n_cols: 3, values: MASK.concat().iter().map(|bit| *bit == 1).collect() }
}

/// PCC, SPCC, SSIM, RMSE, JS, COSSIM.
fn check(a: &[f64], b: &[f64], known: [f64; 6]) {
    let found = score(a, b, Undefined::Ours);
    for ((metric, found), known) in Metric::ALL.iter().zip(found.values).zip(known) {
        assert!((found - known).abs() < 5e-9, "{}: {found} against {known}", metric.name());
    }
    assert_eq!(found.reasons, [None; 6]);
    assert_eq!(score(a, b, Undefined::Parity).values, found.values, "nothing is odd here");
}

#[test]
fn columns_score_as_in_the_table() {
    check(&A[0], &B[0], [0.98660227, 1.0, 0.98176858, 0.16369322, 0.01576271, 0.99174862]);
    check(&A[1], &B[1], [0.85581650, 0.73786479, 0.80679595, 0.53699815, 0.09542148, 0.91440255]);
}

#[test]
fn a_column_of_zeros_is_the_releases_artefact_in_parity_and_a_flagged_value_in_ours() {
    let (a, b) = ([0.0; 5], [0.1, 0.2, 0.0, 0.0, 0.3]);
    let parity = score(&a, &b, Undefined::Parity);
    let [pcc, spcc, ssim, rmse, js, cossim] = parity.values;
    assert!(pcc.is_nan() && spcc.is_nan() && cossim == 0.0);
    assert!((2.5e-62..3.5e-62).contains(&ssim), "{ssim}");
    near(rmse, 1.0);
    assert!((js - 8.76).abs() < 0.005, "{js}");
    let ours = score(&a, &b, Undefined::Ours);
    assert_eq!(ours.values, [0.0, 0.0, 0.0, 1.0, std::f64::consts::LN_2, 0.0]);
    assert_eq!(ours.reasons, [Some(Reason::FlatTruth); 6]);
    // A constant prediction: Pearson and z-scores are undefined, shares and cosines are not.
    let constant = score(&b, &[0.5; 5], Undefined::Ours);
    let flat = Some(Reason::FlatImputed);
    assert_eq!(constant.reasons, [flat, flat, None, flat, None, None]);
    assert_eq!((constant.values[0], constant.values[3]), (0.0, 1.0));
    near(score(&b, &[0.5; 5], Undefined::Parity).values[3], 1.0);
}

#[test]
fn genes_have_a_mean_and_a_median() {
    let found = over_genes(&per_gene(&matrix(&A), &matrix(&B), Entries::All, Undefined::Ours), Metric::Pcc);
    // f32 in: 1e-7.
    assert!((found.mean - 0.93847793).abs() < 1e-7 && (found.median - 0.97301504).abs() < 1e-7, "{found:?}");
    assert_eq!((found.n_used, found.n_skipped, found.reasons.len()), (3, 0, 0));
}

#[test]
fn hidden_entries_alone_are_scored() {
    let mask = hidden();
    let scores = per_gene(&matrix(&A), &matrix(&B), Entries::Hidden(&mask), Undefined::Ours);
    let of = |metric: usize| -> Vec<f64> { scores.iter().map(|s| s.as_ref().unwrap().values[metric]).collect() };
    let known = [[0.99276775, 0.94491118, 0.96949702], [0.12026845, 0.33193017, 0.24699384]];
    for (found, known) in of(0).into_iter().zip(known[0]).chain(of(3).into_iter().zip(known[1])) {
        assert!((found - known).abs() < 3e-7, "{found} against {known}"); // f32 in, and a root of 2 − 2r
    }
    assert!((over_genes(&scores, Metric::Pcc).mean - 0.96905865).abs() < 1e-7);
    let one = flat(&matrix(&A), &matrix(&B), Entries::Hidden(&mask));
    assert!((one.pcc - 0.96133497).abs() < 1e-7 && (one.mse - 0.68272727).abs() < 1e-7, "{one:?}");
    assert_eq!(one.n, 11);
}

#[test]
fn genes_without_entries_without_truth_or_without_a_value_are_counted() {
    let (mut truth, mut imputed, mut mask) = (matrix(&A), matrix(&B), hidden());
    mask.values[3] = false; // gene 0 keeps 3 of its 4
    mask.values[4] = false; // gene 1 keeps 2 of its 3
    imputed.values[2] = f32::NAN;
    let scores = per_gene(&truth, &imputed, Entries::Hidden(&mask), Undefined::Ours);
    let found = over_genes(&scores, Metric::Js);
    assert_eq!((found.n_used, found.n_skipped), (2, 1));
    assert_eq!(found.reasons, BTreeMap::from([(Reason::TooFew, 1), (Reason::Missing, 1)]));
    assert_eq!(scores[2].as_ref().unwrap().values, [0.0, 0.0, 0.0, 1.5, 1.0, 0.0], "stDiff's");
    truth.values.iter_mut().step_by(3).for_each(|v| *v = f32::NAN);
    let all = per_gene(&truth, &matrix(&B), Entries::All, Undefined::Ours);
    assert!(all[0].is_none() && all[1].is_some(), "a gene that was not measured is left out");
    let parity = per_gene(&matrix(&[A[0], [0.0; 5]]), &matrix(&[B[0], B[1]]), Entries::All, Undefined::Parity);
    assert_eq!(over_genes(&parity, Metric::Pcc).n_skipped, 1, "the releases' NaN is left out and counted");
}

#[test]
fn negative_predictions_are_clipped_where_a_sum_or_a_maximum_divides() {
    let (a, b) = ([1.0, 0.0, 2.0, 3.0], [-1.0, -0.5, 0.5, 1.0]);
    let ours = score(&a, &b, Undefined::Ours);
    let clipped = score(&a, &b.map(|v: f64| v.max(0.0)), Undefined::Ours);
    assert_eq!((ours.values[2], ours.values[4]), (clipped.values[2], clipped.values[4]));
    assert_ne!(ours.values[0], clipped.values[0]);
    let parity = score(&a, &b, Undefined::Parity);
    assert!(!parity.values[4].is_finite() && parity.values[2] != ours.values[2], "{parity:?}");
    let none = score(&a, &[-1.0, -2.0, -1.5, -3.0], Undefined::Ours);
    assert_eq!((none.values[2], none.reasons[2]), (0.0, Some(Reason::FlatImputed)));
}

#[test]
fn the_single_metrics_are_the_known_ones() {
    near(spearman(&[1., 2., 2., 3.], &[1., 3., 2., 4.]).unwrap(), 0.9486832981);
    near(js(&[0.5, 0.5], &[1., 0.], Undefined::Ours).unwrap(), 0.2157615543);
    near(js(&[0., 1.], &[1., 0.], Undefined::Ours).unwrap(), std::f64::consts::LN_2);
    near(cosine(&[1., 2., 0.], &[2., 1., 1.]).unwrap(), 0.7302967434);
    near(cosine(&[1., 0.], &[0., 2.]).unwrap(), 0.0);
    near(cosine(&[1., 2.], &[-1., -2.]).unwrap(), -1.0);
    let (a, b) = (&A[1], &B[1]);
    near(z_scored_rmse(a, b).unwrap(), (2.0 - 2.0 * pearson(a, b).unwrap()).sqrt());
    // Far from zero: the centred form loses nothing (§0).
    near(pearson(&[1e6, 1e6 + 1.0, 1e6 + 2.0], &[0., 1., 3.]).unwrap(), 0.9819805061);
}
