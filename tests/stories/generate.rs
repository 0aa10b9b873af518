//! SPATIA's generator: trained beside a frozen encoder, and asked for pictures.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use syncytia::train::checkpoint::{CheckpointContents, NamedTensor, Which, resolve};

use crate::command::{done, refused};
use crate::pretraining::cells;
use crate::stage::shards as spots;

const G1: &str = "configs/spatia/g1-tiny.toml";
const SHORT: [&str; 6] = [
    "train.micro_batch=4",
    "train.max_steps=6",
    "train.validate_every=3",
    "checkpoint.every=3",
    "optim.ema=0.9",
    "optim.warmup_steps=1",
];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder with a stage-1 run, `s1`, and a generator that began with it, `g1`, on one rank.
pub fn runs() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (shards, s1) = (text(cells().dir()), text(&dir.path().join("s1")));
        let stage1 = ["train", "configs/spatia/tiny.toml", "--shards", &shards, "--run", &s1, "--ranks", "2"];
        done(&[&stage1[..], &["--set", "train.micro_batch=4", "--set", "train.max_steps=2"]].concat());
        train(&s1, &dir.path().join("g1"), "1", &[]);
        dir
    });
    dir.path()
}

/// Trains a generator shortly, from `s1`.
fn train(s1: &str, run: &Path, ranks: &str, sets: &[&str]) -> CheckpointContents {
    let (shards, run_name) = (text(cells().dir()), text(run));
    let mut args = vec!["train", G1, "--shards", &shards, "--run", &run_name, "--ranks", ranks, "--from", s1];
    for set in SHORT.iter().chain(sets) {
        args.extend(["--set", set]);
    }
    done(&args);
    last(run)
}

/// The newest checkpoint, without what may differ: the config's free keys.
fn last(run: &Path) -> CheckpointContents {
    let mut contents = resolve(run, Which::Last).unwrap().0.contents;
    contents.state.as_object_mut().unwrap().remove("config");
    contents
}

fn generate(run: &Path, out: &Path, more: &[&str]) {
    let (run, shards, out) = (text(run), text(cells().dir()), text(out));
    let args = ["generate", &run, "--shards", &shards, "--seed", "3", "--n", "5", "--steps", "4", "--out", &out];
    done(&[&args[..], more].concat());
}

/// Name and bytes of every file of a folder.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap()))
        .collect()
}

fn values(dir: &Path, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(dir.join("images.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.shape(), [5, 32, 32, 3]);
    tensor.data().to_vec()
}

fn values_of<'a>(tensors: &'a [NamedTensor], name: &str) -> &'a [f32] {
    &tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}")).values
}

#[test]
fn any_number_of_ranks_and_a_stop_give_the_same_bits_beside_a_frozen_encoder() {
    let (runs, dir) = (runs(), tempfile::tempdir().unwrap());
    let (s1, one) = (text(&runs.join("s1")), last(&runs.join("g1")));
    for ranks in ["2", "4", "8"] {
        assert!(train(&s1, &dir.path().join(ranks), ranks, &[]) == one, "{ranks} ranks");
    }
    let stopped = dir.path().join("stopped");
    train(&s1, &stopped, "4", &["train.max_steps=3"]);
    assert!(train(&s1, &stopped, "3", &[]) == one, "a stop at step 3 and a resume on other ranks");

    let encoder = resolve(&runs.join("s1"), Which::Usual).unwrap().0.contents.model;
    let moments = &one.train_state["adam_m"];
    let mut n = 0;
    for tensor in one.model.iter().filter(|t| t.name.starts_with("model.encoder.")) {
        let name = tensor.name.replace("model.encoder.", "model.");
        assert_eq!(tensor.values, values_of(&encoder, &name), "{name} is the parent's");
        assert!(!moments.iter().any(|m| m.name == tensor.name), "{name} does not train");
        n += 1;
    }
    assert!(n > 30 && moments.iter().all(|m| m.name.starts_with("model.dit.")), "{n} tensors of the encoder");
    assert!(one.train_state.contains_key("raw"), "an average is kept");
}

