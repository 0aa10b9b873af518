//! Token merging for an encoder (the ToMe rule, `spatia.md` §6.1): a sequence that grows shorter from layer to layer and
//! is not restored.
//!
//! Every token stands for as many of the first ones as its size says: means are weighted by it, and attention adds its
//! logarithm to a key's scores ("proportional attention").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::token_merging::{best_matches, by_score};
use crate::tensor::{Device, RowMap, Tensor, TensorData, sum_rows};

/// How many tokens each layer merges away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same number in each.
    Constant(usize),
    /// As many in all, from twice the number in the first layer to none in the last.
    Linear(usize),
}

impl Schedule {
    /// r of each layer; a layer merges at most half of what it has.
    pub fn per_layer(self, layers: usize) -> Vec<usize> {
        match self {
            Schedule::Constant(r) => vec![r; layers],
            Schedule::Linear(r) if layers > 1 => (0..layers).map(|i| 2 * r * (layers - 1 - i) / (layers - 1)).collect(),
            Schedule::Linear(r) => vec![r; layers],
        }
    }
}

/// A sequence whose tokens stand for several.
#[derive(Debug, Clone)]
pub struct SizedTokens {
    /// `[b, n, d]`.
    pub tokens: Tensor<3>,
    /// `[b, n]`: how many of the first tokens each stands for.
    pub sizes: Vec<f32>,
}

impl SizedTokens {
    /// Tokens that stand for themselves.
    pub fn new(tokens: Tensor<3>) -> Self {
        let [b, n, _] = tokens.dims();
        Self { tokens, sizes: vec![1.0; b * n] }
    }

    /// `[b, 1, 1, n]`: what attention adds to the scores of each key.
    pub fn log_sizes(&self) -> Tensor<4> {
        let [b, n, _] = self.tokens.dims();
        let logs: Vec<f32> = self.sizes.iter().map(|&s| libm::logf(s)).collect();
        Tensor::from_data(TensorData::new(logs, [b, 1, 1, n]), &self.tokens.device())
    }

    /// The sequence with its `r` most alike pairs merged, and which token went where.
    ///
    /// Even tokens go to the odd one they are most like by the cosine of `metric` (`[b, n, _]`, without gradients: the mean over
    /// heads of the attention's keys); ties go to the lowest index. `class_token`: the first token stays by itself.
    /// After: the even tokens that stay, by index, then the odd ones. At most half of the tokens are merged.
    pub fn merged(self, metric: Tensor<3>, r: usize, class_token: bool) -> (SizedTokens, Arc<RowMap>) {
        let [b, n, _] = self.tokens.dims();
        let device = self.tokens.device();
        let even: Vec<u32> = (u32::from(class_token) * 2..n as u32).step_by(2).collect();
        let odd: Vec<u32> = (1..n as u32).step_by(2).collect();
        let r = if odd.is_empty() { 0 } else { r.min(even.len()) };
        let n_short = n - r;
        let first_odd = n_short - odd.len();

        let mut short_of = vec![0; b * n];
        let matches = if r == 0 { vec![vec![]; b] } else { best_matches(metric, &even, &odd) };
        for (matches, short_of) in matches.iter().zip(short_of.chunks_exact_mut(n)) {
            let leave = &by_score(matches)[..r];
            odd.iter().enumerate().for_each(|(i, &token)| short_of[token as usize] = (first_odd + i) as u32);
            leave.iter().for_each(|&i| short_of[even[i] as usize] = (first_odd + matches[i].destination) as u32);
            let mut leaves = vec![false; n];
            leave.iter().for_each(|&i| leaves[even[i] as usize] = true);
            let stay = (0..n).step_by(2).filter(|&token| !leaves[token]);
            stay.enumerate().for_each(|(place, token)| short_of[token] = place as u32);
        }
        let map = Arc::new(RowMap::new(n, n_short, short_of));

        let mut sizes = vec![0.0; b * n_short];
        for (i, (&short, size)) in map.short_of().iter().zip(&self.sizes).enumerate() {
            sizes[i / n * n_short + short as usize] += size;
        }
        let weighted = self.tokens * column(self.sizes, b, &device);
        let tokens = sum_rows(weighted, &map) / column(sizes.clone(), b, &device);
        (SizedTokens { tokens, sizes }, map)
    }
}

