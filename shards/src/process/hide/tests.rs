//! What stays, what leaves, what is refused.

use super::*;
use crate::holdout::{GeneCase, Transform};
use crate::process::fixture::{Pair, SHARED, neutral, rule, section};

fn refused(pair: &Pair, change: impl FnOnce(&mut HoldoutRule)) -> String {
    let mut rule = rule(Protocol::GeneFolds);
    change(&mut rule);
    pair.hide(&rule).unwrap_err().to_string()
}

/// `hide` on changed parts.
fn with(
    sections: Vec<Section>,
    cells: Option<Cells>,
    protocol: Protocol,
    on_same_place: OnBadCell,
) -> Result<Processed, ProcessError> {
    let (filter, process, split) = neutral();
    hide(sections, cells, (&filter, &process, &split), &rule(protocol), on_same_place)
}

fn names(processed: &Processed, reason: &str) -> Vec<String> {
    let lines = processed.ledger.entries.iter().filter(|e| e.reason.contains(reason));
    lines.flat_map(|e| e.names.clone()).collect()
}

#[test]
fn the_ledger_names_every_gene_that_one_side_lacks() {
    let processed = Pair::new().hide(&rule(Protocol::GeneFolds)).unwrap();
    let ids: Vec<&str> = processed.panel.genes.iter().map(|g| g.id.as_str()).collect();
    assert_eq!(ids, SHARED);
    assert_eq!(names(&processed, "not measured in the reference"), ["only_here"]);
    assert_eq!(names(&processed, "not measured in the sections"), ["cells_only"]);
    assert_eq!(names(&processed, "a control"), ["Blank_1"]);
    let reference = processed.reference.unwrap();
    assert_eq!(reference.counts.n_cols, SHARED.len());
    for (i, row) in Pair::new().cells.iter().enumerate() {
        let (genes, values) = reference.counts.row(i);
        let dense = (0..SHARED.len()).map(|g| genes.iter().position(|&at| at as usize == g).map_or(0.0, |k| values[k]));
        assert_eq!(&dense.collect::<Vec<_>>(), row, "columns of cells follow the panel");
    }
}

#[test]
fn genes_and_spots_without_a_visible_value_leave_and_are_counted() {
    let mut pair = Pair::new();
    let entries = rule(Protocol::Entries);
    // gene 4 is counted in hidden entries alone, spot 6 of section 1 too
    for (ordinal, rows) in pair.sections.iter_mut().enumerate() {
        for (row, values) in rows.iter_mut().enumerate() {
            let hidden =
                hidden_entries(entries.seed, (ordinal as u64) << 32 | row as u64, entries.fraction, SHARED.len());
            values[4] = if hidden[4] { 9.0 } else { 0.0 };
            if (ordinal, row) == (1, 6) {
                values.iter_mut().zip(hidden).for_each(|(v, hidden)| *v = if hidden { 9.0 } else { 0.0 });
            }
        }
    }
    let processed = pair.hide(&entries).unwrap();
    let left = names(&processed, "total count not between 0");
    assert!(left.contains(&"s1_6".to_owned()) && left.contains(&"G04".to_owned()), "{left:?}");
    assert!(processed.panel.genes.iter().all(|g| g.id != "G04"));
    assert!(processed.pieces.iter().all(|p| p.hidden.n_cols == SHARED.len() - 1 && p.held.n_cols == SHARED.len() - 1));
    let facts = processed.holdout.unwrap();
    let n: usize = processed.pieces.iter().map(|p| p.hidden.values.iter().filter(|h| **h).count()).sum();
    assert_eq!(facts.n_hidden, Some(n as u64));
    // under gene_folds no spot may decide: the gene stays, and so does a spot without any value
    let mut empty = Pair::new();
    empty.sections.iter_mut().flatten().for_each(|row| row[4] = 0.0);
    empty.sections[0][2].fill(0.0);
    let folds = empty.hide(&rule(Protocol::GeneFolds)).unwrap();
    assert_eq!((folds.panel.genes.len(), folds.pieces[0].n_obs()), (SHARED.len(), 40));
    // but one that no cell has leaves
    empty.cells.iter_mut().for_each(|row| row[4] = 0.0);
    let folds = empty.hide(&rule(Protocol::GeneFolds)).unwrap();
    assert_eq!(names(&folds, "no count in any cell"), ["G04"]);
}

#[test]
fn genes_of_one_value_are_named() {
    let mut pair = Pair::new();
    pair.sections.iter_mut().flatten().for_each(|row| row[7] = 3.0);
    for protocol in [Protocol::Entries, Protocol::GeneFolds] {
        let processed = pair.hide(&rule(protocol)).unwrap();
        let note = processed.ledger.entries.iter().find(|e| e.reason.contains("the same value")).unwrap();
        assert!(note.reason.starts_with("1 genes") && note.reason.ends_with(": G07"), "{}", note.reason);
    }
}

