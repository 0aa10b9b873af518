//! Shards that a job copies to its node's disk before it trains.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use super::{Cluster, RUNS, said, signal};
use crate::stage;

/// Trains two steps on staged shards with the real program, inside a job.
fn train_staged(cluster: &Cluster, shards: &Path, job: &str, environment: &[(&str, &str)]) -> Output {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/spackle/tiny.toml");
    let (run, disk) = (cluster.file("run"), cluster.file("disk"));
    let arguments =
        [config.to_str().unwrap(), shards.to_str().unwrap(), run.to_str().unwrap(), "--set", "train.max_steps=2"];
    let always = [
        ("SYNCYTIA", env!("CARGO_BIN_EXE_syncytia")),
        ("SYNCYTIA_STAGE", disk.to_str().unwrap()),
        ("SYNCYTIA_RANKS", "1"),
        ("SLURM_ARRAY_JOB_ID", "40"),
        ("SLURM_ARRAY_TASK_ID", job),
    ];
    cluster.submit(&arguments, &[&always[..], environment].concat()).wait_with_output().unwrap()
}

/// What lies under a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let found =
        Command::new("find").args([folder.to_str().unwrap(), "-type", "f", "-printf", "%P\n"]).output().unwrap();
    let mut names: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn copy_of(shards: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = format!("{}/.", shards.display());
    assert!(Command::new("cp").args(["-r", &from, copy.path().to_str().unwrap()]).status().unwrap().success());
    copy
}

#[test]
fn staged_shards_are_whole_are_trained_on_and_are_gone_after_the_job() {
    let shards = stage::shards();
    let cluster = Cluster::new(RUNS);
    let output = train_staged(&cluster, shards.dir(), "1", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("were copied to") && said(&output).contains("finished 2 steps"),
        "{}",
        said(&output)
    );
    let train = cluster.calls().into_iter().find(|c| c.contains(" train ")).unwrap();
    assert!(train.contains(&format!("--shards {}/syncytia-40/", cluster.file("disk").display())), "{train}");
    assert!(files(&cluster.file("disk")).is_empty(), "{:?}", files(&cluster.file("disk")));

    // A life that is to come back finds them.
    let cluster = Cluster::new(&format!("[[ $* == *' train '* ]] && exit 75\n{RUNS}"));
    let output = train_staged(&cluster, shards.dir(), "1", &[]);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    let kept = files(&cluster.file("disk"));
    assert!(kept.iter().any(|f| f.ends_with("/manifest.json")) && kept.iter().any(|f| f.ends_with(".users/40_1")));
    let another = train_staged(&cluster, shards.dir(), "2", &[("SLURM_RESTART_COUNT", "50")]);
    assert!(said(&another).contains("the shards are in"), "{}", said(&another));
    assert_eq!(files(&cluster.file("disk")), kept, "the other element, at its end, leaves them to the first");
    // Its shards were written anew meanwhile: the copy of the old ones goes.
    let anew = copy_of(shards.dir());
    let manifest = anew.path().join("manifest.json");
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + "\n").unwrap();
    let output = train_staged(&cluster, anew.path(), "1", &[]);
    assert!(said(&output).contains("were copied to"), "{}", said(&output));
    let now = files(&cluster.file("disk"));
    assert!(now.len() == kept.len() && now != kept, "{now:?}");
}

#[test]
fn an_interrupted_copy_is_gone_on_with_and_a_damaged_one_is_made_again() {
    let shards = stage::shards();
    let cluster = Cluster::new(&format!("[[ $* == *' train '* ]] && exit 75\n{RUNS}"));
    assert_eq!(train_staged(&cluster, shards.dir(), "1", &[]).status.code(), Some(75));
    let home = cluster.file("disk").join("syncytia-40");
    let whole = fs::read_dir(&home).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("manifest.json").exists());
    let whole = whole.unwrap();
    let part = whole.with_extension("part");
    let train_file = fs::read_dir(&whole).unwrap().map(|e| e.unwrap().path());
    let train_file = train_file.filter(|p| p.extension().is_some_and(|e| e == "parquet")).max().unwrap();
    let name = train_file.file_name().unwrap().to_owned();

    fs::rename(&whole, &part).unwrap();
    fs::remove_file(part.join(&name)).unwrap();
    let inode = |folder: &Path| fs::metadata(folder.join("manifest.json")).unwrap().ino();
    let copied_before = inode(&part);
    let output = train_staged(&cluster, shards.dir(), "1", &[]);
    assert_eq!(inode(&whole), copied_before, "what was copied is not copied again");
    assert!(said(&output).contains("were copied to") && !said(&output).contains("not whole"), "{}", said(&output));
    assert!(whole.join(&name).exists() && !part.exists());

    fs::rename(&whole, &part).unwrap();
    let mut bytes = fs::read(part.join(&name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(part.join(&name), bytes).unwrap();
    let output = train_staged(&cluster, shards.dir(), "1", &[]);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("not whole (attempt 1)"), "{}", said(&output));
    assert_eq!(fs::read(whole.join(&name)).unwrap(), fs::read(shards.dir().join(&name)).unwrap());

    // Shards that are damaged where they come from: exit 3, no step, nothing left.
    let damaged = copy_of(shards.dir());
    fs::write(damaged.path().join(&name), "no longer Parquet").unwrap();
    let cluster = Cluster::new(RUNS);
    let output = train_staged(&cluster, damaged.path(), "1", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(cluster.calls().iter().all(|c| !c.contains(" train ")));
    assert!(files(&cluster.file("disk")).is_empty(), "{:?}", files(&cluster.file("disk")));
    let output = train_staged(&cluster, Path::new("/nowhere"), "1", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

#[test]
fn time_that_runs_out_while_shards_are_copied_is_no_failure() {
    let cluster = Cluster::new("touch \"$(dirname \"$0\")/running\"; exec sleep 20");
    let shards = stage::shards();
    let disk = cluster.file("disk");
    let arguments = ["C.toml", shards.dir().to_str().unwrap(), "R"];
    let job = cluster.submit(&arguments, &[("SYNCYTIA_STAGE", disk.to_str().unwrap())]);
    cluster.wait_for("running");
    signal("USR1", job.id());
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert_eq!(cluster.calls().last().unwrap(), "scontrol requeue 41");
    assert!(cluster.calls().iter().all(|c| !c.contains(" train ")));
}
