//! Checkpoints as a run and its crashes meet them.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use syncytia_launch::ExitCode;

use super::*;

fn run() -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path().join("R")).unwrap();
    (folder, run)
}

fn tensor(name: &str, shape: &[usize], first: f32) -> NamedTensor {
    let n = shape.iter().product();
    NamedTensor { name: name.into(), shape: shape.into(), values: (0..n).map(|i| first + i as f32 / 8.0).collect() }
}

/// Contents that differ in every file from step to step.
fn contents(step: u64) -> CheckpointContents {
    let group = |shift: f32| vec![tensor("w", &[3, 2], step as f32 + shift), tensor("a", &[2], shift)];
    CheckpointContents {
        model: group(0.5),
        model_metadata: [("format".to_owned(), "pt".to_owned()), ("step".to_owned(), step.to_string())].into(),
        train_state: ["raw", "adam_m", "adam_v"].map(|s| (s.to_owned(), group(s.len() as f32))).into(),
        state: json!({"global_step": step, "best": f64_to_state(0.1 + step as f64), "exponents": [-3, null]}),
    }
}

#[test]
fn what_is_saved_is_loaded_in_the_same_order_with_the_same_bits() {
    let (_keep, run) = run();
    let dir = save(&run, 1000, &contents(1000)).unwrap();
    assert_eq!(dir, run.root().join("checkpoints/step-00001000"));
    let loaded = load(&dir).unwrap();
    assert_eq!(loaded.contents, contents(1000));
    assert_eq!(loaded.manifest.global_step, 1000);
    assert_eq!(loaded.contents.model[0].name, "w", "saved order, not alphabet");
    let names: Vec<&String> = loaded.manifest.files.keys().collect();
    let groups = ["adam_m", "adam_v", "raw"].map(|s| format!("train_state/{s}.safetensors"));
    assert_eq!(names[0], "model.safetensors");
    assert_eq!(names[1..4], groups.iter().collect::<Vec<_>>());
    assert_eq!(names[4], "train_state/state.json");
}

#[test]
fn the_same_state_gives_the_same_files_and_digest() {
    let (_a, first) = run();
    let (_b, second) = run();
    save(&first, 3, &contents(3)).unwrap();
    save(&second, 3, &contents(3)).unwrap();
    let one = load(first.checkpoint(3).root()).unwrap().manifest;
    let two = load(second.checkpoint(3).root()).unwrap().manifest;
    assert_eq!(one.digest(), two.digest());
    let other = CheckpointContents { state: json!({}), ..contents(3) };
    save(&second, 3, &other).unwrap();
    assert_ne!(load(second.checkpoint(3).root()).unwrap().manifest.digest(), one.digest());
}

#[test]
fn an_f64_keeps_its_bits_in_the_state() {
    for value in [0.1, -0.0, f64::MIN_POSITIVE / 3.0, f64::INFINITY, f64::NEG_INFINITY, 1.0 / 3.0] {
        let text = serde_json::to_string(&f64_to_state(value)).unwrap();
        let back = f64_from_state(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(back.to_bits(), value.to_bits());
    }
    assert!(f64_from_state(&f64_to_state(f64::NAN)).unwrap().is_nan());
    assert_eq!(f64_from_state(&json!(1.5)), None);
}

#[test]
fn every_file_class_cut_short_flipped_or_missing_is_damage_by_name_and_the_previous_is_used() {
    let files = ["model.safetensors", "train_state/adam_m.safetensors", "train_state/state.json", "manifest.json"];
    for file in files {
        for fault in ["cut", "flip first", "flip middle", "flip last", "grow", "empty", "missing"] {
            let (_keep, run) = run();
            save(&run, 1, &contents(1)).unwrap();
            save(&run, 2, &contents(2)).unwrap();
            let path = run.checkpoint(2).file(file);
            let mut bytes = fs::read(&path).unwrap();
            let n = bytes.len();
            match fault {
                "cut" => bytes.truncate(n / 2),
                "flip first" => bytes[0] ^= 1,
                "flip middle" => bytes[n / 2] ^= 1,
                "flip last" => bytes[n - 1] ^= 1,
                "grow" => bytes.push(b'x'),
                "empty" => bytes.clear(),
                _ => {}
            }
            if fault == "missing" {
                fs::remove_file(&path).unwrap()
            } else {
                fs::write(&path, bytes).unwrap()
            }

            let newest = newest_valid(&run).unwrap();
            let used = newest.checkpoint.unwrap_or_else(|| panic!("{file}, {fault}: nothing used"));
            assert_eq!(used.contents, contents(1), "{file}, {fault}");
            assert_eq!(newest.damaged.len(), 1);
            let words = newest.damaged[0].to_string();
            assert!(words.contains("step-00000002") && words.contains(file), "{file}, {fault}: {words}");
            assert_eq!(newest.damaged[0].exit_code(), ExitCode::Checkpoint);
            assert!(run.checkpoint(2).root().exists(), "a damaged checkpoint is never deleted");
        }
    }
}

#[test]
fn every_single_bit_of_a_checkpoint_matters() {
    let (_keep, run) = run();
    let dir = save(&run, 4, &contents(4)).unwrap();
    let manifest = load(&dir).unwrap().manifest;
    for file in manifest.files.keys() {
        let path = dir.join(file);
        let whole = fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << (byte % 8);
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(load(&dir), Err(CheckpointError::Damaged { .. })), "{file} byte {byte}");
        }
        fs::write(&path, &whole).unwrap();
    }
    load(&dir).unwrap();
}

