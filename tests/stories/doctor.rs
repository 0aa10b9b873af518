//! What `syncytia doctor` finds, and what it ends with.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::command::{cut, done, syncytia};
use crate::disk::SmallDisk;

const TINY: &str = "configs/spackle/tiny.toml";

/// A folder with shards, and paths in it as text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        done(&["shard", &cut(), "--out", &place.path("shards"), "--set", "filter.top_moran=16"]);
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// The doctor's JSON for the tiny config on these shards and this run folder.
    fn examined(&self, run: &str, more: &[&str]) -> (i32, Value) {
        let (shards, run) = (self.path("shards"), self.path(run));
        let output = syncytia(&[&["doctor", TINY, "--shards", &shards, "--run", &run, "--json"], more].concat());
        read(&output)
    }
}

fn read(output: &Output) -> (i32, Value) {
    let said = String::from_utf8_lossy(&output.stderr);
    let table: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    let code = output.status.code().unwrap();
    assert_eq!(table["exit_code"], code);
    (code, table)
}

/// Lines with this verdict, as `area: what: found`.
fn lines(table: &Value, verdict: &str) -> Vec<String> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let of_verdict = table["findings"].as_array().unwrap().iter().filter(|line| line["verdict"] == verdict);
    of_verdict.map(|l| format!("{}: {}: {}", text(l, "area"), text(l, "what"), text(l, "found"))).collect()
}

#[track_caller]
fn fails(examined: &(i32, Value), code: i32, fragments: &[&str]) {
    let failed = lines(&examined.1, "fail");
    assert_eq!(examined.0, code, "{failed:?}");
    for fragment in fragments {
        assert!(failed.iter().any(|line| line.contains(fragment)), "no {fragment:?} in {failed:?}");
    }
}

#[test]
fn a_run_that_would_work_is_healthy_and_nothing_is_left_behind() {
    let place = Place::new();
    let (code, table) = place.examined("run", &[]);
    assert_eq!((code, lines(&table, "fail")), (0, vec![]));
    for area in ["devices", "gpu", "mpi", "slurm", "clock", "config", "shards", "limits", "run folder", "start"] {
        let there = table["findings"].as_array().unwrap().iter().any(|line| line["area"] == area);
        assert!(there, "nothing about {area}");
    }
    let there: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["shards"], "the run folder is not made, temporary files are gone");

    let (shards, run) = (place.path("shards"), place.path("run"));
    let said = done(&["doctor", TINY, "--shards", &shards, "--run", &run]);
    assert!(said.contains("everything needed is there"), "{said}");
    let machine_only = done(&["doctor", "--json"]);
    assert!(machine_only.contains("this folder") && !machine_only.contains("\"start\""));
}

#[test]
fn what_train_would_refuse_the_doctor_refuses_with_the_same_code() {
    let place = Place::new();
    fails(&place.examined("run", &["--set", "train.lane=8"]), 2, &["did you mean `lanes`?"]);
    fails(&place.examined("run", &["--ranks", "9"]), 2, &["train.lanes = 8"]);
    fails(&place.examined("run", &["--set", "task.rho=0"]), 2, &["task.rho"]);
    if !syncytia::engine::FOR_PROCESSES.contains(&"nccl") {
        fails(&place.examined("run", &["--set", "train.device=cuda"]), 2, &["rebuild with `--features cuda`"]);
    }
    fails(&place.examined("run", &["--set", "train.micro_batch=400"]), 3, &["3200"]);
    // a model that no machine holds is told, not built
    let huge = place.examined("run", &["--set", "model.spackle.d=4000000"]);
    fails(&huge, 2, &["shards: memory: about", "run folder: space"]);

    let missing = syncytia(&["doctor", TINY, "--shards", &place.path("none"), "--json"]);
    fails(&read(&missing), 3, &["no manifest.json"]);
    let parquet = std::fs::read_dir(place.path("shards")).unwrap().map(|e| e.unwrap().path());
    let parquet = parquet.filter(|p| p.extension().is_some_and(|e| e == "parquet")).min().unwrap();
    let bytes = std::fs::read(&parquet).unwrap();
    std::fs::write(&parquet, &bytes[..bytes.len() - 1]).unwrap();
    fails(&place.examined("run", &[]), 3, &["shard file"]);
    std::fs::remove_file(&parquet).unwrap();
    fails(&place.examined("run", &[]), 3, &["shard file"]);
    std::fs::write(place.path("file"), "").unwrap();
    let (shards, file) = (place.path("nowhere"), place.path("file"));
    fails(&read(&syncytia(&["doctor", "--shards", &shards, "--run", &file, "--json"])), 3, &["is a file"]);
}

