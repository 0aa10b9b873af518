//! What bad input gets: a clear error, the designed exit code, nothing half-written. Drives the real binary.

use std::path::Path;
use std::process::Command;

use syncytia_shards::ingest::h5ad_write::{self, AnnData, X};
use syncytia_shards::ingest::{self, IngestOptions};
use syncytia_shards::section::Section;

use crate::command::{cut, refused, syncytia};

/// A scratch folder, and paths in it as text.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// Writes a changed copy of the shipped section.
    fn section(&self, name: &str, change: impl FnOnce(&mut Section, &mut AnnData)) -> String {
        let mut section = ingest::read_section(Path::new(&cut()), &IngestOptions::default()).unwrap();
        let mut ann = AnnData::from_section(&section);
        change(&mut section, &mut ann);
        let path = self.path(name);
        h5ad_write::write(Path::new(&path), &ann).unwrap();
        path
    }

    /// `shard` on `input` is refused and leaves no output folder.
    #[track_caller]
    fn shard_refused(&self, inputs: &[&str], more: &[&str], code: i32, fragments: &[&str]) {
        let out = self.path("shards");
        let mut args = vec!["shard"];
        args.extend(inputs);
        args.extend(["--out", &out]);
        args.extend(more);
        refused(&args, code, fragments);
        assert!(!Path::new(&out).join("manifest.json").exists(), "a refused shard looks finished");
    }
}

fn counts(ann: &mut AnnData) -> &mut Vec<f32> {
    match &mut ann.x {
        Some(X::Sparse(x)) => &mut x.values,
        _ => panic!("the shipped section is sparse"),
    }
}

#[test]
fn files_that_are_no_sections() {
    let s = Scratch::new();
    s.shard_refused(&[&s.path("none.h5ad")], &[], 3, &["none.h5ad"]);
    std::fs::write(s.path("text.h5ad"), "no HDF5 at all").unwrap();
    s.shard_refused(&[&s.path("text.h5ad")], &[], 3, &["text.h5ad"]);
    let bytes = std::fs::read(cut()).unwrap();
    std::fs::write(s.path("torn.h5ad"), &bytes[..bytes.len() / 2]).unwrap();
    s.shard_refused(&[&s.path("torn.h5ad")], &[], 3, &["torn.h5ad"]);
}

#[test]
fn values_that_are_no_counts() {
    for (name, value, word) in
        [("negative", -1.0, "negative"), ("nan", f32::NAN, "NaN"), ("inf", f32::INFINITY, "inf"), ("half", 1.5, "1.5")]
    {
        let s = Scratch::new();
        let path = s.section(&format!("{name}.h5ad"), |_, ann| counts(ann)[7] = value);
        s.shard_refused(&[&path], &[], 3, &[name, word]);
    }
}

#[test]
fn names_that_are_not_unique() {
    let s = Scratch::new();
    let path = s.section("spots.h5ad", |_, ann| ann.obs_names[1] = ann.obs_names[0].clone());
    s.shard_refused(&[&path], &[], 3, &["spots.h5ad"]);
}

#[test]
fn sections_without_a_common_gene_and_genes_without_a_length() {
    let s = Scratch::new();
    let renamed = |ann: &mut AnnData| {
        for (i, name) in ann.var_names.iter_mut().enumerate() {
            *name = format!("GENE{i}");
        }
        ann.var.clear();
    };
    let other = s.section("other.h5ad", |_, ann| renamed(ann));
    s.shard_refused(&[&cut(), &other], &[], 3, &[]);
    s.shard_refused(&[&other], &[], 3, &["cp10k"]);
}

#[test]
fn splits_and_sizes_that_do_not_fit() {
    let s = Scratch::new();
    let input = cut();
    s.shard_refused(&[&input], &["--split", "val=nobody"], 3, &["nobody"]);
    s.shard_refused(&[&input], &["--split", "nobody"], 2, &["val=NAME"]);
    s.shard_refused(&[&input], &["--set", "process.n_neighbours=300"], 3, &["300"]);
}