#[test]
fn a_manifest_that_tells_of_other_tensors_is_not_believed() {
    // a writer's fault, not the disk's: file digests fit, the listed tensors do not
    let (_keep, run) = run();
    let dir = save(&run, 4, &contents(4)).unwrap();
    let manifest = load(&dir).unwrap().manifest;
    let changes: [fn(&mut Manifest); 6] = [
        |m| m.files.get_mut("model.safetensors").unwrap().tensors[0].blake3 = hex(b""),
        |m| m.files.get_mut("model.safetensors").unwrap().tensors[0].shape = vec![2, 3],
        |m| m.files.get_mut("model.safetensors").unwrap().tensors[0].name = "v".into(),
        |m| drop(m.files.get_mut("model.safetensors").unwrap().tensors.pop()),
        |m| drop(m.files.remove("model.safetensors")),
        |m| m.global_step = 5,
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut changed = manifest.clone();
        change(&mut changed);
        fs::write(dir.join("manifest.json"), changed.to_bytes()).unwrap();
        assert!(matches!(load(&dir), Err(CheckpointError::Damaged { .. })), "change {i}");
    }
}

#[test]
fn a_newer_format_is_refused_and_not_taken_for_damage() {
    let (_keep, run) = run();
    save(&run, 1, &contents(1)).unwrap();
    let dir = save(&run, 2, &contents(2)).unwrap();
    let mut manifest = load(&dir).unwrap().manifest;
    manifest.format_version = FORMAT_VERSION + 1;
    fs::write(dir.join("manifest.json"), manifest.to_bytes()).unwrap();
    let refused = newest_valid(&run).unwrap_err();
    assert!(refused.to_string().contains("use a newer syncytia"), "{refused}");
}

#[test]
fn contradictory_contents_are_refused_and_leave_nothing() {
    let (_keep, run) = run();
    let mut short = contents(1);
    short.model[0].values.pop();
    assert!(matches!(save(&run, 1, &short), Err(CheckpointError::Contents { .. })));
    let mut escaping = contents(1);
    escaping.train_state.insert("../x".into(), vec![]);
    assert!(matches!(save(&run, 1, &escaping), Err(CheckpointError::Contents { .. })));
    assert!(publish::names(&run.checkpoints()).unwrap().is_empty());
}

#[test]
fn a_step_saved_again_and_a_new_best_replace_the_old_ones() {
    let (_keep, run) = run();
    save(&run, 1, &contents(1)).unwrap();
    let again = CheckpointContents { state: json!("again"), ..contents(1) };
    save(&run, 1, &again).unwrap();
    assert_eq!(load(run.checkpoint(1).root()).unwrap().contents, again);
    write_best(&run, 1, &contents(1)).unwrap();
    write_best(&run, 9, &contents(9)).unwrap();
    let best = load(run.best().root()).unwrap();
    assert_eq!((best.manifest.global_step, best.contents), (9, contents(9)));
    assert_eq!(publish::names(&run.checkpoints()).unwrap(), ["best", "step-00000001"]);
}

#[test]
fn pruning_keeps_the_newest_and_the_best() {
    let (_keep, run) = run();
    for step in [5, 100, 20, 99_999_999, 100_000_000] {
        save(&run, step, &contents(step)).unwrap();
    }
    write_best(&run, 5, &contents(5)).unwrap();
    assert_eq!(prune(&run, 2).unwrap(), [5, 20, 100]);
    assert_eq!(steps(&run).unwrap(), [99_999_999, 100_000_000]);
    assert_eq!(prune(&run, 0).unwrap(), [99_999_999]);
    assert!(prune(&run, 0).unwrap().is_empty());
    load(run.best().root()).unwrap();
}

