//! The templates of `slurm/` run as they are: with programs on PATH that answer as Slurm does, and `syncytia` in between.
//! `tests/cluster` runs them under a real one.

mod staged;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::stage;

/// A folder of fake programs; each writes its arguments to `calls`.
struct Cluster {
    folder: tempfile::TempDir,
}

/// What the program does first of all, and by what the script knows that it was started.
const STARTS: &str = r#"for word; do [ "$before" = --run ] && run=$word; before=$word; done
[ -n "$run" ] && mkdir -p "$run" && echo > "$run/new" && mv "$run/new" "$run/world.json""#;

impl Cluster {
    /// `step` is the body of the fake `srun`: what the step does.
    fn new(step: &str) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { folder };
        cluster.program("srun", &format!("{STARTS}\n{step}"));
        cluster.program("scontrol", "exit ${SCONTROL_CODE:-0}");
        cluster
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.folder.path().join(name);
        let calls = self.folder.path().join("calls");
        let text = format!("#!/bin/bash\necho {name} \"$@\" >> {}\n{body}\n", calls.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn submit(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        self.submit_template("train", arguments, environment)
    }

    fn submit_template(&self, template: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("slurm/{template}.sbatch"));
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ours = [
            "SYNCYTIA",
            "SYNCYTIA_CONTAINER",
            "SYNCYTIA_RANKS",
            "SYNCYTIA_THREADS",
            "SYNCYTIA_MPI",
            "SYNCYTIA_STAGE",
            "SYNCYTIA_MAX_REQUEUES",
        ];
        for (name, _) in std::env::vars() {
            if name.starts_with("SLURM_") || ours.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path());
        command.env("PATH", path).env("SLURM_JOB_ID", "41").env("SLURM_CPUS_PER_TASK", "4");
        command.envs(environment.iter().copied()).spawn().unwrap()
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        self.submit(&["C.toml", "D", "R"], environment).wait_with_output().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait_for(&self, name: &str) {
        let asked = Instant::now();
        while !self.file(name).exists() {
            assert!(asked.elapsed() < Duration::from_secs(20), "{name} was never made");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_step_is_one_process_with_as_many_ranks_as_the_config_says_that_resumes() {
    let cluster = Cluster::new("exit 0");
    let arguments = ["C.toml", "D", "R", "--set", "train.max_steps=3"];
    let output = cluster.submit(&arguments, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let expected = "srun --ntasks=1 --cpus-per-task=4 --kill-on-bad-exit=1 syncytia train C.toml --shards D --run R \
                    --resume auto --set train.max_steps=3";
    assert_eq!(cluster.calls(), [expected]);

    let cluster = Cluster::new("exit 0");
    cluster.run(&[("SYNCYTIA_RANKS", "2"), ("SYNCYTIA", "/opt/s")]);
    assert!(cluster.calls()[0].contains(" /opt/s train") && cluster.calls()[0].contains("--ranks 2"));
}

#[test]
fn exit_75_is_requeued_until_the_limit_and_no_other_code_is() {
    let requeues = |code: u8, environment: &[(&str, &str)]| {
        let cluster = Cluster::new(&format!("exit {code}"));
        let output = cluster.run(environment);
        assert_eq!(output.status.code(), Some(i32::from(code)), "{}", said(&output));
        cluster.calls().into_iter().filter(|c| c.starts_with("scontrol")).collect::<Vec<_>>()
    };
    assert_eq!(requeues(75, &[]), ["scontrol requeue 41"]);
    assert_eq!(requeues(75, &[("SLURM_RESTART_COUNT", "49")]), ["scontrol requeue 41"]);
    assert!(requeues(75, &[("SLURM_RESTART_COUNT", "50")]).is_empty());
    assert!(requeues(75, &[("SLURM_RESTART_COUNT", "1"), ("SYNCYTIA_MAX_REQUEUES", "1")]).is_empty());
    assert_eq!(requeues(75, &[("SCONTROL_CODE", "1")]), ["scontrol requeue 41"]);
    // the name that requeue takes for an element of an array
    let array = [("SLURM_ARRAY_JOB_ID", "40"), ("SLURM_ARRAY_TASK_ID", "7")];
    assert_eq!(requeues(75, &array), ["scontrol requeue 40_7"]);
    for code in [0, 2, 3, 4, 5, 6, 7, 130, 137] {
        assert!(requeues(code, &[]).is_empty(), "{code}");
    }
}

/// A step that works until it is told to stop, takes a moment to save, and says by which signal it was told.
const STEP: &str = r#"
told() { echo "$1" >> "$(dirname "$0")/told"; sleep 0.2; exit 75; }
trap 'told USR1' USR1
trap 'told TERM' TERM
touch "$(dirname "$0")/running"
for i in $(seq 2000); do sleep 0.01; done
exit 1"#;

fn signal(name: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
}

#[test]
fn usr1_to_the_script_reaches_the_step_whose_save_is_waited_for() {
    let cluster = Cluster::new(STEP);
    let job = cluster.submit(&["C.toml", "D", "R"], &[]);
    cluster.wait_for("running");
    signal("USR1", job.id());
    std::thread::sleep(Duration::from_millis(30));
    signal("USR1", job.id()); // Slurm and people repeat themselves
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(fs::read_to_string(cluster.file("told")).unwrap().starts_with("USR1\n"));
    assert_eq!(cluster.calls().last().unwrap(), "scontrol requeue 41");
}

#[test]
fn a_job_that_is_ended_from_outside_saves_and_is_not_requeued_by_the_script() {
    let cluster = Cluster::new(STEP);
    let job = cluster.submit(&["C.toml", "D", "R"], &[]);
    cluster.wait_for("running");
    signal("TERM", job.id());
    std::thread::sleep(Duration::from_millis(50));
    // Slurm sends TERM to the step as well: its process is the script's child
    let find = format!("cat /proc/{0}/task/{0}/children", job.id());
    let children = Command::new("sh").args(["-c", &find]).output().unwrap().stdout;
    let step: u32 = String::from_utf8(children).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    signal("TERM", step);
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("Slurm decides"), "{}", said(&output));
    assert!(cluster.calls().iter().all(|c| !c.starts_with("scontrol")));
}

#[test]
fn a_lost_peer_brings_the_job_back_if_the_life_got_anywhere() {
    let ended = |step: &str, environment: &[(&str, &str)]| {
        let cluster = Cluster::new(step);
        fs::create_dir_all(cluster.file("R/checkpoints/step-00000010")).unwrap();
        let several = [("SLURM_NTASKS", "2"), ("SYNCYTIA_MPI", "none")];
        let output = cluster.run(&[&several[..], environment].concat());
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        cluster.calls().iter().any(|c| c == "scontrol requeue 41")
    };
    let saved = "mkdir R/checkpoints/step-00000020; exit 4";
    assert!(ended(saved, &[]));
    assert!(!ended(saved, &[("SLURM_RESTART_COUNT", "50")]));
    assert!(!ended("exit 4", &[]), "the next life would end as this one");
    assert!(!ended(saved, &[("SLURM_NTASKS", "1")]), "a single process has no peer on another node");
}

#[test]
fn a_step_that_was_never_launched_is_not_a_finished_run() {
    let cluster = Cluster::new("exit 0");
    cluster.program("srun", "exit 0");
    cluster.program("sleep", "exit 0");
    let output = cluster.run(&[]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("did not start the program (attempt 3)"), "{}", said(&output));

    let second = format!("[ -e tried ] || {{ touch tried; exit 0; }}\n{STARTS}");
    cluster.program("srun", &second);
    let output = cluster.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("(attempt 1)") && said(&output).contains("finished"), "{}", said(&output));
}

#[test]
fn too_few_arguments_are_refused_before_a_step_starts() {
    for (template, arguments) in [("train", &["C.toml", "D"][..]), ("shard", &["D"]), ("evaluate", &[])] {
        let cluster = Cluster::new("exit 0");
        let output = cluster.submit_template(template, arguments, &[]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{template}");
        assert!(said(&output).contains("usage:") && cluster.calls().is_empty(), "{template}");
    }
}

#[test]
fn several_tasks_are_one_rank_each_joined_by_what_the_program_was_built_with() {
    let two_nodes = [("SLURM_JOB_NUM_NODES", "2"), ("SLURM_NTASKS", "8"), ("SLURM_CPUS_PER_TASK", "2")];
    let step = |mpi: &str, threads: u8| {
        format!(
            "srun --mpi={mpi} --ntasks=8 --cpus-per-task=2 --kill-on-bad-exit=1 /opt/s train C.toml --shards D --run R \
             --set train.threads={threads} --resume auto"
        )
    };
    let said_by_ldd = |library: &str, environment: &[(&str, &str)]| {
        let cluster = Cluster::new("exit 0");
        cluster.program("ldd", &format!("echo '\t{library} => /usr/lib/{library} (0x00007f2b1c000000)'"));
        let environment = [&two_nodes[..], &[("SYNCYTIA", "/opt/s")], environment].concat();
        let output = cluster.run(&environment);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        cluster.calls().into_iter().find(|c| c.starts_with("srun")).unwrap()
    };
    for (library, mpi) in [
        ("libmpi.so.40", "pmix"),
        ("libmpich.so.12", "pmi2"),
        ("libmpi.so.12", "pmi2"),
        ("libmpi_cray.so.12", "cray_shasta"),
        ("libc.so.6", "none"),
    ] {
        assert_eq!(said_by_ldd(library, &[]), step(mpi, 2), "{library}");
    }
    assert_eq!(
        said_by_ldd("libmpi.so.40", &[("SYNCYTIA_MPI", "pmix_v4"), ("SYNCYTIA_THREADS", "1")]),
        step("pmix_v4", 1)
    );
    assert_eq!(said_by_ldd("libmpi.so.40", &[("SLURM_MPI_TYPE", "pmix_v3")]), step("pmix_v3", 2));
}

#[test]
fn an_element_of_an_array_has_a_seed_and_a_run_of_its_own() {
    let element = [("SLURM_ARRAY_JOB_ID", "40"), ("SLURM_ARRAY_TASK_ID", "43")];
    let cluster = Cluster::new("exit 0");
    let arguments = ["C.toml", "D", "R", "--set", "train.max_steps=3"];
    cluster.submit(&arguments, &element).wait_with_output().unwrap();
    let wanted = "train C.toml --shards D --run R/seed-43 --set train.seed=43 --resume auto --set train.max_steps=3";
    assert!(cluster.calls()[0].ends_with(wanted), "{:?}", cluster.calls());

    let cluster = Cluster::new("exit 0");
    cluster.submit_template("evaluate", &["R", "--split", "val"], &element).wait_with_output().unwrap();
    assert!(cluster.calls()[0].ends_with("evaluate R/seed-43 --split val"), "{:?}", cluster.calls());
}

#[test]
fn shards_and_evaluations_are_one_task_with_all_its_cores_and_its_exit_code() {
    let environment = [("SYNCYTIA_CONTAINER", "apptainer exec s.sif"), ("SYNCYTIA", "/opt/s")];
    for (template, arguments, wanted) in [
        ("shard", &["D", "a.h5ad", "--split", "val=b"][..], "shard a.h5ad --split val=b --out D --jobs 4 --resume"),
        ("evaluate", &["R", "--sweep"], "evaluate R --sweep"),
    ] {
        let cluster = Cluster::new("echo cores $RAYON_NUM_THREADS; exit 3");
        let output = cluster.submit_template(template, arguments, &environment).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(said(&output).contains("cores 4"), "{}", said(&output));
        assert_eq!(
            cluster.calls(),
            [format!("srun --ntasks=1 --cpus-per-task=4 apptainer exec s.sif /opt/s {wanted}")]
        );
    }
}

/// An `srun` that runs what it is given, once.
const RUNS: &str = r#"while [[ $1 == --* ]]; do shift; done; exec "$@""#;

/// A job is not turned away, hours after it was submitted, because it was given more cores than its config has lanes.
#[test]
fn cores_beyond_the_lanes_are_left_idle() {
    let shards = stage::shards();
    let cluster = Cluster::new(RUNS);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/spackle/tiny.toml");
    let (run, shards) = (cluster.file("run"), shards.dir());
    let mut arguments = vec![config.to_str().unwrap(), shards.to_str().unwrap(), run.to_str().unwrap()];
    arguments.extend(["--set", "train.max_steps=2", "--set", "train.lanes=1"]);
    let output =
        cluster.submit(&arguments, &[("SYNCYTIA", env!("CARGO_BIN_EXE_syncytia"))]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("on 1 ranks:") && said(&output).contains("finished 2 steps"), "{}", said(&output));
}
