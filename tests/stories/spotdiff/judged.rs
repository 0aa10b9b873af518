//! What was hidden is judged and written back, where less and more of it is hidden too, and beside stDiff.

use std::path::Path;

use syncytia_shards::holdout::hidden_entries;

use super::{GENES, SPOTS, TINY, Tables, last, train, whole};
use crate::command::{done, refused, syncytia};

#[test]
fn random_entries_are_imputed_judged_and_written_back() {
    let tables = Tables::new(|_, _, value| value);
    let (shards, run) = (tables.shard("shards", &[]), tables.path("run"));
    done(&train(&shards, &run, &[]));
    let json: serde_json::Value = serde_json::from_str(&done(&["evaluate", &run, "--json"])).unwrap();
    assert_eq!(json["protocol"], "entries");
    assert!(json["baselines"]["spatial_knn"]["pcc"]["value"].as_f64().unwrap() > 0.5);
    let out = tables.path("imputed.h5ad");
    let input = tables.path("spots.txt");
    let said = done(&["impute", &run, "--input", &input, "--output", &out]);
    assert!(said.contains(&format!("{SPOTS} spots × {GENES} genes in layers[\"spotdiff\"]")), "{said}");
    let file = hdf5_pure::File::open(&out).unwrap();
    let read = |name: &str| file.dataset(name).unwrap().read_f32().unwrap();
    let (x, values, spread) = (read("X"), read("layers/spotdiff"), read("layers/spotdiff_spread"));
    assert!(values.len() == SPOTS * GENES && values.iter().all(|v| v.is_finite()));
    let hidden = x.iter().filter(|v| v.is_nan()).count();
    assert!((100..350).contains(&hidden), "{hidden} of 700 were hidden");
    assert!((0..x.len()).all(|at| if x[at].is_nan() {
        spread[at] > 0.0
    } else {
        x[at] == values[at] && spread[at] == 0.0
    }));

    // Without the reference nothing is paired and there is no first stage.
    let alone = tables.path("alone");
    let args = ["--set", "model.spotdiff.psi.use_rna=false", "--set", "model.spotdiff.psi.rna_channel=false"];
    let said = String::from_utf8(syncytia(&train(&shards, &alone, &args)).stderr).unwrap();
    assert!(said.contains("is left out") && !Path::new(&alone).join("omega").exists(), "{said}");
}

/// At the shards' own share the sweep is the main table; above it what the shards hide has no way in; below it some of it has.
#[test]
fn a_sweep_meets_the_main_table_and_shows_no_hidden_value_at_the_shards_share_or_above() {
    let six_decimals = |value: f64| (1e6 * value).round() / 1e6;
    let tables = Tables::new(|_, _, value| six_decimals(value));
    let (shards, run) = (tables.shard("shards", &[]), tables.path("run"));
    done(&train(&shards, &run, &[]));
    let swept = |shards: &str| -> serde_json::Value {
        serde_json::from_str(&done(&["evaluate", &run, "--shards", shards, "--sweep", "--json"])).unwrap()
    };
    let found = swept(&shards);
    let methods = |of: &serde_json::Value| -> Vec<(String, serde_json::Value)> {
        let all = of["baselines"].as_object().unwrap().iter().map(|(name, of)| (name.clone(), of.clone()));
        let judged = all.filter(|(_, of)| of["pcc_at_0.3"].is_object());
        judged.chain([("spotdiff".to_owned(), of["model"].clone())]).collect()
    };
    let names: Vec<String> = methods(&found).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gene_mean", "spatial_knn", "spotdiff_smooth", "svd10", "spotdiff"]);
    for (name, of) in methods(&found) {
        assert_eq!(of["pcc_at_0.3"], of["pcc"], "{name} at the shards' own share");
        for share in ["0.1", "0.5", "0.7"] {
            assert!(of[format!("pcc_at_{share}")]["value"].as_f64().is_some_and(f64::is_finite), "{name} at {share}");
        }
    }
    let page = std::fs::read_to_string(Path::new(&run).join("report/report.html")).unwrap();
    for words in ["Sparse data", "only who judges can show it", "masks are nested"] {
        assert!(page.contains(words), "no {words:?} on the page");
    }

    // Every hidden value four times as great: Pearson's r of the same predictions has the same bits.
    let hides = |row: usize| hidden_entries(0, row as u64, 0.3, GENES);
    let changed =
        Tables::new(|row, gene, value| if hides(row)[gene] { 4.0 * six_decimals(value) } else { six_decimals(value) });
    assert_ne!(std::fs::read(tables.path("spots.txt")).unwrap(), std::fs::read(changed.path("spots.txt")).unwrap());
    let other = swept(&changed.shard("shards", &[]));
    for ((name, before), (_, after)) in methods(&found).into_iter().zip(methods(&other)) {
        for share in ["0.3", "0.5", "0.7"] {
            let metric = format!("pcc_at_{share}");
            assert_eq!(before[&metric], after[&metric], "{name} at {share}");
        }
        // a gene's mean is the same in every spot, and with ten genes so is a rank of ten
        let told = before["pcc_at_0.1"] != after["pcc_at_0.1"];
        assert!(told || ["gene_mean", "svd10"].contains(&name.as_str()), "{name} was told more at a tenth");
    }

    // Another share than those of every sweep is scored beside them.
    let shards = tables.shard("other", &["data.holdout_fraction=0.2"]);
    let run = tables.path("other-run");
    done(&train(&shards, &run, &[]));
    let found: serde_json::Value = serde_json::from_str(&done(&["evaluate", &run, "--sweep", "--json"])).unwrap();
    assert_eq!(found["model"]["pcc_at_0.2"], found["model"]["pcc"]);

    let (_, _, folds) = whole();
    refused(&["evaluate", folds, "--sweep"], 2, &["--sweep", "folds of genes", "data.holdout=entries"]);
}

