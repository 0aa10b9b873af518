//! What the stories of SPATIA's stages stand on: cells, their vectors, niches on them, their vectors, tissues, and the three as one
//! vector of the cell, of a few steps each and made once.

use std::path::Path;
use std::sync::OnceLock;

use syncytia::train::checkpoint::{CheckpointContents, newest_valid};
use syncytia::train::run_folder::RunFolder;

use crate::command::done;

pub const CELLS: &str = "configs/spatia/tiny.toml";
pub const NICHES: &str = "configs/spatia/tiny-niche.toml";
const TISSUES: &str = "configs/spatia/tiny-tissue.toml";
const FUSION: &str = "configs/spatia/tiny-fusion.toml";

/// All stages of a few steps on 1,600 drawn cells, made once: small tissues, so that there are enough for 8 lanes.
pub struct Chain(tempfile::TempDir);

impl Chain {
    /// The one chain of this process.
    pub fn get() -> &'static Chain {
        static CHAIN: OnceLock<Chain> = OnceLock::new();
        CHAIN.get_or_init(|| {
            let chain = Chain(tempfile::tempdir().unwrap());
            let path = |name: &str| chain.path(name);
            done(&["synth", "--cells", "1600", "--crop-px", "32", "--seed", "3", "--out", &path("cohort")]);
            chain.shard("cells", &["process.niches=\"grid\""]);
            ran(&train(CELLS, &path("cells"), &path("run"), 2, &["--set", "train.micro_batch=4"]));
            done(&["embed", &path("run"), "--shards", &path("cells"), "--out", &path("of-cells")]);
            let [niches, tissues, fusion] = &ON_VECTORS;
            chain.learn(niches);
            chain.embed("niches", "niche", &["of-cells"], "of-niches");
            chain.learn(tissues);
            chain.embed("tissues", "tissue", &["of-niches"], "of-tissues");
            chain.learn(fusion);
            chain.embed("fusion", "fused", &["of-cells", "of-niches", "of-tissues"], "of-all");
            chain
        })
    }

    /// A folder of it: `cohort`, `cells`, `run`, `of-cells`, `niches`, `of-niches`, `tissues`, `of-tissues`, `fusion`, `of-all`.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn shard(&self, out: &str, sets: &[&str]) {
        let sets =
            [&["process.crop_px=32", "process.tissue_um=108.8", "data.row_group_records=128"][..], sets].concat();
        let shard = ["shard", &self.path("cohort"), "--config", "configs/spatia/shard.toml", "--out", &self.path(out)];
        done(&[&shard[..], &sets.iter().flat_map(|set| ["--set", *set]).collect::<Vec<_>>()].concat());
    }

    fn learn(&self, stage: &Stage) {
        ran(&train(stage.config, &self.path("cells"), &self.path(stage.run), 2, &self.given(stage)));
    }

    /// `--from` and `--vectors` of a stage.
    pub fn given(&self, stage: &Stage) -> Vec<String> {
        [vec!["--from".to_owned(), self.path(stage.parent)], self.vectors(stage.vectors)].concat()
    }

    pub fn vectors(&self, names: &[&str]) -> Vec<String> {
        names.iter().flat_map(|name| ["--vectors".to_owned(), self.path(name)]).collect()
    }

    fn embed(&self, run: &str, level: &str, vectors: &[&str], out: &str) {
        let [run, cells, out] = [run, "cells", out].map(|name| self.path(name));
        let args = ["embed", &run, "--shards", &cells, "--level", level, "--out", &out].map(str::to_owned);
        ran(&[args.to_vec(), self.vectors(vectors)].concat());
    }
}

/// `train` of 6 steps.
pub fn train<'a>(config: &str, shards: &str, run: &str, ranks: usize, more: &[impl AsRef<str> + 'a]) -> Vec<String> {
    let ranks = ranks.to_string();
    let mut args = vec!["train", config, "--shards", shards, "--run", run, "--ranks", &ranks];
    for set in ["train.max_steps=6", "train.validate_every=3", "checkpoint.every=2", "checkpoint.keep=9"] {
        args.extend(["--set", set]);
    }
    args.extend(more.iter().map(AsRef::as_ref));
    args.into_iter().map(str::to_owned).collect()
}

pub fn ran(args: &[String]) {
    done(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The newest checkpoint, without what may differ.
pub fn last(run: &str) -> CheckpointContents {
    let mut contents = newest_valid(&RunFolder::at(Path::new(run))).unwrap().checkpoint.unwrap().contents;
    contents.state.as_object_mut().unwrap().remove("config");
    contents
}

/// A stage on vectors.
pub struct Stage {
    pub config: &'static str,
    pub run: &'static str,
    pub parent: &'static str,
    pub vectors: &'static [&'static str],
    /// Beginnings of the tensors that it learns.
    pub learns: &'static [&'static str],
}

pub const ON_VECTORS: [Stage; 3] = [
    Stage { config: NICHES, run: "niches", parent: "run", vectors: &["of-cells"], learns: &["model.niche.context."] },
    Stage { config: TISSUES, run: "tissues", parent: "niches", vectors: &["of-niches"], learns: &["model.tissue."] },
    Stage {
        config: FUSION,
        run: "fusion",
        parent: "tissues",
        vectors: &["of-niches", "of-cells"], // in any order
        learns: &["model.final_fusion.", "model.mvc."],
    },
];
