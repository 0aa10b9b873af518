//! What can be seen does not know what is hidden, and is what it should be.

use tempfile::TempDir;

use super::*;
use crate::holdout::HoldoutRule;
use crate::holdout::{folds_of_genes, hidden_entries};
use crate::ingest::OnBadCell;
use crate::process::fixture::{Pair, SHARED, neutral, rule};
use crate::process::hide;
use crate::process::pairing::{Seen, Weighting, nearest_cells, nearest_other_cells};
use crate::section::Section;
use crate::tables::held;
use crate::writer::{self, WriteOptions};

const SPLITS: [Split; 2] = [Split::Train, Split::Val];

/// The pair as shards: section 0 trains, section 1 is val.
fn shards(pair: &Pair, rule: &HoldoutRule) -> (TempDir, Shards) {
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions { row_group_records: 16, ..WriteOptions::default() };
    writer::write(&pair.hide(rule).unwrap(), "", &dir.path().join("out"), &options).unwrap();
    crate::verify::verify(&dir.path().join("out")).unwrap();
    let shards = Shards::open(&dir.path().join("out")).unwrap();
    (dir, shards)
}

/// Everything a model is given, as bits.
fn all_bits(shards: &Shards, fold: Option<u32>) -> Vec<u64> {
    let mut bits = Vec::new();
    for kind in [ScaleKind::Maximum, ScaleKind::Standardised] {
        let view = View::open(shards, fold, kind).unwrap();
        let cells = view.reference().unwrap().unwrap();
        bits.push(view.transform() as u64);
        let mut values = |m: &Matrix<f32>| bits.extend(m.values.iter().map(|v| u64::from(v.to_bits())));
        values(&cells.values);
        let genes: Vec<bool> = view.hidden_genes().iter().map(|h| !h).collect();
        let others = nearest_other_cells(&cells.values, Seen::Genes(&genes), 5).unwrap();
        values(&others.aggregate(Weighting::Spage, &cells.values));
        for split in SPLITS {
            let seen = view.visible(split).unwrap();
            let nearest = nearest_cells(&seen.values, Seen::Entries(&seen.bits), &cells.values, 7).unwrap();
            let mut values = |m: &Matrix<f32>| bits.extend(m.values.iter().map(|v| u64::from(v.to_bits())));
            values(&seen.values);
            values(&nearest.aggregate(Weighting::Positive, &cells.values));
            let levels =
                seen.scale.levels(&Matrix { n_cols: genes.len(), values: vec![0.25; seen.values.values.len()] });
            values(&levels);
            bits.extend(nearest.cells.values.iter().map(|&c| u64::from(c)));
            bits.extend(nearest.similarity.values.iter().map(|r| r.to_bits()));
            bits.extend(&seen.ids);
            bits.extend(&seen.left_out);
            bits.extend(seen.bits.iter().map(|&b| u64::from(b)));
            bits.extend(seen.near.as_flattened().iter().map(|&j| u64::from(j)));
            bits.extend(seen.xyz.as_flattened().iter().map(|v| u64::from(v.to_bits())));
            bits.extend(seen.scale.totals.iter().map(|v| v.to_bits()));
        }
    }
    bits
}

/// Changes every value that `hides` names: zeros become numbers that are not whole, and some of the others zero.
fn changed(pair: &Pair, hides: impl Fn(usize, usize, usize) -> bool) -> Pair {
    let mut pair = pair.clone();
    for (section, rows) in pair.sections.iter_mut().enumerate() {
        for (row, values) in rows.iter_mut().enumerate() {
            for (gene, value) in values.iter_mut().enumerate().filter(|(gene, _)| hides(section, row, *gene)) {
                *value = match *value {
                    0.0 => 0.5 + gene as f32,
                    v if v < 4.0 => 0.0,
                    v => 1000.25 * v,
                };
            }
        }
    }
    pair
}

fn hidden_in(rule: &HoldoutRule) -> impl Fn(usize, usize, usize) -> bool {
    let (seed, fraction) = (rule.seed, rule.fraction);
    move |section, row, gene| hidden_entries(seed, (section as u64) << 32 | row as u64, fraction, SHARED.len())[gene]
}

