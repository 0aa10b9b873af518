//! Learning curves: what `metrics.jsonl` says of losses, thinned to what is drawn.

use serde_json::Value;

use super::chart::{self, Legend, Line};

/// Points of one curve: (global_step, value), steps ascending.
pub type Points = Vec<(u64, f64)>;

/// The curves of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// Training loss, means of neighbouring steps.
    pub train_loss: Points,
    /// Validation MSE over hidden entries.
    pub val_mse: Points,
}

/// Points of the training curve, at most.
const DRAWN: usize = 300;

impl Curves {
    /// From the lines of `metrics.jsonl`.
    pub fn of(lines: &[Value]) -> Curves {
        let points = |kind: &str, key: &str| -> Points {
            let of_kind = lines.iter().filter(|line| line["kind"] == kind);
            of_kind.filter_map(|line| Some((line["global_step"].as_u64()?, line[key].as_f64()?))).collect()
        };
        Curves { train_loss: thinned(&points("train", "loss")), val_mse: points("val", "mse") }
    }

    /// Both curves as SVG; empty when there is nothing to draw.
    pub fn svg(&self) -> String {
        let line = |name, colour, points: &Points| Line {
            name,
            colour,
            points: points.iter().map(|&(step, value)| (step as f64, value)).collect(),
        };
        chart::lines(
            &[
                line("training loss", "#777", &self.train_loss),
                line("validation MSE (hidden entries)", "#0b6", &self.val_mse),
            ],
            "step",
            Legend::Right,
        )
    }
}

/// Training and validation loss of a run as SVG, from the lines of `metrics.jsonl`; empty when there is nothing to draw.
pub fn loss_svg(lines: &[Value]) -> String {
    let curve = |kind: &str| -> Points {
        let of_kind = lines.iter().filter(|line| line["kind"] == kind);
        of_kind.filter_map(|line| Some((line["global_step"].as_u64()?, line["loss"].as_f64()?))).collect()
    };
    let line = |name, colour, points: &Points| Line {
        name,
        colour,
        points: points.iter().map(|&(step, value)| (step as f64, value)).collect(),
    };
    let (train, val) = (thinned(&curve("train")), curve("val"));
    let both = [line("training loss", "#777", &train), line("validation loss", "#0b6", &val)];
    chart::lines(&both, "step", Legend::Right)
}

/// Means of consecutive points, so that at most [`DRAWN`] are left.
fn thinned(points: &Points) -> Points {
    let per = points.len().div_ceil(DRAWN).max(1);
    points.chunks(per).map(|c| (c[c.len() - 1].0, c.iter().map(|p| p.1).sum::<f64>() / c.len() as f64)).collect()
}
