//! Stories of the shard store: write, break, resume, verify, read. Here: the toy data set that they share.

mod cells;
mod damage;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::manifest::Manifest;
use crate::panel::{Ledger, LedgerEntry, Panel, PanelGene};
use crate::processed::{Matrix, NO_NEIGHBOUR, Niches, Piece, Processed, SectionFacts, Split, Summary};
use crate::section::{Csr, ObsLabels, TissueImage};
use crate::writer::{WriteOptions, write};

pub(super) const N_GENES: usize = 20;
pub(super) const SELECTED: [u32; 7] = [4, 1, 19, 0, 7, 8, 12];
pub(super) const G: usize = SELECTED.len();
pub(super) const CONFIG: &str = "[data]\nrow_group_records = 16\n";

/// Two sections: the first cut into train, val and test, the second train only; jittered lattices, six neighbours
/// or, padded, four.
pub(super) fn toy() -> Processed {
    let mut random = Random(7);
    let gene = |i: usize| PanelGene {
        id: format!("ENSG{i:05}"),
        symbol: format!("G{i}"),
        length: (!i.is_multiple_of(3)).then_some(1000.1 / (i + 1) as f64),
        exp_frac: 0.3,
        glob_exp_frac: 1.0 / 3.0,
        moran: Some(0.1 * i as f64),
    };
    let panel = Panel {
        species: "human".to_owned(),
        annotation: Some("GENCODE v43 basic (merged exons)".to_owned()),
        genes: (0..N_GENES).map(gene).collect(),
        selected: SELECTED.to_vec(),
        context: Vec::new(),
        combat: None,
    };
    let facts = |name: &str, um_per_unit| SectionFacts {
        library_id: name.to_owned(),
        donor_id: None,
        source: format!("{name}.h5ad"),
        format: "h5ad".to_owned(),
        n_obs_ingested: 150,
        um_per_unit,
        image: None,
        crops: None,
    };
    let mut sections = vec![facts("sample/one", Some(0.73)), facts("two", None)];
    sections[0].donor_id = Some("Br5292".to_owned());
    sections[0].image = Some(TissueImage { encoded: b"\x89PNG not looked at".to_vec(), scale: 0.05 });
    let all: Vec<u32> = (0..140).map(|i| i + i / 20).collect(); // with gaps: some rows were filtered
    let pieces = vec![
        piece(0, &sections[0], Split::Train, &all[..80], &mut random),
        piece(0, &sections[0], Split::Val, &all[80..100], &mut random),
        piece(0, &sections[0], Split::Test, &all[100..], &mut random),
        piece(1, &sections[1], Split::Train, &all[..50], &mut random),
    ];
    let covariates = vec!["X_a[0]".to_owned(), "X_a[1]".to_owned()];
    let summary = Summary {
        sections: 2,
        donors: None,
        observations: 190,
        genes: G as u32,
        missing_before: 0.75,
        missing_after: 0.5,
        corrupt: 1.0,
    };
    let dropped = LedgerEntry {
        what: "gene".to_owned(),
        library_id: None,
        reason: "no length".to_owned(),
        n: 1,
        names: vec!["MT-X".to_owned()],
    };
    Processed {
        panel,
        sections,
        pieces,
        ledger: Ledger { entries: vec![dropped] },
        summary,
        covariates,
        reference: None,
        holdout: None,
    }
}

fn piece(section: u32, facts: &SectionFacts, split: Split, rows: &[u32], random: &mut Random) -> Piece {
    let n = rows.len();
    let xy: Vec<[f64; 2]> = rows
        .iter()
        .map(|&r| [f64::from(r % 12) * 100.0 + random.below(30) as f64, f64::from(r / 12) * 100.0])
        .collect();
    let mut counts = Csr { n_cols: N_GENES, indptr: vec![0], ..Csr::default() };
    for _ in 0..n {
        for gene in 0..N_GENES as u32 {
            if random.below(3) == 0 {
                counts.indices.push(gene);
                counts.values.push((1 + random.below(9)) as f32);
            }
        }
        counts.indptr.push(counts.indices.len());
    }
    let mut dense =
        |scale: f32| Matrix { n_cols: G, values: (0..n * G).map(|_| random.below(99) as f32 * scale).collect() };
    let layers = BTreeMap::from([("d_log1p".to_owned(), dense(-0.1)), ("log1p".to_owned(), dense(0.3))]);
    let is_counted = |i: usize, gene: u32| counts.row(i).0.contains(&gene);
    let measured = (0..n).flat_map(|i| SELECTED.map(|gene| is_counted(i, gene))).collect();
    let neighbours = (0..n).flat_map(|i| {
        let mut others: Vec<(u64, u32)> = (0..n)
            .filter(|&j| j != i)
            .map(|j| (((xy[i][0] - xy[j][0]).powi(2) + (xy[i][1] - xy[j][1]).powi(2)).to_bits(), j as u32))
            .collect();
        others.sort_unstable();
        // every fifth observation lies at a border and has four
        let known = if i % 5 == 4 { 4 } else { 6 };
        others.into_iter().take(known).map(|(_, j)| j).chain(std::iter::repeat(NO_NEIGHBOUR)).take(6)
    });
    let neighbours = Matrix { n_cols: 6, values: neighbours.collect() };
    let labels = [("layer", "L1"), ("cell_type", "nerve")].map(|(name, word)| ObsLabels {
        name: name.to_owned(),
        values: (0..n).map(|i| (i % 4 != 3).then(|| format!("{word}-{}", i % 3))).collect(),
    });
    let mut labels = labels.to_vec();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    Piece {
        section,
        library_id: facts.library_id.clone(),
        donor_id: facts.donor_id.clone(),
        split,
        rows: rows.to_vec(),
        obs_ids: rows.iter().map(|r| format!("AAAC{r:04}-1")).collect(),
        xy,
        z: Vec::new(),
        um_per_unit: facts.um_per_unit,
        counts,
        hidden: Matrix::default(),
        held: Csr::default(),
        measured: Matrix { n_cols: G, values: measured },
        layers,
        covariates: Matrix { n_cols: 2, values: (0..2 * n).map(|i| i as f32 * 0.5).collect() },
        neighbours,
        labels,
        niches: Niches::default(),
    }
}

/// A linear congruential generator: enough for toy values.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

pub(super) fn options() -> WriteOptions {
    WriteOptions {
        row_group_records: 16,
        row_groups_per_file: 3,
        split_rule: "blocks 70/15/15".to_owned(),
        resume: false,
        jobs: 1,
    }
}

/// Every file of a folder, by relative path.
pub(super) fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(snapshot(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

pub(super) fn written() -> (tempfile::TempDir, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let manifest = write(&toy(), CONFIG, &dir.path().join("shards"), &options()).unwrap();
    assert!(
        !dir.path().join("shards/partial.json").exists(),
        "the list of finished files goes when the manifest is there"
    );
    (dir, manifest)
}
