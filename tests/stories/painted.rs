//! `evaluate` of a generator: painted pictures beside real ones of the same cells, and beside the fills. Drives the real binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{done, refused};
use crate::generate::runs;
use crate::pretraining::cells;
use crate::stage::shards as spots;

const FILLS: [&str; 5] = ["mean_image", "nearest_by_genes", "random_training", "real_other", "shuffled_condition"];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A copy of a run, so that reports of several tests do not meet.
fn copied(run: &str, to: &Path) -> PathBuf {
    let copy = to.join(run);
    copy_folder(&runs().join(run), &copy);
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

/// `report.json` of 12 cells, painted in three steps.
fn judged(run: &Path, shards: &Path, more: &[&str]) -> Value {
    let (run, shards) = (text(run), text(shards));
    let args = ["evaluate", &run, "--shards", &shards, "--cells", "12", "--steps", "3", "--json"];
    serde_json::from_str(&done(&[&args[..], more].concat())).unwrap()
}

fn value(report: &Value, method: &str, metric: &str) -> f64 {
    let of = if method == "generator" { &report["model"] } else { &report["baselines"][method] };
    of[metric]["value"].as_f64().unwrap_or_else(|| panic!("{method} has no {metric}"))
}

#[test]
fn painted_pictures_are_judged_beside_every_fill() {
    let dir = tempfile::tempdir().unwrap();
    let run = copied("g1", dir.path());
    let report = judged(&run, cells().dir(), &["--split", "val", "--seed", "2"]);
    assert_eq!((report["task"].as_str(), report["split"].as_str()), (Some("generate"), Some("val")));
    let fills: Vec<&String> = report["baselines"].as_object().unwrap().keys().collect();
    assert_eq!(fills, FILLS);
    for method in ["generator"].iter().chain(&FILLS) {
        assert_eq!(value(&report, method, "n"), 12.0, "{method}");
        for metric in
            ["w1_scaled.area", "w1.perimeter", "ks.major_axis", "ks_score", "fid_rand", "kid_rand", "ssim", "psnr"]
        {
            assert!(value(&report, method, metric).is_finite(), "{method} {metric}");
        }
        let correlates = report["baselines"][method]["pcc_shape"].is_object();
        assert!(correlates || ["generator", "mean_image"].contains(method), "{method}");
    }
    assert!(report["baselines"]["mean_image"]["pcc.area"].is_null(), "one picture for all cells has no correlation");
    assert!(report["model"]["pcc.area"].is_object());
    let names = report["model"].as_object().unwrap().keys();
    assert!(names.clone().all(|name| name != "fid" && name != "kid"), "features of random weights are no Inception's");
    assert_eq!(report["provenance"]["features"], "random convolutions, seed 0");
    assert_eq!(report["provenance"]["seed"], "2");
    let said = report["page"]["verdict"].as_str().unwrap();
    for fill in ["nearest_by_genes", "shuffled_condition", "mean_image", "random_training"] {
        assert!(said.contains(fill), "{fill} is not in {said}");
    }
    let page = std::fs::read_to_string(run.join("report/report.html")).unwrap();
    assert_eq!(page.matches("data:image/png;base64,").count(), 12, "a strip for each cell");
    assert_eq!(page.matches("<svg").count(), 10, "a histogram for each feature");
    std::fs::remove_file(run.join("report/report.html")).unwrap();
    done(&["report", &text(&run)]);
    assert_eq!(std::fs::read_to_string(run.join("report/report.html")).unwrap(), page, "the page is the same again");
}

/// Every held-out cell has a twin in the training split, of the same counts and the same picture.
#[test]
fn the_nearest_by_genes_of_an_identical_cell_is_its_picture() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = cells().dir().parent().unwrap().join("cohort");
    let twins = dir.path().join("twins");
    std::fs::create_dir(&twins).unwrap();
    for name in ["a", "b"] {
        for ending in ["h5ad", "png"] {
            let from = theirs.join(format!("synthetic-5-000.{ending}"));
            std::fs::copy(from, twins.join(format!("{name}.{ending}"))).unwrap();
        }
    }
    let shards = dir.path().join("shards");
    let of = |name: &str| format!("{name}={}", text(&twins.join(format!("{name}.h5ad"))));
    let sets = ["--set", "process.crop_px=32", "--set", "data.row_group_records=16", "--split", "val=b"];
    let shard = ["shard", &of("a"), &of("b"), "--config", "configs/spatia/shard.toml", "--out", &text(&shards)];
    done(&[&shard[..], &sets].concat());
    let run = copied("g1", dir.path());
    let report = judged(&run, &shards, &[]);
    assert_eq!(value(&report, "nearest_by_genes", "psnr"), 100.0, "no pixel differs");
    assert_eq!(value(&report, "nearest_by_genes", "w1_shape"), 0.0);
    assert!((value(&report, "nearest_by_genes", "pcc_shape") - 1.0).abs() < 1e-9);
    assert!(value(&report, "random_training", "psnr") < 50.0);
    assert!(report["page"]["notes"].to_string().contains("not the shards that the model was trained on"));
}

