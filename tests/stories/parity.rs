//! `syncytia parity`: the comparison itself, with the cores on both sides; on a GPU `benches/gpu/run.py` runs it.

use serde_json::Value;

use crate::chain::Chain;
use crate::command::{cut, done, refused, syncytia};
use crate::spotdiff;

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
    assert!(table["step"]["sent_ahead"].as_u64().unwrap() > 100, "{table}");
    assert!(table["ok"] == true && table["step"]["device_s"].as_f64().unwrap() > 0.0, "{table}");
    // It can fail, and says so by its code.
    let other = syncytia(&["parity", TINY, "--shards", &shards, "--on", "cpu", "--tolerance=-1"]);
    assert_eq!(other.status.code(), Some(6), "{}", String::from_utf8_lossy(&other.stdout));
}

/// `parity` of every model on `device`, as arguments.
pub fn of_every_model(device: &str) -> Vec<Vec<String>> {
    let chain = Chain::get();
    let cells = chain.path("cells");
    let small = |config: &str, vectors: &[&str]| {
        let at = ["parity", &format!("configs/{config}.toml"), "--shards", &cells, "--on", device, "--json"]
            .map(str::to_owned);
        let sets =
            ["train.lanes=2", "train.micro_batch=4"].iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        at.into_iter().chain(sets).chain(chain.vectors(vectors)).collect::<Vec<String>>()
    };
    let mut asked = vec![
        small("spatia/tiny", &[]),
        small("spatia/tiny-niche", &["of-cells"]),
        small("spatia/tiny-tissue", &["of-niches"]),
        small("spatia/tiny-fusion", &["of-cells", "of-niches"]),
        small("spatia/g1-tiny", &[]),
    ];
    asked[2].extend(["--set".to_owned(), "train.lanes=1".to_owned()]);
    let on_device = ["parity", "--on", device, "--json"].map(str::to_owned);
    asked.extend(spotdiff::stages().into_iter().map(|stage| [&on_device[..], &stage].concat()));
    asked
}

/// Every model's batches, on the device before the step or made where they are used: the same tensors, so the same bits.
#[test]
fn batches_that_are_sent_ahead_change_no_bit() {
    for args in of_every_model("cpu") {
        let said = done(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let step = &serde_json::from_str::<Value>(&said).unwrap()["step"];
        assert!(step["terms"] == 0.0 && step["gradients"] == 0.0, "{args:?}: {step}");
        assert!(step["sent_ahead"].as_u64().unwrap() > 100, "{args:?}: {step}");
    }
}

#[test]
fn without_a_gpu_it_says_what_is_missing() {
    if !syncytia::engine::FOR_PROCESSES.contains(&"nccl") {
        refused(&["parity"], 2, &["this build computes on the cores only: rebuild with `--features cuda`"]);
    }
    refused(&["parity", TINY], 2, &["--shards"]);
}
