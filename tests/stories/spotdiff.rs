//! SpotDiff through the program: two tables become shards, each fold of genes two stages, and what was hidden is judged and written
//! back. What is hidden reaches no weight.

use std::path::Path;
use std::sync::OnceLock;

use syncytia::train::checkpoint::{CheckpointContents, newest_valid};
use syncytia::train::run_folder::RunFolder;
use syncytia_shards::draw::{DrawKey, Purpose, uniform};
use syncytia_shards::holdout::hidden_entries;
use syncytia_shards::manifest::Manifest;

use crate::command::{done, refused, syncytia};

const TINY: &str = "configs/spotdiff/tiny.toml";
const SPOTS: usize = 70;
const GENES: usize = 10;
const CELLS: usize = 40;
const FOLDS: u32 = 2;

/// Tables of spots and cells in a scratch folder.
struct Tables(tempfile::TempDir);

impl Tables {
    /// Spots whose genes are waves over the place, cells alike; `changed`: what becomes of a spot's value.
    fn new(changed: impl Fn(usize, usize, f64) -> f64) -> Tables {
        let tables = Tables(tempfile::tempdir().unwrap());
        let noise = |row: usize, gene: usize, site: u32| {
            f64::from(uniform(DrawKey::new(2, Purpose::Synthetic).word((row * 64 + gene) as u32, [0, 0, site])))
        };
        let names: Vec<String> = (0..GENES).map(|gene| format!("gene{gene}")).collect();
        let mut spots = names.join("\t") + "\n";
        let mut places = "x y\n".to_owned();
        for row in 0..SPOTS {
            let (x, y) = ((row % 10) as f64, (row / 10) as f64);
            let value = |gene: usize| {
                let wave = 1.0 + (0.6 * x + 0.4 * y + gene as f64 * 0.7).sin();
                changed(row, gene, wave + 0.1 * noise(row, gene, 0) + 0.01)
            };
            spots += &((0..GENES).map(|gene| format!("{:.6}", value(gene))).collect::<Vec<_>>().join("\t") + "\n");
            places += &format!("{x} {y}\n");
        }
        let mut cells = String::new();
        for (gene, name) in names.iter().enumerate() {
            let count = |cell: usize| {
                (10.0 * (1.0 + (cell as f64 * 0.5 + gene as f64 * 0.7).sin()) + 3.0 * noise(cell, gene, 1)) as u32
            };
            let counts: Vec<String> = (0..CELLS).map(|cell| count(cell).to_string()).collect();
            cells += &format!("{name}\t{}\n", counts.join("\t"));
        }
        for (name, text) in [("spots.txt", &spots), ("places.txt", &places), ("cells.txt", &cells)] {
            std::fs::write(tables.path(name), text).unwrap();
        }
        tables
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn shard(&self, out: &str, sets: &[&str]) -> String {
        let [spots, cells, out] = ["spots.txt", "cells.txt", out].map(|name| self.path(name));
        let places = format!("input.coordinates={}", self.path("places.txt"));
        let args = ["shard", &spots, "--reference", &cells, "--config", "configs/spotdiff/shard.toml", "--out", &out];
        let sets = [&[places.as_str(), "input.um_per_unit=1"][..], sets].concat();
        done(&[&args[..], &sets.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>()].concat());
        out
    }

    fn folds(&self, out: &str) -> String {
        self.shard(out, &["data.holdout=gene_folds", &format!("data.folds={FOLDS}")])
    }
}

/// `train` of few steps.
fn train<'a>(shards: &'a str, run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", TINY, "--shards", shards, "--run", run];
    let sets = [
        "train.max_steps=6",
        "first.max_steps=4",
        "checkpoint.every=2",
        "checkpoint.keep=9",
        "data.view.nearest_cells=5",
    ];
    args.extend(sets.iter().flat_map(|set| ["--set", *set]));
    args.extend(more);
    args
}

fn last(run: &Path) -> CheckpointContents {
    newest_valid(&RunFolder::at(run)).unwrap().checkpoint.unwrap().contents
}

