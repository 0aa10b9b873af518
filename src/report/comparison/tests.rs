//! Which runs are one method, and what is best where.

use std::collections::BTreeMap;

use super::*;
use crate::evaluate::completion::Scores;
use crate::evaluate::metrics::{Figure, Metrics};
use crate::report::curves::Curves;
use crate::report::evaluation::{Facts, MethodScores};
use crate::report::scatter::Scatter;

/// Two assays around `mse`.
fn scores(mse: f64) -> Scores {
    let figure = |value| Figure { value, n_used: 10, n_skipped: 0 };
    let assay = |mse| Metrics {
        mse: figure(mse),
        mae: figure(1.0),
        pcc_gene: figure(0.5),
        pcc_spot: figure(0.5),
        r2_gene: figure(0.0),
    };
    Scores { assays: vec![assay(mse - 0.0625), assay(mse + 0.0625)] }
}

/// A run of `config` on `data`, with the model's MSE and those of ridge and median completion, the same under both protocols.
fn judged(run: &str, data: &str, config: &str, [model, ridge, median]: [f64; 3]) -> Judged {
    let baselines = [("ridge_local", ridge), ("median_completion", median)];
    let under = MethodScores {
        model: scores(model),
        baselines: baselines.map(|(name, mse)| (name.to_owned(), scores(mse))).into(),
    };
    let facts = Facts {
        model: "spackle".to_owned(),
        split: "val".to_owned(),
        split_rule: String::new(),
        sections: vec![data.to_owned()],
        n_spots: 100,
        n_train_spots: 100,
        n_genes: 10,
        global_step: 1,
        best: None,
        checkpoint: "best".to_owned(),
        data_hash: format!("hash of {data}"),
        version: String::new(),
        sums: String::new(),
        config: config.to_owned(),
        panel_annotation: None,
    };
    let evaluation = Evaluation {
        facts,
        paper: under.clone(),
        strict: under,
        genes: Vec::new(),
        scatter: Scatter { cell: 1.0, counts: BTreeMap::new() },
        maps: Vec::new(),
        curves: Curves::default(),
        sweep: Vec::new(),
    };
    Judged { run: run.to_owned(), evaluation }
}

fn method_names(comparison: &Comparison) -> Vec<&str> {
    comparison.paper.methods.iter().map(|m| m.method.as_str()).collect()
}

#[test]
fn a_name_is_as_short_as_tells_the_runs_apart() {
    let of = |paths: &[&str]| names(&paths.iter().map(Path::new).collect::<Vec<_>>());
    assert_eq!(of(&["/a/best", "/a/paper"]), ["best", "paper"]);
    assert_eq!(of(&["/x/one/run", "/x/two/run"]), ["one/run", "two/run"]);
    assert_eq!(of(&["/x/one/run", "/x/two/run", "/x/other"]), ["one/run", "two/run", "x/other"]);
}

#[test]
fn one_model_on_several_data_sets_is_one_method_even_where_it_was_tuned_on_each() {
    let c =
        compare(&[judged("a", "brain", "lr = 1", [0.5, 1.0, 4.0]), judged("b", "heart", "lr = 2", [3.0, 2.0, 4.0])]);
    assert_eq!(method_names(&c), ["spackle", "ridge_local", "median_completion"]);
    let spackle = &c.paper.methods[0];
    assert_eq!(spackle.on.iter().map(|o| (o.mse, o.best)).collect::<Vec<_>>(), [(0.5, true), (3.0, false)]);
    assert_eq!(spackle.on[0].assays, [0.4375, 0.5625]);
    // 0.5 ÷ 0.5 and 3 ÷ 2; 1 ÷ 0.5 and 2 ÷ 2.
    assert_eq!((spackle.relative_mse, spackle.best), (1.25, true));
    assert_eq!((c.paper.methods[1].relative_mse, c.paper.methods[1].best), (1.5, false));
    let marks: Vec<_> =
        c.paper.runs.iter().map(|r| (r.best_on_data_set, r.fill_is_best_on_data_set, r.verdict)).collect();
    assert_eq!(marks, [(true, false, Verdict::BeatsEveryFill), (false, true, Verdict::DoesNot)]);
    let changes: Vec<_> = c.paper.runs.iter().map(|r| r.change_to_median_percent).collect();
    assert_eq!(changes, [Some(-87.5), Some(-25.0)]);
    assert!(c.paper.sentence.contains("1 of 2 runs beats every simple fill"), "{}", c.paper.sentence);
    assert!(c.paper.sentence.contains("spackle on brain, ridge_local on heart"), "{}", c.paper.sentence);
    assert!(c.paper.sentence.contains("−56.2 %, mean over 2 runs"), "{}", c.paper.sentence);
    assert!(c.notes.is_empty());
}

#[test]
fn two_configs_on_one_data_set_are_two_methods_and_its_fills_count_once() {
    let c = compare(&[
        judged("a", "brain", "small", [0.75, 1.0, 4.0]),
        judged("b", "brain", "large", [0.5, 1.0, 4.0]),
        judged("c", "heart", "large", [0.5, 1.0, 4.0]),
    ]);
    assert_eq!(c.data_sets.len(), 2);
    assert_eq!(method_names(&c), ["spackle (b and 1 more)", "spackle (a)", "ridge_local", "median_completion"]);
    assert_eq!(c.paper.methods.iter().map(|m| m.on.len()).collect::<Vec<_>>(), [2, 1, 2, 2]);
    assert_eq!(c.paper.runs.iter().map(|r| r.best_on_data_set).collect::<Vec<_>>(), [false, true, true]);
    assert!(c.notes.is_empty());
    let again = compare(&[judged("a", "brain", "x", [0.5, 1.0, 4.0]), judged("b", "brain", "x", [0.5, 1.0, 4.0])]);
    assert_eq!(method_names(&again)[..2], ["spackle (a)", "spackle (b)"]);
    assert!(again.paper.methods[..2].iter().all(|m| m.best), "equal ones are both best");
}

#[test]
fn other_hidden_entries_on_one_data_set_are_told() {
    let c = compare(&[judged("a", "brain", "x", [0.5, 1.0, 4.0]), judged("b", "brain", "y", [0.5, 1.0, 4.5])]);
    assert!(
        c.notes.len() == 1 && c.notes[0].starts_with("a and b were judged on brain with different"),
        "{:?}",
        c.notes
    );
}

#[test]
fn data_sets_of_one_name_are_told_apart() {
    let mut other = judged("b", "brain", "x", [0.5, 1.0, 4.0]);
    other.evaluation.facts.data_hash = "other".to_owned();
    other.evaluation.facts.n_genes = 20;
    let c = compare(&[judged("a", "brain", "x", [0.5, 1.0, 4.0]), other]);
    let names: Vec<_> = c.data_sets.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["brain (val, 10 genes)", "brain (val, 20 genes)"]);
}
