//! What a process without rank 0 shows of a run: its warnings, and its record ids when asked. Rank 0 speaks for all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::model::params::ParamSpec;
use crate::train::config::TrainConfig;
use crate::train::run_folder::RunFolder;
use crate::train::step::StepOutcome;
use crate::train::trainer::{Observer, Start};

/// The view of a process that follows.
pub struct Follower {
    rank: u32,
    ids: Option<File>,
}

impl Follower {
    /// Opens the rank's log when it is asked for.
    pub fn open(folder: &RunFolder, config: &TrainConfig, rank: u32) -> anyhow::Result<Follower> {
        let path = folder.rank_log(rank);
        let open = || {
            std::fs::create_dir_all(folder.log())?;
            OpenOptions::new().create(true).append(true).open(&path)
        };
        let ids = config.log.record_ids.then(open).transpose();
        Ok(Follower { rank, ids: ids.with_context(|| format!("cannot open {}", path.display()))? })
    }
}

impl Observer for Follower {
    fn start(&mut self, _: &Start<'_>) {}

    fn step(&mut self, _: u64, _: &StepOutcome, _: Duration) {}

    fn validation(&mut self, _: u64, _: f64, _: bool) {}

    fn saving(&mut self, _: u64) {}

    fn parameters(&mut self, _: u64, _: &[ParamSpec], _: &[f32]) {}

    fn warn(&mut self, message: &str) {
        eprintln!("rank {}: warning: {message}", self.rank);
    }

    fn consumed(&mut self, rank: usize, global_step: u64, lane: usize, ids: &[u64]) {
        if let Some(file) = &mut self.ids {
            let line = json!({"rank": rank, "global_step": global_step, "lane": lane, "ids": ids});
            let _ = writeln!(file, "{line}"); // for tests and audits, as rank 0's
        }
    }
}