#[test]
fn a_run_to_go_on_with_is_looked_at_and_one_in_use_is_named() {
    let place = Place::new();
    let (shards, run) = (place.path("shards"), place.path("run"));
    done(&[
        "train",
        TINY,
        "--shards",
        &shards,
        "--run",
        &run,
        "--set",
        "train.max_steps=4",
        "--set",
        "checkpoint.every=2",
    ]);
    let said = |examined: &(i32, Value)| lines(&examined.1, "ok").join("\n");
    let more = place.examined("run", &["--set", "train.max_steps=9"]);
    assert!(more.0 == 0 && said(&more).contains("step-00000004: whole, the run goes on from step 4"), "{more:?}");
    assert!(said(&place.examined("run", &["--set", "train.max_steps=4"])).contains("finished"));
    fails(&place.examined("run", &["--set", "optim.lr=0.5"]), 5, &["optim.lr: 0.002 → 0.5"]);
    fails(&place.examined("run", &["--set", "train.max_steps=2"]), 2, &["step 4"]);

    let weights = Path::new(&run).join("checkpoints/step-00000004/model.safetensors");
    std::fs::write(&weights, "torn").unwrap();
    let torn = place.examined("run", &[]);
    assert!(lines(&torn.1, "warn").iter().any(|l| l.contains("step-00000004") && l.contains("damaged")), "{torn:?}");
    assert!(torn.0 == 0 && said(&torn).contains("step-00000002: whole"), "{torn:?}");

    let before = std::fs::read_dir(&run).unwrap().count();
    let holder = r#"{"host":"n7","pid":12,"life":"another boot/pid:[1]/1","job":{"id":"77","restart_count":1},"since":0,"token":"t"}"#;
    std::fs::write(Path::new(&run).join("lock"), format!("{holder}\nbeat\n")).unwrap();
    fails(&place.examined("run", &[]), 2, &["held by process 12 on n7 (job 77, restart 1)"]);
    let restarted = Command::new(env!("CARGO_BIN_EXE_syncytia"))
        .args(["doctor", TINY, "--shards", &shards, "--run", &run, "--json"])
        .envs([("SLURM_JOB_ID", "77"), ("SLURM_RESTART_COUNT", "2")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(read(&restarted).0, 0, "a later life of the same job takes over");
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), before + 1, "nothing but our lock is new");
}

#[test]
fn a_full_disk_and_a_read_only_one_are_storage() {
    let place = Place::new();
    std::fs::create_dir(place.path("full")).unwrap();
    let Some(full) = SmallDisk::mount(Path::new(&place.path("full")), "size=256k", "a full disk for the doctor") else {
        return;
    };
    fails(&place.examined("full", &[]), 7, &["run folder: space: 256 KiB free, the run needs 21 MiB more"]);
    full.fill();
    fails(&place.examined("full", &[]), 7, &["run folder: space: 0 B free", "run folder: writing"]);
    assert_eq!(std::fs::read_dir(place.path("full")).unwrap().count(), 1, "only what filled it");

    std::fs::create_dir(place.path("fixed")).unwrap();
    let _fixed = SmallDisk::mount(Path::new(&place.path("fixed")), "ro", "a read-only disk for the doctor").unwrap();
    fails(&place.examined("fixed/run", &[]), 7, &["read-only", "run folder: writing"]);
    let here = Command::new(env!("CARGO_BIN_EXE_syncytia"))
        .args(["doctor", "--json"])
        .current_dir(place.path("fixed"))
        .output()
        .unwrap();
    let (code, table) = read(&here);
    let warned = lines(&table, "warn");
    assert_eq!(code, 0, "nobody asked to write here");
    assert!(warned.iter().any(|l| l.starts_with("this folder: writing") && l.contains("Read-only")), "{warned:?}");
}

/// Programs as they are on a cluster, and one that never answers.
#[cfg(target_os = "linux")]
#[test]
fn the_tools_on_the_path_are_asked_and_not_waited_for() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("mpirun", "echo 'mpirun (Open MPI) 4.1.4'");
    program("srun", "case $1 in --version) echo slurm 22.05.8;; *) /bin/sleep 60;; esac");
    program("sinfo", "");
    program("sbatch", "");
    let examined = Command::new(env!("CARGO_BIN_EXE_syncytia"))
        .args(["doctor", "--json"])
        .env("PATH", dir.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let (code, table) = read(&examined);
    let (ok, warned) = (lines(&table, "ok"), lines(&table, "warn"));
    assert_eq!(code, 0);
    assert!(ok.contains(&"mpi: mpirun: Open MPI 4.1.4".to_owned()), "{ok:?}");
    assert!(warned.contains(&"slurm: Slurm: 22.05.8, without scontrol".to_owned()), "{warned:?}");
    assert!(warned.contains(&"slurm: srun --mpi: no answer in 4 s".to_owned()), "{warned:?}");
}

/// A pipe that nobody writes to is as silent as a file server that is gone.
#[cfg(target_os = "linux")]
#[test]
fn what_never_answers_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let silent = |name: &str| {
        let path = dir.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path.to_string_lossy().into_owned()
    };
    let (config, _) = (silent("config.toml"), silent("manifest.json"));
    let began = std::time::Instant::now();
    let stuck = read(&syncytia(&["doctor", &config, "--patience", "1", "--json"]));
    fails(&stuck, 2, &["config: config: no answer in 1 s"]);
    let shards = dir.path().to_string_lossy().into_owned();
    let stuck = read(&syncytia(&["doctor", TINY, "--shards", &shards, "--patience", "1", "--json"]));
    fails(&stuck, 3, &["shards: shards: no answer in 1 s"]);
    assert!(began.elapsed().as_secs() < 20);
}
