//! Where results go. A file is never written over what it was made from; on stdout a reader who has gone (`syncytia inspect … | head`) is no error; a full disk is.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::exit::UsageError;

/// Refuses a file to write that is an input or lies in a folder that is not there, before hours of work go into it.
pub fn check_file(out: &Path, inputs: &[PathBuf]) -> Result<(), UsageError> {
    let whole = |path: &Path| path.canonicalize().ok();
    if let Some(input) = inputs.iter().find(|input| whole(out).is_some_and(|out| whole(input) == Some(out))) {
        return Err(UsageError(format!("{} is an input: give another file to write", input.display())));
    }
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() || out.is_dir() {
        let (out, folder) = (out.display(), folder.display());
        return Err(UsageError(format!(
            "{out} cannot be written: it is a folder, or {folder} is not there; make it first"
        )));
    }
    Ok(())
}

/// A line of text.
pub fn line(text: impl Display) -> anyhow::Result<()> {
    unless_gone(writeln!(io::stdout().lock(), "{text}")).context("cannot write to stdout")
}

/// A JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
