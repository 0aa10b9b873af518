//! A disk that is full for a while: the last save waits for room, logs go on behind whole lines, shards are never half there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use syncytia::train::checkpoint;

use crate::command::{cut, done, refused};
use crate::disk::SmallDisk;

/// A run in the background whose words are read one by one.
struct Watched {
    child: Child,
    words: std::io::Lines<BufReader<std::process::ChildStderr>>,
    heard: Vec<String>,
}

impl Watched {
    fn train(shards: &str, run: &str, sets: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncytia"));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["train", "configs/spackle/tiny.toml", "--shards", shards, "--run", run, "--ranks", "2"]);
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let words = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, words, heard: vec![] }
    }

    /// Reads on until a line has this.
    #[track_caller]
    fn until(&mut self, fragment: &str) {
        for line in self.words.by_ref() {
            let line = line.unwrap();
            self.heard.push(line.clone());
            if line.contains(fragment) {
                return;
            }
        }
        panic!("{fragment:?} never came: {}", self.heard.join("\n"));
    }

    fn end(mut self) -> (i32, String) {
        self.heard.extend(self.words.by_ref().map(Result::unwrap));
        (self.child.wait().unwrap().code().unwrap(), self.heard.join("\n"))
    }

    fn term(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }
}

fn shards_in(dir: &Path) -> String {
    let shards = dir.join("shards").to_string_lossy().into_owned();
    done(&["shard", &cut(), "--out", &shards, "--set", "filter.top_moran=16"]);
    shards
}

fn mounted(dir: &Path, size: &str, story: &str) -> Option<(SmallDisk, String)> {
    let at = dir.join("small");
    fs::create_dir(&at).unwrap();
    let disk = SmallDisk::mount(&at, size, story)?;
    Some((disk, at.join("run").to_string_lossy().into_owned()))
}

/// The disk fills up while a run trains, and has room again when all steps are done.
#[test]
fn the_last_save_waits_for_room_and_is_that_of_an_undisturbed_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = shards_in(dir.path());
    let Some((disk, run)) = mounted(dir.path(), "size=4m", "a last save that waits") else { return };
    let sets = ["train.max_steps=60", "checkpoint.every=1000", "train.validate_every=60", "log.every=1"];
    let mut watched = Watched::train(&shards, &run, &sets);
    watched.until("step 1 ");
    disk.fill();
    watched.until("are needed");
    let line = watched.heard.last().unwrap().clone();
    assert!(
        line.contains("No space left") && line.contains("0.0 MiB are free") && line.contains("patience_s"),
        "{line}"
    );
    watched.term(); // asks for just this save
    disk.free();
    watched.until("the last save is on the disk");
    let (code, said) = watched.end();
    assert_eq!(code, 0, "a vote at the last step is a finished run: {said}");

    let undisturbed = dir.path().join("undisturbed").to_string_lossy().into_owned();
    assert_eq!(Watched::train(&shards, &undisturbed, &sets).end().0, 0);
    for which in ["step-00000060", "best"] {
        let load = |run: &str| checkpoint::load(&Path::new(run).join("checkpoints").join(which)).unwrap();
        let (ours, theirs) = (load(&run), load(&undisturbed));
        assert_eq!(ours.manifest.digest(), theirs.manifest.digest(), "{which}");
        assert!(ours.contents == theirs.contents, "{which}");
    }
}

#[test]
fn a_last_save_without_room_ends_with_7_once_patience_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let shards = shards_in(dir.path());
    let Some((disk, run)) = mounted(dir.path(), "size=4m", "a last save without room") else { return };
    let sets = ["train.max_steps=60", "checkpoint.every=10", "log.every=1", "checkpoint.patience_s=1"];
    let mut watched = Watched::train(&shards, &run, &sets);
    watched.until("step 15 ");
    disk.fill();
    let (code, said) = watched.end();
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("a save failed, the next one tries again"), "told while it goes on: {said}");
    assert!(said.contains("error: cannot") && said.contains("No space left"), "{said}");
    disk.free();
    let (code, said) = Watched::train(&shards, &run, &sets).end();
    assert!(code == 0 && said.contains("from step-0000"), "goes on from what was saved before: {said}");
}

/// Every record of an event file has its length and two checksums; nothing stands behind the last.
fn whole_records(bytes: &[u8]) -> usize {
    let (mut at, mut n) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let data = &bytes[at + 12..at + 12 + length];
        let masked = crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(bytes[at + 12 + length..at + 16 + length], masked.to_le_bytes());
        (at, n) = (at + 16 + length, n + 1);
    }
    n
}

/// The disk is full for a while: the run goes on, says so once, and its logs go on when there is room, line by whole line.
#[test]
fn logs_on_a_disk_that_was_full_go_on_behind_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let shards = shards_in(dir.path());
    let Some((disk, run)) = mounted(dir.path(), "size=96m", "logs on a full disk") else { return };
    let sets = ["train.max_steps=1000000", "checkpoint.every=1000000", "train.validate_every=1000000", "log.every=1"];
    let mut watched = Watched::train(&shards, &run, &sets);
    for _ in 0..2 {
        watched.until("step ");
        disk.fill();
        watched.until("cannot write metrics.jsonl");
        watched.until("cannot write events.out.tfevents");
        disk.free();
        watched.until("is written again");
        watched.until("is written again");
    }
    watched.term();
    let (code, said) = watched.end();
    assert_eq!(code, 75, "{said}");
    assert_eq!(said.matches("cannot write metrics.jsonl").count(), 2, "once per outage");
    let metrics = fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> =
        metrics.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect();
    assert!(metrics.ends_with('\n') && lines.len() > 3);
    assert_eq!(lines.last().unwrap()["kind"], "save", "the last line is of the end");
    let events = fs::read_dir(&run).unwrap().map(|e| e.unwrap().path());
    let events =
        events.filter(|p| p.to_string_lossy().contains("tfevents")).map(|p| whole_records(&fs::read(p).unwrap()));
    assert!(events.sum::<usize>() > 3);
}

#[test]
fn shards_on_a_full_disk_are_never_half_there() {
    let dir = tempfile::tempdir().unwrap();
    let Some((disk, out)) = mounted(dir.path(), "size=8m", "shards on a full disk") else { return };
    let shard = ["shard", &cut(), "--out", &out, "--set", "filter.top_moran=16"];
    disk.fill();
    refused(&shard, 7, &["No space left"]);
    disk.free();
    disk.fill_but(64 << 10);
    refused(&[&shard[..], &["--resume"]].concat(), 7, &["No space left", &out]);
    let there: Vec<String> =
        fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!there.iter().any(|name| name == "manifest.json" || name.ends_with(".tmp")), "{there:?}");
    disk.free();
    done(&[&shard[..], &["--resume"]].concat());
    done(&["verify", &out]);
}
