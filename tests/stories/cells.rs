//! A cohort of cells from the command line: drawn, sharded, verified, looked at.

use std::path::Path;

use syncytia_shards::processed::Split;
use syncytia_shards::reader::Shards;

use crate::command::{done, refused};

fn cohort(dir: &Path) -> [String; 2] {
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (cohort, shards) = (path("cohort"), path("shards"));
    done(&["synth", "--cells", "600", "--crop-px", "32", "--seed", "3", "--out", &cohort]);
    let set = "process.crop_px=32";
    done(&["shard", &cohort, "--config", "configs/spatia/shard.toml", "--set", set, "--out", &shards]);
    [cohort, shards]
}

#[test]
fn a_drawn_cohort_becomes_shards_with_pictures_niches_and_its_truth() {
    let dir = tempfile::tempdir().unwrap();
    let [_, shards] = cohort(dir.path());
    done(&["verify", &shards]);
    let open = Shards::open(Path::new(&shards)).unwrap();
    assert_eq!(open.manifest().n_records(Split::Train) + open.manifest().n_records(Split::Val), 600);
    let niches = open.niches(Split::Train).unwrap();
    assert!((0..niches.n_niches()).all(|i| niches.members(i).0.len() <= 16), "16 places in a square");
    let labels = &open.manifest().labels;
    for name in ["cell_type", "niche_type", "tissue_type", "truth_radius", "truth_texture", "truth_nucleus"] {
        assert!(labels.iter().any(|l| l == name), "{name} in {labels:?}");
    }
    let sheet = dir.path().join("sheet.html");
    done(&["inspect", &shards, "--sheet", &sheet.to_string_lossy(), "--records", "7"]);
    let page = std::fs::read_to_string(sheet).unwrap();
    assert_eq!(page.matches("data:image/png;base64,").count(), 7);
    assert!(page.contains("type_") && page.contains("HOUSE"), "labels and genes under the pictures");
}

#[test]
fn a_sheet_needs_shards_with_pictures_and_a_cohort_one_kind() {
    let dir = tempfile::tempdir().unwrap();
    let [cohort, _] = cohort(dir.path());
    refused(&["inspect", &format!("{cohort}/synthetic-3-000.h5ad"), "--sheet", "x.html"], 2, &["is no shard folder"]);
    refused(&["synth", "--cells", "40", "--out", &cohort], 2, &["at least 16 a section"]);
    refused(&["synth", "--cells", "400", "--spots", "400", "--out", &cohort], 2, &["--spots"]);
    // an .h5ad without its image
    std::fs::remove_file(format!("{cohort}/synthetic-3-001.png")).unwrap();
    let out = dir.path().join("none").to_string_lossy().into_owned();
    let shard = ["shard", &cohort, "--config", "configs/spatia/shard.toml", "--out", &out];
    refused(&shard, 3, &["synthetic-3-001.{tif,tiff,png,jpg,jpeg}"]);
    assert!(!Path::new(&out).exists(), "nothing half-written");
}
