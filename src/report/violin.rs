//! Violin plots as SVG: one row per method on a logarithmic axis, as wide as its values are dense there.

use super::chart::{escaped, ticks, times_ten_to};

/// One row.
#[derive(Debug)]
pub struct Violin {
    /// Name at the left.
    pub name: String,
    /// Figure at the right.
    pub figure: String,
    /// Drawn in the models' colour.
    pub is_model: bool,
    /// Name and figure in bold.
    pub best: bool,
    /// The values; positive.
    pub values: Vec<f64>,
    /// Values marked by a dot.
    pub dots: Vec<f64>,
}

const WIDTH: f64 = 960.0;
const RIGHT: f64 = 120.0;
const ROW: f64 = 34.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;
/// Outline points of a violin.
const POINTS: usize = 60;
/// A violin of equal values is still seen: its bandwidth is at least half a percent of the value.
const NARROWEST: f64 = 0.005;

/// SVG of the rows, the first at the top; empty when there is nothing to draw.
pub fn violins(rows: &[Violin], value_label: &str, figure_label: &str) -> String {
    let densities: Vec<Option<Density>> = rows.iter().map(|r| Density::of(&r.values)).collect();
    let (low, high) = densities
        .iter()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), d| (low.min(d.from), high.max(d.to)));
    if low > high {
        return String::new();
    }
    let (low, high) = (low.exp() / 1.03, high.exp() * 1.03);
    let left = 24.0 + 7.3 * rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0) as f64;
    let x = |v: f64| left + (WIDTH - left - RIGHT) * (v / low).ln() / (high / low).ln();
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let foot = height - BOTTOM;
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"violins of {value_label}\">");
    for tick in log_ticks(low, high) {
        let at = x(tick);
        svg += &format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{foot}\" class=\"grid\"/><text x=\"{at:.1}\" y=\"{:.1}\" class=\"xtick\">{tick}</text>",
            foot + 16.0
        );
    }
    svg += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">{value_label}</text><text x=\"{}\" y=\"{:.1}\" class=\"ytick\">{figure_label}</text>",
        (left + WIDTH - RIGHT) / 2.0,
        height - 8.0,
        WIDTH - 8.0,
        TOP - 10.0
    );
    for (i, (row, density)) in rows.iter().zip(&densities).enumerate() {
        let middle = TOP + ROW * (i as f64 + 0.5);
        let (kind, weight) = (if row.is_model { "model" } else { "fill" }, if row.best { " best" } else { "" });
        if let Some(density) = density {
            svg += &format!("<path d=\"{}\" class=\"violin {kind}\"/>", density.outline(&x, middle));
        }
        for &dot in &row.dots {
            svg += &format!("<circle cx=\"{:.1}\" cy=\"{middle}\" r=\"2.5\" class=\"dot {kind}\"/>", x(dot));
        }
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"name{weight}\">{}</text><text x=\"{}\" y=\"{:.1}\" class=\"ytick{weight}\">{}</text>",
            left - 12.0,
            middle + 4.0,
            escaped(&row.name),
            WIDTH - 8.0,
            middle + 4.0,
            escaped(&row.figure)
        );
    }
    svg + "</svg>"
}

/// A Gaussian kernel density over logarithms.
struct Density {
    logs: Vec<f64>,
    bandwidth: f64,
    /// Where it is drawn, two bandwidths beyond the values.
    from: f64,
    to: f64,
}

impl Density {
    /// `None` without a positive value.
    fn of(values: &[f64]) -> Option<Density> {
        let mut logs: Vec<f64> = values.iter().filter(|v| **v > 0.0 && v.is_finite()).map(|v| v.ln()).collect();
        logs.sort_by(f64::total_cmp);
        let bandwidth = silverman(&logs).max(NARROWEST);
        let (from, to) = (logs.first()? - 2.0 * bandwidth, logs.last()? + 2.0 * bandwidth);
        Some(Density { logs, bandwidth, from, to })
    }

    /// The closed outline, mirrored at the row's middle.
    fn outline(&self, x: &dyn Fn(f64) -> f64, middle: f64) -> String {
        let at = |i: usize| self.from + (self.to - self.from) * i as f64 / (POINTS - 1) as f64;
        let density = |v: f64| self.logs.iter().map(|l| (-0.5 * ((v - l) / self.bandwidth).powi(2)).exp()).sum::<f64>();
        let heights: Vec<f64> = (0..POINTS).map(|i| density(at(i))).collect();
        let tallest = heights.iter().copied().fold(0.0, f64::max);
        let point = |i: usize, side: f64| {
            format!("{:.1},{:.1}", x(at(i).exp()), middle + side * 0.44 * ROW * heights[i] / tallest)
        };
        let upper = (0..POINTS).map(|i| point(i, -1.0));
        let lower = (0..POINTS).rev().map(|i| point(i, 1.0));
        format!("M{}Z", upper.chain(lower).collect::<Vec<_>>().join("L"))
    }
}

/// Silverman's rule of thumb; `sorted` ascending.
fn silverman(sorted: &[f64]) -> f64 {
    let n = sorted.len().max(1) as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let sd = (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
    let quartile = |q: usize| sorted.get(sorted.len().saturating_sub(1) * q / 4).copied().unwrap_or(0.0);
    let spread = (quartile(3) - quartile(1)) / 1.34;
    0.9 * if spread > 0.0 { sd.min(spread) } else { sd } * n.powf(-0.2)
}

/// 1, 2 and 5 times powers of ten; where the axis is too short for two of them, evenly spaced numbers.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let round: Vec<f64> = decades
        .flat_map(|d| [1.0, 2.0, 5.0].map(|m| times_ten_to(m, d)))
        .filter(|t| (low..=high).contains(t))
        .collect();
    if round.len() < 3 { ticks(low, high) } else { round }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_round_numbers_and_a_short_one_has_some() {
        assert_eq!(log_ticks(0.45, 11.0), [0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(log_ticks(0.03, 0.3), [0.05, 0.1, 0.2]);
        assert!(log_ticks(0.55, 0.95).len() > 2);
    }

    #[test]
    fn equal_values_and_a_single_one_are_drawn() {
        let row = |values: Vec<f64>| Violin {
            name: "a<b".to_owned(),
            figure: String::new(),
            is_model: true,
            best: true,
            dots: values.clone(),
            values,
        };
        let svg = violins(&[row(vec![1.0]), row(vec![2.0, 2.0]), row(Vec::new())], "MSE", "");
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(violins(&[row(Vec::new())], "MSE", ""), "");
    }
}
