//! Checkpoints on a bad day: torn and flipped ones, and ten thousand saves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use syncytia::train::checkpoint::{self, Checkpoint, CheckpointContents};
use syncytia::train::config::CheckpointConfig;
use syncytia::train::lock::{RunLock, Timing};
use syncytia::train::run_folder::RunFolder;
use syncytia::train::saver::{Place, Saver};

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
