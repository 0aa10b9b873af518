//! SpotDiff through the program: two tables become shards, each fold of genes two stages, and what was hidden is judged and written
//! back. What is hidden reaches no weight.

mod judged;

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
