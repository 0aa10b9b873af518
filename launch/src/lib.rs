//! Who am I among the ranks? World, signals, exit codes. Knows no tensor and no file of the data.
//!
//! [`world`] reads the launcher's variables (nobody else does) with [`nodelist`] for Slurm's host lists, [`signals`] turns TERM, INT, USR1 and USR2 into a vote
//! to stop, [`exit`] names the codes a script may rely on.

pub mod exit;
pub mod nodelist;
pub mod signals;
pub mod world;

pub use exit::ExitCode;
pub use signals::{StopSignal, StopVote};
pub use world::{Job, Launcher, LauncherChoice, World, WorldError};