#[test]
fn no_hidden_entry_changes_a_bit_of_what_is_seen() {
    let (pair, rule) = (Pair::new(), rule(Protocol::Entries));
    let before = shards(&pair, &rule);
    let after = shards(&changed(&pair, hidden_in(&rule)), &rule);
    assert_eq!(all_bits(&before.1, None), all_bits(&after.1, None));
    // the test can fail: what was changed is there, and a visible value does change something
    let truth = |shards: &Shards| held::read(shards, Split::Train, None).unwrap().values;
    assert_ne!(truth(&before.1), truth(&after.1));
    let hides = hidden_in(&rule);
    let visible = shards(&changed(&pair, |s, row, gene| row == 3 && !hides(s, row, gene)), &rule);
    assert_ne!(all_bits(&before.1, None), all_bits(&visible.1, None));
    // among what changed are whole numbers, and spots that would have been kept for a hidden value alone
    let n_kept = before.1.manifest().n_records(Split::Train) + before.1.manifest().n_records(Split::Val);
    let n_counted = pair.sections.iter().flatten().filter(|row| row.iter().any(|v| *v > 0.0)).count();
    assert!((n_kept as usize) < n_counted, "{n_kept} of {n_counted}: some spot shows nothing");
}

#[test]
fn no_value_of_a_hidden_gene_changes_a_bit_of_what_is_seen() {
    let (pair, rule) = (Pair::new(), rule(Protocol::GeneFolds));
    let before = shards(&pair, &rule);
    let folds = folds_of_genes(rule.seed, SHARED.len(), rule.folds);
    assert_eq!(before.1.manifest().holdout.as_ref().unwrap().fold_of_gene, folds);
    for fold in 0..rule.folds {
        let after = shards(&changed(&pair, |_, _, gene| folds[gene] == fold), &rule);
        assert_eq!(all_bits(&before.1, Some(fold)), all_bits(&after.1, Some(fold)), "fold {fold}");
        let other = (fold + 1) % rule.folds;
        assert_ne!(all_bits(&before.1, Some(other)), all_bits(&after.1, Some(other)), "fold {fold}");
        // even where nothing is left of the genes in any spot
        let empty = Pair { sections: zeroed(&pair, |gene| folds[gene] == fold), ..pair.clone() };
        assert_eq!(all_bits(&before.1, Some(fold)), all_bits(&shards(&empty, &rule).1, Some(fold)), "fold {fold}");
    }
}

fn zeroed(pair: &Pair, hides: impl Fn(usize) -> bool) -> Vec<Vec<Vec<f32>>> {
    let row = |row: &Vec<f32>| row.iter().enumerate().map(|(gene, v)| if hides(gene) { 0.0 } else { *v }).collect();
    pair.sections.iter().map(|rows| rows.iter().map(row).collect()).collect()
}

#[test]
fn what_is_seen_and_what_is_held_are_together_what_was_read() {
    let pair = Pair::new();
    for (rule, fold) in [(rule(Protocol::Entries), None), (rule(Protocol::GeneFolds), Some(2))] {
        let (_dir, shards) = shards(&pair, &rule);
        let view = View::open(&shards, fold, ScaleKind::Maximum).unwrap();
        assert_eq!(view.genes(), SHARED);
        for (section, split) in SPLITS.into_iter().enumerate() {
            let seen = view.visible(split).unwrap();
            let truth = held::read(&shards, split, fold).unwrap().of(&seen.ids).unwrap();
            let mut n_hidden = 0;
            for (row, &id) in seen.ids.iter().enumerate() {
                assert_eq!((id >> 32) as usize, section);
                let read = &pair.sections[section][id as u32 as usize];
                for (gene, &read) in read.iter().enumerate() {
                    let visible = seen.bits[row * SHARED.len() + gene];
                    assert_eq!(visible, !truth.hidden.row(row)[gene]);
                    let found = match visible {
                        true => seen.scale.raw(row, seen.scale.unscaled(row, gene, seen.values.row(row)[gene])),
                        false => f64::from(truth.values.row(row)[gene]),
                    };
                    // scaled values are f32, 6e-8 of a logarithm below 10
                    assert!((found - f64::from(read)).abs() < 2e-5, "{found} for {read}");
                    assert!(visible || seen.values.row(row)[gene] == 0.0);
                    n_hidden += usize::from(!visible);
                }
            }
            assert!(n_hidden > seen.ids.len());
            assert!(truth.of(&[7 << 32]).is_none());
        }
    }
}

