//! Shards of which something is hidden, from two text tables: what a user types, and what bad input gets. Drives the real binary.

use std::fmt::Write;
use std::path::Path;

use syncytia_shards::draw::{DrawKey, Purpose, uniform};
use syncytia_shards::holdout::Protocol;
use syncytia_shards::manifest::Manifest;

use crate::command::{done, refused, syncytia};

const CONFIG: &str = "configs/spotdiff/shard.toml";
const GENES: [&str; 8] = ["aay", "Ama", "Ance", "cad", "eve", "ftz", "gt", "zen"];

/// Tables in a scratch folder: 30 spots with their places, 20 cells with a gene per line.
struct Tables(tempfile::TempDir);

impl Tables {
    fn new() -> Tables {
        let tables = Tables(tempfile::tempdir().unwrap());
        tables.write("spots.txt", &spots(|_, _, value| format!("{value}")));
        tables.write("places.txt", &places(|i| (i % 6) as f64));
        tables.write("cells.txt", &cells(GENES.map(str::to_owned)));
        tables
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// The command a user types, with more at its end.
    fn command(&self, more: &[&str]) -> Vec<String> {
        let (spots, cells, out) = (self.path("spots.txt"), self.path("cells.txt"), self.path("out"));
        let fixed =
            ["shard", &spots, "--reference", &cells, "--config", CONFIG, "--set", "input.coordinates=places.txt"];
        fixed.into_iter().chain(["--out", &out]).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn refused(&self, more: &[&str], code: i32, fragments: &[&str]) {
        let command = self.command(more);
        refused(&command.iter().map(String::as_str).collect::<Vec<_>>(), code, fragments);
        assert!(!Path::new(&self.path("out")).exists(), "a refused command wrote something");
    }

    #[track_caller]
    fn done(&self, more: &[&str]) -> Manifest {
        let command = self.command(more);
        done(&command.iter().map(String::as_str).collect::<Vec<_>>());
        Manifest::read(Path::new(&self.path("out"))).unwrap()
    }
}

fn value(row: usize, gene: usize) -> f32 {
    0.01 + uniform(DrawKey::new(1, Purpose::Synthetic).word((row * 64 + gene) as u32, [0; 3]))
}

/// Genes in the header, intensities.
fn spots(text: impl Fn(usize, usize, f32) -> String) -> String {
    let mut table = GENES.join("\t") + "\n";
    for row in 0..30 {
        let values: Vec<String> = (0..GENES.len()).map(|gene| text(row, gene, value(row, gene))).collect();
        table += &(values.join("\t") + "\n");
    }
    table
}

fn places(x: impl Fn(usize) -> f64) -> String {
    (0..30).fold("\"x\" \"y\" \"z\"\n".to_owned(), |mut text, i| {
        writeln!(text, "{} {} {}", x(i), i / 6, i % 4).unwrap();
        text
    })
}

/// A gene per line, no header, counts.
fn cells(names: [String; 8]) -> String {
    names.iter().enumerate().fold(String::new(), |mut text, (gene, name)| {
        let counts: Vec<String> = (0..20).map(|cell| ((9.0 * value(40 + cell, gene)) as u32).to_string()).collect();
        writeln!(text, "{name}\t{}", counts.join("\t")).unwrap();
        text
    })
}

#[test]
fn two_tables_become_shards_of_either_protocol() {
    for (protocol, name, more) in [
        (Protocol::Entries, "entries", vec![]),
        (Protocol::GeneFolds, "gene_folds", vec!["--set", "data.holdout=gene_folds", "--set", "data.folds=4"]),
    ] {
        let tables = Tables::new();
        let manifest = tables.done(&more);
        assert_eq!(manifest.protocol(), protocol);
        assert_eq!(
            (manifest.panel.genes.len(), manifest.holdout.as_ref().unwrap().folds.is_some()),
            (8, name == "gene_folds")
        );
        done(&["verify", &tables.path("out")]);
        let seen = done(&["inspect", &tables.path("out")]);
        assert!(seen.contains("hidden") && seen.contains("20 cells × 8 genes"), "{seen}");
        // the same command again says what is there; another seed hides something else
        let again = tables.command(&more);
        refused(&again.iter().map(String::as_str).collect::<Vec<_>>(), 3, &["already holds finished shards"]);
        let other = Tables::new();
        let seeded: Vec<&str> = more.iter().copied().chain(["--set", "data.seed=1"]).collect();
        assert_ne!(other.done(&seeded).data_hash(), manifest.data_hash());
        let same = Tables::new();
        assert_eq!(same.done(&more).data_hash(), manifest.data_hash());
    }
}

#[test]
fn what_values_are_taken_for_is_said() {
    let tables = Tables::new();
    let command = tables.command(&[]);
    let output = syncytia(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("observations: not whole numbers; as they are: neither totalled nor logged (taken so)"),
        "{said}"
    );
    assert!(said.contains("reference: whole numbers; ln(1 + 10⁴ · value / total) (taken so)"), "{said}");
}

#[test]
fn values_that_cannot_be() {
    let tables = Tables::new();
    tables.write("spots.txt", &spots(|row, gene, v| if (row, gene) == (4, 2) { "-0.5".into() } else { v.to_string() }));
    tables.refused(&[], 3, &["spots.txt", "-0.5", "observation `4`, gene `Ance`", "negative"]);
    tables.write("spots.txt", &spots(|row, gene, v| if (row, gene) == (4, 2) { "NA".into() } else { v.to_string() }));
    tables.refused(&[], 3, &["NaN", "observation `4`, gene `Ance`", "not a number"]);
    tables.write("spots.txt", &spots(|_, _, v| v.to_string()));
    tables.refused(&["--set", "input.declared_counts=true"], 3, &["not an integer", "input.declared_counts = false"]);
    tables.write("cells.txt", &cells(GENES.map(str::to_owned)).replace("aay\t", "aay\t-1"));
    tables.refused(&[], 3, &["cells.txt", "gene `aay`", "negative"]);
}

#[test]
fn places_that_cannot_be() {
    let tables = Tables::new();
    tables.write("places.txt", &places(|i| if i == 7 { 0.0 } else { (i % 6) as f64 }));
    tables.done(&[]); // another height is another place
    let tables = Tables::new();
    tables.write("places.txt", &places(|i| if i == 10 { 2.0 } else { (i % 6) as f64 }).replace("2 1 2\n", "2 1 0\n"));
    tables.refused(&[], 3, &["`8` and `10`", "at (2, 1)", "input.on_bad_cell = \"skip\""]);
    let kept = tables.done(&["--set", "input.on_bad_cell=skip"]);
    assert!(kept.ledger.entries.iter().any(|e| e.names == ["10"] && e.reason.contains("place of an earlier")));
    let tables = Tables::new();
    tables.write("places.txt", &places(|i| if i == 7 { f64::NAN } else { (i % 6) as f64 }));
    tables.refused(&[], 3, &["places.txt", "coordinate of `7` is not finite"]);
    tables.refused(&["--set", "input.coordinates=elsewhere.txt"], 3, &["elsewhere.txt", "no such file"]);
    let command = tables.command(&[]);
    let without: Vec<&str> =
        command.iter().map(String::as_str).filter(|w| !w.starts_with("input.coord") && *w != "--set").collect();
    refused(&without, 3, &["a text table has no places", "input.coordinates=FILE"]);
}

#[test]
fn a_reference_that_cannot_be() {
    let tables = Tables::new();
    tables.write("cells.txt", &cells(GENES.map(str::to_uppercase)));
    tables.refused(&[], 3, &["none of the 8 genes", "`Ama` ~ `AMA`", "data.gene_case"]);
    tables.write("cells.txt", &cells(GENES.map(|g| format!("ENSG0000{}", g.len()))));
    tables.refused(&[], 3, &["duplicate gene"]);
    let mut other = GENES.map(|g| format!("unlike-{g}"));
    tables.write("cells.txt", &cells(other.clone()));
    tables.refused(&[], 3, &["none of the 8 genes", "one species"]);
    other[0] = "zen".to_owned();
    tables.write("cells.txt", &cells(other));
    tables.refused(&[], 3, &["7 of the 8 genes", "filter.max_genes_lost = 0.75"]);
    tables.refused(
        &["--set", "filter.max_genes_lost=1", "--set", "data.holdout=gene_folds"],
        3,
        &["data.folds = 5", "share 1 genes"],
    );
}

#[test]
fn keys_that_do_not_go_together() {
    let tables = Tables::new();
    let folds = ["--set", "data.holdout=gene_folds"];
    let with = |more: &[&'static str]| folds.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    tables.refused(&with(&["--set", "data.folds=9"]), 3, &["data.folds = 9", "share 8 genes"]);
    tables.refused(&with(&["--set", "filter.gene_min=1"]), 2, &["every gene is hidden once"]);
    tables.refused(&["--set", "data.holdout_fraction=1.5"], 2, &["data.holdout_fraction"]);
    tables.refused(&["--set", "data.holdout=genes"], 2, &["gene_folds"]);
    tables.refused(&["--set", "process.layers=[\"log1p\"]"], 2, &["process.layers"]);
    let command = tables.command(&folds);
    let at = command.iter().position(|w| w == "--reference").unwrap();
    let without: Vec<&str> =
        command.iter().enumerate().filter(|(i, _)| *i != at && *i != at + 1).map(|(_, w)| w.as_str()).collect();
    refused(&without, 2, &["gene_folds", "--reference"]);
}
