//! A line chart as SVG.

/// One line.
#[derive(Debug)]
pub struct Line<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// CSS colour.
    pub colour: &'static str,
    /// Points, x ascending.
    pub points: Vec<(f64, f64)>,
}

/// As large as the scatter that it stands beside.
const WIDTH: f64 = 458.0;
const HEIGHT: f64 = 448.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 8.0;

/// Where the names of the lines stand: where the lines are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legend {
    /// Top left.
    Left,
    /// Top right.
    Right,
}

/// SVG of the lines; empty when there is nothing to draw.
pub fn lines(lines: &[Line<'_>], x_label: &str, legend: Legend) -> String {
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|l| &l.points).copied().filter(|p| p.1.is_finite()).collect();
    if all.len() < 2 {
        return String::new();
    }
    let x1 = all.iter().map(|p| p.0).fold(0.0, f64::max);
    if x1 <= 0.0 {
        return String::new();
    }
    // The first steps would flatten the rest: the axis ends at the 98th percentile.
    let mut ys: Vec<f64> = all.iter().map(|p| p.1).collect();
    ys.sort_by(f64::total_cmp);
    let (y0, y1) = (ys[0], ys[(ys.len() - 1) * 98 / 100].max(ys[0] + 1e-9));
    let x = |v: f64| LEFT + (WIDTH - LEFT - 20.0) * v / x1;
    let y = |v: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (v.min(y1) - y0) / (y1 - y0));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"lines over {x_label}\">");
    for tick in ticks(y0, y1) {
        let at = y(tick);
        svg += &format!(
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"ytick\">{tick:.3}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for tick in ticks(0.0, x1) {
        svg += &format!("<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">{tick}</text>", x(tick), HEIGHT - BOTTOM + 16.0);
    }
    svg += &format!("<text x=\"{:.1}\" y=\"{:.1}\" class=\"xtick\">{x_label}</text>", WIDTH / 2.0, HEIGHT - 4.0);
    for (i, line) in lines.iter().enumerate() {
        let points: Vec<String> =
            line.points.iter().filter(|p| p.1.is_finite()).map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let at = TOP + 14.0 * (i + 1) as f64;
        let (beside, anchor) = match legend {
            Legend::Left => (LEFT + 8.0, "start"),
            Legend::Right => (WIDTH - 8.0, "end"),
        };
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/><text x=\"{:.1}\" y=\"{at:.1}\" style=\"fill:{};text-anchor:{anchor}\" class=\"legend\">{}</text>",
            points.join(" "),
            line.colour,
            beside,
            line.colour,
            line.name
        );
    }
    svg + "</svg>"
}

/// Text as it stands in SVG.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Some five round numbers between low and high.
pub fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 7.0;
    let digit = raw.log10().floor() as i32;
    let unit = [1.0, 2.0, 5.0].into_iter().find(|m| times_ten_to(*m, digit) >= raw).unwrap_or(10.0);
    let step = times_ten_to(unit, digit);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| times_ten_to(i as f64 * unit, digit)).collect()
}

/// `number * 10^digit` as the nearest float: 3 × 10⁻¹ is .3 and not .30000000000000004.
pub fn times_ten_to(number: f64, digit: i32) -> f64 {
    if digit < 0 { number / 10f64.powi(-digit) } else { number * 10f64.powi(digit) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(super::ticks(0.0, 1000.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(super::ticks(0.55, 0.95), [0.6, 0.7, 0.8, 0.9]);
        assert_eq!(super::ticks(5.25, 17.6), [6.0, 8.0, 10.0, 12.0, 14.0, 16.0]);
        assert!(super::ticks(2e-7, 3e-7).len() > 4);
    }
}
