//! The loop and what it leaves behind: the run folder, its lock, checkpoints and the thread that saves them.

pub mod checkpoint;
pub mod lock;
pub mod run_folder;
pub mod saver;
