//! The binary as a user drives it: what it says and how it ends.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `syncytia` in the project's folder.
pub fn syncytia(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncytia")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

/// Runs, expects success, gives stdout.
#[track_caller]
pub fn done(args: &[&str]) -> String {
    let output = syncytia(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs, expects the code and every fragment in stderr.
#[track_caller]
pub fn refused(args: &[&str], code: i32, fragments: &[&str]) {
    let output = syncytia(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for fragment in fragments {
        assert!(said.contains(fragment), "{args:?}: no {fragment:?} in {said}");
    }
}

/// The section that ships with the project.
pub fn cut() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shards/data/vis5a_cut.h5ad").to_str().unwrap().to_owned()
}