#[test]
fn keys_that_do_not_exist_or_have_another_type() {
    let s = Scratch::new();
    let input = cut();
    s.shard_refused(&[&input], &["--set", "filter.cell_mni=3"], 2, &["cell_mni", "did you mean `cell_min`?"]);
    s.shard_refused(&[&input], &["--set", "filter.cell_min=many"], 2, &["filter.cell_min"]);
    let train = ["train", "configs/spackle/tiny.toml", "--shards", "none", "--run"];
    let run = s.path("run");
    let with = |set| [&train[..], &[run.as_str(), "--set", set]].concat();
    refused(&with("process.normalize=tpm"), 2, &["process", "fixed when the shards were written"]);
    refused(&with("train.lane=8"), 2, &["did you mean `lanes`?"]);
    refused(&with("train.lanes"), 2, &["no `=`"]);
    refused(&with("train.ranks=9"), 2, &["train.lanes = 8"]);
    refused(&with("model.spackle.attention_axis=batch"), 2, &["train.lanes = 1", "train.micro_batch = 256"]);
    for (set, key) in [
        ("optim.lr=inf", "optim.lr"),
        ("optim.clip_norm=0", "optim.clip_norm"),
        ("optim.weight_decay=-1", "optim.weight_decay"),
        ("optim.betas=[0.9,1.0]", "optim.betas"),
        ("task.rho=0", "task.rho"),
        ("task.visible_weight=-1", "task.visible_weight"),
        ("model.spackle.d=0", "model.spackle.heads"),
        ("model.spackle.feed_forward=0", "feed_forward"),
        ("train.threads=100000", "train.threads"),
    ] {
        refused(&with(set), 2, &[key]);
    }
    refused(&with("train.seed=1"), 3, &["none"]);
    assert!(!Path::new(&run).exists(), "a refused config makes no run folder");
}

#[test]
fn damaged_shards_and_newer_ones() {
    let s = Scratch::new();
    let out = s.path("good");
    let made = syncytia(&["shard", &cut(), "--out", &out, "--set", "filter.top_moran=16"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    refused(&["shard", &cut(), "--out", &out], 3, &["good"]);
    let parquet = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().path());
    let parquet = parquet.filter(|p| p.extension().is_some_and(|e| e == "parquet")).min().unwrap();
    let mut bytes = std::fs::read(&parquet).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&parquet, &bytes).unwrap();
    let name = parquet.file_name().unwrap().to_string_lossy().into_owned();
    refused(&["verify", &out], 3, &[&name, "row group"]);
    let manifest = Path::new(&out).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("\"schema_version\": 1", "\"schema_version\": 99", 1)).unwrap();
    refused(&["inspect", &out], 3, &["newer version"]);
}

#[test]
fn runs_that_are_not_there_or_in_use() {
    let s = Scratch::new();
    refused(&["evaluate", &s.path("none"), "--shards", &s.path("none")], 5, &["none"]);
    refused(&["train", "configs/none.toml", "--shards", "x", "--run", "y"], 2, &["configs/none.toml"]);
    refused(&["export", &s.path("none"), "--out", &s.path("out")], 5, &["none"]);
    refused(&["fly"], 2, &["fly"]);
    refused(&["verify", &cut()], 2, &["a file", "syncytia inspect"]);
    refused(&["verify", &s.path("none")], 2, &["not there"]);
    assert!(!Path::new(&s.path("out")).exists());
}

/// What is refused changes nothing: neither a resume with another config nor a split that is too small for one batch.
#[test]
fn a_refused_start_leaves_the_run_folder_as_it_was() {
    let s = Scratch::new();
    let (shards, run) = (s.path("shards"), s.path("run"));
    let made = syncytia(&["shard", &cut(), "--out", &shards, "--set", "filter.top_moran=16"]);
    assert!(made.status.success());
    let train = ["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run, "--set"];
    refused(&[&train[..], &["train.micro_batch=400"]].concat(), 3, &["train", "3200"]);
    assert!(!Path::new(&run).exists(), "a refused start makes no run folder");
    assert!(syncytia(&[&train[..], &["train.max_steps=4"]].concat()).status.success());
    let listing = || {
        let entries = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap());
        let mut files: Vec<_> = entries.map(|e| (e.file_name(), std::fs::read(e.path()).unwrap_or_default())).collect();
        files.retain(|(name, _)| name != "lock");
        files.sort();
        files
    };
    let before = listing();
    refused(&[&train[..], &["optim.lr=0.5"]].concat(), 5, &["optim.lr: 0.002 → 0.5"]);
    refused(&[&train[..], &["train.max_steps=2"]].concat(), 2, &["train.max_steps = 2", "step 4"]);
    assert!(listing() == before, "config.toml, world.json, metrics and events are those of the run");
}

