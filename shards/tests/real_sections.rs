//! Processing on real sections, against an independent numpy run of the same specification (`spared.md` §1–§5).
//!
//! The sections lie beside the repository; without them the tests say so, and fail under `SYNCYTIA_REQUIRE_ALL=1`.

use std::io::Write;
use std::path::PathBuf;

use syncytia_shards::ingest::{IngestOptions, read_section};
use syncytia_shards::process::{FilterConfig, NearestGraph, ProcessConfig, SplitConfig, SplitKind, process};
use syncytia_shards::processed::{Processed, Split};

fn data(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("SYNCYTIA_REQUIRE_ALL").is_ok_and(|v| v == "1");
    assert!(!required, "{} is absent and SYNCYTIA_REQUIRE_ALL=1", path.display());
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {} is absent", path.display());
    None
}

fn processed(paths: &[PathBuf], split: &SplitConfig, completion_graph: NearestGraph) -> Processed {
    let config = ProcessConfig { completion_graph, ..ProcessConfig::default() };
    let sections = paths.iter().map(|path| read_section(path, &IngestOptions::default()).unwrap()).collect();
    process(sections, &FilterConfig::default(), &config, split).unwrap()
}

fn n_dropped(processed: &Processed, what: &str, words: &str) -> Vec<u64> {
    let lines = processed.ledger.entries.iter().filter(|e| e.what == what && e.reason.contains(words));
    lines.map(|e| e.n).collect()
}

/// Sum of a layer; the reference kept f64, a layer is f32: half a spacing (4.8e-7 at 8 to 16) per entry at most.
fn check_sum(processed: &Processed, piece: usize, layer: &str, expected: f64) {
    let layer = &processed.pieces[piece].layers[layer];
    let sum: f64 = layer.values.iter().map(|&v| f64::from(v)).sum();
    let tolerance = 4.8e-7 * layer.values.len() as f64;
    assert!((sum - expected).abs() < tolerance, "{sum} against {expected}");
}

/// Moran's I of the first and last gene of the layers; the reference worked on f64 layers, and I of f32 values moves in
/// the seventh digit.
fn check_moran(processed: &Processed, first: f64, last: f64) {
    let scores: Vec<f64> = processed.panel.selected_genes().map(|g| g.moran.unwrap()).collect();
    assert!((scores[0] - first).abs() < 1e-6, "{} against {first}", scores[0]);
    assert!((scores[scores.len() - 1] - last).abs() < 1e-6, "{} against {last}", scores[scores.len() - 1]);
}

fn selected(processed: &Processed) -> Vec<&str> {
    processed.panel.selected_genes().map(|gene| gene.id.as_str()).collect()
}

