//! What the numbers say, in sentences: against the simple fills, and beside the figure the SpaCKLE paper gives.

use super::evaluation::{Evaluation, MethodScores};

/// MSE of SpaCKLE relative to median completion, mean over 26 data sets, as published (§5.1), in percent.
pub const PAPER_CHANGE_TO_MEDIAN_PERCENT: f64 = -82.5;
/// The fill that the figure is relative to.
const MEDIAN_COMPLETION: &str = "median_completion";

/// Whether the model beats every simple fill, under both protocols, in a sentence each.
pub fn verdict(evaluation: &Evaluation) -> String {
    let one = |protocol: &str, scores: &MethodScores| {
        let model = scores.model.mse();
        let Some((name, best)) = scores.best_baseline() else {
            return format!("Under the {protocol} protocol nothing was compared.");
        };
        let change = percent(change_percent(model, best));
        if model < best {
            format!(
                "Under the {protocol} protocol the model beats every simple fill: MSE {model:.3} against {best:.3} of {name} ({change})."
            )
        } else {
            format!(
                "Under the {protocol} protocol the model does not beat {name}: MSE {model:.3} against {best:.3} ({change})."
            )
        }
    };
    let sentences: Vec<String> = evaluation.protocols().map(|(p, scores)| one(p.name(), scores)).collect();
    sentences.join(" ")
}

/// The MSE relative to median completion beside the paper's figure; `None` where the fill was not run.
pub fn ratio_to_median(evaluation: &Evaluation) -> Option<String> {
    let changes: Vec<String> = evaluation
        .protocols()
        .filter_map(|(p, scores)| Some(format!("{} under {}", percent(change_to_median(scores)?), p.name())))
        .collect();
    (!changes.is_empty()).then(|| {
        format!(
            "MSE relative to median completion: {} (the SpaCKLE paper reports {} as a mean over 26 data sets).",
            changes.join(", "),
            percent(PAPER_CHANGE_TO_MEDIAN_PERCENT)
        )
    })
}

/// Change of the model's MSE against median completion, in percent.
pub fn change_to_median(scores: &MethodScores) -> Option<f64> {
    Some(change_percent(scores.model.mse(), scores.baselines.get(MEDIAN_COMPLETION)?.mse()))
}

/// From `reference` to `value`, in percent of the reference.
pub fn change_percent(value: f64, reference: f64) -> f64 {
    100.0 * (value - reference) / reference
}

/// `−82.5 %`, `+3.0 %`.
pub fn percent(value: f64) -> String {
    format!("{}{:.1} %", if value < 0.0 { '−' } else { '+' }, value.abs())
}