/// Tables, shards in folds, and a run of all of them.
fn whole() -> &'static (Tables, String, String) {
    static WHOLE: OnceLock<(Tables, String, String)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let tables = Tables::new(|_, _, value| value);
        let (shards, run) = (tables.folds("shards"), tables.path("run"));
        done(&train(&shards, &run, &["--ranks", "2"]));
        (tables, shards, run)
    })
}

/// Config, shards and vectors of both stages of a fold, as arguments.
pub fn stages() -> [Vec<String>; 2] {
    let (_, shards, run) = whole();
    let stage = |config: &str, pairs: &[&str]| {
        let vectors = pairs.iter().flat_map(|pairs| ["--vectors".to_owned(), format!("{run}/fold-0/{pairs}")]);
        [format!("{run}/fold-0/{config}"), "--shards".to_owned(), shards.clone()].into_iter().chain(vectors).collect()
    };
    let moved = ["pairs/spots", "pairs/cells", "pairs/others"];
    [stage("omega/config.toml", &["pairs-omega/spots"]), stage("config.toml", &moved)]
}

#[test]
fn every_fold_is_trained_in_two_stages_and_every_gene_is_judged_where_it_was_hidden() {
    let (_, shards, run) = whole();
    for fold in 0..FOLDS {
        let dir = Path::new(run).join(format!("fold-{fold}"));
        for file in ["omega/checkpoints", "pairs/spots/vectors.json", "pairs/others/vectors.json", "pairs-omega/spots"]
        {
            assert!(dir.join(file).exists(), "no {file} in fold {fold}");
        }
        let (first, second) = (last(&dir.join("omega")), last(&dir));
        for (a, b) in first.model.iter().zip(&second.model) {
            let of_omega = a.name.starts_with("model.omega.");
            assert_eq!(
                a.values == b.values,
                of_omega || a.values.iter().all(|v| *v == 0.0) && a.values == b.values,
                "{}",
                a.name
            );
        }
    }
    // The same command again does nothing, and is done at once.
    let said = String::from_utf8(syncytia(&train(shards, run, &[])).stderr).unwrap();
    assert!(!said.contains("step 2 "), "{said}");

    let json: serde_json::Value = serde_json::from_str(&done(&["evaluate", run, "--fast", "--json"])).unwrap();
    assert_eq!((&json["task"], &json["protocol"]), (&"imputation".into(), &"gene_folds".into()));
    assert_eq!(json["model"]["pcc"]["n_used"], GENES, "every gene of every fold");
    for fill in ["gene_mean", "knn_reference", "ridge_reference", "spage"] {
        assert!(json["baselines"][fill]["pcc"]["value"].is_number(), "{fill}");
    }
    let page = std::fs::read_to_string(Path::new(run).join("report/report.html")).unwrap();
    assert!(page.contains("no pretrained text encoder reads them") && page.contains("re-implemented from the paper"));

    // One fold alone has its own genes.
    let alone = format!("{run}/fold-1");
    let json: serde_json::Value = serde_json::from_str(&done(&["evaluate", &alone, "--fast", "--json"])).unwrap();
    assert_eq!(json["model"]["pcc"]["n_used"], GENES / FOLDS as usize);
}

#[test]
fn any_number_of_ranks_and_a_stop_between_give_the_same_bits() {
    let (tables, shards, run) = whole();
    let (other, pieces) = (tables.path("other"), tables.path("pieces"));
    done(&train(shards, &other, &["--ranks", "4", "--fold", "1"]));
    for steps in ["train.max_steps=2", "train.max_steps=4", "train.max_steps=6"] {
        done(&train(shards, &pieces, &["--ranks", "3", "--fold", "1", "--set", steps]));
    }
    let expected = last(&Path::new(run).join("fold-1"));
    for dir in [other, pieces] {
        assert!(last(&Path::new(&dir).join("fold-1")).model == expected.model, "{dir}");
    }
}

