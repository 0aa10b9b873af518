//! How pictures are sampled, as a command line says it: `generate` and `evaluate` of a generator.

use super::exit::UsageError;
use crate::model::dit::DitConfig;
use crate::model::dit::noising::Objective;
use crate::model::dit::sampler::{SamplerConfig, Solver};

/// Solver steps where none are asked for.
const STEPS: usize = 50;
/// Guidance of a network that can be guided, where none is asked for.
const GUIDANCE: f64 = 1.5;

/// Arguments of a sampler.
#[derive(Debug, clap::Args)]
pub struct SamplerArgs {
    /// Of pictures: euler or midpoint of a flow, ddim of a diffusion.
    #[arg(long)]
    solver: Option<String>,
    /// Of pictures: solver steps. Default 50.
    #[arg(long)]
    steps: Option<usize>,
    /// Of pictures: how far from the picture of no condition; 1 is the condition alone. Default 1.5 where the network was
    /// trained for it.
    #[arg(long)]
    guidance: Option<f64>,
}

impl SamplerArgs {
    /// The sampler of a network that was trained on this objective.
    ///
    /// # Errors
    /// A solver that there is not; what does not fit the network.
    pub fn config(&self, objective: Objective, dit: &DitConfig) -> Result<SamplerConfig, UsageError> {
        let usual = if dit.condition_dropout > 0.0 { GUIDANCE } else { 1.0 };
        let sampler = SamplerConfig {
            solver: solver(self.solver.as_deref(), objective)?,
            steps: self.steps.unwrap_or(STEPS),
            guidance: self.guidance.unwrap_or(usual),
        };
        sampler.check(objective, dit).map_err(|e| UsageError(e.to_string()))?;
        Ok(sampler)
    }

    /// The first of its arguments that was given.
    pub fn given(&self) -> Option<&'static str> {
        let all = [
            (self.solver.is_some(), "--solver"),
            (self.steps.is_some(), "--steps"),
            (self.guidance.is_some(), "--guidance"),
        ];
        all.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

fn solver(name: Option<&str>, objective: Objective) -> Result<Solver, UsageError> {
    match (name, objective) {
        (Some("euler"), _) | (None, Objective::Flow(_)) => Ok(Solver::Euler),
        (Some("midpoint"), _) => Ok(Solver::Midpoint),
        (Some("ddim"), _) | (None, Objective::Ddpm(_)) => Ok(Solver::Ddim),
        (Some(other), _) => Err(UsageError(format!("--solver {other}: write euler, midpoint or ddim"))),
    }
}
