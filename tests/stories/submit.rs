//! `submit`: the script it writes runs as the template does, and what could never start is refused before it waits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::stage;

/// What `sinfo` of Slurm 22.05 printed on a cluster of nodes of three kinds.
const SITE: &str = include_str!("../../launch/tests/sinfo-22.05.txt");

/// A cluster's front end: `sinfo` and `sbatch` as programs on an otherwise empty PATH.
struct FrontEnd {
    folder: tempfile::TempDir,
}

impl FrontEnd {
    fn new() -> FrontEnd {
        let front = FrontEnd { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(front.folder.path().join("bin")).unwrap();
        front.program("sinfo", &format!("echo '{}'", SITE.trim()));
        // ids from 101 on; every call is written down
        let calls = front.folder.path().join("calls");
        let calls = calls.display();
        front.program(
            "sbatch",
            &format!(
                "echo \"$@\" >> {calls}; n=0; while read -r _; do n=$((n + 1)); done < {calls}; echo $((100 + n))"
            ),
        );
        front
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.folder.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn submit(&self, arguments: &[&str]) -> Output {
        let run = self.run();
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncytia"));
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .env("PATH", self.folder.path().join("bin"));
        command.args(["submit", "configs/spackle/tiny.toml", "--run", run.to_str().unwrap()]);
        command.arg("--shards").arg(stage::shards().dir()).args(arguments).output().unwrap()
    }

    fn run(&self) -> std::path::PathBuf {
        self.folder.path().join("the run")
    }

    fn script(&self, command: &str) -> String {
        fs::read_to_string(self.run().join(format!("{command}.sbatch"))).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(|l| l.replace(self.folder.path().to_str().unwrap(), "")).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn refused(front: &FrontEnd, arguments: &[&str], fragments: &[&str]) {
    let output = front.submit(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    for fragment in fragments {
        assert!(said(&output).contains(fragment), "{arguments:?}: no {fragment:?} in {}", said(&output));
    }
    assert!(front.calls().is_empty(), "{arguments:?}");
}

#[track_caller]
fn refused_and_nothing_written(front: &FrontEnd, arguments: &[&str], fragments: &[&str]) {
    refused(front, arguments, fragments);
    assert!(!front.run().exists(), "{arguments:?}");
}

const TWO_NODES: [&str; 6] = ["--nodes", "2", "--tasks-per-node", "4", "--cpus-per-task", "1"];

#[test]
fn the_script_it_writes_is_shown_submitted_and_runs() {
    let front = FrontEnd::new();
    let output = front.submit(&["--cpus-per-task", "3", "--time", "1:00:00", "--set", "train.max_steps=3", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "101  train\n");
    assert!(said(&output).contains("#SBATCH --time=1:00:00") && said(&output).contains("train.max_steps=3"));
    assert_eq!(front.calls(), ["--parsable /the run/train.sbatch"]);
    assert!(!front.script("train").contains("--partition"), "the site's default is not ours to name");

    // As Slurm would start it, with an srun that runs the step; environment wins over what was given to submit.
    front.program("srun", "while :; do case $1 in --*) shift;; *) break;; esac; done; echo step: \"$@\"; exec \"$@\"");
    let path = format!("{}/bin:{}", front.folder.path().display(), std::env::var("PATH").unwrap());
    let mut job = Command::new("bash");
    job.arg(front.run().join("train.sbatch"))
        .env("PATH", path)
        .env("SLURM_JOB_ID", "101")
        .env("SLURM_CPUS_PER_TASK", "3");
    let output = job.env("SYNCYTIA_RANKS", "2").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("finished 3 steps") && said(&output).contains("--ranks 2"), "{}", said(&output));
    assert!(front.run().join("checkpoints/step-00000003").is_dir());
}

#[test]
fn a_chain_waits_for_success_and_an_array_is_judged_seed_by_seed() {
    let front = FrontEnd::new();
    let chain =
        ["--chain", "a=shards/data/vis5a_cut.h5ad", "b.h5ad", "--shard-config", "configs/spackle/shard.toml", "--yes"];
    let output = front.submit(&[&TWO_NODES[..], &["--json", "--stage", "--max-requeues", "7"], &chain].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let jobs: Vec<_> =
        json["jobs"].as_array().unwrap().iter().map(|j| (j["command"].as_str(), j["job"].as_str())).collect();
    assert_eq!(
        jobs,
        [(Some("shard"), Some("101")), (Some("train"), Some("102")), (Some("evaluate"), Some("103"))],
        "{json}"
    );
    assert_eq!(
        front.calls(),
        [
            "--parsable /the run/shard.sbatch",
            "--parsable --dependency=afterok:101 --kill-on-invalid-dep=yes /the run/train.sbatch",
            "--parsable --dependency=afterok:102 --kill-on-invalid-dep=yes /the run/evaluate.sbatch",
        ]
    );
    let here = env!("CARGO_MANIFEST_DIR");
    let shards = stage::shards().dir().display().to_string();
    let given = format!(
        "set -- {shards} a={here}/shards/data/vis5a_cut.h5ad {here}/b.h5ad --config {here}/configs/spackle/shard.toml \"$@\""
    );
    assert!(front.script("shard").contains(&given), "{}", front.script("shard"));
    assert!(front.script("shard").contains("#SBATCH --cpus-per-task=4\n") && !front.script("shard").contains("@300"));
    assert!(
        front.script("train").contains("|| SYNCYTIA_STAGE=1\n")
            && front.script("train").contains("|| SYNCYTIA_MAX_REQUEUES=7\n")
    );
    assert!(!front.script("train").contains("|| SYNCYTIA_RANKS="), "of several processes each is one rank");
    assert!(front.script("evaluate").contains(&format!("--shards {shards} \"$@\"")));

    let front = FrontEnd::new();
    front.submit(&[&["--array", "42-44"][..], &chain].concat());
    assert!(front.calls()[1].contains("--dependency=afterok:101 "), "{:?}", front.calls());
    assert!(front.calls()[2].contains("--dependency=aftercorr:102 "), "{:?}", front.calls());
    for (script, array) in [("shard", false), ("train", true), ("evaluate", true)] {
        assert_eq!(front.script(script).contains("#SBATCH --array=42-44\n"), array, "{script}");
    }
}

#[test]
fn vectors_and_a_parent_are_handed_on_by_their_whole_paths() {
    let front = FrontEnd::new();
    let output = front.submit(&["--vectors", "of-cells", "--from", "/runs/cells", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("of-cells");
    let (script, vectors) = (front.script("train"), vectors.to_str().unwrap().to_owned());
    for given in ["--vectors", &vectors, "--from", "/runs/cells"] {
        assert!(script.contains(given), "{given} in {script}");
    }
}

#[test]
fn what_cannot_start_is_refused_before_it_waits() {
    let front = FrontEnd::new();
    let ask = |more: &[&'static str]| [&TWO_NODES[..], &["--yes"], more].concat();
    refused_and_nothing_written(&front, &["--nodes", "3", "--tasks-per-node", "3"], &["9 ranks", "train.lanes = 8"]);
    refused_and_nothing_written(
        &front,
        &ask(&["--partition", "gpus"]),
        &["train: this Slurm has no partition", "standard, gpu"],
    );
    refused_and_nothing_written(&front, &ask(&["--partition", "old"]), &["is down"]);
    refused_and_nothing_written(
        &front,
        &ask(&["--time", "7-00:00:00"]),
        &["longer than the 2-00:00:00 of partition standard"],
    );
    refused_and_nothing_written(
        &front,
        &ask(&["--gpus-per-node", "8", "--partition", "gpu"]),
        &["0 of the 10 nodes", "8 GPUs"],
    );
    refused_and_nothing_written(&front, &ask(&["--mem", "2T"]), &["MiB of memory"]);
    refused_and_nothing_written(&front, &ask(&["--time", "5", "--signal-before", "300"]), &["--signal-before 300"]);
    refused_and_nothing_written(&front, &ask(&["--set", "train.lane=9"]), &["train.lane"]);
    refused(&front, &TWO_NODES, &["--yes submits without asking"]);
    front.program("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1");
    refused(&front, &ask(&[]), &["sbatch refused", "Invalid account"]);
}

#[test]
fn without_slurm_it_writes_and_says_so() {
    let front = FrontEnd::new();
    for program in ["sinfo", "sbatch"] {
        fs::remove_file(front.folder.path().join("bin").join(program)).unwrap();
    }
    let output = front.submit(&["--dry-run", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("no sinfo here"), "{}", said(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["submitted"], &json["jobs"][0]["job"]), (&false.into(), &serde_json::Value::Null));
    assert!(Path::new(json["jobs"][0]["script"].as_str().unwrap()).is_file());
    // 8 cores and 8 lanes: a rank each; 16 cores: no more ranks than lanes
    assert!(front.script("train").contains("|| SYNCYTIA_RANKS=8\n"));
    front.submit(&["--dry-run", "--cpus-per-task", "16"]);
    assert!(front.script("train").contains("|| SYNCYTIA_RANKS=8\n"));
    // a GPU is one process's, whatever cores there are
    let on_gpu = ["--dry-run", "--set", "train.device=cuda"];
    let output = front.submit(&on_gpu);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--gpus-per-node 1"), "{}", said(&output));
    front.submit(&[&on_gpu[..], &["--gpus-per-node", "1"]].concat());
    assert!(front.script("train").contains("|| SYNCYTIA_RANKS=1\n"));
    let output = front.submit(&["--yes"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no sbatch here") && said(&output).contains("--dry-run"), "{}", said(&output));
}
