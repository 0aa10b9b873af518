//! A model that learns in two stages from one config: `[first]` says what the first differs in (`spotdiff.md` §1).
//!
//! Each stage is a run of its own: the first in RUN/omega, the second in RUN, begun with the weights of the first.

use super::config::{LoopConfig, TrainConfig};
use crate::model::ModelConfig;
use crate::task::TaskConfig;

/// Folder of the first stage inside of the run's.
pub const FIRST: &str = "omega";

impl TrainConfig {
    /// The config of the run that is the first stage; none where there is one stage.
    pub fn first_stage(&self) -> Option<TrainConfig> {
        let (first, ModelConfig::Spotdiff(model)) = (self.first.as_ref()?, &self.model) else { return None };
        let train = LoopConfig {
            max_steps: first.max_steps,
            lanes: first.lanes.unwrap_or(self.train.lanes),
            micro_batch: first.micro_batch.unwrap_or(self.train.micro_batch),
            freeze: model.frozen_first(),
            freeze_untrained: true,
            ..self.train.clone()
        };
        Some(TrainConfig { first: None, task: first.task.clone(), optim: first.optim.clone(), train, ..self.clone() })
    }

    /// The config of the run that is the last stage: the first stage's part stays as it is. Where there is no first stage
    /// that part stays as it began, which for ω is to move nothing.
    pub fn last_stage(&self) -> TrainConfig {
        let ModelConfig::Spotdiff(model) = &self.model else { return self.clone() };
        let mut train = self.train.clone();
        // A config may ask for the first stage alone.
        let alone = matches!(self.task, TaskConfig::Alignment(_));
        train.freeze.extend(if alone { model.frozen_first() } else { model.frozen_second() });
        train.freeze.sort();
        train.freeze.dedup();
        train.freeze_untrained |= self.first.is_none() || alone;
        TrainConfig { train, ..self.clone() }
    }

    /// What is wrong with `[first]`, each with its key.
    pub(super) fn problems_of_first(&self) -> Vec<String> {
        let Some(first) = &self.first else { return Vec::new() };
        if !matches!(self.model, ModelConfig::Spotdiff(_)) {
            return vec![format!("[first]: {} learns in one stage; leave it out", self.model.name())];
        }
        let mut problems = Vec::new();
        if !matches!(first.task, TaskConfig::Alignment(_)) || !matches!(self.task, TaskConfig::Imputation(_)) {
            problems.push(format!(
                "first.task.kind = \"{}\" and task.kind = \"{}\": the stages are \"alignment\" and \"imputation\"",
                first.task.kind(),
                self.task.kind()
            ));
        }
        let of_stage = self.first_stage().expect("there is one").problems();
        problems.extend(of_stage.into_iter().map(|problem| format!("[first]: {problem}")));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const TINY: &str = include_str!("../../configs/spotdiff/tiny.toml");

    fn with(sets: &[&str]) -> TrainConfig {
        parse(TINY, "tiny.toml", &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn one_config_is_two_runs_that_train_different_parts() {
        let config = with(&[]);
        let (first, last) = (config.first_stage().unwrap(), config.last_stage());
        assert_eq!((first.task.kind(), last.task.kind()), ("alignment", "imputation"));
        assert_eq!(first.train.freeze, ["prompt", "psi"]);
        assert_eq!(last.train.freeze, ["omega"]);
        assert_eq!(first.model, last.model);
        assert!(first.first.is_none() && first.first_stage().is_none() && last.first.is_some());
        assert_eq!(first.train.max_steps, config.first.unwrap().max_steps);
        let silent = with(&["model.spotdiff.psi.use_text=false"]);
        assert_eq!(silent.first_stage().unwrap().train.freeze, ["psi"], "there is no prompt to freeze");
    }

    #[test]
    fn stages_in_the_wrong_place_are_refused() {
        let problems = with(&["first.task.kind=imputation"]).problems().join("\n");
        assert!(problems.contains("first.task.kind"), "{problems}");
        let problems = with(&["first.optim.lr=-1"]).problems().join("\n");
        assert!(problems.contains("[first]: optim.lr"), "{problems}");
        let spackle = include_str!("../../configs/spackle/tiny.toml");
        let sets = ["first={max_steps=1,task={kind=\"alignment\"},optim={lr=1e-3}}".to_owned()];
        let problems = parse::<TrainConfig>(spackle, "tiny.toml", &sets).unwrap().problems().join("\n");
        assert!(problems.contains("spackle learns in one stage"), "{problems}");
    }
}
