//! Data on stdout. A reader who has gone (`syncytia inspect … | head`) is no error; a full disk is.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

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
