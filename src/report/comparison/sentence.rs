//! What a comparison says in plain words, and what a reader must know first.

use super::super::verdict::{PAPER_CHANGE_TO_MEDIAN_PERCENT, percent};
use super::{DataSet, Judged, Kind, Method, RunFigures, Verdict};
use crate::evaluate::completion::Protocol;
use crate::evaluate::metrics::Metrics;

/// The runs against the fills, who is best, and the change to median completion.
pub fn of(runs: &[RunFigures], methods: &[Method], n_data_sets: usize, protocol: Protocol) -> String {
    let n_won = runs.iter().filter(|r| r.verdict == Verdict::BeatsEveryFill).count();
    let beat = if n_won == 1 { "beats" } else { "beat" };
    let mut said =
        format!("Under the {} protocol {n_won} of {} runs {beat} every simple fill.", protocol.name(), runs.len());
    said += &winners(methods, n_data_sets);
    if n_data_sets > 1 {
        said += &relative(methods);
    }
    let changes: Vec<f64> = runs.iter().filter_map(|r| r.change_to_median_percent).collect();
    if !changes.is_empty() {
        said += &format!(
            " Against median completion the MSE changes by {}, mean over {} runs; the SpaCKLE paper reports {} as a mean over 26 data sets.",
            percent(changes.iter().sum::<f64>() / changes.len() as f64),
            changes.len(),
            percent(PAPER_CHANGE_TO_MEDIAN_PERCENT)
        );
    }
    said
}

/// Who has the lowest MSE: by name of the data set where there are few, counted where there are many.
fn winners(methods: &[Method], n_data_sets: usize) -> String {
    let won = |m: &Method| -> Vec<String> { m.on.iter().filter(|o| o.best).map(|o| o.data_set.clone()).collect() };
    let mut won: Vec<(&str, Vec<String>)> =
        methods.iter().map(|m| (m.method.as_str(), won(m))).filter(|(_, sets)| !sets.is_empty()).collect();
    won.sort_by_key(|(_, sets)| std::cmp::Reverse(sets.len()));
    let in_words = |(method, sets): &(&str, Vec<String>)| match n_data_sets {
        1 => (*method).to_owned(),
        2 | 3 => format!("{method} on {}", sets.join(" and ")),
        n => format!("{method} on {} of {n} data sets", sets.len()),
    };
    format!(" Lowest MSE: {}.", won.iter().map(in_words).collect::<Vec<_>>().join(", "))
}

/// The best model and the best fill, each relative to the lowest MSE on its data sets; the better one first.
fn relative(methods: &[Method]) -> String {
    let mut best: Vec<&Method> =
        [Kind::Model, Kind::Fill].iter().filter_map(|kind| methods.iter().find(|m| m.kind == *kind)).collect();
    best.sort_by(|a, b| a.relative_mse.total_cmp(&b.relative_mse));
    let in_words = |m: &&Method| {
        let kind = if m.kind == Kind::Model { "model" } else { "simple fill" };
        format!("the best {kind}, {}, is at {:.2} ×", m.method, m.relative_mse)
    };
    let words: Vec<String> = best.iter().map(in_words).collect();
    format!(" Relative to the lowest MSE on each data set, on average, {}.", words.join(" and "))
}

/// Runs on one data set that were not asked the same question: the fills, which see only the visible values, tell.
pub fn notes(judged: &[Judged], data_sets: &[DataSet], of_run: &[usize]) -> Vec<String> {
    let differs = |i: usize| {
        let first = of_run.iter().position(|s| *s == of_run[i])?;
        (!same_question(&judged[first], &judged[i])).then(|| {
            format!(
                "{} and {} were judged on {} with different hidden entries (another seed, hidden fraction or mask rule, or another version): their MSE do not answer the same question. Fills of this data set are those of {}.",
                judged[first].run, judged[i].run, data_sets[of_run[i]].name, judged[first].run
            )
        })
    };
    (0..judged.len()).filter_map(differs).collect()
}

/// Whether the fills that both have found the same in every assay; 10⁻⁶ is far below what another mask changes and far
/// above what another machine's linear algebra does.
fn same_question(a: &Judged, b: &Judged) -> bool {
    let same = |(x, y): (&Metrics, &Metrics)| (x.mse.value - y.mse.value).abs() <= 1e-6 * y.mse.value;
    a.evaluation.paper.baselines.iter().all(|(name, fill)| {
        let other = b.evaluation.paper.baselines.get(name);
        other.is_none_or(|other| fill.assays.iter().zip(&other.assays).all(same))
    })
}
