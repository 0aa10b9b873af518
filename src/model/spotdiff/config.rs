//! `[model.spotdiff]`: the three parts of the model, and how many parameters they make (`spotdiff.md` §2–§4).

use serde::{Deserialize, Serialize};

use super::omega::OmegaConfig;
use super::prompt::PromptConfig;
use super::psi_config::{PsiConfig, Tokens};

/// `[model.spotdiff]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpotdiffConfig {
    /// Cells as the spatial domain would show them.
    #[serde(default)]
    pub omega: OmegaConfig,
    /// What is said of a spot.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// What is noise.
    pub psi: PsiConfig,
}

impl SpotdiffConfig {
    /// What is wrong with it, each with its key; `batch`: lanes and micro-batch.
    pub fn problems(&self, (lanes, _): (usize, usize)) -> Vec<String> {
        let mut problems = self.omega.problems();
        problems.extend(self.psi.problems());
        if self.psi.use_text {
            problems.extend(self.prompt.problems());
        }
        if self.psi.tokens == Tokens::Batch && lanes != 1 {
            problems.push(format!(
                "model.spotdiff.psi.tokens = \"batch\" demands train.lanes = 1, not {lanes}: there a spot's output depends on \
                 the others of its micro-batch, so that another cut is another model"
            ));
        }
        problems
    }

    /// Parts of the model by name, with their numbers of parameters for `genes` genes.
    pub fn parts(&self, genes: usize) -> Vec<(&'static str, f64)> {
        let prompt = if self.psi.use_text { self.prompt.n_parameters(genes, self.psi.d) } else { 0.0 };
        vec![("omega", self.omega.n_parameters(genes)), ("prompt", prompt), ("psi", self.psi.n_parameters(genes))]
    }

    /// How many parameters the model for `genes` genes has, without making it.
    pub fn n_parameters(&self, genes: usize) -> f64 {
        self.parts(genes).iter().map(|(_, n)| n).sum()
    }

    /// About how many values a forward of `records` spots keeps for its backward.
    pub fn n_kept_values(&self, genes: usize, records: usize, recomputed: bool) -> f64 {
        // three rows of ω, or a spot and a cell of ψ, whichever stage asks for more
        let each = (3.0 * self.omega.n_kept_values(genes)).max(2.0 * self.psi.n_kept_values(genes, recomputed));
        records as f64 * each
    }

    /// First words of the parameters' names that stage 1 leaves as they are.
    pub fn frozen_first(&self) -> Vec<String> {
        let prompt = self.psi.use_text.then_some("prompt");
        prompt.into_iter().chain(["psi"]).map(str::to_owned).collect()
    }

    /// The same of stage 2.
    pub fn frozen_second(&self) -> Vec<String> {
        vec!["omega".to_owned()]
    }
}