#[test]
fn blocks_that_run_again_in_backward_change_no_bit() {
    let (tables, shards, _) = whole();
    let with = |ranks: &str, recompute: &str, overlap: &str| {
        let run = tables.path(&["blocks", ranks, recompute, overlap].join("-"));
        let keys = [("recompute", recompute), ("overlap", overlap)].map(|(key, is)| format!("train.{key}={is}"));
        let sets = ["--set", &keys[0], "--set", &keys[1], "--set", "model.spotdiff.psi.dropout=0.1"];
        done(&train(shards, &run, &[&["--ranks", ranks, "--fold", "0"][..], &sets].concat()));
        let CheckpointContents { model, train_state, .. } = last(&Path::new(&run).join("fold-0"));
        (model, train_state)
    };
    let kept = with("1", "none", "false");
    for (ranks, overlap) in [("1", "false"), ("2", "false"), ("2", "true")] {
        assert!(with(ranks, "blocks", overlap) == kept, "{ranks} ranks, overlap: {overlap}");
    }
}

#[test]
fn what_a_fold_hides_reaches_no_weight_of_it() {
    let (tables, shards, run) = whole();
    let folds = Manifest::read(Path::new(shards)).unwrap().holdout.unwrap().fold_of_gene;
    let changed = Tables::new(|row, gene, value| if folds[gene] == 0 { value * 3.0 + row as f64 } else { value });
    let other = changed.folds("shards");
    assert_ne!(std::fs::read(tables.path("spots.txt")).unwrap(), std::fs::read(changed.path("spots.txt")).unwrap());
    let again = changed.path("run");
    done(&train(&other, &again, &["--ranks", "1", "--fold", "0"]));
    assert!(last(&Path::new(&again).join("fold-0")).model == last(&Path::new(run).join("fold-0")).model);
    // And what it shows does.
    let seen = Tables::new(|_, gene, value| if folds[gene] == 1 { value * 1.5 + 0.2 * value * value } else { value });
    let (other, again) = (seen.folds("shards"), seen.path("run"));
    done(&train(&other, &again, &["--ranks", "1", "--fold", "0"]));
    assert!(last(&Path::new(&again).join("fold-0")).model != last(&Path::new(run).join("fold-0")).model);
}

/// Where neighbours are read, too: what they show is what is visible of them.
#[test]
fn hidden_entries_reach_no_weight_that_reads_neighbours_on_any_ranks() {
    let config = "configs/spotdiff/entries.toml";
    let small =
        ["model.spotdiff.psi.d=16", "model.spotdiff.psi.blocks=2", "train.max_steps=3", "data.view.nearest_cells=5"];
    let sets: Vec<&str> = small.iter().flat_map(|set| ["--set", *set]).collect();
    let model = |tables: &Tables, run: &str, ranks: &str| {
        let (shards, run) = (tables.path("shards"), tables.path(run));
        let args = ["train", config, "--shards", &shards, "--run", &run, "--ranks", ranks];
        done(&[&args[..], &sets].concat());
        last(Path::new(&run)).model
    };
    let hidden = |row: usize, gene: usize| hidden_entries(0, row as u64, 0.3, GENES)[gene];
    let tables = Tables::new(|_, _, value| value);
    let changed = Tables::new(|row, gene, value| if hidden(row, gene) { value * 3.0 + row as f64 } else { value });
    let seen = Tables::new(|row, gene, value| if (row, gene) == (7, visible(7)) { value + 0.5 } else { value });
    for tables in [&tables, &changed, &seen] {
        tables.shard("shards", &[]);
    }
    let expected = model(&tables, "run", "1");
    assert!(model(&tables, "again", "3") == expected);
    assert!(model(&changed, "run", "2") == expected);
    assert!(model(&seen, "run", "1") != expected);
}

/// A gene of the row that is not hidden.
fn visible(row: u64) -> usize {
    hidden_entries(0, row, 0.3, GENES).iter().position(|hidden| !hidden).unwrap()
}

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

