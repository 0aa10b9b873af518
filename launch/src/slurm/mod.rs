//! Slurm before a job starts: the batch script, what `sinfo` says, and whether a job can ever start there. Texts and values
//! in, values out: who runs the commands is `cmd/submit.rs`. Must not know what a job trains.
//!
//! `request` is what a job asks for, `script` the file that asks; `sinfo` reads the site, `fits` holds one against the other;
//! `units` are times and memory as Slurm writes them.

mod error;
mod fits;
#[cfg(test)]
mod fixture;
mod request;
mod script;
mod sinfo;
mod units;

pub use error::SlurmError;
pub use fits::Needs;
pub use request::Request;
pub use script::{EVALUATE, SHARD, TRAIN, job_id, script};
pub use sinfo::{NodeGroup, SINFO_ARGS, parse_sinfo};
pub use units::parse_time;
