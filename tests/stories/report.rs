//! `report`: the page again from what `evaluate` stored, refusals in words, several runs on one page. Drives the real binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::command::{done, refused, syncytia};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Folders `shards`, `short` (2 steps) and `long` (60 steps), evaluated, and `fresh`, not evaluated. Tests copy what they change.
fn stage() -> &'static Path {
    static STAGE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = STAGE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let shards = at("shards");
        done(&["shard", "shards/data/vis5a_cut.h5ad", "--set", "filter.top_moran=16", "--out", text(&shards)]);
        for (run, steps) in [("short", 2), ("long", 60), ("fresh", 2)] {
            let steps = format!("train.max_steps={steps}");
            let (shards, run) = (text(&shards), at(run));
            done(&["train", "configs/spackle/tiny.toml", "--shards", shards, "--run", text(&run), "--set", &steps]);
        }
        done(&["evaluate", text(&at("short"))]);
        done(&["evaluate", text(&at("long")), "--sweep"]);
        dir
    });
    dir.path()
}

/// A copy of an evaluated run that has nothing but its report.
fn only_the_report(run: &str, scratch: &Path) -> PathBuf {
    let copy = scratch.join(run);
    fs::create_dir_all(copy.join("report")).unwrap();
    for entry in fs::read_dir(stage().join(run).join("report")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join("report").join(entry.file_name())).unwrap();
    }
    copy
}

/// Who reads a page, a log or an export knows in what gradients were summed; who begins a run is told what is not promised.
#[test]
fn the_precision_of_the_sums_is_said_wherever_a_run_is_told_of() {
    let words = "bf16 between ranks, f32 within one";
    let scratch = tempfile::tempdir().unwrap();
    let [run, out] = ["run", "out"].map(|name| scratch.path().join(name));
    let shards = stage().join("shards");
    let train = ["train", "configs/spackle/tiny.toml", "--shards", text(&shards), "--run", text(&run), "--ranks", "2"];
    let sets = ["--set", "train.max_steps=2", "--set", "train.reduction=fast_bf16"];
    let said = String::from_utf8(syncytia(&[&train[..], &sets].concat()).stderr).unwrap();
    assert!(said.contains(&format!("gradients are summed in {words}")) && said.contains("\"exact\" alone"), "{said}");
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(log.lines().next().unwrap().contains(&format!("\"sums\":\"{words}\"")), "{log}");
    done(&["evaluate", text(&run)]);
    assert_eq!(json(&run.join("report/report.json"))["provenance"]["sums"], words);
    assert!(fs::read_to_string(run.join("report/report.html")).unwrap().contains(words));
    done(&["export", text(&run), "--out", text(&out)]);
    assert_eq!(json(&out.join("provenance.json"))["sums"], words);
    assert!(fs::read_to_string(out.join("README.md")).unwrap().contains(words));
    assert_eq!(json(&stage().join("short/report/report.json"))["provenance"]["sums"], "64-bit fixed point");
}

#[test]
fn the_page_is_the_same_again_without_model_shards_or_metrics() {
    let scratch = tempfile::tempdir().unwrap();
    let run = only_the_report("long", scratch.path());
    let page = run.join("report/report.html");
    let written = fs::read_to_string(&page).unwrap();
    let sweep = fs::read_to_string(run.join("report/sweep.csv")).unwrap();
    assert_eq!(sweep.lines().count(), 1 + 8 * 11, "the model and ten fills at eight hidden fractions");
    let mse = |hidden: &str, method: &str| -> f64 {
        let line = sweep.lines().find(|l| l.starts_with(&format!("{hidden},{method},"))).expect("a point");
        line.split(',').nth(2).unwrap().parse().unwrap()
    };
    for method in ["spackle", "soft_impute"] {
        assert!(mse("0.8", method) > 1.1 * mse("0.3", method), "{method} does not feel what is hidden: {sweep}");
    }
    assert!(written.contains("How much may be hidden") && sweep.contains("0.8,spackle,"), "{sweep}");
    fs::remove_file(&page).unwrap();
    let said = done(&["report", text(&run)]);
    assert!(fs::read_to_string(&page).unwrap() == written, "the page differs from the one that evaluate wrote");
    assert!(said.contains("report.html") && said.contains("the SpaCKLE paper reports −82.5 %"), "{said}");
    let numbers: Value = serde_json::from_str(&done(&["report", text(&run), "--json"])).unwrap();
    assert_eq!(numbers, json(&run.join("report/report.json")));
    for part in
        ["Predicted against measured", "Learning curves", "On the tissue", "−82.5 % as a mean over 26 data sets"]
    {
        assert!(written.contains(part), "no {part} on the page");
    }
    let change = numbers["change_to_median_percent"]["paper"].as_f64().unwrap();
    assert!(written.contains(&format!("−{:.1} % under paper", -change)), "{change}");
    for outside in ["http://", "https://", "src=\"/", "<script", "<link"] {
        assert!(!written.contains(outside), "the page is not alone: {outside}");
    }
    let elsewhere = scratch.path().join("elsewhere");
    done(&["report", text(&run), "--out", text(&elsewhere)]);
    assert!(fs::read_to_string(elsewhere.join("report.html")).unwrap() == written);
}

