//! What scripts rely on: help, `--json`, data on stdout, a pipe that closes, a disk that is full.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 18] = [
    "demo", "synth", "shard", "process", "train", "pair", "launch", "parity", "submit", "evaluate", "report", "impute",
    "export", "verify", "inspect", "doctor", "embed", "generate",
];
const CUT: &str = "shards/data/vis5a_cut.h5ad";

fn syncytia() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncytia"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_opens_its_help_with_an_example_and_speaks_json() {
    let listed = text(&syncytia().arg("--help").output().unwrap().stdout);
    for command in COMMANDS {
        assert!(listed.contains(&format!("  {command} ")), "{command} is not in {listed}");
        let help = text(&syncytia().args([command, "--help"]).output().unwrap().stdout);
        assert!(help.starts_with(&format!("Example: syncytia {command}")) && help.contains("--json"), "{help}");
    }
    let commands = listed.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let n_listed = commands.filter(|l| !l.starts_with("   ")).count();
    assert_eq!(n_listed, COMMANDS.len() + 1, "a command this story does not know (the last is help): {listed}");
}

#[test]
fn stdout_is_one_json_document() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        vec!["inspect", CUT, "--json"],
        vec!["synth", "--spots", "120", "--out", dir.path().to_str().unwrap(), "--json"],
    ] {
        let output = syncytia().args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().is_object(), "{args:?}");
    }
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let mut child =
        syncytia().args(["inspect", CUT, "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_launcher_that_is_asked_for_and_not_there_is_named_with_its_variables() {
    let mut command = syncytia();
    for name in ["WORLD_SIZE", "RANK", "LOCAL_RANK"] {
        command.env_remove(name);
    }
    let train = ["train", "configs/spackle/tiny.toml", "--shards", "nowhere", "--run", "nowhere", "--launcher", "env"];
    let output = command.args(train).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--launcher env: looked for LOCAL_RANK, RANK, WORLD_SIZE, found none"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stdout_is_storage() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = syncytia().args(["inspect", CUT, "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stdout"), "{}", text(&output.stderr));
}

/// Files may grow to `kib` and no further, as on a disk with that much left; needs no root. SIGXFSZ is the program's to outlive.
#[cfg(target_os = "linux")]
fn with_room_for(kib: u32, args: &[&str]) -> Output {
    let script = format!("ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", &script, env!("CARGO_BIN_EXE_syncytia")]).args(args);
    command.output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_shards_and_no_checkpoint_that_look_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (shards, run) = (path("shards"), path("run"));
    let shard = ["shard", CUT, "--set", "filter.top_moran=16", "--out", &shards];
    let output = with_room_for(20, &shard);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("error: ") && said.contains(&shards), "{said}");
    assert!(!Path::new(&shards).join("manifest.json").exists());

    let output = syncytia().args(shard).arg("--resume").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "what was left can be gone on with: {}", text(&output.stderr));
    let train =
        ["train", "configs/spackle/tiny.toml", "--shards", &shards, "--run", &run, "--set", "train.max_steps=4"];
    let output = with_room_for(20, &train);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    let finished = |name: &str| Path::new(&run).join("checkpoints").join(name).exists();
    assert!(!finished("best") && !finished("step-00000004"), "{said}");

    let output = syncytia().args(train).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "with room again the same command ends well: {}", text(&output.stderr));
    assert!(finished("step-00000004"));
}