#[test]
fn a_path_means_the_checkpoint_a_user_expects() {
    let (_keep, run) = run();
    let step_of = |which: &str| resolve(run.root(), which.parse().unwrap()).map(|(c, _)| c.manifest.global_step);
    assert!(matches!(resolve(run.root(), Which::Usual), Err(CheckpointError::NotFound { .. })));
    save(&run, 1, &contents(1)).unwrap();
    save(&run, 2, &contents(2)).unwrap();
    assert_eq!(resolve(run.root(), Which::Usual).unwrap().0.manifest.global_step, 2);
    assert!(step_of("best").unwrap_err().to_string().contains("it has step-00000001, step-00000002"));
    write_best(&run, 1, &contents(1)).unwrap();
    assert_eq!(resolve(run.root(), Which::Usual).unwrap().0.manifest.global_step, 1);
    assert_eq!((step_of("best").unwrap(), step_of("last").unwrap(), step_of("step-2").unwrap()), (1, 2, 2));
    assert_eq!(step_of("step-3").unwrap_err().exit_code(), ExitCode::Usage);
    assert_eq!(resolve(run.checkpoint(2).root(), Which::Usual).unwrap().0.manifest.global_step, 2);
    assert!("newest".parse::<Which>().unwrap_err().contains("best, last or step-N"));

    fs::write(run.best().file("model.safetensors"), "").unwrap();
    let (used, damaged) = resolve(run.root(), Which::Usual).unwrap();
    assert_eq!((used.manifest.global_step, damaged.len()), (2, 1));
    for step in [1, 2] {
        fs::write(run.checkpoint(step).file("train_state/state.json"), "").unwrap();
    }
    let none = resolve(run.root(), Which::Usual).unwrap_err();
    assert!(none.to_string().contains("every checkpoint") && none.to_string().contains("step-00000001"), "{none}");
}

#[test]
fn a_thousand_saves_leave_no_more_files_than_one() {
    // in memory where there is such a folder: some 12,000 fsyncs take a minute on a disk and show nothing more
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let run = RunFolder::create(folder.path().join("R")).unwrap();
    let count = || walk(run.root());
    let mut after_first = 0;
    for step in 1..=1000 {
        save(&run, step, &contents(step)).unwrap();
        prune(&run, 2).unwrap();
        if step % 7 == 0 {
            write_best(&run, step, &contents(step)).unwrap();
        }
        if step == 8 {
            after_first = count();
        }
    }
    assert_eq!(count(), after_first);
    assert_eq!(steps(&run).unwrap(), [999, 1000]);
}

fn walk(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| 1 + if p.is_dir() { walk(&p) } else { 0 }).sum()
}

const CHILD: &str = "SYNCYTIA_TEST_SAVING_CHILD";

/// Not a test of its own: the body of the child below. Saves until it is killed.
#[test]
fn child_that_saves_for_ever() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let run = RunFolder::create(root).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    for step in 1.. {
        save(&run, step, &contents(step)).unwrap();
        write_best(&run, step, &contents(step)).unwrap();
        prune(&run, 2).unwrap();
        assert!(Instant::now() < until, "nobody killed us");
    }
}

#[test]
fn a_process_killed_while_saving_leaves_a_valid_checkpoint_and_a_valid_best() {
    let (_keep, run) = run();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "train::checkpoint::tests::child_that_saves_for_ever", "--test-threads=1"])
            .env(CHILD, run.root())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let asked = Instant::now();
        while !run.best().manifest().exists() {
            assert!(asked.elapsed() < Duration::from_secs(20), "the child saved nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(20_000 + 1_370 * round)); // another moment of the cycle each round
        child.kill().unwrap();
        child.wait().unwrap();

        recover(&run).unwrap();
        let newest = newest_valid(&run).unwrap();
        assert_eq!(newest.damaged.len(), 0, "{:?}", newest.damaged);
        let newest = newest.checkpoint.expect("at least one was published");
        assert_eq!(newest.contents, contents(newest.manifest.global_step));
        let best = load(run.best().root()).unwrap();
        assert_eq!(best.contents, contents(best.manifest.global_step));
        let hidden: Vec<_> =
            publish::names(&run.checkpoints()).unwrap().into_iter().filter(|n| n.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}
