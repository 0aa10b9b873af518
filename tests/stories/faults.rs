//! Storage on a bad day: torn checkpoints, a disk that is full for a while, and ten thousand saves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use syncytia::train::checkpoint::{self, Checkpoint, CheckpointContents};
use syncytia::train::config::CheckpointConfig;
use syncytia::train::lock::{RunLock, Timing};
use syncytia::train::run_folder::RunFolder;
use syncytia::train::saver::{Place, Saver};

use crate::command::{cut, done, refused};
use crate::disk::SmallDisk;
use crate::stage::{Theatre, tiny};

/// In memory where there is such a folder: these stories are about bytes, not about a drive's cache.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The checkpoints of steps 8 and 12 of a real run, in a run folder of their own.
fn two_checkpoints() -> (tempfile::TempDir, RunFolder) {
    let theatre = Theatre::new();
    theatre.run(&tiny(|_| {}), 2, None).unwrap();
    let dir = scratch();
    let run = RunFolder::create(dir.path().join("run")).unwrap();
    for step in [8, 12] {
        copy(theatre.folder.checkpoint(step).root(), run.checkpoint(step).root());
    }
    (dir, run)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Files of a checkpoint, relative, and their bytes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Places where a file may be torn: of a safetensors file its length field, header, and first, middle and last byte of
/// each tensor; of JSON every 97th byte; of both the first and the last.
fn byte_classes(name: &str, bytes: &[u8]) -> Vec<usize> {
    let last = bytes.len() - 1;
    let mut places = vec![0, 1, 7, 8, 9, last / 2, last - 1, last];
    if name.ends_with(".json") {
        places.extend((0..last).step_by(97));
    } else {
        let n_header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        places.extend([8 + n_header / 2, 7 + n_header, 8 + n_header]);
        let header: Value = serde_json::from_slice(&bytes[8..8 + n_header]).unwrap();
        for tensor in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__").map(|(_, t)| t) {
            let at = |i: usize| 8 + n_header + tensor["data_offsets"][i].as_u64().unwrap() as usize;
            places.extend([at(0), (at(0) + at(1)) / 2, at(1) - 1]);
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// What was done to the newest checkpoint, and how often it was noticed.
struct Damage {
    run: RunFolder,
    whole: BTreeMap<String, Vec<u8>>,
    previous: Checkpoint,
    noticed: BTreeMap<&'static str, usize>,
}

impl Damage {
    fn new(run: RunFolder) -> Self {
        let whole = files(run.checkpoint(12).root());
        let previous = checkpoint::load(run.checkpoint(8).root()).unwrap();
        let newest = checkpoint::newest_valid(&run).unwrap().checkpoint.unwrap();
        assert_eq!(newest.manifest.global_step, 12, "whole before it is damaged");
        Self { run, whole, previous, noticed: BTreeMap::new() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.run.checkpoint(12).file(file)
    }

    /// Damages, wants the previous checkpoint to be used and the newest to be named, and puts everything back.
    fn with(&mut self, kind: &'static str, what: &str, damage: impl FnOnce(&Path)) {
        let root = self.run.checkpoint(12).root().to_owned();
        damage(&root);
        let newest = checkpoint::newest_valid(&self.run).unwrap_or_else(|e| panic!("{kind}, {what}: {e}"));
        let words: Vec<String> = newest.damaged.iter().map(ToString::to_string).collect();
        assert!(words.len() == 1 && words[0].contains("step-00000012"), "{kind}, {what}: not noticed: {words:?}");
        assert!(newest.checkpoint.as_ref() == Some(&self.previous), "{kind}, {what}: the previous one is not used");
        *self.noticed.entry(kind).or_default() += 1;
        fs::remove_dir_all(&root).unwrap();
        for (file, bytes) in &self.whole {
            fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
            fs::write(self.path(file), bytes).unwrap();
        }
    }

    /// The same with other bytes in one file.
    fn bytes(&mut self, kind: &'static str, file: &str, place: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.whole[file].clone();
        change(&mut bytes);
        if bytes == self.whole[file] {
            return; // zeros over zeros are no damage
        }
        let path = self.path(file);
        self.with(kind, &format!("{file} at {place}"), |_| fs::write(path, bytes).unwrap());
    }
}

/// At least a thousand checkpoints, each damaged in another way; each is noticed before a weight of it is used.
#[test]
fn every_torn_or_flipped_checkpoint_is_noticed_and_the_previous_one_used() {
    let (_dir, run) = two_checkpoints();
    let older = files(run.checkpoint(8).root());
    let mut damage = Damage::new(run);
    let names: Vec<String> = damage.whole.keys().cloned().collect();
    for name in &names {
        let bytes = damage.whole[name].clone();
        for (i, place) in byte_classes(name, &bytes).into_iter().enumerate() {
            damage.bytes("cut", name, place, |b| b.truncate(place));
            damage.bytes("bit flipped", name, place, |b| b[place] ^= 1 << (i % 8));
        }
        // places that nobody chose, the same ones each time
        let mut random = blake3::hash(name.as_bytes());
        for i in 0..24 {
            random = blake3::hash(random.as_bytes());
            let place = u64::from_le_bytes(random.as_bytes()[..8].try_into().unwrap()) as usize % bytes.len();
            damage.bytes("bit flipped", name, place, |b| b[place] ^= 1 << (i % 8));
        }
        // what a power cut leaves of a file whose size was on the disk before its blocks
        for place in (0..bytes.len()).step_by(4096) {
            damage.bytes("block of zeros", name, place, |b| {
                let end = b.len().min(place + 4096);
                b[place..end].fill(0);
            });
            damage.bytes("zeros to the end", name, place, |b| b[place..].fill(0));
        }
        for extra in [1, 8, 4096] {
            damage.bytes("longer", name, extra, |b| b.resize(b.len() + extra, b' '));
        }
        damage.with("missing", name, |root| fs::remove_file(root.join(name)).unwrap());
        damage.with("a folder of that name", name, |root| {
            fs::remove_file(root.join(name)).unwrap();
            fs::create_dir(root.join(name)).unwrap();
        });
        for (kind, target) in [("a link to nothing", "nowhere"), ("a link to a device", "/dev/zero")] {
            damage.with(kind, name, |root| {
                fs::remove_file(root.join(name)).unwrap();
                std::os::unix::fs::symlink(target, root.join(name)).unwrap();
            });
        }
        damage.bytes("of another step", name, 0, |b| b.clone_from(&older[name]));
        for other in names.iter().filter(|other| *other > name) {
            let (a, b) = (damage.whole[name].clone(), damage.whole[other].clone());
            damage.with("swapped", &format!("{name} with {other}"), |root| {
                fs::write(root.join(name), b).unwrap();
                fs::write(root.join(other), a).unwrap();
            });
        }
    }
    damage.with("of another step", "all files", |root| {
        older.iter().for_each(|(file, bytes)| fs::write(root.join(file), bytes).unwrap());
    });
    damage.with("missing", "train_state", |root| fs::remove_dir_all(root.join("train_state")).unwrap());
    damage.with("missing", "everything", |root| {
        fs::remove_dir_all(root).unwrap();
        fs::create_dir(root).unwrap();
    });
    let n: usize = damage.noticed.values().sum();
    let _ = writeln!(std::io::stderr(), "\n{n} damaged checkpoints, each noticed: {:?}", damage.noticed);
    assert!(n >= 1000, "{n}");

    // and where the one before is damaged too, nothing is used
    fs::write(damage.path("model.safetensors"), "").unwrap();
    fs::write(damage.run.checkpoint(8).manifest(), "").unwrap();
    let none = checkpoint::newest_valid(&damage.run).unwrap();
    assert!(none.checkpoint.is_none() && none.damaged.len() == 2);
}

/// Resident memory in KiB, threads, open files of this process; files below a folder.
fn weight(run: &RunFolder) -> [u64; 4] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let n_files = files(run.root()).len() as u64;
    [number("VmRSS:"), number("Threads:"), fs::read_dir("/proc/self/fd").unwrap().count() as u64, n_files]
}

/// The life of a run that is started again and again: lock, saver, a step, now and then a best, and the newest read back.
fn live(run: &RunFolder, mut contents: CheckpointContents, cycles: std::ops::Range<u64>) {
    for step in cycles {
        contents.state["global_step"] = step.into();
        contents.model[0].values[0] = step as f32;
        let lock = Arc::new(RunLock::acquire(run, None, Timing::default()).unwrap());
        let config = CheckpointConfig { keep: 2, ..CheckpointConfig::default() };
        let saver = Saver::start(lock, &config).unwrap();
        if step % 7 == 0 {
            saver.submit(Place::Best, step, contents.clone()).unwrap();
        }
        saver.submit(Place::Step, step, contents.clone()).unwrap();
        saver.finish().unwrap();
        let newest = checkpoint::newest_valid(run).unwrap().checkpoint.unwrap();
        assert!(newest.contents == contents, "step {step}");
    }
}

const CYCLES: &str = "SYNCYTIA_TEST_CYCLES";

/// Not a story of its own: the body of the two below, in a process where nothing else runs.
#[test]
fn child_that_lives_many_lives() {
    let Some(cycles) = std::env::var(CYCLES).ok().and_then(|n| n.parse::<u64>().ok()) else { return };
    let (_dir, run) = two_checkpoints();
    let contents = checkpoint::load(run.checkpoint(12).root()).unwrap().contents;
    let first = 100 + cycles / 10; // until every buffer has its size
    live(&run, contents.clone(), 100..first);
    let before = weight(&run);
    live(&run, contents, first..100 + cycles);
    let after = weight(&run);
    println!("WEIGHT {}", serde_json::to_string(&(before, after)).unwrap());
}

fn saves_without_growth(cycles: u64) {
    let began = std::time::Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::child_that_lives_many_lives", "--nocapture", "--test-threads=1"])
        .env(CYCLES, cycles.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|l| l.split_once("WEIGHT ")).unwrap_or_else(|| panic!("{said}")).1;
    let ([rss, threads, open, files], after): ([u64; 4], [u64; 4]) = serde_json::from_str(line).unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "\n{cycles} saves and restores in {:.0} s: {rss} → {} KiB, {open} → {} open files, {files} → {} files",
        began.elapsed().as_secs_f64(),
        after[0],
        after[2],
        after[3]
    );
    assert_eq!(after[1..], [threads, open, files], "threads, open files, files");
    // a page here and there, and the allocator's arenas: a checkpoint alone has 200 KiB
    assert!(after[0] < rss + 4096, "{rss} KiB grew to {} KiB", after[0]);
}

#[test]
fn five_hundred_saves_and_restores_leave_nothing_behind() {
    saves_without_growth(500);
}

#[test]
#[ignore = "minutes; run with --ignored"]
fn ten_thousand_saves_and_restores_leave_nothing_behind() {
    saves_without_growth(10_000);
}

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
