//! `[model.dit]`: sizes of the generator's network, what is wrong with them, and how many parameters they make.

use serde::{Deserialize, Serialize};

use super::patch::Grid;
use super::time::TIME_FEATURES;
use super::token_merging::TokenMergingConfig;
use crate::model::kept::{self, Stack};

/// `[model.dit]` (`spatia.md` §6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Side of the square image, pixels.
    pub image: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Side of a patch, pixels; one patch is one token.
    pub patch: usize,
    /// Width of a token.
    pub d: usize,
    /// Blocks.
    pub blocks: usize,
    /// Attention heads, in self- and cross-attention.
    pub heads: usize,
    /// Width of the condition's tokens and of its vector.
    pub condition: usize,
    /// Probability that a training record loses its condition. At 0 there is no null condition and no guidance.
    pub condition_dropout: f64,
    /// Token merging; a ratio of 0 is the plain network.
    pub token_merging: TokenMergingConfig,
}

/// Hidden layer of the feed-forward, in widths.
pub(super) const FEED_FORWARD: usize = 4;

impl DitConfig {
    /// The tokens' grid.
    pub fn grid(&self) -> Grid {
        let side = self.image / self.patch;
        Grid { rows: side, columns: side }
    }

    /// Values of a patch.
    pub fn patch_values(&self) -> usize {
        self.patch * self.patch * self.channels
    }