/// `[b, n, 1]` of `[b, n]`.
fn column(values: Vec<f32>, b: usize, device: &Device) -> Tensor<3> {
    let n = values.len() / b;
    Tensor::from_data(TensorData::new(values, [b, n, 1]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{copy_rows, cpu};

    fn tokens(values: &[[f32; 2]]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.concat(), [1, values.len(), 2]), &cpu())
    }

    fn rows(x: Tensor<3>) -> Vec<[f32; 2]> {
        let flat: Vec<f32> = x.into_data().try_to_vec().unwrap();
        flat.chunks(2).map(|r| [r[0], r[1]]).collect()
    }

    fn close(ours: Tensor<3>, expected: &[[f32; 2]]) {
        let ours = rows(ours);
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.concat().iter().zip(expected.concat()) {
            assert!((a - b).abs() < 1e-6, "{ours:?} against {expected:?}"); // f32 near 1
        }
    }

    const X: [[f32; 2]; 6] = [[1., 0.], [0.9, 0.1], [0., 1.], [0.1, 1.], [0.5, 0.5], [-1., 0.2]];

    /// `spatia.md` §6.1.
    #[test]
    fn a_merged_sequence_equals_the_reference() {
        let (short, map) = SizedTokens::new(tokens(&X)).merged(tokens(&X), 2, false);
        close(short.tokens.clone(), &[[0.5, 0.5], [0.95, 0.05], [0.05, 1.], [-1., 0.2]]);
        assert_eq!(short.sizes, [1., 2., 2., 1.]);
        let back = copy_rows(short.tokens, &map);
        close(back, &[[0.95, 0.05], [0.95, 0.05], [0.05, 1.], [0.05, 1.], [0.5, 0.5], [-1., 0.2]]);
    }

    #[test]
    fn sizes_weigh_the_mean_and_the_attention() {
        let (short, _) = SizedTokens::new(tokens(&X)).merged(tokens(&X), 2, false);
        // [.5, .5] and [.05, 1] are even now; the one of size 2 goes to [.95, .05], the other to [−1, .2] last
        let metric = tokens(&[[0., 1.], [1., 0.], [1., 0.1], [0., -1.]]);
        let (shorter, _) = short.merged(metric, 1, false);
        assert_eq!(shorter.sizes, [1., 4., 1.]);
        close(shorter.tokens.clone(), &[[0.5, 0.5], [0.5, 0.525], [-1., 0.2]]);
        let logs: Vec<f32> = shorter.log_sizes().into_data().try_to_vec().unwrap();
        assert_eq!(logs, [0., 4f32.ln(), 0.]);
    }

    #[test]
    fn the_class_token_stays_by_itself() {
        let (short, map) = SizedTokens::new(tokens(&X)).merged(tokens(&X), 2, true);
        assert_eq!(map.short_of(), [0, 1, 2, 2, 1, 3]);
        assert_eq!(rows(short.tokens)[0], [1., 0.]);
    }

    #[test]
    fn no_more_than_half_is_merged_and_nothing_when_nothing_is_asked() {
        let (short, _) = SizedTokens::new(tokens(&X)).merged(tokens(&X), 9, false);
        assert_eq!(short.sizes.len(), 3);
        let (same, map) = SizedTokens::new(tokens(&X)).merged(tokens(&X), 0, false);
        assert_eq!(rows(copy_rows(same.tokens, &map)), X);
    }

    #[test]
    fn layers_merge_by_schedule() {
        assert_eq!(Schedule::Constant(8).per_layer(3), [8, 8, 8]);
        assert_eq!(Schedule::Linear(8).per_layer(5), [16, 12, 8, 4, 0]);
        assert_eq!(Schedule::Linear(8).per_layer(1), [8]);
    }
}
