//! Several processes train as one: the same bits as threads, one run folder, and nobody left waiting.

mod waiting;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command::{cut, done};
use crate::mpirun::{mpirun, said};

/// A folder with shards, and runs beside them.
pub struct Place {
    dir: tempfile::TempDir,
}

/// Steps of a run that is stopped or killed on the way.
const STEPS: u64 = 60;

impl Place {
    pub fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        let shards = place.path("shards");
        let config = ["--config", "configs/spackle/shard.toml", "--set", "filter.top_moran=16"];
        done(&[&["shard", &cut(), "--out", &shards, "--set", "split.kind=block"][..], &config].concat());
        place
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Arguments of `syncytia train` into `run`.
    pub fn train(&self, run: &str, sets: &[&str]) -> Vec<String> {
        let steps = format!("train.max_steps={STEPS}");
        let mut arguments: Vec<String> =
            ["train", "configs/spackle/tiny.toml", "--shards", &self.path("shards"), "--run", &self.path(run)]
                .map(str::to_owned)
                .to_vec();
        let usual = [&steps, "train.micro_batch=4", "checkpoint.every=7", "train.validate_every=20"];
        for set in usual.into_iter().chain(sets.iter().copied()) {
            arguments.extend(["--set".to_owned(), set.to_owned()]);
        }
        arguments
    }

    /// The bytes of everything in the last checkpoint but the config and its digests.
    pub fn last(&self, run: &str) -> Vec<(String, Vec<u8>)> {
        let dir = Path::new(&self.path(run)).join(format!("checkpoints/step-{STEPS:08}"));
        let mut files = Vec::new();
        collect(&dir, &dir, &mut files);
        files.retain(|(name, _)| name.ends_with(".safetensors"));
        assert!(files.len() >= 3, "{dir:?} has {files:?}");
        files.sort();
        files
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{dir:?}: {e}")) {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(root, &path, files),
            false => {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read(&path).unwrap()));
            }
        }
    }
}

fn syncytia() -> &'static str {
    env!("CARGO_BIN_EXE_syncytia")
}

