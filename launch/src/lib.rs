//! Who am I among the ranks? World, rendezvous store, signals, exit codes. Knows no tensor and no file of the data.
//!
//! [`world`] reads the launcher's variables (nobody else does) with [`nodelist`] for Slurm's host lists; [`store`] is
//! where ranks meet and hear of each other's end; [`cores`] counts what a process may use; [`signals`] turns TERM, INT, USR1 and USR2 into a vote to stop; [`exit`]
//! names the codes a script may rely on; [`slurm`] writes batch scripts and reads what `sinfo` says; [`spawn`] runs processes of one host together.

pub mod cores;
pub mod exit;
pub mod nodelist;
pub mod signals;
pub mod slurm;
pub mod spawn;
pub mod store;
pub mod world;

pub use exit::ExitCode;
pub use signals::{StopSignal, StopVote};
pub use store::{StoreClient, StoreError, StoreServer};
pub use world::{Job, Launcher, LauncherChoice, World, WorldError};
