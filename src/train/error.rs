//! Why a training run ended without finishing; `cmd` maps each to an exit code.

use syncytia_launch::ExitCode;

use crate::engine::EngineError;

/// A failed run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The config cannot work (exit 2).
    #[error("the train config cannot work:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    /// The shards do not fit the run (exit 3).
    #[error("{0}")]
    Data(String),
    /// Shards that a trained model cannot read (exit 3).
    #[error("{shards} do not fit the model: {what}")]
    Misfit {
        /// Their folder.
        shards: String,
        /// How they differ, and what to do.
        what: String,
    },
    /// The shards cannot be read (exit 3, or 7 for storage).
    #[error(transparent)]
    Store(#[from] syncytia_shards::error::StoreError),
    /// The split cannot be ordered (exit 3).
    #[error("split `{split}`: {source}")]
    Order {
        /// Split.
        split: &'static str,
        /// Why.
        source: syncytia_shards::order::OrderError,
    },
    /// A batch could not be made ready (exit 3).
    #[error(
        "the batches of step {global_step} could not be prepared: {what}; this is a bug, and another seed may pass by it"
    )]
    Loader {
        /// Batches consumed before.
        global_step: u64,
        /// What the thread said when it panicked.
        what: String,
    },
    /// Ranks lost each other (exit 4).
    #[error(transparent)]
    Engine(EngineError),
    /// The device did not do what was asked of it (exit 2).
    #[error(
        "the device could not compute the step: {0}; if that is memory, set a smaller train.micro_batch or train.recompute = \"blocks\""
    )]
    Device(String),
    /// Another rank failed at a start that all make together (its exit code).
    #[error("rank {rank} failed at {what}: {message}")]
    Elsewhere {
        /// Which.
        rank: usize,
        /// At what.
        what: &'static str,
        /// Its words.
        message: String,
        /// Its exit code.
        code: u8,
    },
    /// Ranks were not started alike (exit 2).
    #[error("the ranks were not started alike:\n  {}\nstart all with the same program, config and shards", .0.join("\n  "))]
    NotAlike(Vec<String>),
    /// Replicas differ, which must not be (exit 6).
    #[error(
        "after step {global_step} the parameters of ranks {ranks:?} differ from rank 0's: this is a bug or a broken machine"
    )]
    ReplicasDiffer {
        /// Batches consumed.
        global_step: u64,
        /// Ranks that differ.
        ranks: Vec<usize>,
    },
    /// NaN or infinity (exit 6).
    #[error(
        "step {global_step}: {} is not finite ({in_a_row} in a row); lower optim.lr, set optim.clip_norm, or set \
         train.on_nonfinite = \"skip\"",
        blame(records)
    )]
    NotFinite {
        /// Batches consumed before it.
        global_step: u64,
        /// Records blamed.
        records: Vec<u64>,
        /// How many such steps in a row.
        in_a_row: u32,
    },
    /// A bug (exit 6).
    #[error("step {global_step}: a gradient overflowed again after its exponents were measured: this is a bug")]
    SecondOverflow {
        /// Batches consumed before it.
        global_step: u64,
    },
    /// Checkpoints (exit 5, or 7 for storage).
    #[error(transparent)]
    Checkpoint(#[from] super::checkpoint::CheckpointError),
    /// The run folder is in use (exit 2) or was taken over (exit 4).
    #[error(transparent)]
    Lock(#[from] super::lock::LockError),
    /// A resume that would alter the trajectory (exit 5).
    #[error("cannot resume {run}: {what}")]
    Resume {
        /// Run folder.
        run: String,
        /// What differs, by name.
        what: String,
    },
    /// A checkpoint that this run cannot begin with (exit 5).
    #[error("cannot begin with {checkpoint}: {what}")]
    From {
        /// The checkpoint.
        checkpoint: String,
        /// Why, by name.
        what: String,
    },
    /// The disk (exit 7).
    #[error("{what} {path}: {source}")]
    Storage {
        /// What was done.
        what: &'static str,
        /// On which file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl From<EngineError> for TrainError {
    /// What the device did not give to be summed is its failure, not a peer's.
    fn from(error: EngineError) -> TrainError {
        match error {
            EngineError::Memory { message, .. } => TrainError::Device(message),
            error => TrainError::Engine(error),
        }
    }
}

impl TrainError {
    /// The exit code the command ends with.
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            TrainError::Config(_) | TrainError::NotAlike(_) | TrainError::Device(_) => ExitCode::Usage,
            TrainError::Data(_)
            | TrainError::Misfit { .. }
            | TrainError::Store(_)
            | TrainError::Order { .. }
            | TrainError::Loader { .. } => ExitCode::Data,
            TrainError::Engine(EngineError::Peer { code, .. }) | TrainError::Elsewhere { code, .. } => return *code,
            TrainError::Engine(_) => ExitCode::Peers,
            TrainError::ReplicasDiffer { .. } | TrainError::NotFinite { .. } | TrainError::SecondOverflow { .. } => {
                ExitCode::Numerics
            }
            TrainError::Checkpoint(error) => error.exit_code(),
            TrainError::Lock(error) => error.exit_code(),
            TrainError::Resume { .. } | TrainError::From { .. } => ExitCode::Checkpoint,
            TrainError::Storage { .. } => ExitCode::Storage,
        };
        code.code()
    }
}

/// What was not finite, in words; no record is blamed for a gradient that overflows beside finite losses.
fn blame(records: &[u64]) -> String {
    match records {
        [] => "the gradient, beside finite losses of every record,".to_owned(),
        _ => format!("the loss, first in records {records:?} (look at them with `syncytia inspect`),"),
    }
}