/// `arguments` on `ranks` processes, or threads where `processes` is false.
fn command(processes: bool, ranks: usize, arguments: &[String]) -> Command {
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let n = ranks.to_string();
    let mut command = match processes {
        true => mpirun(ranks, syncytia(), &arguments),
        false => {
            arguments.extend(["--ranks", &n]);
            let mut command = Command::new(syncytia());
            command.args(arguments);
            command
        }
    };
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(processes: bool, ranks: usize, arguments: &[String]) -> Child {
    command(processes, ranks, arguments).spawn().unwrap()
}

fn finished(processes: bool, ranks: usize, arguments: &[String]) -> Output {
    let output = command(processes, ranks, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    output
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
}

/// Processes of this run, by their command line: never those of another test.
fn pids(run: &str) -> Vec<u32> {
    let this = |entry: PathBuf| -> Option<u32> {
        let pid = entry.file_name()?.to_str()?.parse().ok()?;
        let line = fs::read(entry.join("cmdline")).ok()?;
        let mut words = line.split(|&b| b == 0);
        let program = words.next()?.ends_with(b"syncytia");
        (program && words.any(|w| w == run.as_bytes())).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().filter_map(|e| this(e.unwrap().path())).collect()
}

fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < patience, "{what} did not happen in {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn steps_logged(run: &str) -> usize {
    fs::read_to_string(Path::new(run).join("metrics.jsonl")).unwrap_or_default().matches("\"train\"").count()
}

#[test]
fn processes_and_threads_have_the_same_bits() {
    let place = Place::new();
    finished(false, 1, &place.train("one", &[]));
    for ranks in [1, 2, 3, 4] {
        let run = format!("mpi-{ranks}");
        let output = finished(true, ranks, &place.train(&run, &[]));
        assert!(place.last(&run) == place.last("one"), "{ranks} processes");
        assert_eq!(said(&output).matches("finished 60 steps").count(), 1, "rank 0 speaks for all: {}", said(&output));
        // A process by itself takes thread-ranks, one per core.
        assert!(ranks == 1 || said(&output).contains(&format!("on {ranks} ranks")), "{}", said(&output));
    }
    finished(false, 3, &place.train("threads", &[]));
    assert!(place.last("threads") == place.last("one"));
}

/// Stops by signals and deaths by SIGKILL, on other numbers of processes and threads in turn: nothing beyond the last
/// checkpoint is lost, and the end is the undisturbed one. `SYNCYTIA_SCHEDULES` asks for more.
#[test]
fn stops_and_kills_on_any_number_of_processes_change_nothing() {
    let schedules: u64 = std::env::var("SYNCYTIA_SCHEDULES").map_or(20, |n| n.parse().unwrap());
    let place = Place::new();
    finished(false, 2, &place.train("undisturbed", &[]));
    let expected = place.last("undisturbed");
    let mut draws = Draws(0x5eed);
    let (mut stops, mut kills) = (0, 0);
    for schedule in 0..schedules {
        let run = format!("schedule-{schedule}");
        let folder = place.path(&run);
        let mut story = Vec::new();
        loop {
            assert!(story.len() < 12, "schedule {schedule} does not come to its end: {story:?}");
            let disturbed = story.len() < 2;
            let (processes, ranks) = [(true, 2), (true, 3), (false, 1), (true, 4), (false, 4)][draws.below(5)];
            let arguments = place.train(&run, &[]);
            let before = steps_logged(&folder);
            let mut child = start(processes, ranks, &arguments);
            let after = 1 + draws.below(25);
            let kill = draws.below(2) == 0;
            story.push((processes, ranks, after, kill));
            let mut struck = false;
            if disturbed {
                let pid = child.id();
                wait_until("progress or an end", Duration::from_secs(120), || {
                    let done = child.try_wait().unwrap().is_some();
                    done || steps_logged(&folder) >= before.min(40) + after
                });
                if child.try_wait().unwrap().is_none() {
                    let ranks = pids(&folder);
                    let one = ranks.get(draws.below(ranks.len().max(1))).copied().unwrap_or(pid);
                    signal(if kill { "KILL" } else { "TERM" }, one); // one vote stops all
                    struck = true;
                }
            }
            let output = child.wait_with_output().unwrap();
            wait_until("the end of all", Duration::from_secs(30), || pids(&folder).is_empty());
            match output.status.code() {
                Some(0) => break,
                Some(75) if struck && !kill => stops += 1,
                _ if struck && kill => kills += 1,
                code => panic!("schedule {schedule}, {story:?}: {code:?}\n{}", said(&output)),
            }
        }
        assert!(place.last(&run) == expected, "schedule {schedule}: {story:?}");
        fs::remove_dir_all(&folder).unwrap();
    }
    println!("{schedules} of {schedules} schedules ended with the undisturbed bits ({stops} stops, {kills} kills)");
    assert!(stops > 0 && kills > 0, "the schedules must disturb");
}

/// A small generator of its own: the schedules are the same in every run of the test.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// The first Ctrl-C asks to save, the second does not wait: no rank is left behind, holding the lock.
#[test]
fn a_second_interrupt_of_launch_leaves_no_rank_behind() {
    let place = Place::new();
    let folder = place.path("run");
    let mut arguments = vec!["launch".to_owned(), "-n".to_owned(), "2".to_owned(), "--".to_owned()];
    arguments.extend(place.train("run", &["train.max_steps=1000000"]));
    let mut launch = Command::new(syncytia()).args(&arguments).current_dir(env!("CARGO_MANIFEST_DIR")).spawn().unwrap();
    wait_until("some steps", Duration::from_secs(60), || steps_logged(&folder) > 5);
    let ranks = pids(&folder).into_iter().filter(|&pid| pid != launch.id());
    ranks.for_each(|pid| signal("STOP", pid)); // they cannot save
    let children = format!("/proc/{0}/task/{0}/children", launch.id());
    let mpirun = PathBuf::from("/proc").join(fs::read_to_string(children).unwrap().trim());
    assert!(mpirun.join("stat").exists(), "{mpirun:?}");
    signal("INT", launch.id());
    std::thread::sleep(Duration::from_millis(300));
    signal("INT", launch.id());
    assert_eq!(launch.wait().unwrap().code(), Some(130));
    wait_until("the end of mpirun", Duration::from_secs(10), || !mpirun.exists());
    pids(&folder).into_iter().for_each(|pid| signal("CONT", pid));
    wait_until("the end of all ranks", Duration::from_secs(30), || pids(&folder).is_empty());
}

#[test]
fn what_one_process_cannot_do_ends_all_in_its_words() {
    let place = Place::new();
    // rank 1 is given a folder that is not there
    let rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}";
    let arguments = place.train("run", &[]).join(" ");
    let script = format!(
        "if [ \"{rank}\" = 1 ]; then exec {0} {1}; else exec {0} {2}; fi",
        syncytia(),
        arguments.replace("/shards ", "/nowhere "),
        arguments
    );
    let output = mpirun(2, "bash", &["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("/nowhere"), "{}", said(&output));
    assert!(!Path::new(&place.path("run")).join("config.toml").exists(), "nothing was written");
    // rank 1 is given another learning rate
    let script = script.replace("/nowhere ", "/shards --set optim.lr=0.5 ");
    let output = mpirun(2, "bash", &["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("the ranks were not started alike") && said(&output).contains("config (digest)"));
}

#[test]
fn launch_starts_processes_of_the_same_library_and_only_training() {
    let place = Place::new();
    let arguments = place.train("run", &[]);
    let launch: Vec<&str> =
        ["launch", "-n", "2", "--"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let said = done(&launch);
    assert_eq!(said.matches("finished 60 steps").count(), 1, "{said}");
    crate::command::refused(
        &["launch", "-n", "2", "--", "evaluate", "run"],
        2,
        &["`evaluate` is the work of one process"],
    );
}

/// Ctrl-C and TERM to `launch` are votes: everything is saved and the code says so, whatever the mpirun.
#[test]
fn a_stop_of_launch_saves_and_ends_with_75() {
    let place = Place::new();
    for (name, run) in [("TERM", "term"), ("INT", "int")] {
        let arguments = place.train(run, &["train.max_steps=1000000", "checkpoint.every=1000000"]);
        let child = Command::new(syncytia())
            .args(["launch", "-n", "2", "--"])
            .args(&arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let folder = place.path(run);
        wait_until("some steps", Duration::from_secs(60), || steps_logged(&folder) > 5);
        signal(name, child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{name}: {}", said(&output));
        let saved = fs::read_dir(Path::new(&folder).join("checkpoints")).unwrap().count();
        assert!(saved > 0, "{name}: nothing was saved");
    }
}

#[test]
fn more_processes_than_lanes_or_ranks_beside_processes_are_refused() {
    let place = Place::new();
    for (sets, fragment) in
        [(&["train.lanes=1"][..], "at most one rank per lane"), (&["train.ranks=4"], "every process is one rank")]
    {
        let output = command(true, 2, &place.train("run", sets)).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(fragment), "{}", said(&output));
    }
}
