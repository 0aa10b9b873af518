//! The metrics of one column: `a` true, `b` imputed, of one length.

use super::{Reason, Undefined};

/// What a metric is where it is not defined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Odd {
    /// The releases' value.
    pub parity: f64,
    /// Why.
    pub reason: Reason,
}

type Found = Result<f64, Odd>;

/// In place of 0/0 in the releases.
const TINY: f64 = 1e-20;

fn odd(parity: f64, truth_is: bool) -> Odd {
    Odd { parity, reason: if truth_is { Reason::FlatTruth } else { Reason::FlatImputed } }
}

fn flat(values: &[f64]) -> bool {
    values.iter().all(|v| *v == values[0])
}

/// Mean; of equal values that value itself, so that their deviation is exactly 0.
fn mean(values: &[f64]) -> f64 {
    if flat(values) { values[0] } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Mean of the products of the deviations from `ma`, `mb`: the population covariance.
fn covariance(a: &[f64], b: &[f64], ma: f64, mb: f64) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>() / a.len() as f64
}

/// Pearson's r.
///
/// # Errors
/// Where either column is constant or there is none.
pub fn pearson(a: &[f64], b: &[f64]) -> Found {
    if a.is_empty() || flat(a) || flat(b) {
        return Err(odd(f64::NAN, a.is_empty() || flat(a)));
    }
    let (ma, mb) = (mean(a), mean(b));
    let scale = (covariance(a, a, ma, ma) * covariance(b, b, mb, mb)).sqrt();
    // Deviations so small that their squares vanish are none.
    if scale > 0.0 { Ok((covariance(a, b, ma, mb) / scale).clamp(-1.0, 1.0)) } else { Err(odd(f64::NAN, false)) }
}

/// Spearman's r: Pearson's of ranks, ties with their mean rank.
///
/// # Errors
/// As of [`pearson`].
pub fn spearman(a: &[f64], b: &[f64]) -> Found {
    pearson(&ranks(a), &ranks(b))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]).scan(0, |first, tied| {
        let from = *first;
        *first += tied.len();
        Some((from, tied))
    }) {
        let (first, tied) = tied;
        tied.iter().for_each(|&i| ranks[i] = first as f64 + (tied.len() as f64 + 1.0) / 2.0);
    }
    ranks
}

/// SSIM of the columns divided by their maxima, in one window; M is the smaller of both maxima after that, as in the
/// release: 1 unless a column is all zero.
///
/// # Errors
/// Where a column has no value above zero.
pub fn ssim(a: &[f64], b: &[f64], undefined: Undefined) -> Found {
    let largest = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let kept = |values: &[f64]| -> Vec<f64> {
        let lowest = if undefined == Undefined::Ours { 0.0 } else { f64::NEG_INFINITY };
        values.iter().map(|v| v.max(lowest)).collect()
    };
    let scaled = |values: &[f64]| -> Vec<f64> {
        let by = largest(values);
        values.iter().map(|v| if by == 0.0 && *v == 0.0 { TINY } else { v / by }).collect()
    };
    let (a, b) = (kept(a), kept(b));
    let (top_a, top_b) = (largest(&a), largest(&b));
    let (x, y) = (scaled(&a), scaled(&b));
    let value = windowed(&x, &y, largest(&x).min(largest(&y)));
    let defined = match undefined {
        Undefined::Ours => top_a > 0.0 && top_b > 0.0,
        Undefined::Parity => top_a != 0.0 && top_b != 0.0,
    };
    if defined { Ok(value) } else { Err(odd(value, top_a <= 0.0)) }
}

fn windowed(x: &[f64], y: &[f64], m: f64) -> f64 {
    let (c1, c2) = ((0.01 * m).powi(2), (0.03 * m).powi(2));
    let c3 = c2 / 2.0;
    let (mx, my) = (mean(x), mean(y));
    let (vx, vy, vxy) = (covariance(x, x, mx, mx), covariance(y, y, my, my), covariance(x, y, mx, my));
    let (sx, sy) = (vx.sqrt(), vy.sqrt());
    let luminance = (2.0 * mx * my + c1) / (mx * mx + my * my + c1);
    let contrast = (2.0 * sx * sy + c2) / (vx + vy + c2);
    let structure = (vxy + c3) / (sx * sy + c3);
    luminance * contrast * structure
}

/// Root mean square difference of the columns in their own standard deviations: √(2 − 2·PCC).
///
/// # Errors
/// Where either column is constant.
pub fn z_scored_rmse(a: &[f64], b: &[f64]) -> Found {
    let z = |values: &[f64]| -> Vec<f64> {
        let m = mean(values);
        let deviation = covariance(values, values, m, m).sqrt();
        values.iter().map(|v| if deviation > 0.0 { (v - m) / deviation } else { TINY }).collect()
    };
    let (x, y) = (z(a), z(b));
    let value = (x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
    if flat(a) || flat(b) { Err(odd(value, flat(a))) } else { Ok(value) }
}

/// Jensen–Shannon divergence of the columns divided by their sums; natural logarithm.
///
/// # Errors
/// Where a column's sum is 0.
pub fn js(a: &[f64], b: &[f64], undefined: Undefined) -> Found {
    let kept = |values: &[f64]| -> Vec<f64> {
        let lowest = if undefined == Undefined::Ours { 0.0 } else { f64::NEG_INFINITY };
        values.iter().map(|v| v.max(lowest)).collect()
    };
    let shares = |values: &[f64]| -> Vec<f64> {
        let sum: f64 = values.iter().sum();
        values.iter().map(|v| if sum == 0.0 && *v == 0.0 { TINY } else { v / sum }).collect()
    };
    let (a, b) = (kept(a), kept(b));
    let (p, q) = (shares(&a), shares(&b));
    let middle: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p + q) / 2.0).collect();
    let value = 0.5 * divergence(&p, &middle) + 0.5 * divergence(&q, &middle);
    let empty = |values: &[f64]| values.iter().sum::<f64>() == 0.0;
    if empty(&a) || empty(&b) { Err(odd(value, empty(&a))) } else { Ok(value) }
}

/// KL(p ‖ q) of what both are after division by their sums, as scipy's `entropy`.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let (of_p, of_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
    let term = |(p, q): (&f64, &f64)| {
        let (p, q) = (p / of_p, q / of_q);
        match (p > 0.0 && q > 0.0, p == 0.0 && q >= 0.0) {
            (true, _) => p * libm::log(p / q),
            (false, true) => 0.0,
            (false, false) => f64::INFINITY,
        }
    };
    p.iter().zip(q).map(term).sum()
}

/// Cosine of the columns as they are.
///
/// # Errors
/// Where a column is all zero.
pub fn cosine(a: &[f64], b: &[f64]) -> Found {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (aa, bb) = (dot(a, a), dot(b, b));
    if aa > 0.0 && bb > 0.0 { Ok(dot(a, b) / (aa.sqrt() * bb.sqrt())) } else { Err(odd(0.0, aa == 0.0)) }
}