#[test]
fn what_would_look_at_hidden_values_is_refused() {
    let pair = Pair::new();
    let words = refused(&pair, |rule| rule.folds = 13);
    assert!(words.contains("data.folds = 13") && words.contains("share 12 genes"), "{words}");
    assert!(refused(&pair, |rule| rule.folds = 1).contains("data.folds"));
    let words = with(pair.sections(), None, Protocol::GeneFolds, OnBadCell::Stop).unwrap_err().to_string();
    assert!(words.contains("--reference"), "{words}");
    for fraction in [0.0, 1.0, f64::NAN] {
        let rule = HoldoutRule { fraction, ..rule(Protocol::Entries) };
        assert!(pair.hide(&rule).unwrap_err().to_string().contains("data.holdout_fraction"), "{fraction}");
    }
    let (filter, process, split) = neutral();
    let words = |filter: &FilterConfig, process: &ProcessConfig| {
        let steps = (filter, process, &split);
        let refused = hide(pair.sections(), Some(pair.cells()), steps, &rule(Protocol::GeneFolds), OnBadCell::Stop);
        refused.unwrap_err().to_string()
    };
    assert!(words(&FilterConfig { gene_min: 3.0, ..filter.clone() }, &process).contains("every gene is hidden once"));
    let layers = ProcessConfig { layers: vec![crate::process::Layer::Log1p], ..process };
    assert!(words(&filter, &layers).contains("process.layers"));
    let mut embedded = pair.sections();
    let values = Matrix { n_cols: 1, values: vec![0.0; 40] };
    embedded[0].features.push(crate::section::Features { name: "X_pca".into(), values });
    let words = with(embedded, Some(pair.cells()), Protocol::Entries, OnBadCell::Stop).unwrap_err().to_string();
    assert!(words.contains("input.features"), "{words}");
}

#[test]
fn spots_at_one_place_are_refused_or_left_out() {
    let mut sections = Pair::new().sections();
    sections[1].xy[9] = sections[1].xy[2];
    let z = sections[1].z.as_mut().unwrap();
    let (at_2, at_9) = (z[2], z[9]);
    z[9] = at_2;
    let again =
        |sections: &[Section], choice| with(sections.to_vec(), Some(Pair::new().cells()), Protocol::Entries, choice);
    let words = again(&sections, OnBadCell::Stop).unwrap_err().to_string();
    assert!(words.contains("`s1`") && words.contains("`s1_2` and `s1_9`") && words.contains("on_bad_cell"), "{words}");
    let left = again(&sections, OnBadCell::Skip).unwrap();
    assert_eq!(names(&left, "at the place of an earlier"), ["s1_9"]);
    // another height is another place
    assert_ne!(at_2, at_9);
    sections[1].z.as_mut().unwrap()[9] = at_9;
    assert!(again(&sections, OnBadCell::Stop).is_ok());
}

#[test]
fn cells_of_another_naming_are_refused_and_case_can_be_ignored() {
    let mut cells = Pair::new().cells();
    cells.genes.iter_mut().for_each(|g| (g.id, g.symbol) = (g.id.to_lowercase(), g.symbol.to_lowercase()));
    let (filter, process, split) = neutral();
    let run = |gene_case| {
        let rule = HoldoutRule { gene_case, transform: Transform::Log1p, ..rule(Protocol::Entries) };
        hide(Pair::new().sections(), Some(cells.clone()), (&filter, &process, &split), &rule, OnBadCell::Stop)
    };
    let words = run(GeneCase::Exact).unwrap_err().to_string();
    assert!(words.contains("`G00` ~ `g00`") && words.contains("data.gene_case"), "{words}");
    let facts = run(GeneCase::Ignore).unwrap().holdout.unwrap();
    assert_eq!(facts.reference.unwrap().matched_by, "id = id, case ignored");
    let few = Cells {
        genes: cells
            .genes
            .iter()
            .enumerate()
            .map(|(i, g)| {
                let name = if i == 0 { "G03".to_owned() } else { format!("other {}", g.id) };
                crate::section::Gene { id: name.clone(), symbol: name }
            })
            .collect(),
        ..cells.clone()
    };
    let words = with(Pair::new().sections(), Some(few), Protocol::Entries, OnBadCell::Stop).unwrap_err().to_string();
    assert!(words.contains("12 of the 13 genes") && words.contains("filter.max_genes_lost = 0.75"), "{words}");
}

#[test]
fn a_section_needs_seven_spots() {
    let rows: Vec<&[f32]> = vec![&[1.0, 2.0]; 6];
    let small = section("small", &["G00", "G01"], &rows);
    let words = with(vec![small], Some(Pair::new().cells()), Protocol::GeneFolds, OnBadCell::Stop).unwrap_err();
    assert!(matches!(words, ProcessError::TooManyFolds { folds: 5, n_genes: 2 }), "{words}");
    let small = section("small", &["G00", "G01"], &rows);
    let words = with(vec![small], None, Protocol::None, OnBadCell::Stop).unwrap_err().to_string();
    assert!(words.contains("6 observations are fewer than the 7"), "{words}");
}