/// Every block looks at the same condition: what each adds to its gradient is added in the same order, with tokens merged or not.
#[test]
fn what_runs_again_in_backward_changes_no_bit() {
    let (runs, dir) = (runs(), tempfile::tempdir().unwrap());
    let s1 = text(&runs.join("s1"));
    for ratio in ["0.0", "0.5"] {
        let with = |ranks: &str, recompute: &str, overlap: &str| {
            let sets = [
                format!("model.generator.dit.token_merging={{ ratio = {ratio}, mlp = true, cross = true }}"),
                "model.generator.dit.blocks=4".to_owned(), // sums of two have no order
                format!("train.recompute={recompute}"),
                format!("train.overlap={overlap}"),
            ];
            let run = dir.path().join([ratio, ranks, recompute, overlap].join("-"));
            train(&s1, &run, ranks, &sets.each_ref().map(String::as_str))
        };
        let kept = with("1", "none", "false");
        assert!(with("1", "cheap", "false") == kept, "merged {ratio}, cheap operations");
        for (ranks, overlap) in [("1", "false"), ("2", "false"), ("2", "true")] {
            assert!(with(ranks, "blocks", overlap) == kept, "merged {ratio}, {ranks} ranks, overlap: {overlap}");
        }
    }
}

/// Nothing merged is the plain network whatever else is said of merging, also in training; something merged is another.
#[test]
fn a_merging_of_nothing_is_the_plain_network_in_training() {
    let (runs, dir) = (runs(), tempfile::tempdir().unwrap());
    let s1 = text(&runs.join("s1"));
    let with = |name: &str, merging: &str| {
        let set = format!("model.generator.dit.token_merging={merging}");
        train(&s1, &dir.path().join(name), "2", &[&set, "train.max_steps=2"])
    };
    let plain = with("plain", "{ ratio = 0.0 }");
    assert!(with("nothing", "{ ratio = 0.001, mlp = true, cross = true }").model == plain.model);
    assert!(with("half", "{ ratio = 0.5 }").model != plain.model);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_pairs_share_their_noise() {
    let (g1, dir) = (runs().join("g1"), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    generate(&g1, &at("a"), &[]);
    generate(&g1, &at("b"), &[]);
    assert!(files(&at("a")) == files(&at("b")));
    let names: Vec<String> = files(&at("a")).into_iter().map(|f| f.0).collect();
    assert_eq!(names[..2], ["00000-generated.png", "00001-generated.png"]);
    assert_eq!(names[5..], ["generated.json", "images.safetensors", "sheet.html"]);

    generate(&g1, &at("pairs"), &["--set-gene", "RADIUS1=0", "--set-gene", "TEX1=x3"]);
    let plain = values(&at("a"), "generated");
    assert!(values(&at("pairs"), "before") == plain, "a change changes nothing of what was before");
    assert!(values(&at("pairs"), "after") != plain, "a change is seen");
    generate(&g1, &at("same"), &["--set-gene", "RADIUS1=x1"]);
    assert!(values(&at("same"), "after") == plain, "the same counts from the same noise");
    let sheet = std::fs::read_to_string(at("pairs").join("sheet.html")).unwrap();
    assert_eq!(sheet.matches("data:image/png;base64,").count(), 15, "real, before and after of five cells");
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at("pairs").join("generated.json")).unwrap()).unwrap();
    assert_eq!(said["set_gene"], serde_json::json!(["RADIUS1=0", "TEX1=x3"]));
    assert_eq!(said["records"][4]["files"], serde_json::json!(["00004-before.png", "00004-after.png"]));
    assert!(said["records"][0]["labels"]["truth_radius"].is_string());
}

/// The other objective, trained and sampled by command: on any ranks, with the same bits twice, by DDIM and no other solver.
#[test]
fn a_diffusion_is_trained_and_sampled_by_ddim() {
    let (runs, dir) = (runs(), tempfile::tempdir().unwrap());
    let (s1, run) = (text(&runs.join("s1")), dir.path().join("ddpm"));
    let ddpm = ["task.objective={ ddpm = \"cosine\" }"];
    let one = train(&s1, &run, "1", &ddpm);
    assert!(train(&s1, &dir.path().join("three"), "3", &ddpm) == one, "three ranks");
    let flow = last(&runs.join("g1"));
    assert!(one.model != flow.model, "another objective, another network");
    let at = |name: &str| dir.path().join(name);
    generate(&run, &at("a"), &[]);
    generate(&run, &at("b"), &["--solver", "ddim"]);
    assert!(files(&at("a")) == files(&at("b")), "ddim is the solver where none is named");
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at("a").join("generated.json")).unwrap()).unwrap();
    assert_eq!(said["sampler"]["solver"], "ddim");
    assert!(values(&at("a"), "generated").chunks(4).all(|v| f32::from_le_bytes(v.try_into().unwrap()).is_finite()));
    let args = ["generate", &text(&run), "--shards", &text(cells().dir()), "--seed", "1", "--out", &text(&at("never"))];
    refused(&[&args[..], &["--solver", "euler"]].concat(), 2, &["Euler does not fit", "ddpm takes ddim"]);
    refused(&[&args[..], &["--steps", "1001"]].concat(), 2, &["1001 solver steps are not between 1 and 1000"]);
    assert!(!at("never").exists());
}