/// stDiff on the same folds: trained on cells alone, so that no spot reaches its weights; judged beside SpotDiff by name.
#[test]
fn stdiff_is_trained_on_cells_and_stands_beside_the_model_on_the_same_folds() {
    let (tables, shards, run) = whole();
    let stdiff = |shards: &str, run: &str, more: &[&str]| {
        let mut args = vec!["train", "configs/spotdiff/stdiff.toml", "--shards", shards, "--run", run];
        let sets = [
            "model.spotdiff.psi.d=32",
            "model.spotdiff.psi.blocks=2",
            "model.spotdiff.psi.heads=2",
            "task.steps=20",
            "optim.lr=1e-3",
            "train.max_steps=6",
            "train.micro_batch=32",
            "data.view.nearest_cells=5",
        ];
        args.extend(sets.iter().flat_map(|set| ["--set", *set]));
        args.extend(more);
        done(&args);
    };
    let other = tables.path("stdiff");
    stdiff(shards, &other, &[]);
    let judged = |beside: &str| -> serde_json::Value {
        serde_json::from_str(&done(&["evaluate", run, "--fast", "--beside", beside, "--json"])).unwrap()
    };
    let found = judged(&other);
    let alone: serde_json::Value = serde_json::from_str(&done(&["evaluate", &other, "--fast", "--json"])).unwrap();
    let of_other = &found["baselines"]["stdiff"];
    assert_eq!(of_other["pcc"]["n_used"], GENES, "every gene of every fold");
    for metric in ["pcc", "ssim", "cossim", "pcc_flat"] {
        assert_eq!(of_other[metric], alone["model"][metric], "{metric}: judged as it is alone");
        assert_ne!(of_other[metric], found["model"][metric], "{metric}");
    }
    assert_eq!(judged(&format!("named={other}"))["baselines"]["named"]["pcc"], of_other["pcc"]);
    let page = std::fs::read_to_string(Path::new(run).join("report/report.html")).unwrap();
    for words in ["trained here: 6 steps of 32 records", "attends over the spots that are imputed together, 32"] {
        assert!(page.contains(words), "no {words:?} on the page");
    }

    // Other spots, the same cells: the same weights.
    let changed = Tables::new(|row, gene, value| value * 1.5 + ((row + gene) % 3) as f64);
    let again = changed.path("again");
    stdiff(&changed.folds("shards"), &again, &["--fold", "0"]);
    assert!(last(&Path::new(&again).join("fold-0")).model == last(&Path::new(&other).join("fold-0")).model);
    // Without the second cells it learns something else.
    let once = changed.path("once");
    stdiff(shards, &once, &["--fold", "0", "--set", "data.view.raised_cells=0"]);
    assert!(last(&Path::new(&once).join("fold-0")).model != last(&Path::new(&other).join("fold-0")).model);

    for (beside, words) in [
        (format!("{other}/fold-0"), ["learned fold 0", "judged 0, 1"]),
        (format!("svd10={other}"), ["a name of its own", "NAME=RUN"]),
        (format!("a={other},a={other}"), ["a name of its own", "NAME=RUN"]),
    ] {
        refused(&["evaluate", run, "--fast", "--beside", &beside], 2, &words);
    }
    let lanes = ["train", "configs/spotdiff/stdiff.toml", "--shards", shards, "--run", &once, "--set", "train.lanes=2"];
    refused(&lanes, 2, &["demands train.lanes = 1"]);
    let paired = ["train", TINY, "--shards", shards, "--run", &once, "--set", "data.view.raised_cells=10"];
    refused(&paired, 2, &["data.view.raised_cells", "use_rna = false"]);
    let entries = tables.shard("of-entries", &[]);
    let run = tables.path("no-fold");
    let args = ["train", "configs/spotdiff/stdiff.toml", "--shards", &entries, "--run", &run];
    refused(&args, 3, &["task.train_mask = 0", "data.holdout=gene_folds"]);
}