#[test]
fn counts_are_totalled_logged_and_divided_by_the_spot_s_maximum() {
    let (_dir, shards) = shards(&Pair::new(), &rule(Protocol::Entries));
    let view = View::open(&shards, None, ScaleKind::Maximum).unwrap();
    assert_eq!(view.transform(), Transform::TotalLog1p);
    let seen = view.visible(Split::Train).unwrap();
    for row in 0..seen.ids.len() {
        let read = &Pair::new().sections[0][seen.ids[row] as usize];
        let of_row = &seen.bits[row * SHARED.len()..][..SHARED.len()];
        let total: f32 = read.iter().zip(of_row).filter(|(_, visible)| **visible).map(|(v, _)| v).sum();
        assert_eq!(seen.scale.totals[row], f64::from(total), "of visible values alone");
        let level = |v: f32| (1.0 + 1e4 * f64::from(v) / f64::from(total)).ln();
        let most = read.iter().zip(of_row).filter(|(_, visible)| **visible).map(|(v, _)| level(*v)).fold(0.0, f64::max);
        for gene in (0..SHARED.len()).filter(|&gene| of_row[gene]) {
            assert!((f64::from(seen.values.row(row)[gene]) - level(read[gene]) / most).abs() < 1e-7);
        }
    }
    let cells = view.reference().unwrap().unwrap();
    let of_cell: f32 = Pair::new().cells[0].iter().sum();
    assert_eq!(cells.scale.totals[0], f64::from(of_cell + 4.0), "of all genes of the reference, shared or not");
    assert_eq!((cells.labels[0].as_deref(), cells.labels[2].as_deref()), (Some("type 0"), None));
}

#[test]
fn intensities_are_divided_by_the_gene_s_maximum_and_a_hidden_gene_is_like_a_typical_one() {
    let mut pair = Pair::new();
    pair.sections.iter_mut().flatten().flatten().for_each(|v| *v *= 0.37);
    let (_dir, shards) = shards(&pair, &rule(Protocol::GeneFolds));
    let view = View::open(&shards, Some(1), ScaleKind::Maximum).unwrap();
    assert_eq!(view.transform(), Transform::None);
    let seen = view.visible(Split::Train).unwrap();
    let Factors::Genes { factor, known, .. } = &seen.scale.by else { panic!("intensities are scaled per gene") };
    let mut measured = Vec::new();
    for gene in 0..SHARED.len() {
        assert_eq!(known[gene], !view.hidden_genes()[gene]);
        if known[gene] {
            let most = pair.sections[0].iter().map(|row| row[gene]).fold(0f32, f32::max);
            assert_eq!(factor[gene], f64::from(most));
            measured.push(factor[gene]);
        }
    }
    measured.sort_unstable_by(f64::total_cmp);
    let typical = measured[(measured.len() - 1) / 2];
    assert!((0..SHARED.len()).filter(|&g| !known[g]).all(|gene| factor[gene] == typical));
}

#[test]
fn standardised_values_have_mean_0_and_deviation_a_third_before_they_are_cut() {
    for (rule, fold) in [(rule(Protocol::Entries), None), (rule(Protocol::GeneFolds), Some(0))] {
        let (_dir, shards) = shards(&Pair::new(), &rule);
        let seen = View::open(&shards, fold, ScaleKind::Standardised).unwrap().visible(Split::Train).unwrap();
        let Factors::Genes { shift, factor, known } = &seen.scale.by else { panic!("standardised per gene") };
        for gene in (0..SHARED.len()).filter(|&gene| known[gene]) {
            let rows: Vec<usize> = (0..seen.ids.len()).filter(|row| seen.bits[row * SHARED.len() + gene]).collect();
            let (mut sum, mut square) = (0.0, 0.0);
            for &row in &rows {
                let raw = Pair::new().sections[0][seen.ids[row] as usize][gene];
                let uncut = (seen.scale.level(row, raw) - shift[gene]) / factor[gene];
                let found = f64::from(seen.values.row(row)[gene]);
                assert!((found - (uncut / 3.0).clamp(-1.0, 1.0)).abs() < 1e-7);
                sum += uncut;
                square += uncut * uncut;
            }
            let n = rows.len() as f64;
            assert!((sum / n).abs() < 1e-12 && (square / n - 1.0).abs() < 1e-12, "gene {gene} over its visible spots");
        }
    }
}