#[test]
fn a_run_that_was_not_evaluated_is_refused_in_words() {
    let fresh = stage().join("fresh");
    let evaluate = format!("run `syncytia evaluate {}` first", text(&fresh));
    refused(&["report", text(&fresh)], 3, &["has not been evaluated", &evaluate]);
    let long = stage().join("long");
    let evaluate = format!("run `syncytia evaluate {} --split val` first", text(&long));
    refused(&["report", text(&long), "--split", "val"], 3, &["has not been evaluated on val", &evaluate]);
    // of a copy: the page is written again, and others copy the folder meanwhile
    let scratch = tempfile::tempdir().unwrap();
    done(&["report", text(&only_the_report("long", scratch.path())), "--split", "test", "--json"]);
    let out = stage().join("refused");
    refused(&["report", text(&long), text(&fresh), "--out", text(&out)], 3, &["has not been evaluated", text(&fresh)]);
    refused(&["report", text(&stage().join("nowhere"))], 2, &["nowhere is no folder"]);
    refused(&["report", text(&long), text(&stage().join("short"))], 2, &["--out DIR"]);
    refused(&["report", text(&long), text(&long), "--out", text(&out)], 2, &["is given twice"]);
    assert!(!out.exists(), "a refusal leaves nothing");
}

#[test]
fn stored_files_that_do_not_belong_together_are_refused_by_name() {
    for name in ["assays.csv", "curves.csv", "scatter.csv", "maps.parquet"] {
        let scratch = tempfile::tempdir().unwrap();
        let run = only_the_report("long", scratch.path());
        let file = run.join("report").join(name);
        fs::copy(stage().join("short/report").join(name), &file).unwrap();
        refused(
            &["report", text(&run)],
            3,
            &[name, "not what report.json beside it names", "`syncytia evaluate` again"],
        );
        fs::remove_file(&file).unwrap();
        refused(&["report", text(&run)], 3, &[name, "missing"]);
    }
    let scratch = tempfile::tempdir().unwrap();
    let run = only_the_report("long", scratch.path());
    fs::write(run.join("report/report.json"), "{\"model\": {}}").unwrap();
    refused(&["report", text(&run)], 3, &["report.json", "another version of syncytia"]);
}

#[test]
fn a_comparison_names_its_runs_and_marks_the_best() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("compared");
    let run = |name: &str| stage().join(name);
    let said = done(&["report", text(&run("short")), text(&run("long")), "--out", text(&out), "--json"]);
    let compared: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(compared, json(&out.join("comparison.json")));
    assert_eq!(compared["data_sets"].as_array().unwrap().len(), 1);
    let page = fs::read_to_string(out.join("comparison.html")).unwrap();
    assert!(page.contains("<td>short</td>") && page.contains("<td>long</td>") && page.contains("spackle (long)"));
    assert!(page.contains("violin model") && page.contains("violin fill") && !page.contains("http"));
    for protocol in ["paper", "strict"] {
        // The lowest MSE, from the reports themselves.
        let mut methods: Vec<(String, f64)> = Vec::new();
        for name in ["short", "long"] {
            let report = json(&run(name).join("report/report.json"));
            let under = if protocol == "paper" { &report } else { &report["strict"] };
            methods.push((name.to_owned(), under["model"]["mse"]["value"].as_f64().unwrap()));
            for (fill, row) in under["baselines"].as_object().unwrap() {
                methods.push((fill.clone(), row["mse"]["value"].as_f64().unwrap()));
            }
        }
        let (best, mse) = methods.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let under = &compared[protocol];
        for row in under["runs"].as_array().unwrap() {
            assert_eq!(row["best_on_data_set"], row["run"] == best.as_str(), "{protocol}: {best} is best, not {row}");
            assert_eq!(row["fill_is_best_on_data_set"], row["best_fill"] == best.as_str(), "{protocol}: {best}, {row}");
        }
        let marked: Vec<&str> = under["methods"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m["best"] == true)
            .map(|m| m["method"].as_str().unwrap())
            .collect();
        let named = if ["short", "long"].contains(&best.as_str()) { format!("spackle ({best})") } else { best.clone() };
        assert_eq!(marked, [named], "{protocol}");
        assert!(page.contains(&format!("best\">{mse:.3}")), "{protocol}: {mse:.3} is not in bold");
    }
    let csv = fs::read_to_string(out.join("comparison.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "a header, two runs under two protocols: {csv}");
}
