//! Layer by layer what the Python package `spared` 2.2.1 makes of the same spots (`benches/spared/parity.py` made the fixture):
//! the 150 leftmost and the 150 rightmost spots of the shipped section as two slides.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::process::{self, FilterConfig, Layer, ProcessConfig, SplitConfig};
use syncytia_shards::processed::{Matrix, Piece, Processed};
use syncytia_shards::section::{ObsLabels, Section};

/// f32 values up to 21: a few roundings of them.
const TOLERANCE: f64 = 1e-5;

#[derive(serde::Deserialize)]
struct Config {
    filter: FilterConfig,
    process: ProcessConfig,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows(section: &Section, name: &str, rows: &[u32]) -> Section {
    let pick = |i: &u32| *i as usize;
    Section {
        library_id: name.into(),
        obs_ids: rows.iter().map(|i| section.obs_ids[pick(i)].clone()).collect(),
        xy: rows.iter().map(|i| section.xy[pick(i)]).collect(),
        counts: section.counts.select_rows(rows),
        array_row_col: None,
        labels: Vec::<ObsLabels>::new(),
        ..section.clone()
    }
}

/// The package's spots; `left_out`: genes that its unstable sort puts on either side of the prefix.
fn ours(left_out: &[String]) -> Processed {
    let path = root().join("shards/data/vis5a_cut.h5ad");
    let mut section = ingest::read_section(&path, &IngestOptions::default()).unwrap();
    for (row, xy) in section.xy.iter_mut().enumerate() {
        // As the script: no two distances tie, for which of two neighbours wins is scikit-learn's secret.
        xy[0] += 0.01 * (row as f64 * 0.6180339887 % 1.0);
        xy[1] += 0.01 * (row as f64 * 0.4142135623 % 1.0);
    }
    let keep = |gene: &u32| !left_out.contains(&section.genes[*gene as usize].id);
    let columns: Vec<u32> = (0..section.genes.len() as u32).filter(keep).collect();
    section.counts = section.counts.select_columns(&columns);
    section.genes = columns.iter().map(|&gene| section.genes[gene as usize].clone()).collect();
    let mut order: Vec<u32> = (0..section.n_obs() as u32).collect();
    order.sort_by(|&a, &b| section.xy[a as usize][0].total_cmp(&section.xy[b as usize][0]));
    let end = |name: &str, of: &[u32]| {
        let mut of = of.to_vec();
        of.sort_unstable();
        rows(&section, name, &of)
    };
    let sections = vec![end("left", &order[..150]), end("right", &order[order.len() - 150..])];
    let text = std::fs::read_to_string(root().join("configs/spackle/spared.toml")).unwrap();
    let mut config: Config = toml::from_str(&text).unwrap();
    config.process.layers = Layer::ALL.to_vec();
    let split: SplitConfig = toml::from_str("val = [\"right\"]").unwrap();
    process::process(sections, &config.filter, &config.process, &split).unwrap()
}

/// A layer, `[spot, gene]` by name.
fn by_name(processed: &Processed, of: impl Fn(&Piece) -> Matrix<f32>) -> BTreeMap<(String, String), f32> {
    let genes: Vec<String> = processed.panel.selected_genes().map(|g| g.id.clone()).collect();
    let mut values = BTreeMap::new();
    for piece in &processed.pieces {
        let layer = of(piece);
        for (row, spot) in piece.obs_ids.iter().enumerate() {
            for (gene, &value) in genes.iter().zip(layer.row(row)) {
                values.insert((format!("{}_{spot}", piece.library_id), gene.clone()), value);
            }
        }
    }
    values
}

#[test]
fn layers_moran_and_fractions_equal_the_packages() {
    let bytes = std::fs::read(root().join("tests/golden/spared.safetensors")).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let names =
        |key: &str| -> Vec<String> { header.metadata().as_ref().unwrap()[key].split(' ').map(str::to_owned).collect() };
    let (genes, spots) = (names("genes"), names("spots"));
    let processed = ours(&names("left_out"));
    let selected: Vec<_> = processed.panel.selected_genes().collect();
    assert_eq!(selected.iter().map(|g| g.id.clone()).collect::<Vec<_>>(), genes, "the same genes in Moran's order");

    let column = |name: &str| -> Vec<f64> {
        let tensor = theirs.tensor(&format!("var/{name}")).unwrap();
        tensor.data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for (name, ours) in [
        ("exp_frac", selected.iter().map(|g| g.exp_frac).collect::<Vec<_>>()),
        ("glob_exp_frac", selected.iter().map(|g| g.glob_exp_frac).collect()),
        ("gene_length", selected.iter().map(|g| g.length.unwrap()).collect()),
        ("d_log1p_moran", selected.iter().map(|g| g.moran.unwrap()).collect()),
    ] {
        for ((gene, ours), theirs) in genes.iter().zip(ours).zip(column(name)) {
            assert!((ours - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0), "{name} of {gene}: {ours}, {theirs}");
        }
    }
    for layer in ["log1p", "d_log1p", "c_log1p", "c_d_log1p", "c_d_deltas"] {
        let ours = by_name(&processed, |piece| piece.layers[layer].clone());
        let tensor = theirs.tensor(layer).unwrap();
        assert_eq!(ours.len(), tensor.data().len() / 4, "{layer}");
        let mut worst = (0.0, String::new());
        for (i, bytes) in tensor.data().chunks(4).enumerate() {
            let (spot, gene) = (&spots[i / genes.len()], &genes[i % genes.len()]);
            let (ours, theirs) = (ours[&(spot.clone(), gene.clone())], f32::from_le_bytes(bytes.try_into().unwrap()));
            let off = f64::from((ours - theirs).abs());
            if off > worst.0 {
                worst = (off, format!("{layer} of {spot}, {gene}: {ours}, theirs {theirs}"));
            }
        }
        assert!(worst.0 <= TOLERANCE, "{}", worst.1);
    }
}