#[test]
fn the_dlpfc_pair_gives_thirty_two_genes() {
    let name = |s: &str| format!("visium-human-dlpfc-{s}/{s}_counts_5000genes.h5ad");
    let (Some(a), Some(b)) = (data(&name("151673")), data(&name("151674"))) else { return };
    let inputs = [a, b];
    let processed = |graph| processed(&inputs, &SplitConfig::default(), graph);
    let own = processed(NearestGraph::Own);
    assert_eq!(n_dropped(&own, "gene", "not measured in every section"), [2660, 2660]);
    assert_eq!(own.panel.genes.len(), 318);
    let sizes: Vec<_> = own.pieces.iter().map(|p| (p.library_id.as_str(), p.split, p.n_obs())).collect();
    assert_eq!(sizes, [("151673", Split::Train, 3639), ("151674", Split::Val, 3673)]);
    let genes = selected(&own);
    assert_eq!(genes.len(), 32);
    // the five smoothest and the three that only just entered; MBP second, GFAP third
    let first = ["ENSG00000197971", "ENSG00000123560", "ENSG00000131095", "ENSG00000091513", "ENSG00000168314"];
    assert_eq!(genes[..5], first);
    assert_eq!(genes[29..], ["ENSG00000148180", "ENSG00000111341", "ENSG00000171617"]);
    check_moran(&own, 0.838_926_318_602_272_4, 0.469_892_902_096_427_2);
    check_sum(&own, 0, "log1p", 853_190.413_286_029_1);
    check_sum(&own, 0, "d_log1p", 1_297_959.096_203_952);
    check_sum(&own, 1, "log1p", 957_067.686_755_410_5);
    check_sum(&own, 1, "d_log1p", 1_288_955.854_094_363_7);

    let symmetrised = processed(NearestGraph::Symmetrised);
    let genes = selected(&symmetrised);
    assert_eq!(genes[..5], [first[0], first[1], first[2], first[3], "ENSG00000173786"]);
    assert_eq!(genes[29..], ["ENSG00000132639", "ENSG00000251562", "ENSG00000148180"]);
    check_moran(&symmetrised, 0.839_030_127_586_362_5, 0.418_888_368_810_387_93);
    check_sum(&symmetrised, 0, "log1p", 900_791.195_422_179_3);
    check_sum(&symmetrised, 0, "d_log1p", 1_301_766.365_308_550_7);
    check_sum(&symmetrised, 1, "log1p", 995_267.939_684_398);
    check_sum(&symmetrised, 1, "d_log1p", 1_293_534.396_047_507_9);
}

#[test]
fn muscle_keeps_533_genes_of_which_128_make_the_layers() {
    let Some(outs) = data("visium-mouse-muscle-Vis5A_2dpi/outs") else { return };
    let whole = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    let inputs = [outs];
    let processed = |graph| processed(&inputs, &whole, graph);
    let own = processed(NearestGraph::Own);
    assert_eq!((own.pieces.len(), own.pieces[0].n_obs()), (1, 982));
    assert_eq!(own.panel.genes.len(), 533);
    let genes = selected(&own);
    assert_eq!(genes.len(), 128);
    assert_eq!(genes[..3], ["ENSMUSG00000021939", "ENSMUSG00000004207", "ENSMUSG00000029580"]);
    assert_eq!(genes[125..], ["ENSMUSG00000005873", "ENSMUSG00000028581", "ENSMUSG00000033307"]);
    check_moran(&own, 0.763_554_155_888_591_1, 0.352_439_461_830_908_2);
    check_sum(&own, 0, "log1p", 1_015_635.456_765_831_3);
    check_sum(&own, 0, "d_log1p", 1_287_056.570_137_674);

    let symmetrised = processed(NearestGraph::Symmetrised);
    let genes = selected(&symmetrised);
    assert_eq!(genes[3..5], ["ENSMUSG00000050708", "ENSMUSG00000031972"]);
    assert_eq!(genes[125..], ["ENSMUSG00000026234", "ENSMUSG00000093674", "ENSMUSG00000021270"]);
    check_moran(&symmetrised, 0.738_381_337_899_132_1, 0.318_266_456_278_698_15);
    check_sum(&symmetrised, 0, "log1p", 999_325.138_463_881_8);
    check_sum(&symmetrised, 0, "d_log1p", 1_268_225.888_901_986_9);
}

#[test]
fn muscle_by_blocks_trains_on_about_six_hundred_spots() {
    let Some(outs) = data("visium-mouse-muscle-Vis5A_2dpi/outs") else { return };
    let processed = processed(&[outs], &SplitConfig::default(), NearestGraph::Symmetrised);
    let sizes: Vec<_> = processed.pieces.iter().map(|p| (p.split, p.n_obs())).collect();
    let guard: u64 = n_dropped(&processed, "obs", "guard band").iter().sum();
    assert_eq!(sizes.iter().map(|s| s.1).sum::<usize>() + guard as usize, 982);
    // slabs of 687, 148 and 147; the band is three hops wide
    assert_eq!(sizes, [(Split::Train, 611), (Split::Val, 73), (Split::Test, 147)]);
}
