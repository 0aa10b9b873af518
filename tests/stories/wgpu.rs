//! What a GPU runs, on a device of wgpu's, Mesa's in software where there is no other: Burn's backend for GPUs with our operations
//! and kernels on it, against the cores.

use std::path::Path;

use serde_json::Value;
use syncytia::train::checkpoint::{CheckpointContents, newest_valid};
use syncytia::train::config::{ComputeOn, Recompute};
use syncytia::train::run_folder::RunFolder;

use crate::command::{cut, done, refused};
use crate::parity;
use crate::stage::{Theatre, tiny};

/// Trains `tiny.toml` for twelve steps of two lanes; gives the losses and the last checkpoint.
fn train(dir: &Path, name: &str, device: &str, sets: &[&str]) -> (Vec<f64>, CheckpointContents) {
    let (shards, run) = (dir.join("shards"), dir.join(name));
    let (shards, run) = (shards.to_str().unwrap(), run.to_str().unwrap());
    if !Path::new(shards).exists() {
        done(&["shard", &cut(), "--out", shards, "--set", "filter.top_moran=16"]);
    }
    let device = format!("train.device={device}");
    let always = [&device, "train.lanes=2", "train.max_steps=12", "log.every=1", "optim.clip_norm=0.5"];
    let sets = always.iter().chain(sets).flat_map(|set| ["--set", *set]);
    let args = ["train", "configs/spackle/tiny.toml", "--shards", shards, "--run", run];
    done(&args.into_iter().chain(sets).collect::<Vec<_>>());
    let world: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(run).join("world.json")).unwrap()).unwrap();
    assert_eq!(world.to_string().contains(", wgpu"), device.ends_with("wgpu"), "where it ran: {world}");
    let metrics = std::fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap();
    let steps = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let losses = steps.filter(|line| line["kind"] == "train").map(|line| line["loss"].as_f64().unwrap()).collect();
    let mut contents = newest_valid(&RunFolder::at(run)).unwrap().checkpoint.unwrap().contents;
    contents.state.as_object_mut().unwrap().remove("config");
    (losses, contents)
}

/// Twelve steps from the same draws: rounding alone parts them.
fn near(a: &[f64], b: &[f64]) {
    assert_eq!((a.len(), b.len()), (12, 12));
    for (step, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "step {step}: {a} and {b}");
    }
}

#[test]
fn every_operation_and_every_models_first_step_are_the_cores() {
    let table: Value = serde_json::from_str(&done(&["parity", "--on", "wgpu", "--json"])).unwrap();
    assert_eq!(table["lines"].as_array().unwrap().len(), 18, "{table}");
    for args in parity::of_every_model("wgpu") {
        let said = done(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let table: Value = serde_json::from_str(&said).unwrap();
        assert!(table["device"].as_str().unwrap().ends_with(", wgpu"), "{table}");
        assert!(table["ok"] == true && table["step"]["sent_ahead"].as_u64().unwrap() > 100, "{args:?}: {table}");
    }
}

#[test]
fn a_run_is_the_cores_within_rounding_wherever_its_state_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (cores, _) = train(dir.path(), "cores", "cpu", &[]);
    let (there, last) = train(dir.path(), "there", "wgpu", &[]);
    near(&cores, &there);
    near(&cores, &train(dir.path(), "host", "wgpu", &["train.keep=host"]).0);
    near(&cores, &train(dir.path(), "fast", "wgpu", &["train.reduction=fast"]).0);
    near(
        &train(dir.path(), "bf16", "cpu", &["train.reduction=fast_bf16"]).0,
        &train(dir.path(), "bf16-there", "wgpu", &["train.reduction=fast_bf16"]).0,
    );
    near(&cores, &train(dir.path(), "beside", "wgpu", &["train.keep=host", "train.overlap=true"]).0);
    assert_eq!(train(dir.path(), "again", "wgpu", &["train.recompute=blocks"]).0, there);
    // What the device kept came to the host: a run that goes on there is the one that was not interrupted, to the bit.
    train(dir.path(), "resumed", "wgpu", &["train.max_steps=5"]);
    let (losses, resumed) = train(dir.path(), "resumed", "wgpu", &[]);
    assert_eq!(losses, there);
    assert!(resumed == last);
}

/// Kernels are chosen by shapes alone, and nothing adds where it comes first: ranks that share the device, three of them with lanes
/// of other numbers, sums that leave beside backward, kills and block-wise recomputation change no bit of it.
#[test]
fn any_number_of_ranks_on_the_device_gives_the_same_bits() {
    let on_it = |recompute, overlap| {
        tiny(|c| {
            c.train.device = ComputeOn::Wgpu;
            c.train.overlap = Some(overlap);
            c.train.recompute = recompute;
            c.optim.clip_norm = Some(0.05);
        })
    };
    let (config, one) = (on_it(Recompute::None, false), Theatre::new());
    let (_, by_one) = one.run(&config, 1, None).unwrap();
    for (ranks, overlap) in [(2, false), (3, true)] {
        let theatre = Theatre::new();
        let (_, seen) = theatre.run(&on_it(Recompute::None, overlap), ranks, None).unwrap();
        assert_eq!(
            (seen.losses, seen.validations),
            (by_one.losses.clone(), by_one.validations.clone()),
            "{ranks} ranks"
        );
        assert!(theatre.last() == one.last(), "{ranks} ranks");
    }
    let theatre = Theatre::new();
    theatre.run(&config, 3, Some(5)).unwrap();
    theatre.run(&on_it(Recompute::Blocks, true), 2, None).unwrap();
    assert!(theatre.last() == one.last(), "stopped on three ranks, gone on with two that recompute");
}

/// WGSL has no bf16, and what is asked of it there comes back as zeros.
#[test]
fn products_that_a_device_lacks_are_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, run) = (dir.path().join("shards"), dir.path().join("run"));
    let (shards, run) = (shards.to_str().unwrap(), run.to_str().unwrap());
    done(&["shard", &cut(), "--out", shards, "--set", "filter.top_moran=16"]);
    let args = ["train", "configs/spackle/tiny.toml", "--shards", shards, "--run", run, "--set", "train.device=wgpu"];
    refused(&[&args[..], &["--set", "train.products=bf16"]].concat(), 2, &["train.products", "set train.products"]);
    assert!(!Path::new(run).join("checkpoints").exists());
}
