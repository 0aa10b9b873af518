//! What the numbers of painted pictures say, in sentences: which fill the model beats, in what, and in what not.

use crate::evaluate::generation::scores::Scores;
use crate::evaluate::metrics::Figure;

use super::{Compared, Method};

/// How many of [`METRICS`] are of a cell, not of the set.
const CELL_BY_CELL: usize = 2;

/// What decides, and whether low is good.
const METRICS: [(&str, bool, Value); 6] = [
    ("r", false, |s| s.over_features(|f| f.pcc).map(|figure| of(figure.value, s.n_shapes()))),
    ("SSIM", false, |s| s.ssim.map(|value| of(value, s.n))),
    ("W1", true, |s| s.over_features(|f| f.w1_scaled).map(|figure| of(figure.value, s.n_shapes()))),
    ("KS", true, |s| s.over_features(|f| Some(f.ks)).map(|figure| of(figure.value, s.n_shapes()))),
    ("FID-rand", true, |s| s.fid_rand.map(|value| of(value, s.n))),
    ("KID-rand", true, |s| s.kid_rand.map(|value| of(value, s.n))),
];

type Value = fn(&Scores) -> Option<Figure>;

fn of(value: f64, n: usize) -> Figure {
    Figure { value, n_used: n as u64, n_skipped: 0 }
}

/// A sentence on every fill; what is of another n is not compared.
pub fn verdict(model: &Scores, fills: &[&Method]) -> String {
    let mut sentences = Vec::new();
    let mut beaten = 0;
    for fill in fills {
        let (mut wins, mut losses, mut not_compared) = (Vec::new(), Vec::new(), Vec::new());
        let told = match fill.compared {
            Compared::All => METRICS.len(),
            Compared::CellByCell => CELL_BY_CELL,
        };
        for &(name, lower, value) in &METRICS[..told] {
            let (Some(ours), Some(theirs)) = (value(model), value(&fill.scores)) else { continue };
            if ours.n_used != theirs.n_used {
                not_compared.push(name);
            } else if if lower { ours.value < theirs.value } else { ours.value > theirs.value } {
                wins.push(name);
            } else {
                losses.push(name);
            }
        }
        beaten += usize::from(losses.is_empty() && !wins.is_empty());
        let mut said = match (wins.is_empty(), losses.is_empty()) {
            (false, true) => format!("It beats {} in all that can be compared ({})", fill.name, wins.join(", ")),
            (true, false) => format!("It does not beat {} in anything ({})", fill.name, losses.join(", ")),
            (false, false) => {
                format!("It beats {} in {}, not in {}", fill.name, wins.join(", "), losses.join(", "))
            }
            (true, true) => format!("With {} nothing can be compared", fill.name),
        };
        if !not_compared.is_empty() {
            said += &format!("; {} not compared: of another n", not_compared.join(", "));
        }
        sentences.push(said + ".");
    }
    let head = format!("Over n = {} cells the model beats {beaten} of {} fills in everything.", model.n, fills.len());
    format!("{head} {}", sentences.join(" "))
}