#[test]
fn a_file_is_read_as_shards_are() {
    let (g1, dir) = (runs().join("g1"), tempfile::tempdir().unwrap());
    let cohort = cells().dir().parent().unwrap().join("cohort");
    let out = dir.path().join("out");
    let input = text(&cohort.join("synthetic-5-000.h5ad"));
    let args =
        ["generate", &text(&g1), "--input", &input, "--seed", "3", "--n", "5", "--steps", "4", "--out", &text(&out)];
    done(&args);
    assert_eq!(values(&out, "generated").len(), 4 * 5 * 32 * 32 * 3);
}

/// Shards of the same cohort with every picture turned into its negative: what is generated is the same.
#[test]
fn no_picture_reaches_what_is_generated() {
    let (g1, dir) = (runs().join("g1"), tempfile::tempdir().unwrap());
    let theirs = cells().dir().parent().unwrap().join("cohort");
    let (cohort, negative) = (dir.path().join("cohort"), dir.path().join("negative"));
    std::fs::create_dir(&cohort).unwrap();
    for (name, bytes) in files(&theirs) {
        if name.ends_with(".png") {
            let mut picture = image::load_from_memory(&bytes).unwrap();
            picture.invert();
            picture.save(cohort.join(name)).unwrap();
        } else {
            std::fs::write(cohort.join(name), bytes).unwrap();
        }
    }
    let sets = ["--set", "process.crop_px=32", "--set", "data.row_group_records=64"];
    let shard = ["shard", &text(&cohort), "--config", "configs/spatia/shard.toml", "--out", &text(&negative)];
    done(&[&shard[..], &sets].concat());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    generate(&g1, &a, &[]);
    let more = ["--shards", &text(&negative), "--seed", "3", "--n", "5", "--steps", "4", "--out", &text(&b)];
    done(&[&["generate", &text(&g1)][..], &more].concat());
    let differ: Vec<String> = files(&a).into_iter().zip(files(&b)).filter(|(x, y)| x != y).map(|(x, _)| x.0).collect();
    assert_eq!(differ, ["sheet.html"], "the sheet alone shows the real pictures");
}

#[test]
fn what_cannot_be_generated_is_refused_in_words_and_leaves_nothing() {
    let (runs, dir) = (runs(), tempfile::tempdir().unwrap());
    let (g1, shards, out) = (text(&runs.join("g1")), text(cells().dir()), text(&dir.path().join("out")));
    let no = |run: &str, shards: &str, more: &[&str], code, fragments: &[&str]| {
        let args = ["generate", run, "--shards", shards, "--seed", "1", "--out", &out];
        refused(&[&args[..], more].concat(), code, fragments);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something half-written");
    };
    let split_of_file = ["generate", &g1, "--input", "x.h5ad", "--split", "val", "--seed", "1", "--out", &out];
    refused(&split_of_file, 2, &["--input", "cannot be used with", "--split"]);
    no(&g1, &shards, &["--set-gene", "RADUIS1=0"], 2, &["RADUIS1 is no gene", "nearest are RADIUS1"]);
    no(&g1, &shards, &["--set-gene", "RADIUS1=big"], 2, &["big is no change"]);
    no(&g1, &shards, &["--solver", "ddim"], 2, &["Ddim does not fit"]);
    no(&g1, &shards, &["--steps", "0"], 2, &["0 solver steps"]);
    no(&g1, &text(spots().dir()), &[], 3, &["do not fit the model", "the model was trained on", "generate --input"]);
    no(&text(&runs.join("s1")), &shards, &[], 2, &["checkpoint of spatia"]);
    let unguided = tempfile::tempdir().unwrap();
    let run = unguided.path().join("run");
    train(&text(&runs.join("s1")), &run, "2", &["model.generator.dit.condition_dropout=0.0", "train.max_steps=1"]);
    no(&text(&run), &shards, &["--guidance", "1.5"], 2, &["guidance 1.5 needs a null condition"]);
    let refused_config = |set: &str, fragments: &[&str]| {
        let never = text(&unguided.path().join("never"));
        refused(&["train", G1, "--shards", &shards, "--run", &never, "--set", set], 2, fragments);
    };
    refused_config("model.generator.dit.patch=5", &["model.generator.dit.image = 32", "dit.patch = 5"]);
    refused_config("model.generator.dit.condition=64", &["model.generator.dit.condition = 64", "encoder.h = 32"]);
}
