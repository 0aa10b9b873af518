//! What Slurm would not take, and what could never start there.

use super::fits::Needs;
use super::sinfo::SINFO_ARGS;

/// What Slurm would not take, or what could never start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// Not a duration.
    #[error("{text:?} is not a time that Slurm knows; write minutes, HH:MM:SS or DAYS-HH:MM:SS")]
    Time {
        /// As given.
        text: String,
    },
    /// Not an amount of memory.
    #[error("{text:?} is not an amount of memory that Slurm knows; write 64G or 512M")]
    Memory {
        /// As given.
        text: String,
    },
    /// A value that would not stay one word in a `#SBATCH` line.
    #[error("{option} {value:?}: only letters, digits and {allowed} may stand here")]
    Word {
        /// Option of the command line.
        option: &'static str,
        /// Its value.
        value: String,
        /// Which other characters may stand there.
        allowed: &'static str,
    },
    /// The warning would come before the job.
    #[error("--signal-before {before_s} s is not less than --time {time}: the warning would come at once")]
    Warning {
        /// Seconds.
        before_s: u64,
        /// The limit.
        time: String,
    },
    /// A line of sinfo that has another form.
    #[error("sinfo said {line:?}, which is not {}", SINFO_ARGS[3])]
    Sinfo {
        /// The line.
        line: String,
    },
    /// No partition was named and the site has no default.
    #[error("this Slurm has no default partition: choose one with --partition ({known})")]
    NoDefault {
        /// Names of all.
        known: String,
    },
    /// No such partition.
    #[error("this Slurm has no partition {partition:?}; it has {known}")]
    NoPartition {
        /// As asked.
        partition: String,
        /// Names of all.
        known: String,
    },
    /// The partition starts nothing.
    #[error("partition {partition} is {state}: it starts no jobs; others are {others}")]
    NotUp {
        /// Its name.
        partition: String,
        /// `down`, `drain` or `inact`.
        state: String,
        /// Partitions that are up.
        others: String,
    },
    /// The job would run longer than any may.
    #[error(
        "--time {asked} is longer than the {limit} of partition {partition}: a run goes on in the next life, so ask for less"
    )]
    Limit {
        /// As asked.
        asked: String,
        /// The partition's.
        limit: String,
        /// Its name.
        partition: String,
    },
    /// Too few nodes that have what is asked.
    #[error("--nodes {nodes}, but {have} of the {all} nodes of partition {partition} {have_what}")]
    Nodes {
        /// As asked.
        nodes: u32,
        /// Nodes that would do.
        have: u32,
        /// All of the partition.
        all: u32,
        /// Its name.
        partition: String,
        /// What they would need.
        have_what: Needs,
    },
}
