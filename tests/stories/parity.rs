//! `syncytia parity`: the comparison itself, with the cores on both sides; on a GPU `benches/gpu/run.py` runs it.

use serde_json::Value;

use crate::command::{cut, done, refused, syncytia};

const TINY: &str = "configs/spackle/tiny.toml";

#[test]
fn the_cores_agree_with_themselves_on_operations_terms_and_gradients() {
    let dir = tempfile::tempdir().unwrap();
    let shards = dir.path().join("shards").to_string_lossy().into_owned();
    done(&["shard", &cut(), "--out", &shards, "--set", "filter.top_moran=16"]);
    let table = done(&["parity", TINY, "--shards", &shards, "--on", "cpu", "--steps", "1", "--json"]);
    let table: Value = serde_json::from_str(&table).unwrap();
    let lines = table["lines"].as_array().unwrap();
    assert!(lines.iter().all(|line| line["worst"] == 0.0 && line["ok"] == true), "{table}");
    for what in ["attention, ragged", "dropout's integers", "exact sums' integers", "loss terms"] {
        assert!(lines.iter().any(|line| line["what"] == what), "no {what} in {table}");
    }
    assert!(table["ok"] == true && table["step"]["device_s"].as_f64().unwrap() > 0.0, "{table}");
    // It can fail, and says so by its code.
    let other = syncytia(&["parity", TINY, "--shards", &shards, "--on", "cpu", "--tolerance=-1"]);
    assert_eq!(other.status.code(), Some(6), "{}", String::from_utf8_lossy(&other.stdout));
}

#[test]
fn without_a_gpu_it_says_what_is_missing() {
    if !syncytia::engine::FOR_PROCESSES.contains(&"nccl") {
        refused(&["parity"], 2, &["this build computes on the cores only: rebuild with `--features cuda`"]);
    }
    refused(&["parity", TINY], 2, &["--shards"]);
}
