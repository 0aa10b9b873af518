//! Two distributions over one axis as SVG: bars for what is real, a line for what is compared.

use super::chart::ticks;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 170.0;
const SIDE: f64 = 12.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 26.0;
/// Most bins.
const BINS: usize = 30;

/// Colour of the bars.
pub const REAL: &str = "#b8c4d0";
/// Colour of the line.
pub const COMPARED: &str = "#00bb66";

/// SVG of the share of `real` and `compared` in bins of one width; empty where there is nothing to draw.
pub fn histogram(real: &[f64], compared: &[f64], label: &str) -> String {
    let all = || real.iter().chain(compared).copied();
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if real.is_empty() || compared.is_empty() || !(high - low).is_finite() {
        return String::new();
    }
    let (bins, width) = if all().all(|v| v.fract() == 0.0) {
        // A bin holds as many whole numbers as any other, else there would be gaps.
        let width = ((high - low + 1.0) / BINS as f64).ceil();
        (((high - low + 1.0) / width).ceil() as usize, width)
    } else {
        (BINS, if high > low { (high - low) / BINS as f64 } else { 1.0 })
    };
    let (low, high) = (low, low + width * bins as f64);
    let shares = |values: &[f64]| {
        let mut shares = vec![0.0; bins];
        for v in values {
            let bin = ((v - low) / width) as usize;
            shares[bin.min(bins - 1)] += 1.0 / values.len() as f64;
        }
        shares
    };
    let (bars, line) = (shares(real), shares(compared));
    let most = bars.iter().chain(&line).copied().fold(0.0, f64::max);
    let x = |v: f64| SIDE + (WIDTH - 2.0 * SIDE) * (v - low) / (high - low);
    let left = |bin: usize| x(low + width * bin as f64);
    let foot = HEIGHT - BOTTOM;
    let y = |share: f64| foot - (foot - TOP) * share / most;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
    for (bin, &share) in bars.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        let (at, wide) = (left(bin), left(bin + 1) - left(bin));
        svg += &format!(
            "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"{REAL}\"/>",
            y(share),
            foot - y(share)
        );
    }
    let steps: Vec<String> = line
        .iter()
        .enumerate()
        .flat_map(|(bin, &share)| [(left(bin), y(share)), (left(bin + 1), y(share))])
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    svg +=
        &format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{COMPARED}\" stroke-width=\"1.8\"/>", steps.join(" "));
    svg += &format!("<line x1=\"{SIDE}\" x2=\"{}\" y1=\"{foot}\" y2=\"{foot}\" stroke=\"#999\"/>", WIDTH - SIDE);
    for tick in ticks(low, high).into_iter().step_by(2) {
        svg += &format!("<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">{tick}</text>", x(tick), foot + 15.0);
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::histogram;

    #[test]
    fn every_value_is_in_a_bar_and_nothing_is_no_picture() {
        let svg = histogram(&[1.0, 1.0, 3.0], &[2.0], "area");
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("polyline") && !svg.contains("NaN"));
        for value in [5.0, 0.5] {
            let alone = histogram(&[value], &[value], "");
            assert!(!alone.contains("NaN") && !alone.contains("inf"), "{alone}");
        }
        let whole: Vec<f64> = (0..45).map(f64::from).collect();
        assert_eq!(histogram(&whole, &[0.0], "").matches("<rect").count(), 23, "two whole numbers in each, no gap");
        assert_eq!(histogram(&[], &[1.0], ""), "");
        assert_eq!(histogram(&[1.0], &[f64::INFINITY], ""), "");
    }
}
