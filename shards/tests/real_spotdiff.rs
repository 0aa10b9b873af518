//! SpotDiff's data on the real FISH pair: what is hidden reaches nothing, and the nearest cells predict what is known of them.
//!
//! The files lie beside the repository; without them the tests say so, and fail under `SYNCYTIA_REQUIRE_ALL=1`.

use std::io::Write;
use std::path::{Path, PathBuf};

use syncytia_shards::holdout::{GeneCase, HoldoutRule, Protocol, Transform};
use syncytia_shards::ingest::{IngestOptions, OnBadCell, read_cells, read_section};
use syncytia_shards::matrix::Matrix;
use syncytia_shards::process::pairing::{Seen, Weighting, nearest_cells};
use syncytia_shards::process::{FilterConfig, ProcessConfig, SplitConfig, SplitKind, hide};
use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;
use syncytia_shards::section::{Cells, Section};
use syncytia_shards::tables::held;
use syncytia_shards::verify::verify;
use syncytia_shards::visible::{ScaleKind, View};
use syncytia_shards::writer::{WriteOptions, write};

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

/// The FISH positions and the embryo's cells.
fn fish() -> Option<(Section, Cells)> {
    let folder = data("fish-drosophila-embryo")?;
    let options = |coordinates: Option<&str>| IngestOptions {
        coordinates: coordinates.map(str::to_owned),
        um_per_unit: Some(1.0),
        declared_counts: false,
        ..IngestOptions::default()
    };
    let section = read_section(&folder.join("bdtnp.txt"), &options(Some("geometry.txt"))).unwrap();
    let cells = read_cells(&folder.join("dge_raw.txt.gz"), &options(None), &section.genes).unwrap();
    Some((section, cells))
}

fn rule(protocol: Protocol) -> HoldoutRule {
    HoldoutRule {
        protocol,
        fraction: 0.3,
        folds: 5,
        seed: 0,
        transform: Transform::Auto,
        reference_transform: Transform::Auto,
        gene_case: GeneCase::Exact,
    }
}

fn shards(section: Section, cells: Cells, protocol: Protocol, out: &Path) -> Shards {
    let filter = FilterConfig {
        cell_min: 0.0,
        cell_max: 1e12,
        gene_min: 0.0,
        gene_max: 1e12,
        real_data_percentage: 0.0,
        ..FilterConfig::default()
    };
    let process = ProcessConfig { layers: Vec::new(), n_neighbours: 0, ..ProcessConfig::default() };
    let split = SplitConfig { kind: Some(SplitKind::Section), ..SplitConfig::default() };
    let steps = (&filter, &process, &split);
    let processed = hide(vec![section], Some(cells), steps, &rule(protocol), OnBadCell::Stop).unwrap();
    write(&processed, "", out, &WriteOptions::default()).unwrap();
    verify(out).unwrap();
    Shards::open(out).unwrap()
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let product: f64 = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum();
    let square = |v: &[f64], m: f64| v.iter().map(|x| (x - m) * (x - m)).sum::<f64>();
    product / (square(a, ma) * square(b, mb)).sqrt()
}

fn column(m: &Matrix<f32>, gene: usize) -> Vec<f64> {
    (0..m.n_rows()).map(|row| f64::from(m.row(row)[gene])).collect()
}

#[test]
fn the_fish_pair_is_read_as_it_is() {
    let Some((section, cells)) = fish() else { return };
    assert_eq!((section.n_obs(), section.genes.len()), (3039, 84));
    assert_eq!((cells.obs_ids.len(), cells.genes.len()), (1297, 8924));
    assert_eq!(section.xy[0], [-194.042242, 0.22189]);
    assert_eq!(section.z.as_ref().unwrap()[0], 30.195476);
    assert_eq!((section.genes[0].id.as_str(), section.counts.row(0).1[0]), ("aay", 0.116516));
    // the first line of the cells: 128up 4 2 0 …
    assert_eq!(cells.genes[0].id, "128up");
    assert_eq!((cells.counts.row(0).0[0], cells.counts.row(0).1[0], cells.counts.row(1).1[0]), (0, 4.0, 2.0));
    let zeros = 1.0 - cells.counts.values.len() as f64 / (1297.0 * 8924.0);
    assert!((zeros - 0.632).abs() < 0.0005, "{zeros}");
}

