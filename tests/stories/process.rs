//! `process`: one processed AnnData for those who go on in Python, and what it refuses. `tests/python/test_process.py` looks
//! at every layer.

use std::path::Path;

use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::section::Section;

use crate::command::{done, refused, syncytia};

const CUT: &str = "shards/data/vis5a_cut.h5ad";
const SMALL: [&str; 2] = ["--set", "filter.top_moran=16"];

fn read(path: &Path) -> Section {
    ingest::read_section(path, &IngestOptions::default()).unwrap()
}

#[test]
fn counts_spots_and_places_come_through_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("processed.h5ad");
    done(&[&["process", CUT, "--out", out.to_str().unwrap()][..], &SMALL].concat());
    let (before, after) = (read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(CUT)), read(&out));
    assert_eq!((after.n_obs(), after.genes.len()), (981, 16), "one spot of 982 has too few counts");
    let column = |gene: &str| before.genes.iter().position(|g| g.id == gene).expect("a gene of the input");
    let columns: Vec<usize> = after.genes.iter().map(|g| column(&g.id)).collect();
    let count = |section: &Section, row: usize, gene: usize| {
        let (genes, values) = section.counts.row(row);
        genes.iter().position(|&g| g as usize == gene).map_or(0.0, |at| values[at])
    };
    let place = |section: &Section, row: usize| (section.xy[row], section.array_row_col.as_ref().unwrap()[row]);
    for (row, name) in after.obs_ids.iter().enumerate() {
        let barcode = name.strip_prefix("Vis5A_").expect("slide_barcode");
        let was = before.obs_ids.iter().position(|id| id == barcode).expect("a spot of the input");
        assert_eq!(place(&after, row), place(&before, was), "{name}");
        for (gene, &column) in columns.iter().enumerate() {
            assert_eq!(count(&after, row, gene), count(&before, was, column), "{name}, gene {gene}");
        }
    }
}

#[test]
fn sections_of_one_name_are_told_apart_by_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("two.h5ad").to_str().unwrap().to_owned();
    refused(&["process", CUT, CUT, "--out", &out], 3, &["two sections are called `Vis5A`", "NAME=PATH"]);
    let named = [format!("a={CUT}"), format!("b={CUT}")];
    let said = syncytia(&["process", &named[0], &named[1], "--split", "val=b", "--out", &out, "--json"]).stdout;
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((&said["summary"]["sections"], &said["summary"]["observations"]), (&2.into(), &(2 * 981).into()));
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (shards, run, out) = (path("shards"), path("run"), path("out.h5ad"));
    done(&[&["shard", CUT, "--out", &shards][..], &SMALL].concat());
    done(&["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run, "--set", "train.max_steps=2"]);
    let process = ["process", CUT, "--out", &out, "--model", &run, "--set"];
    refused(
        &[&process[..], &["filter.top_moran=12"]].concat(),
        2,
        &["12 genes", "was trained on 16: of those the data lack", "syncytia impute"],
    );
    let (shards, corrected) = (path("corrected-shards"), path("corrected"));
    let layers = r#"process.layers=["log1p","d_log1p","c_d_log1p"]"#;
    let combat = [&SMALL[..], &["--set", "process.combat=standard", "--set", layers]].concat();
    done(&[&["shard", CUT, "--out", &shards][..], &combat].concat());
    let layer = ["--set", "task.layer=c_d_log1p", "--set", "train.max_steps=2"];
    done(&[&["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &corrected][..], &layer].concat());
    let uncorrected = ["process", CUT, "--out", &out, "--model", &corrected];
    refused(&[&uncorrected[..], &SMALL].concat(), 2, &["c_d_log1p", "process.combat"]);
    refused(&["process", CUT, "--out", &path("no/folder/x.h5ad")], 2, &["no/folder is not there"]);
    assert!(std::fs::read_dir(dir.path()).unwrap().count() == 4, "something was written");
    done(&[&process[..], &["filter.top_moran=16", "--set", "split.kind=block"]].concat());
    refused(&["process", CUT, "--out", CUT], 2, &["is an input"]);
    // Nor over an input by another name.
    let copy = path("copy.h5ad");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(CUT), &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    let detour = format!("{}/corrected/../copy.h5ad", dir.path().display());
    refused(&["impute", &run, "--input", &copy, "--output", &detour], 2, &["is an input"]);
    assert!(std::fs::read(&copy).unwrap() == before);
}
