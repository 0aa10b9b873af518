//! Nobody is left waiting: for a process that hangs or never comes, for a library, or for a rank that waits for room.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use syncytia::engine::mpi::MpiEngine;
use syncytia::train::run_folder::RunFolder;

use super::{Place, command, pids, signal, start, steps_logged, syncytia, wait_until};
use crate::disk::SmallDisk;
use crate::mpirun::{mpirun, said};

/// A library may wait for ever where it says goodbye: the run is over, everything is saved, said and given back.
#[test]
fn a_library_that_does_not_let_go_keeps_nobody() {
    let place = Place::new();
    let (source, endless) = (place.path("endless.c"), place.path("endless.so"));
    fs::write(&source, "#include <unistd.h>\nint MPI_Finalize(void) { for (;;) pause(); }\n").unwrap();
    assert!(Command::new("cc").args(["-shared", "-fPIC", "-o", &endless, &source]).status().unwrap().success());
    let script = "export LD_PRELOAD=$0; \"$@\"; code=$?; unset LD_PRELOAD; echo code $code > \"$0-$code-$$\"";
    let arguments = place.train("run", &["train.max_steps=5"]);
    let words: Vec<&str> =
        ["-c", script, &endless, syncytia()].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let mut ranks =
        mpirun(2, "bash", &words).current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the end of all", Duration::from_secs(90), || ranks.try_wait().unwrap().is_some());
    let output = ranks.wait_with_output().unwrap();
    assert_eq!(said(&output).matches("finished 5 steps").count(), 1, "{}", said(&output));
    let ends = fs::read_dir(place.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let well = ends.filter(|name| name.starts_with("endless.so-0-")).count();
    assert!(well > 0, "{:?}", output.status); // an mpirun may end who is a moment later
    if MpiEngine::library().starts_with("MPICH") {
        assert_eq!(output.status.code(), Some(0)); // Open MPI's calls it a failure, whatever the ranks say
    }
    assert!(Path::new(&place.path("run/checkpoints/step-00000005")).is_dir());
    assert!(!RunFolder::at(Path::new(&place.path("run"))).lock().exists(), "the run folder was not given back");
}

/// A process that never comes to MPI_Init, in which the others wait without end.
#[test]
fn a_process_that_never_joins_is_an_error_before_anybody_waits_for_ever() {
    let place = Place::new();
    let arguments = place.train("run", &["train.deadline_s=4"]).join(" ");
    let rank = "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}";
    let script = format!("if [ \"{rank}\" = 1 ]; then exec sleep 30; else exec {} {arguments}; fi", syncytia());
    let began = Instant::now();
    let output = mpirun(2, "bash", &["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{}", said(&output));
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("did not join within 4 s"), "{}", said(&output));
}

/// A process that is stopped (not dead: no launcher notices) is an error of the others before the deadline, by name.
#[test]
fn a_process_that_hangs_is_named_before_the_deadline() {
    let place = Place::new();
    let folder = place.path("run");
    let child = start(true, 3, &place.train("run", &["train.deadline_s=4", "train.max_steps=100000"]));
    wait_until("some steps", Duration::from_secs(60), || steps_logged(&folder) > 5);
    let mut ranks = pids(&folder);
    ranks.sort_unstable();
    let hung = ranks[2];
    signal("STOP", hung);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // mpirun cannot end a stopped process by TERM; a cluster would kill it
            wait_until("the flight record", Duration::from_secs(20), || {
                let records = fs::read_dir(Path::new(&folder).join("log")).unwrap().map(|e| e.unwrap().file_name());
                records.filter(|name| name.to_string_lossy().starts_with("flight-rank-")).count() == 2
            });
            std::thread::sleep(Duration::from_millis(2500));
            signal("KILL", hung);
        });
    });
    let output = child.wait_with_output().unwrap();
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert!(words.contains("waited") && words.contains("operation"), "{words}");
    let waited_for: Vec<&str> = words.lines().filter(|l| l.contains(" s for ") && !l.contains("rank 2: ")).collect();
    assert!(
        !waited_for.is_empty() && waited_for.iter().all(|l| l.contains(" s for rank 2 ")),
        "the one that hangs: {words}"
    );
    assert!(!waited_for.iter().any(|l| l.contains("; rank 0 ") || l.contains("; rank 1 ")), "nobody else: {words}");
}

/// The pause is twice as long as a rank waits for another.
#[test]
fn a_last_save_that_waits_for_room_is_no_lost_peer() {
    let place = Place::new();
    fs::create_dir(place.path("small")).unwrap();
    let story = "processes that wait for room";
    let Some(disk) = SmallDisk::mount(Path::new(&place.path("small")), "size=16m", story) else { return };
    let (run, words) = (place.path("small/run"), place.path("words"));
    let endless = ["train.max_steps=1000000", "checkpoint.every=1000000", "train.validate_every=1000000"];
    let arguments = place.train("small/run", &[&endless[..], &["train.deadline_s=4"]].concat());
    let mut child = command(true, 2, &arguments).stderr(fs::File::create(&words).unwrap()).spawn().unwrap();
    let said = || fs::read_to_string(&words).unwrap();
    wait_until("some steps", Duration::from_secs(60), || steps_logged(&run) > 5);
    disk.fill();
    signal("TERM", pids(&run)[0]);
    wait_until("the pause", Duration::from_secs(60), || said().contains("are needed"));
    std::thread::sleep(Duration::from_secs(8));
    assert!(child.try_wait().unwrap().is_none(), "{}", said());
    disk.free();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{}", said());
    assert_eq!(fs::read_dir(Path::new(&run).join("checkpoints")).unwrap().count(), 1, "{}", said());
}
