//! On a tissue with known truth SpaCKLE finds what a linear fit cannot, and only where it is there.

use std::sync::Arc;

use syncytia::train::trainer::End;
use syncytia_shards::ingest;
use syncytia_shards::process::{self, FilterConfig, ProcessConfig, SplitConfig};
use syncytia_shards::processed::NO_NEIGHBOUR;
use syncytia_shards::reader::Shards;
use syncytia_shards::writer::{self, WriteOptions};

use crate::command::done;
use crate::stage::{self, Theatre};

/// MSE of the model, of `ridge_local` and of `ring3_mean`: trained on one section, judged on another.
fn mse(seed: u32, product: bool) -> [f64; 3] {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (shards, run, out) = (path("shards"), path("run"), path("tissue"));
    for seed in [seed, seed + 1] {
        let seed = seed.to_string();
        let mut args = vec!["synth", "--spots", "3000", "--seed", &seed, "--out", &out];
        args.extend((!product).then_some("--no-product"));
        done(&args);
    }
    let sections = [seed, seed + 1].map(|s| path(&format!("tissue/synthetic-{s}.h5ad")));
    let mut shard = vec!["shard", &sections[0], &sections[1], "--out", &shards];
    shard.extend(["--set", "process.normalize=cp10k", "--set", "filter.top_moran=59"]);
    done(&shard);
    let mut train = vec!["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run];
    for set in [
        "train.max_steps=800",
        "train.micro_batch=12",
        "train.validate_every=100",
        "model.spackle.d=64",
        "model.spackle.feed_forward=128",
    ] {
        train.extend(["--set", set]);
    }
    done(&train);
    let report: serde_json::Value =
        serde_json::from_str(&done(&["evaluate", &run, "--split", "val", "--json"])).unwrap();
    let value = |metrics: &serde_json::Value| metrics["mse"]["value"].as_f64().unwrap();
    [value(&report["model"]), value(&report["baselines"]["ridge_local"]), value(&report["baselines"]["ring3_mean"])]
}

/// Three seeds. With the product of own and neighbours' factors a ridge misses a fifth of the error that the model finds;
/// without it the edge falls by more than a third (seed 1: from 21 % to 9 %; what is left is the ridge's own noise: 177 weights
/// per gene from one section).
#[test]
fn the_edge_over_a_ridge_is_the_product_of_own_and_neighbours() {
    for seed in [1, 11, 21] {
        let [model, ridge, ring3] = mse(seed, true);
        assert!(model < ring3 && model < 0.88 * ridge, "seed {seed}: {model} against {ridge} and {ring3}");
        let [without, ridge_without, _] = mse(seed, false);
        let (edge, left) = (1.0 - model / ridge, 1.0 - without / ridge_without);
        assert!(left < 0.65 * edge, "seed {seed}: the edge is {edge:.3}, and {left:.3} without the product");
    }
}

/// Two synthetic sections as shards; with `neighbours` off every record sees its own row only.
fn shards(dir: &std::path::Path, neighbours: bool) -> Arc<Shards> {
    let tissue = dir.join("tissue");
    let sections = ["1", "2"].map(|seed| {
        done(&["synth", "--spots", "1500", "--seed", seed, "--out", &tissue.to_string_lossy()]);
        ingest::read_section(&tissue.join(format!("synthetic-{seed}.h5ad")), &Default::default()).unwrap()
    });
    let filter: FilterConfig = toml::from_str("top_moran = 32").unwrap();
    let config: ProcessConfig = toml::from_str("normalize = \"cp10k\"").unwrap();
    let mut processed = process::process(sections.into(), &filter, &config, &SplitConfig::default()).unwrap();
    if !neighbours {
        processed.pieces.iter_mut().for_each(|piece| piece.neighbours.values.fill(NO_NEIGHBOUR));
    }
    let out = dir.join(if neighbours { "with" } else { "without" });
    writer::write(&processed, "", &out, &WriteOptions::default()).unwrap();
    Arc::new(Shards::open(&out).unwrap())
}

/// The same model on the same spots: what it sees around a spot is worth at least a tenth of the error.
#[test]
fn seeing_neighbours_beats_seeing_the_centre_row_only() {
    let config = stage::tiny(|c| {
        c.train.max_steps = 300;
        c.train.micro_batch = 12;
        c.train.validate_every = 50;
        c.checkpoint.every = 300;
    });
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = [true, false].map(|neighbours| {
        let (end, seen) = Theatre::new().run_on(shards(dir.path(), neighbours), &config, 2, None).unwrap();
        assert_eq!(end, End::Finished);
        seen.validations.iter().map(|v| v.1).fold(f64::INFINITY, f64::min)
    });
    println!("masked MSE {with:.4} with neighbours, {without:.4} without");
    assert!(with < 0.9 * without, "{with} with neighbours, {without} without");
}