#[test]
fn threads_do_not_change_a_bit_and_the_seed_does() {
    let dir = tempfile::tempdir().unwrap();
    let (run, shards) = (text(&copied("g1", dir.path())), text(cells().dir()));
    let with = |threads: &str, seed: &str| {
        let args = ["evaluate", &run, "--shards", &shards, "--cells", "40", "--steps", "2", "--seed", seed, "--json"];
        let output = Command::new(env!("CARGO_BIN_EXE_syncytia"))
            .args(args)
            .env("RAYON_NUM_THREADS", threads)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let one = with("1", "4");
    assert!(with("3", "4") == one, "report.json of three threads");
    assert!(with("3", "5") != one, "another seed is another noise");
}

#[test]
fn what_cannot_be_judged_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (g1, shards) = (text(&runs().join("g1")), text(cells().dir()));
    let no = |run: &str, shards: &str, more: &[&str], code, fragments: &[&str]| {
        refused(&[&["evaluate", run, "--shards", shards][..], more].concat(), code, fragments);
    };
    no(&g1, &shards, &["--cells", "5000"], 2, &["--cells 5000: the val split has"]);
    no(&g1, &shards, &["--cells", "1"], 2, &["at least two"]);
    no(&g1, &shards, &["--steps", "0"], 2, &["0 solver steps"]);
    no(&g1, &shards, &["--solver", "ddim"], 2, &["Ddim does not fit"]);
    no(&g1, &text(spots().dir()), &[], 3, &["do not fit the model", "the model was trained on", "generate --input"]);
    no(&text(&runs().join("s1")), &shards, &["--cells", "5"], 2, &["--cells is for a generator"]);
    let blind = dir.path().join("blind");
    let cohort = text(&cells().dir().parent().unwrap().join("cohort"));
    let shard = ["shard", &cohort, "--config", "configs/spatia/shard.toml", "--out", &text(&blind)];
    done(&[&shard[..], &["--set", "input.images=none"]].concat());
    no(&g1, &text(&blind), &[], 2, &["the shards have no pictures"]);
}

/// Without an average and without a null condition: judged, the first with a word on it; guidance is refused.
#[test]
fn a_run_without_an_average_is_judged_and_one_without_a_null_condition_is_not_guided() {
    let dir = tempfile::tempdir().unwrap();
    let (s1, run, shards) = (text(&runs().join("s1")), dir.path().join("plain"), text(cells().dir()));
    let config = std::fs::read_to_string("configs/spatia/g1-tiny.toml").unwrap();
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("ema = ")).collect();
    let plain = dir.path().join("plain.toml");
    std::fs::write(&plain, config.join("\n")).unwrap();
    let train = ["train", &text(&plain), "--shards", &shards, "--run", &text(&run), "--from", &s1, "--ranks", "2"];
    let sets = ["train.max_steps=1", "train.micro_batch=4", "model.generator.dit.condition_dropout=0.0"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    done(&[&train[..], &sets].concat());
    let report = judged(&run, cells().dir(), &[]);
    assert!(report["page"]["notes"].to_string().contains("no average of its weights"));
    assert!(report["provenance"]["sampler"].as_str().unwrap().contains("\"guidance\":1.0"));
    let args = ["evaluate", &text(&run), "--shards", &shards, "--guidance", "1.5"];
    refused(&args, 2, &["guidance 1.5 needs a null condition"]);
}