#[test]
fn near_spots_are_of_the_same_section_and_rows_count_without_those_left_out() {
    // a third section is val, so that two stand in one table
    let (filter, process, mut split) = neutral();
    let mut sections = Pair::new().sections();
    sections.push(Section { library_id: "s2".into(), ..sections[1].clone() });
    split.val = vec!["s2".into()];
    let cells = Some(Pair::new().cells());
    let steps = (&filter, &process, &split);
    let processed = hide(sections, cells, steps, &rule(Protocol::Entries), OnBadCell::Stop).unwrap();
    let dir = tempfile::tempdir().unwrap();
    writer::write(&processed, "", &dir.path().join("out"), &WriteOptions::default()).unwrap();
    let shards = Shards::open(&dir.path().join("out")).unwrap();
    let seen = View::open(&shards, None, ScaleKind::Maximum).unwrap().visible(Split::Train).unwrap();
    assert_eq!(seen.sections.iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
    let as_read = Pair::new().sections();
    let place = |row: usize| {
        let (section, at) = (&as_read[seen.sections[row] as usize], seen.ids[row] as u32 as usize);
        [section.xy[at][0], section.xy[at][1], section.z.as_ref().unwrap()[at]]
    };
    let squared = |a: usize, b: usize| -> f64 { (0..3).map(|axis| (place(a)[axis] - place(b)[axis]).powi(2)).sum() };
    let of_section = |row: usize| -> Vec<usize> {
        (0..seen.ids.len()).filter(|&j| j != row && seen.sections[j] == seen.sections[row]).collect()
    };
    for (row, near) in seen.near.iter().enumerate() {
        assert!(near.iter().all(|&j| seen.sections[j as usize] == seen.sections[row] && j as usize != row));
        assert!(near.windows(2).all(|w| squared(row, w[0] as usize) <= squared(row, w[1] as usize) + 1e-9));
        let farthest = squared(row, near[5] as usize);
        let nearer = of_section(row).into_iter().filter(|&j| squared(row, j) < farthest - 1e-9);
        assert!(nearer.map(|j| j as u32).all(|j| near.contains(&j)), "row {row}");
    }
    // 2 µm per unit, in all three directions
    let section = &Pair::new().sections()[0];
    let at = seen.ids[5] as usize;
    let [x, y] = section.xy[at];
    assert_eq!(seen.xyz[5], [2.0 * x as f32, (2.0 * y) as f32, 2.0 * section.z.as_ref().unwrap()[at] as f32]);
}

#[test]
fn a_changed_view_makes_all_of_what_is_then_visible() {
    let (_dir, shards) = shards(&Pair::new(), &rule(Protocol::Entries));
    for kind in [ScaleKind::Maximum, ScaleKind::Standardised] {
        let view = View::open(&shards, None, kind).unwrap();
        let before = view.visible(Split::Train).unwrap();
        let nothing = |_: u64, _: &mut [f32], _: &mut [bool]| {};
        assert_eq!(view.changed(&nothing).unwrap().visible(Split::Train).unwrap(), before);
        // a gene more is hidden in every spot
        let hide = |_: u64, values: &mut [f32], bits: &mut [bool]| (values[3], bits[3]) = (0.0, false);
        let changed = view.changed(&hide).unwrap();
        let after = changed.visible(Split::Train).unwrap();
        assert!(changed.is_changed() && !view.is_changed() && changed.transform() == view.transform());
        let n = SHARED.len();
        for (row, id) in after.ids.iter().enumerate() {
            let was = before.ids.binary_search(id).unwrap();
            assert!(!after.bits[row * n + 3] && after.values.row(row)[3] == 0.0 && after.levels.row(row)[3] == 0.0);
            let shown = before.bits[was * n + 3];
            let raw = if shown { Pair::new().sections[0][*id as usize][3] } else { 0.0 };
            assert_eq!(after.scale.totals[row], before.scale.totals[was] - f64::from(raw), "of what is visible");
        }
        assert_ne!(after.scale.by, before.scale.by);
    }
}

#[test]
fn raised_cells_follow_the_cells_with_more_of_every_count() {
    let (_dir, shards) = shards(&Pair::new(), &rule(Protocol::GeneFolds));
    let view = View::open(&shards, Some(1), ScaleKind::Maximum).unwrap();
    let (once, twice) = (view.reference().unwrap().unwrap(), view.reference_and_raised(10.0).unwrap().unwrap());
    let (n, g) = (once.ids.len(), SHARED.len());
    assert_eq!(twice.ids.len(), 2 * n);
    assert!(twice.ids.is_sorted_by(|a, b| a < b) && twice.ids[..n] == once.ids);
    assert_eq!(
        (&twice.values.values[..n * g], &twice.levels.values[..n * g]),
        (&once.values.values[..], &once.levels.values[..])
    );
    for cell in 0..n {
        let total = once.scale.totals[cell] + 10.0 * g as f64;
        assert_eq!(twice.scale.totals[n + cell], total);
        for gene in 0..g {
            let raised = once.scale.raw(cell, f64::from(once.levels.row(cell)[gene])) + 10.0;
            let expected = (1.0 + 1e4 * raised / total).ln();
            assert!((f64::from(twice.levels.row(n + cell)[gene]) - expected).abs() < 1e-5, "levels are f32");
        }
    }
}

#[test]
fn a_fold_is_named_where_there_are_some_and_only_there() {
    let (_a, folds) = shards(&Pair::new(), &rule(Protocol::GeneFolds));
    let (_b, entries) = shards(&Pair::new(), &rule(Protocol::Entries));
    let refused = |shards: &Shards, fold| View::open(shards, fold, ScaleKind::Maximum).unwrap_err().to_string();
    assert!(refused(&folds, None).contains("name the fold"), "{}", refused(&folds, None));
    assert!(refused(&folds, Some(5)).contains("no fold 5"), "{}", refused(&folds, Some(5)));
    assert!(refused(&entries, Some(0)).contains("name none"), "{}", refused(&entries, Some(0)));
    assert!(held::read(&folds, Split::Train, None).is_err() && held::read(&entries, Split::Train, Some(0)).is_err());
}

#[test]
fn nobody_else_gets_counts_of_shards_that_hide_some() {
    for protocol in [Protocol::Entries, Protocol::GeneFolds] {
        let (_dir, shards) = shards(&Pair::new(), &rule(protocol));
        let entry = &shards.row_groups(Split::Train)[0];
        let refused = shards.read_row_group(entry, &shards.all_columns()).unwrap_err().to_string();
        assert!(refused.contains(protocol.as_str()) && refused.contains("data.holdout"), "{refused}");
        assert!(shards.read_piece(0, Split::Train).is_err());
        let names = Columns { names: true, ..Columns::default() };
        assert_eq!(shards.read_row_group(entry, &names).unwrap().obs_ids.len(), entry.n_rows());
    }
    let (_dir, open) = shards(&Pair::new(), &rule(Protocol::None));
    assert!(open.read_piece(0, Split::Train).is_ok());
    let seen = View::open(&open, None, ScaleKind::Maximum).unwrap().visible(Split::Train).unwrap();
    assert!(seen.bits.iter().all(|b| *b));
}

#[test]
fn what_shows_a_hidden_value_is_not_written_and_folds_that_are_none_are_damage() {
    let mut processed = Pair::new().hide(&rule(Protocol::Entries)).unwrap();
    let piece = &mut processed.pieces[0];
    piece.hidden.values[piece.counts.indices[0] as usize] = true; // of the first row
    let dir = tempfile::tempdir().unwrap();
    let refused =
        writer::write(&processed, "", &dir.path().join("out"), &WriteOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("shows what is hidden") && !dir.path().join("out").exists(), "{refused}");

    let damaged = |protocol, change: &dyn Fn(&mut crate::manifest::Manifest)| {
        let (dir, shards) = shards(&Pair::new(), &rule(protocol));
        let mut manifest = shards.manifest().clone();
        change(&mut manifest);
        std::fs::write(dir.path().join("out/manifest.json"), manifest.to_json()).unwrap();
        Shards::open(&dir.path().join("out")).unwrap_err().to_string()
    };
    let words = damaged(Protocol::GeneFolds, &|m| m.holdout.as_mut().unwrap().fold_of_gene[3] = 9);
    assert!(words.contains("a gene of fold 9, there are 5"), "{words}");
    let words = damaged(Protocol::GeneFolds, &|m| m.holdout.as_mut().unwrap().fold_of_gene.truncate(11));
    assert!(words.contains("folds of 11 genes, 12 expected"), "{words}");
    let words = damaged(Protocol::Entries, &|m| m.holdout = None);
    assert!(words.contains("holdout none, a table of hidden values: true"), "{words}");
}