    /// All that cannot be built, in the words of the keys; empty when it can.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |bad: bool, problem: String| {
            if bad {
                problems.push(problem);
            }
        };
        let key = |name: &str| format!("model.dit.{name}");
        let sizes = [
            ("image", self.image),
            ("channels", self.channels),
            ("patch", self.patch),
            ("d", self.d),
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("condition", self.condition),
        ];
        for (name, size) in sizes {
            refuse(size == 0, format!("{} must be at least 1", key(name)));
        }
        let whole = self.patch > 0 && self.image.is_multiple_of(self.patch);
        refuse(
            self.patch > 0 && !whole,
            format!("{} = {} is not a multiple of {} = {}", key("image"), self.image, key("patch"), self.patch),
        );
        refuse(
            self.heads > 0 && !self.d.is_multiple_of(self.heads),
            format!("{} = {} is not a multiple of {} = {}", key("d"), self.d, key("heads"), self.heads),
        );
        refuse(
            !self.d.is_multiple_of(4),
            format!("{} = {} is not a multiple of 4: a position is sine and cosine of two axes", key("d"), self.d),
        );
        refuse(
            !(0.0..1.0).contains(&self.condition_dropout),
            format!("{} = {} is not in [0, 1)", key("condition_dropout"), self.condition_dropout),
        );
        let merging = &self.token_merging;
        refuse(
            !(0.0..=0.75).contains(&merging.ratio),
            format!("{} = {} is not in [0, 0.75]", key("token_merging.ratio"), merging.ratio),
        );
        let side = if whole { self.image / self.patch } else { 0 };
        refuse(
            merging.ratio > 0.0 && side % 2 == 1,
            format!(
                "{} needs cells of 2×2 tokens: a grid of {side}×{side} has none at its border; change image or patch, or set the ratio to 0",
                key("token_merging.ratio")
            ),
        );
        problems
    }

    /// How many parameters [`super::Dit::new`] makes, without making them.
    pub fn n_parameters(&self) -> f64 {
        let linear = |n_in: f64, n_out: f64| (n_in + 1.0) * n_out;
        let [d, condition, patch, blocks] =
            [self.d, self.condition, self.patch_values(), self.blocks].map(|n| n as f64);
        let hidden = FEED_FORWARD as f64 * d;
        let time = linear(TIME_FEATURES as f64, d) + linear(d, d);
        let attention = linear(d, 3.0 * d) + linear(d, d);
        let cross = linear(d, d) + linear(condition, 2.0 * d) + linear(d, d);
        let block = linear(d, 6.0 * d) + attention + cross + linear(d, hidden) + linear(hidden, d);
        let last = linear(d, 2.0 * d) + linear(d, patch);
        let null = if self.condition_dropout > 0.0 { 2.0 * condition } else { 0.0 };
        linear(patch, d) + time + linear(condition, d) + blocks * block + last + null
    }

    /// About how many values a forward of `records` images keeps for its backward, with `tokens` of condition each.
    pub fn n_kept_values(&self, records: usize, tokens: usize, recomputed: bool) -> f64 {
        let n = self.grid().n_tokens();
        let merged = self.token_merging.n_merged(n);
        let short = |also: bool| (if also { n - merged } else { n }) as f64;
        let (d, heads) = (self.d as f64, self.heads as f64);
        let attention = short(true) * (6.0 * d + 3.0 * heads * short(true));
        let cross = short(self.token_merging.cross) * (4.0 * d + 3.0 * heads * tokens as f64);
        let feed_forward = short(self.token_merging.mlp) * 3.0 * FEED_FORWARD as f64 * d;
        let norms = 12.0 * n as f64 * d;
        let block = attention + cross + feed_forward + norms;
        records as f64 * kept::of_stacks(&[Stack { blocks: self.blocks, input: n as f64 * d, block }], recomputed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn sized(image: usize, patch: usize, d: usize, blocks: usize, head: usize, condition: usize) -> DitConfig {
        DitConfig {
            image,
            channels: 3,
            patch,
            d,
            blocks,
            heads: d / head,
            condition,
            condition_dropout: 0.1,
            token_merging: TokenMergingConfig { ratio: 0.5, mlp: false, cross: false },
        }
    }

    pub(crate) fn tiny() -> DitConfig {
        sized(32, 4, 64, 2, 16, 32)
    }

    pub(crate) fn small() -> DitConfig {
        sized(128, 8, 384, 8, 64, 128)
    }

    fn base() -> DitConfig {
        sized(256, 8, 768, 12, 64, 512)
    }

    fn foundation() -> DitConfig {
        sized(256, 8, 1152, 28, 64, 1024)
    }

    /// The counts of `spatia.md` §6 are those of the network alone; the null condition is one token and one vector more.
    #[test]
    fn sizes_have_the_parameters_of_the_table() {
        let table =
            [(tiny(), 211_760.0), (small(), 25_177_536.0), (base(), 153_829_056.0), (foundation(), 815_756_736.0)];
        for (config, expected) in table {
            assert_eq!(config.problems(), Vec::<String>::new());
            assert_eq!(config.n_parameters(), expected + 2.0 * config.condition as f64);
            assert_eq!(DitConfig { condition_dropout: 0.0, ..config }.n_parameters(), expected);
        }
    }

    #[test]
    fn what_cannot_be_built_is_named() {
        let check = |config: DitConfig, expected: &str| {
            let problems = config.problems();
            assert!(problems.iter().any(|p| p.contains(expected)), "{expected}: {problems:?}");
        };
        check(DitConfig { image: 30, ..tiny() }, "model.dit.image = 30 is not a multiple of model.dit.patch = 4");
        check(DitConfig { patch: 0, ..tiny() }, "model.dit.patch must be at least 1");
        check(DitConfig { heads: 3, ..tiny() }, "model.dit.d = 64 is not a multiple of model.dit.heads = 3");
        check(DitConfig { d: 66, heads: 1, ..tiny() }, "multiple of 4");
        check(DitConfig { condition_dropout: 1.0, ..tiny() }, "condition_dropout = 1 is not in [0, 1)");
        let merging = |ratio| TokenMergingConfig { ratio, mlp: false, cross: false };
        check(DitConfig { token_merging: merging(0.8), ..tiny() }, "token_merging.ratio = 0.8 is not in [0, 0.75]");
        check(DitConfig { image: 36, ..tiny() }, "a grid of 9×9");
        let plain = DitConfig { image: 36, token_merging: merging(0.0), ..tiny() };
        assert_eq!(plain.problems(), Vec::<String>::new(), "an odd grid is fine when nothing is merged");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = toml::to_string(&tiny()).unwrap();
        assert_eq!(toml::from_str::<DitConfig>(&text).unwrap(), tiny());
        assert!(toml::from_str::<DitConfig>(&format!("dropout = 0.1\n{text}")).is_err());
    }
}