/// `evaluation.md` §10: the 50 nearest cells by correlation over visible genes, FISH, 5 folds: .585 on folds of another shuffle.
#[test]
fn nearest_cells_predict_hidden_genes_as_well_as_they_are_known_to() {
    let Some((section, cells)) = fish() else { return };
    let dir = tempfile::tempdir().unwrap();
    let shards = shards(section, cells, Protocol::GeneFolds, &dir.path().join("folds"));
    let mut of_genes = Vec::new();
    for fold in 0..5 {
        let view = View::open(&shards, Some(fold), ScaleKind::Standardised).unwrap();
        let (seen, cells) = (view.visible(Split::Train).unwrap(), view.reference().unwrap().unwrap());
        let visible: Vec<bool> = view.hidden_genes().iter().map(|hidden| !hidden).collect();
        let nearest = nearest_cells(&seen.values, Seen::Genes(&visible), &cells.values, 50).unwrap();
        let predicted = nearest.aggregate(Weighting::Positive, &cells.values);
        let truth = held::read(&shards, Split::Train, Some(fold)).unwrap().of(&seen.ids).unwrap();
        for gene in (0..84).filter(|&gene| !visible[gene]) {
            of_genes.push(pearson(&column(&predicted, gene), &column(&truth.values, gene)));
        }
    }
    assert_eq!(of_genes.len(), 84, "every gene is hidden once");
    let mean = of_genes.iter().sum::<f64>() / 84.0;
    println!("mean PCC of the 50 nearest cells, 5 folds: {mean:.4}");
    assert!((0.565..0.605).contains(&mean), "{mean}");
}

#[test]
fn changing_all_that_is_hidden_of_real_data_changes_no_bit() {
    let Some((section, cells)) = fish() else { return };
    let dir = tempfile::tempdir().unwrap();
    let before = shards(section.clone(), cells.clone(), Protocol::Entries, &dir.path().join("before"));
    let truth = held::read(&before, Split::Train, None).unwrap();
    let order: Vec<u32> = before
        .manifest()
        .panel
        .genes
        .iter()
        .map(|gene| section.genes.iter().position(|own| own.id == gene.id).unwrap() as u32)
        .collect();
    let (mut changed, mut n_changed) = (section, 0);
    for row in 0..truth.ids.len() {
        for gene in (0..84).filter(|&gene| truth.hidden.row(row)[gene]) {
            let of_row = changed.counts.indptr[row]..changed.counts.indptr[row + 1];
            let Ok(at) = changed.counts.indices[of_row.clone()].binary_search(&order[gene]) else { continue };
            let value = &mut changed.counts.values[of_row.start + at];
            assert_eq!(*value, truth.values.row(row)[gene]);
            *value = 100.0 * *value + 1.0;
            n_changed += 1;
        }
    }
    assert!(n_changed > 76_000, "{n_changed} of 76,919 hidden entries are not 0");
    let after = shards(changed, cells, Protocol::Entries, &dir.path().join("after"));
    assert_ne!(truth.values, held::read(&after, Split::Train, None).unwrap().values);
    for kind in [ScaleKind::Maximum, ScaleKind::Standardised] {
        let see = |shards: &Shards| {
            let view = View::open(shards, None, kind).unwrap();
            (view.visible(Split::Train).unwrap(), view.reference().unwrap().unwrap())
        };
        let ((a, cells_a), (b, cells_b)) = (see(&before), see(&after));
        assert_eq!(a, b);
        assert_eq!(cells_a, cells_b);
        let near = |seen: &syncytia_shards::visible::Visible, cells: &Matrix<f32>| {
            let nearest = nearest_cells(&seen.values, Seen::Entries(&seen.bits), cells, 50).unwrap();
            let mean = nearest.aggregate(Weighting::Positive, cells);
            (nearest, mean)
        };
        assert_eq!(near(&a, &cells_a.values), near(&b, &cells_b.values));
    }
}
