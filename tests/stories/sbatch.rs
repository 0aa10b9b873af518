//! `slurm/train.sbatch` runs as it is: with programs on PATH that answer as Slurm does, and `syncytia` in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder of fake programs; each writes its arguments to `calls`.
struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// `step` is the body of the fake `srun`: what the step does.
    fn new(step: &str) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { folder };
        cluster.program("srun", step);
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("slurm/train.sbatch");
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in
            ["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SYNCYTIA", "RANKS", "MAX_REQUEUES"]
        {
            command.env_remove(name);
        }
        command.env("SLURM_JOB_ID", "41").env("SLURM_CPUS_PER_TASK", "4").envs(environment.iter().copied());
        command.spawn().unwrap()
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
fn the_step_is_one_process_with_a_rank_per_core_that_resumes() {
    let cluster = Cluster::new("exit 0");
    let arguments = ["C.toml", "D", "R", "--set", "train.max_steps=3"];
    let output = cluster.submit(&arguments, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let expected = "srun --ntasks=1 --cpus-per-task=4 --kill-on-bad-exit=1 syncytia train C.toml --shards D --run R \
                    --ranks 4 --resume auto --set train.max_steps=3";
    assert_eq!(cluster.calls(), [expected]);

    let cluster = Cluster::new("exit 0");
    cluster.run(&[("RANKS", "2"), ("SYNCYTIA", "/opt/s")]);
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
    assert!(requeues(75, &[("SLURM_RESTART_COUNT", "1"), ("MAX_REQUEUES", "1")]).is_empty());
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
fn too_few_arguments_are_refused_before_a_step_starts() {
    let cluster = Cluster::new("exit 0");
    let output = cluster.submit(&["C.toml", "D"], &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("usage:") && cluster.calls().is_empty());
}
