//! The directions of the house: who may know whom, read from every `use` and path in the sources.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file below `folder`, with its text less comments and test modules.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn collect(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|e| collect(e, found));
    } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        found.push((name, code.join("\n")));
    }
}

/// No file below `folder` names any of `forbidden`.
fn forbid(folder: &str, forbidden: &[&str]) {
    for (file, code) in sources(folder) {
        for word in forbidden {
            assert!(!code.contains(word), "{file} must not know `{word}`");
        }
    }
}

#[test]
fn shards_and_launch_know_neither_each_other_nor_tensors() {
    forbid("shards/src", &["syncytia_launch", "burn::", "syncytia::"]);
    forbid("launch/src", &["syncytia_shards", "burn::", "syncytia::"]);
}

#[test]
fn a_model_knows_no_rank_and_no_file() {
    forbid("src/model", &["crate::engine", "crate::train", "crate::task", "std::fs", "syncytia_launch", "crate::cmd"]);
}

#[test]
fn what_finds_nvidias_libraries_knows_nobody() {
    forbid(
        "src/gpu",
        &[
            "crate::engine",
            "crate::train",
            "crate::model",
            "crate::tensor",
            "crate::task",
            "crate::doctor",
            "crate::cmd",
        ],
    );
}

#[test]
fn what_is_done_to_single_numbers_knows_nobody() {
    forbid("src/elementwise", &["crate::", "burn::", "syncytia_shards", "syncytia_launch", "std::fs"]);
}

#[test]
fn an_engine_and_an_optimizer_know_no_model() {
    for folder in ["src/engine", "src/optim"] {
        forbid(folder, &["crate::model", "crate::task", "crate::train", "crate::tensor", "std::fs", "crate::cmd"]);
    }
}

#[test]
fn a_task_knows_no_rank_and_no_run() {
    forbid("src/task", &["crate::engine", "crate::train", "crate::evaluate", "crate::report", "std::fs", "crate::cmd"]);
}

#[test]
fn training_and_judging_do_not_know_each_other_and_nobody_knows_the_command_line() {
    forbid("src/train", &["crate::evaluate", "crate::report", "crate::export", "crate::cmd"]);
    forbid(
        "src/evaluate",
        &["crate::train", "crate::report", "crate::model", "crate::tensor", "std::fs", "crate::cmd"],
    );
    forbid(
        "src/report",
        &["crate::train", "crate::model", "crate::tensor", "crate::task", "crate::engine", "crate::cmd"],
    );
    forbid("src/export", &["crate::evaluate", "crate::report", "crate::cmd"]);
}

/// Hidden values exist for who judges and for nobody else (`spotdiff.md` §5).
#[test]
fn only_who_judges_reads_what_is_hidden() {
    let names_it = |code: &str| {
        let imported = |line: &str| line.contains("tables::{") && line.contains("held");
        code.contains("tables::held") || code.contains("held::") || code.lines().any(imported)
    };
    for (file, code) in sources("src") {
        let judges = file.starts_with("src/evaluate/") || file.starts_with("src/cmd/evaluate/");
        assert!(judges || !names_it(&code), "{file} must not read hidden values");
    }
    // it is written and verified where all tables are
    let keepers = ["shards/src/tables/held.rs", "shards/src/tables/mod.rs", "shards/src/verify.rs"];
    for (file, code) in sources("shards/src") {
        assert!(keepers.contains(&file.as_str()) || !names_it(&code), "{file} must not read hidden values");
    }
    // counts with hidden ones among them are decoded by who takes them out, by who judges and by the proof of the folder
    let decoders =
        ["shards/src/visible.rs", "shards/src/tables/held.rs", "shards/src/verify.rs", "shards/src/reader.rs"];
    for (file, code) in sources("shards/src") {
        assert!(
            decoders.contains(&file.as_str()) || !code.contains(".decode(entry"),
            "{file} must not decode hidden values"
        );
    }
}

#[test]
fn the_doctor_knows_no_command_and_one_file_of_it_knows_training() {
    forbid(
        "src/doctor",
        &["crate::cmd", "crate::report", "crate::evaluate", "crate::export", "crate::engine::", "crate::task"],
    );
    for (file, code) in sources("src/doctor") {
        let knows = ["crate::train", "crate::model", "crate::tensor"].iter().any(|word| code.contains(word));
        assert!(file == "src/doctor/configured.rs" || !knows, "{file} must not know models and training");
    }
    for folder in ["src/train", "src/model", "src/task", "src/engine", "src/report", "src/evaluate", "src/export"] {
        forbid(folder, &["crate::doctor"]);
    }
}

#[test]
fn one_file_says_burn() {
    for (file, code) in sources("src") {
        assert!(
            file.starts_with("src/tensor/") || !["burn::", "cubecl", "cubek"].iter().any(|word| code.contains(word)),
            "{file} must take Burn's names from src/tensor"
        );
        for module in ["nn::Dropout", "TransformerEncoderConfig", "MultiHeadAttention"] {
            assert!(!code.contains(module), "{file}: Burn's {module} draws from one generator per process");
        }
    }
}

#[test]
fn only_world_reads_rank_variables() {
    for folder in ["shards/src", "launch/src", "src"] {
        for (file, code) in sources(folder) {
            for variable in
                ["\"SLURM_", "\"OMPI_COMM", "\"PMI_", "\"PMIX_", "\"MV2_", "\"MASTER_", "\"WORLD_SIZE", "\"RANK\""]
            {
                // How many cores a task has is no rank: `cores.rs` reads that one variable.
                let code = code.replace("\"SLURM_CPUS_PER_TASK\"", "");
                assert!(file == "launch/src/world.rs" || !code.contains(variable), "{file} reads {variable}");
            }
        }
    }
}

#[test]
fn only_one_file_names_the_files_of_a_run() {
    for (file, code) in sources("src") {
        for name in ["\"metrics.jsonl\"", "\"world.json\"", "\"checkpoints\"", "\"model.safetensors\""] {
            let allowed = file == "src/train/run_folder.rs" || file.starts_with("src/export");
            assert!(allowed || !code.contains(name), "{file} names {name}");
        }
    }
}
