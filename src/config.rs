//! Config files: TOML, `--set a.b=c` over it, unknown keys refused with the nearest known one.
//!
//! Generic: every table belongs to its owner. Knows no key.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A config that cannot be used (exit 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the config {}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{origin} is not TOML: {source}")]
    Syntax {
        /// File or `--set …`.
        origin: String,
        /// Line and column.
        source: Box<toml::de::Error>,
    },
    /// `--set` without `=`, or through a value that is no table.
    #[error("--set {set}: {problem}; write --set table.key=value")]
    Set {
        /// As typed.
        set: String,
        /// What is wrong.
        problem: String,
    },
    /// A key that does not exist, is missing or has another type.
    #[error("{origin}: {}{message}{}", at(key), hint(help))]
    Key {
        /// File and line, or the `--set`.
        origin: String,
        /// Dotted path.
        key: String,
        /// What is wrong.
        message: String,
        /// What to do: the nearest known key.
        help: Option<String>,
    },
}

fn at(key: &str) -> String {
    if key == "." { String::new() } else { format!("{key}: ") }
}

fn hint(help: &Option<String>) -> String {
    help.as_ref().map_or_else(String::new, |help| format!("\n  help: {help}"))
}

/// Reads `path`, lays `sets` over it and makes a `T`.
pub fn load<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string(), sets)
}

/// As [`load`], from text; `origin` names it in errors.
pub fn parse<T: DeserializeOwned>(text: &str, origin: &str, sets: &[String]) -> Result<T, ConfigError> {
    let syntax = |source| ConfigError::Syntax { origin: origin.to_owned(), source: Box::new(source) };
    let mut table: toml::Table = text.parse().map_err(syntax)?;
    for set in sets {
        lay_over(&mut table, set)?;
    }
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let message = error.into_inner().to_string().trim().to_owned();
        // A table whose only child is the choice (`[model.spackle]`), given two of them.
        let message = message
            .replace("wanted exactly 1 element, more than 1 element", "exactly one table, the choice, may stand here");
        let help = nearest(&message).map(|known| format!("did you mean `{known}`?"));
        ConfigError::Key { origin: place(text, origin, sets, &key), key, help, message }
    })
}

/// Where the value of a dotted key stands: the `--set` that gave it, else `origin` with the line of the key or of the
/// nearest table around it.
fn place(text: &str, origin: &str, sets: &[String], key: &str) -> String {
    let of_set = |set: &&String| set.split_once('=').is_some_and(|(path, _)| path.trim() == key);
    if let Some(set) = sets.iter().rev().find(of_set) {
        return format!("--set {set}");
    }
    let Ok(document) = toml::de::DeTable::parse(text) else { return origin.to_owned() };
    let (mut table, mut found) = (Some(document.get_ref()), None);
    for name in key.split('.') {
        let Some((key, value)) = table.and_then(|table| table.get_key_value(name)) else { break };
        found = Some(key.span().start);
        table = value.get_ref().as_table();
    }
    match found {
        Some(at) => format!("{origin}:{}", 1 + text[..at].matches('\n').count()),
        None => origin.to_owned(),
    }
}

/// A resolved config as TOML.
pub fn to_toml<T: Serialize>(config: &T) -> String {
    toml::to_string(config).expect("a config is plain tables")
}

fn lay_over(table: &mut toml::Table, set: &str) -> Result<(), ConfigError> {
    let refuse = |problem: &str| ConfigError::Set { set: set.to_owned(), problem: problem.to_owned() };
    let (path, value) = set.split_once('=').ok_or_else(|| refuse("has no `=`"))?;
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    if keys.iter().any(|k| k.is_empty()) {
        return Err(refuse("has an empty key"));
    }
    let last = keys.pop().expect("split gives at least one");
    let mut at = table;
    for key in keys {
        at = at
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| refuse(&format!("`{key}` is a value, not a table")))?;
    }
    at.insert(last.to_owned(), value_of(value.trim()));
    Ok(())
}

/// A TOML value, or else the text itself: `--set train.seed=7`, `--set task.mask_rule=uniform`.
fn value_of(text: &str) -> toml::Value {
    match format!("v = {text}").parse::<toml::Table>() {
        Ok(mut table) => table.remove("v").unwrap_or_else(|| toml::Value::String(text.to_owned())),
        Err(_) => toml::Value::String(text.to_owned()),
    }
}