#[test]
fn stages_are_trained_one_by_one_on_pairs_made_by_hand() {
    let (tables, shards, run) = whole();
    let [pairs, aligned, moved, by_hand] = ["p", "a", "m", "h"].map(|name| tables.path(name));
    let few = ["--set", "data.view.nearest_cells=5", "--fold", "0", "--shards", shards];
    done(&[&["pair", TINY, "--out", &pairs][..], &few].concat());
    done(&[&["pair", TINY, "--moved-by", &format!("{run}/fold-0/omega"), "--out", &moved][..], &few].concat());
    let [spots, cells, others] = ["spots", "cells", "others"].map(|name| format!("{moved}/{name}"));
    let omega = format!("{run}/fold-0/omega");
    let given = ["--fold", "0", "--from", &omega, "--vectors", &spots, "--vectors", &cells, "--vectors", &others];
    done(&train(shards, &by_hand, &given));
    let expected = last(&Path::new(run).join("fold-0"));
    assert!(last(&Path::new(&by_hand).join("fold-0")).model == expected.model);

    let no = |more: &[&str], code: i32, words: &[&str]| {
        refused(&train(shards, &aligned, more), code, words);
        assert!(!Path::new(&aligned).join("fold-0/checkpoints").exists());
    };
    no(&["--fold", "7"], 2, &["--fold 7", "2 folds"]);
    refused(&train(shards, shards, &[]), 2, &["--run", "these are shards"]);
    let foreign = [&given[..], &["--set", "data.view.nearest_cells=6"]].concat();
    no(&foreign, 3, &["was made for", "6 nearest", "syncytia pair"]);
    no(&["--fold", "0", "--set", "data.view.nearest_cells=41"], 3, &["41", "the reference has 40"]);
    no(&["--fold", "0", "--set", "model.spotdiff.prompt.encoder=\"t5\""], 2, &["data.text_encoder"]);
    refused(
        &["train", "configs/spackle/tiny.toml", "--shards", shards, "--run", &aligned, "--fold", "0"],
        2,
        &["--fold"],
    );
}

#[test]
fn a_run_knows_the_text_encoder_that_read_its_prompts_wherever_it_lies() {
    let tables = Tables::new(|_, _, value| value);
    let (shards, run) = (tables.shard("shards", &[]), tables.path("run"));
    let folder = |name: &str, of: &str| {
        let (dir, golden) = (tables.path(name), Path::new("tests/golden/t5"));
        std::fs::create_dir(&dir).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(of).join(file), Path::new(&dir).join(file)).unwrap();
        }
        std::fs::copy(golden.join("spiece.model"), Path::new(&dir).join("spiece.model")).unwrap();
        dir
    };
    let (t5, another, moved) = (folder("t5", "v1_1"), folder("another", "v1_0"), tables.path("moved"));
    let [own, other, elsewhere] = [&t5, &another, &moved].map(|dir| format!("data.text_encoder={dir}"));
    let reads = ["--set", "model.spotdiff.prompt.encoder=\"t5\"", "--set", "model.spotdiff.prompt.width=12"];
    let with = |sets: [&'static str; 2]| [&reads[..], &sets].concat();
    let (two, four) = (with(["--set", "train.max_steps=2"]), with(["--set", "train.max_steps=4"]));
    done(&train(&shards, &run, &[&two[..], &["--set", &own]].concat()));
    // Another T5 is another trajectory; the same elsewhere is not.
    let by_another = [&four[..], &["--set", &other]].concat();
    refused(&train(&shards, &run, &by_another), 5, &["data.text_encoder", "other files"]);
    std::fs::rename(&t5, &moved).unwrap();
    done(&train(&shards, &run, &[&four[..], &["--set", &elsewhere]].concat()));
    std::fs::rename(&moved, &t5).unwrap();
    refused(&["evaluate", &run], 3, &[&moved, "--text-encoder"]);
    refused(&["evaluate", &run, "--text-encoder", &another], 3, &["another text encoder"]);
    done(&["evaluate", &run, "--text-encoder", &t5]);
    // A run that reads no text has no use for a folder, unless one beside it has.
    let plain = tables.path("plain");
    done(&train(&shards, &plain, &["--set", "train.max_steps=2"]));
    let beside = format!("t5={run}");
    refused(&["evaluate", &plain, "--text-encoder", &t5], 2, &["--text-encoder", "no prompt"]);
    refused(&["evaluate", &plain, "--beside", &beside], 3, &[&moved, "--text-encoder"]);
    done(&["evaluate", &plain, "--beside", &beside, "--text-encoder", &t5]);
    let out = tables.path("imputed.h5ad");
    done(&["impute", &run, "--input", &tables.path("spots.txt"), "--output", &out, "--text-encoder", &t5]);
}
