//! The README's commands exist, and CI runs the two that a newcomer is given.

use std::path::Path;
use std::process::Command;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn every_command_of_the_readme_exists_with_its_options() {
    let readme = file("README.md");
    let mut seen = 0;
    for line in readme.lines().filter(|l| l.starts_with("syncytia ")) {
        let line = line.split(" · ").next().unwrap().split('#').next().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let help = Command::new(env!("CARGO_BIN_EXE_syncytia")).args([words[1], "--help"]).output().unwrap();
        assert!(help.status.success(), "{line}");
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.starts_with("Example: syncytia "), "the help of {} must open with an example", words[1]);
        for option in words.iter().filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "{} does not know {option}", words[1]);
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen} commands found");
}

#[test]
fn ci_runs_the_two_commands_of_the_readme() {
    let (readme, ci) = (file("README.md"), file(".ci/run"));
    for command in ["cargo run --release -- demo", "cargo test --release --workspace"] {
        assert!(readme.contains(command) && ci.contains(command), "{command}");
    }
}

/// Every key of `[table]` in a config as it is serialised, dotted.
fn keys(at: &str, value: &toml::Value, out: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                keys(&if at.is_empty() { key.clone() } else { format!("{at}.{key}") }, value, out);
            }
        }
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn every_key_of_the_shipped_configs_is_in_the_reference() {
    let reference = file("docs/config.md");
    let (mut missing, mut all) = (Vec::new(), Vec::new());
    for name in ["shard", "spared", "tiny", "paper", "best"] {
        keys("", &toml::from_str(&file(&format!("configs/spackle/{name}.toml"))).unwrap(), &mut all);
    }
    keys("", &toml::from_str(&file("configs/spotdiff/shard.toml")).unwrap(), &mut all);
    all.retain(|key| !key.starts_with("reference.")); // as input.*
    for size in ["tiny", "small"] {
        for stage in ["", "-niche", "-tissue"] {
            let config = syncytia::config::load(Path::new(&format!("configs/spatia/{size}{stage}.toml")), &[]);
            let config: syncytia::train::config::TrainConfig = config.unwrap(); // with its defaults
            keys("", &toml::Value::try_from(config).unwrap(), &mut all);
        }
    }
    for size in ["tiny", "small", "base", "large", "entries", "stdiff"] {
        keys("", &toml::from_str(&file(&format!("configs/spotdiff/{size}.toml"))).unwrap(), &mut all);
    }
    all.retain(|key| !key.starts_with("first.task.") && !key.starts_with("first.optim.")); // as task.* and optim.*
    keys("", &toml::Value::try_from(crate::stage::tiny(|_| {})).unwrap(), &mut all);
    for key in &all {
        let (of, last) = key.rsplit_once('.').unwrap();
        let short = |line: &str| line.contains(&format!("`{of}.")) && line.contains(&format!("`.{last}`"));
        if !reference.contains(&format!("`{key}`")) && !reference.lines().any(short) {
            missing.push(key.clone());
        }
    }
    assert!(missing.is_empty() && all.len() > 60, "docs/config.md lacks {missing:?}");
}