/// The known name nearest to the unknown one, from serde's message.
fn nearest(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    if !message.starts_with("unknown") {
        return None;
    }
    names
        .map(|known| (strsim::jaro_winkler(unknown, known), known))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::TrainConfig;

    const TINY: &str = include_str!("../configs/spackle/tiny.toml");

    fn with(sets: &[&str]) -> Result<TrainConfig, ConfigError> {
        parse(TINY, "tiny.toml", &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn sets_lie_over_the_file() {
        let config = with(&["optim.lr=1e-4", "train.seed=7", "task.mask_rule=uniform", "log.every = 3"]).unwrap();
        assert_eq!((config.optim.lr, config.train.seed, config.log.every), (1e-4, 7, 3));
        assert_eq!(config.task, with(&["task.mask_rule=\"uniform\""]).unwrap().task);
    }

    #[test]
    fn unknown_and_ill_typed_keys_are_named_with_the_nearest_known_one() {
        for (set, fragments) in [
            ("train.max_step=3", &["train", "max_step", "did you mean `max_steps`?"][..]),
            ("optm.lr=3", &["optm", "did you mean `optim`?"]),
            ("model.spackel.d=3", &["model", "exactly one table"]),
            ("task.rhoo=0.3", &["rhoo", "did you mean `rho`?"]),
            ("train.lanes=\"many\"", &["train.lanes", "many"]),
            ("train.ranks=0", &["train.ranks", "a positive number or \"auto\""]),
            ("task.mask_rule=releas", &["releas", "did you mean `release`?"]),
        ] {
            let error = with(&[set]).expect_err(set).to_string();
            for fragment in fragments {
                assert!(error.contains(fragment), "{set}: no {fragment:?} in {error}");
            }
        }
    }

    #[test]
    fn an_error_says_on_which_line_or_in_which_set_it_stands() {
        let lines = |text: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
            parse::<TrainConfig>(text, "f.toml", &sets).unwrap_err().to_string()
        };
        let line_of = |needle: &str| 1 + TINY.lines().position(|l| l.starts_with(needle)).unwrap();
        let ill_typed = TINY.replace("\nlanes = 8", "\nlanes = \"many\"");
        assert!(lines(&ill_typed, &[]).starts_with(&format!("f.toml:{}: train.lanes", line_of("lanes"))));
        let unknown = TINY.replace("\nlanes = 8", "\nlaness = 8");
        assert!(
            lines(&unknown, &[]).starts_with(&format!("f.toml:{}: ", line_of("lanes"))),
            "{}",
            lines(&unknown, &[])
        );
        assert!(lines(TINY, &["train.lanes=many"]).starts_with("--set train.lanes=many: train.lanes"));
    }

    #[test]
    fn a_set_through_a_value_is_refused() {
        assert!(with(&["optim.lr.x=1"]).unwrap_err().to_string().contains("`lr` is a value, not a table"));
        assert!(with(&["optim.lr"]).unwrap_err().to_string().contains("no `=`"));
    }

    #[test]
    fn a_resolved_config_reads_back_as_itself() {
        let config = with(&[]).unwrap();
        assert_eq!(parse::<TrainConfig>(&to_toml(&config), "resolved", &[]).unwrap(), config);
    }

    #[test]
    fn every_shipped_train_config_works() {
        for text in [
            TINY,
            include_str!("../configs/spatia/tiny.toml"),
            include_str!("../configs/spatia/small.toml"),
            include_str!("../configs/spatia/g1-tiny.toml"),
            include_str!("../configs/spatia/g1-small.toml"),
            include_str!("../configs/spackle/paper.toml"),
            include_str!("../configs/spackle/best.toml"),
            include_str!("../configs/spotdiff/tiny.toml"),
            include_str!("../configs/spotdiff/small.toml"),
            include_str!("../configs/spotdiff/base.toml"),
            include_str!("../configs/spotdiff/large.toml"),
        ] {
            assert_eq!(parse::<TrainConfig>(text, "config", &[]).unwrap().problems(), Vec::<String>::new());
        }
    }
}
