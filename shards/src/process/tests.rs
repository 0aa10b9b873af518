//! The pipeline as a whole, on small sections.

use serde_json::json;

use super::fixture::{csr, hexagonal, section};
use super::*;
use crate::processed::{Matrix, Split};

/// Four genes with a length and one mitochondrial, all expressed nearly everywhere; gene `k` has counts smooth in x with
/// period `k + 3`, and every seventh entry is missing.
const IDS: [&str; 5] =
    ["ENSG00000198888.2", "ENSG00000223972.6", "ENSG00000227232.5", "ENSG00000243485.5", "ENSG00000278267.1"];

fn tissue(library_id: &str, n_rows: usize, n_cols: usize) -> Section {
    let xy = hexagonal(n_rows, n_cols);
    let value = |i: usize, gene: usize| {
        let wave = (xy[i][0] / 100.0 / (gene + 3) as f64).sin();
        if (i * 5 + gene).is_multiple_of(7) { 0.0 } else { (20.0 + 15.0 * wave).round() as f32 }
    };
    let rows: Vec<Vec<f32>> = (0..xy.len()).map(|i| (0..IDS.len()).map(|gene| value(i, gene)).collect()).collect();
    let mut tissue = section(library_id, &IDS, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    tissue.xy = xy;
    tissue
}

fn by_default(sections: Vec<Section>) -> Result<Processed, ProcessError> {
    process(sections, &FilterConfig::default(), &ProcessConfig::default(), &SplitConfig::default())
}

fn ledger_of(processed: &Processed, what: &str, words: &str) -> Vec<String> {
    let lines = processed.ledger.entries.iter().filter(|e| e.what == what && e.reason.contains(words));
    lines.flat_map(|e| e.names.clone()).collect()
}

#[test]
fn one_section_becomes_three_pieces_and_a_counted_guard() {
    let processed = by_default(vec![tissue("a", 12, 60)]).unwrap();
    let splits: Vec<Split> = processed.pieces.iter().map(|p| p.split).collect();
    assert_eq!(splits, [Split::Train, Split::Val, Split::Test]);
    let kept: usize = processed.pieces.iter().map(Piece::n_obs).sum();
    let guard = ledger_of(&processed, "obs", "guard band");
    assert!(!guard.is_empty());
    assert_eq!(kept + guard.len(), 720, "every observation is in a piece or in the ledger");
    for piece in &processed.pieces {
        assert_eq!(piece.neighbours.n_cols, 18);
        assert!(piece.neighbours.values.iter().all(|&j| (j as usize) < piece.n_obs()));
        assert!(piece.rows.is_sorted());
        let (log1p, completed) = (&piece.layers["log1p"], &piece.layers["d_log1p"]);
        for (at, &measured) in piece.measured.values.iter().enumerate() {
            assert_eq!(measured, log1p.values[at] != 0.0);
            assert!(!measured || log1p.values[at] == completed.values[at], "a measured value was written over");
            assert!(completed.values[at] > 0.0, "left missing");
        }
    }
}

#[test]
fn a_gene_without_a_length_goes_to_the_ledger_and_out_of_the_sum() {
    let processed = by_default(vec![tissue("a", 12, 60)]).unwrap();
    assert_eq!(ledger_of(&processed, "gene", "no length"), ["ENSG00000198888"]);
    assert_eq!(processed.panel.genes.len(), 4);
    assert_eq!(processed.panel.species, "human");
    let piece = &processed.pieces[0];
    for i in 0..piece.n_obs() {
        let tpm: f64 = piece.layers["log1p"].row(i).iter().map(|&v| f64::from(v).exp2() - 1.0).sum();
        // f32 of log2 near 19 has a spacing of 2e-6, that is 1.3e-6 relative in TPM
        assert!((tpm / 1e6 - 1.0).abs() < 1e-5, "TPM of the panel add to a million: {tpm}");
    }
}

#[test]
fn the_layers_are_moran_descending_and_cut_to_the_number_asked() {
    let filter = FilterConfig { top_moran: TopMoran::Genes(3), ..FilterConfig::default() };
    let sections = vec![tissue("a", 12, 60)];
    let processed = process(sections, &filter, &ProcessConfig::default(), &SplitConfig::default()).unwrap();
    let scores: Vec<f64> = processed.panel.selected_genes().map(|g| g.moran.unwrap()).collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let least = processed.panel.genes.iter().map(|g| g.moran.unwrap()).fold(f64::INFINITY, f64::min);
    assert!(scores[2] > least, "the fourth gene is the one left out");
    assert_eq!(processed.pieces[0].layers["d_log1p"].n_cols, 3);
    assert_eq!(processed.pieces[0].counts.n_cols, 4, "counts keep the whole panel");
}

#[test]
fn symbols_need_cp10k_and_the_error_says_so() {
    let mut symbols = tissue("a", 12, 60);
    for (gene, name) in symbols.genes.iter_mut().zip(["MT-ND1", "SOX2", "GFAP", "MBP", "PLP1"]) {
        gene.id = name.to_string();
    }
    let refused = by_default(vec![symbols.clone()]).unwrap_err().to_string();
    assert!(refused.contains("cp10k"), "{refused}");
    let config = ProcessConfig { normalize: Normalize::Cp10k, ..ProcessConfig::default() };
    let processed = process(vec![symbols], &FilterConfig::default(), &config, &SplitConfig::default()).unwrap();
    assert_eq!((processed.panel.genes.len(), processed.panel.annotation.as_deref()), (5, None));
}

#[test]
fn deltas_have_mean_zero_over_training_observations() {
    let layers = vec![Layer::Deltas, Layer::DDeltas];
    let config = ProcessConfig { layers, ..ProcessConfig::default() };
    let sections = vec![tissue("a", 8, 8), tissue("b", 8, 9)];
    let processed = process(sections, &FilterConfig::default(), &config, &SplitConfig::default()).unwrap();
    let [train, val] = &processed.pieces[..] else { panic!("two pieces") };
    assert_eq!((train.split, val.split), (Split::Train, Split::Val));
    for name in ["deltas", "d_deltas"] {
        for mean in deltas::column_means(&[&train.layers[name]]) {
            // 64 values below 20, each rounded to f32
            assert!(mean.abs() < 1e-5, "{name}: {mean}");
        }
    }
}

#[test]
fn fewer_observations_than_neighbours_is_an_error_with_the_numbers() {
    let refused = by_default(vec![tissue("a", 3, 6), tissue("b", 8, 8)]).unwrap_err().to_string();
    assert!(refused.contains("`a`, split train: 18 observations are fewer than the 19"), "{refused}");
}

#[test]
fn an_observation_out_of_range_is_dropped_by_name_and_keeps_the_rows_of_others() {
    let mut tissue = tissue("a", 8, 8);
    let mut rows: Vec<Vec<f32>> = (0..64)
        .map(|i| {
            let mut row = vec![0.0; 5];
            let (columns, values) = tissue.counts.row(i);
            columns.iter().zip(values).for_each(|(&c, &v)| row[c as usize] = v);
            row
        })
        .collect();
    rows[7] = vec![0.0, 0.0, 10.0, 0.0, 0.0];
    tissue.counts = csr(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let split = SplitConfig { kind: Some(SplitKind::Section), val: vec!["b".into()], ..SplitConfig::default() };
    let mut other = tissue.clone();
    other.library_id = "b".to_string();
    let processed = process(vec![tissue, other], &FilterConfig::default(), &ProcessConfig::default(), &split).unwrap();
    assert_eq!(ledger_of(&processed, "obs", "total count"), ["a_7", "a_7"], "one per section");
    assert_eq!(processed.pieces[0].rows[6..8], [6, 8]);
    assert_eq!(processed.pieces[1].record_id(7), (1 << 32) | 8);
    assert_eq!(processed.pieces[1].xy[7], hexagonal(8, 8)[8]);
}

#[test]
fn filters_that_leave_nothing_name_themselves() {
    let filter = FilterConfig { cell_min: 1e5, ..FilterConfig::default() };
    let sections = vec![tissue("a", 8, 8)];
    let refused = process(sections, &filter, &ProcessConfig::default(), &SplitConfig::default()).unwrap_err();
    assert!(matches!(refused, ProcessError::NothingLeft { what: "observation", before: 64, .. }), "{refused}");
}

#[test]
fn positions_that_are_not_finite_and_names_that_repeat_are_refused() {
    let mut broken = tissue("a", 8, 8);
    broken.xy[3][1] = f64::NAN;
    let refused = by_default(vec![broken]).unwrap_err().to_string();
    assert!(refused.contains("`a_3`"), "{refused}");
    let twice = by_default(vec![tissue("a", 8, 8), tissue("a", 8, 8)]).unwrap_err();
    assert!(matches!(twice, ProcessError::DuplicateSection { .. }));
    assert!(matches!(by_default(Vec::new()), Err(ProcessError::NoSections)));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| by_default(vec![tissue("a", 12, 60)]).unwrap())
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn config_tables_round_trip_and_refuse_unknown_keys() {
    let text = serde_json::to_string(&FilterConfig::default()).unwrap();
    assert!(text.contains("\"top_moran\":\"auto\""), "{text}");
    assert_eq!(serde_json::from_str::<FilterConfig>(&text).unwrap(), FilterConfig::default());
    let numbered: FilterConfig = serde_json::from_str("{\"top_moran\": 64}").unwrap();
    assert_eq!(numbered.top_moran, TopMoran::Genes(64));
    assert!(serde_json::from_str::<FilterConfig>("{\"top_moran\": 0}").is_err());
    assert!(serde_json::from_str::<FilterConfig>("{\"top_moran\": \"all\"}").is_err());
    assert!(serde_json::from_str::<ProcessConfig>("{\"hop\": 4}").is_err());
    let layers: ProcessConfig = serde_json::from_str("{\"layers\": [\"log1p\", \"d_deltas\"]}").unwrap();
    assert_eq!(layers.layers, [Layer::Log1p, Layer::DDeltas]);
    let split: SplitConfig = serde_json::from_str("{\"kind\": \"block\"}").unwrap();
    assert_eq!(split.kind, Some(SplitKind::Block));
}

#[test]
fn automatic_gene_number_follows_what_remains() {
    assert_eq!([10, 320, 321].map(|n| TopMoran::Auto.resolve(n)), [10, 32, 128]);
}

/// Two sections of which the second has thrice the counts of gene 1.
fn shifted() -> Vec<Section> {
    let (a, mut b) = (tissue("a", 12, 30), tissue("b", 12, 30));
    for (&gene, value) in b.counts.indices.iter().zip(&mut b.counts.values) {
        if gene == 1 {
            *value *= 3.0;
        }
    }
    vec![a, b]
}

fn with_combat(words: serde_json::Value) -> Result<Processed, ProcessError> {
    let config: ProcessConfig = serde_json::from_value(words).unwrap();
    process(shifted(), &FilterConfig::default(), &config, &SplitConfig::default())
}

#[test]
fn batches_are_brought_together_and_the_correction_is_kept() {
    let processed = with_combat(
        json!({"combat": "standard", "layers": ["log1p", "d_log1p", "c_log1p", "c_d_log1p", "c_d_deltas"]}),
    )
    .unwrap();
    let mean = |layer: &Matrix<f32>, gene: usize| {
        (0..layer.n_rows()).map(|i| f64::from(layer.row(i)[gene])).sum::<f64>() / layer.n_rows() as f64
    };
    let gap = |layer: &str| -> f64 {
        let [a, b] = [0, 1].map(|piece: usize| &processed.pieces[piece].layers[layer]);
        (0..a.n_cols).map(|gene| (mean(a, gene) - mean(b, gene)).abs()).sum()
    };
    assert!(gap("d_log1p") > 1.0, "{}", gap("d_log1p"));
    assert!(gap("c_d_log1p") < 0.1 * gap("d_log1p"), "{} against {}", gap("c_d_log1p"), gap("d_log1p"));
    let kept = processed.panel.combat.as_ref().unwrap();
    assert_eq!(kept.batches, ["a", "b"]);
    for (batch, piece) in processed.pieces.iter().enumerate() {
        assert_eq!(combat::apply(&kept.d_log1p, &piece.layers["d_log1p"], batch), piece.layers["c_d_log1p"]);
        assert_eq!(combat::apply(&kept.log1p, &piece.layers["log1p"], batch), piece.layers["c_log1p"]);
    }
    let (train, deltas) = (&processed.pieces[0].layers["c_d_log1p"], &processed.pieces[0].layers["c_d_deltas"]);
    assert!((f64::from(train.row(3)[1]) - mean(train, 1) - f64::from(deltas.row(3)[1])).abs() < 1e-5);
}

#[test]
fn corrected_layers_need_a_correction_and_one_batch_has_none() {
    let error = with_combat(json!({"layers": ["c_log1p"]})).unwrap_err().to_string();
    assert!(error.contains("c_log1p needs process.combat"), "{error}");
    let error = with_combat(json!({"combat": "standard", "combat_key": "donor"})).unwrap_err().to_string();
    assert!(error.contains("process.combat_key = \"donor\", but section `a` has no donor_id"), "{error}");
    let config: ProcessConfig =
        serde_json::from_value(json!({"combat": "standard", "layers": ["d_log1p", "c_d_log1p"]})).unwrap();
    let one = vec![tissue("a", 12, 60)];
    let processed = process(one, &FilterConfig::default(), &config, &SplitConfig::default()).unwrap();
    assert_eq!(processed.panel.combat, None);
    assert_eq!(processed.pieces[0].layers["c_d_log1p"], processed.pieces[0].layers["d_log1p"]);
    assert!(processed.ledger.entries.iter().any(|e| e.reason.contains("ComBat: one batch (a)")));
}