/// A run is stopped by TERM, refuses a second job meanwhile, loses its newest checkpoint, and still ends well.
#[test]
fn a_run_survives_a_second_job_a_signal_and_a_torn_checkpoint() {
    let s = Scratch::new();
    let (shards, run) = (s.path("shards"), s.path("run"));
    let made = syncytia(&["shard", &cut(), "--out", &shards, "--set", "filter.top_moran=16"]);
    assert!(made.status.success());
    let train = |steps: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncytia"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "train",
            "configs/spackle/tiny.toml",
            "--shards",
            &shards,
            "--run",
            &run,
        ]);
        command.args(["--ranks", "2", "--set", steps, "--set", "checkpoint.every=20"]);
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        command
    };
    let mut first = train("train.max_steps=100000").spawn().unwrap();
    let newest = || {
        let entries = std::fs::read_dir(Path::new(&run).join("checkpoints")).ok()?;
        let names = entries.filter_map(|e| e.ok()).map(|e| e.path());
        names.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("step-")).max()
    };
    let began = std::time::Instant::now();
    while newest().is_none() {
        assert!(began.elapsed().as_secs() < 60, "no checkpoint after 60 s");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let second = train("train.max_steps=100000").output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("in use by") && said.contains(&first.id().to_string()), "{said}");
    let killed = Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(first.wait().unwrap().code(), Some(75), "TERM saves and exits 75");

    let torn = newest().unwrap();
    let weights = torn.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    let step: u64 = torn.file_name().unwrap().to_string_lossy().trim_start_matches("step-").parse().unwrap();
    let resumed = train(&format!("train.max_steps={}", step + 3)).output().unwrap();
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert_eq!(resumed.status.code(), Some(0), "{said}");
    assert!(said.contains(&*torn.file_name().unwrap().to_string_lossy()) && said.contains("damaged"), "{said}");
    assert!(said.contains("from step-"), "the previous one is used: {said}");
}

/// Variables of a launcher that this build cannot serve, or that its MPI library does not know of: refused, nobody waits.
#[test]
fn several_processes_without_a_way_to_each_other_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_syncytia"))
        .args(["train", "configs/spackle/tiny.toml", "--shards", "nowhere", "--run", run.to_str().unwrap()])
        .envs([("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let fragments: &[&str] = match syncytia::engine::FOR_PROCESSES.contains(&"mpi") {
        false => &["no engine for 2 processes", "--features mpi", "--ranks N"],
        true => &["torchrun says rank 1 of 2", "says rank 0 of 1", "--mpi"],
    };
    fragments.iter().for_each(|fragment| assert!(said.contains(fragment), "no {fragment:?} in {said}"));
    assert!(!run.exists(), "nothing was written");
}

#[test]
fn a_gpu_is_refused_in_one_line_that_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let train = |more: &[&str]| {
        let args = ["train", "configs/spackle/tiny.toml", "--shards", "nowhere", "--run", run.to_str().unwrap()];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_syncytia"))
            .args([&args[..], &["--set", "train.device=cuda"], more].concat())
            .env("SYNCYTIA_LIBCUDA", "/nowhere/libcuda.so.1")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("panicked") && !run.exists(), "{said}");
        said
    };
    let missing = match syncytia::engine::FOR_PROCESSES.contains(&"nccl") {
        true => "NVIDIA's driver library cannot be loaded: tried /nowhere/libcuda.so.1",
        false => "this build computes on the cores only: rebuild with `--features cuda`",
    };
    assert!(train(&[]).contains(missing));
    assert!(train(&["--ranks", "2"]).contains("a GPU is one process's: start 2 processes"));
}
