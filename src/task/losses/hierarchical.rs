//! Binary cross-entropy over the leaves of a hierarchy, for labels that may be parents or unknown (`spatia.md` §4).

use super::softplus;
use crate::tensor::{Bool, Tensor, TensorData};

/// The number of entries the mean is over: unknown cells count, and a column of parents if any label is one.
pub fn n_entries(labels: &[i32], leaves: usize) -> usize {
    let has_parent = labels.iter().any(|&label| label >= leaves as i32);
    labels.len() * (leaves + usize::from(has_parent))
}

/// Per record the sum of its entries, `[b]`; divide by [`n_entries`].
///
/// `logits`: `[b, leaves]`. A leaf label: 1 there, 0 elsewhere. A parent label (`leaves + j`): nothing is asked of its
/// leaves, 0 of the others, and 1 of log Σ exp over its leaves. Unknown: nothing is asked.
pub fn hierarchical(logits: Tensor<2>, labels: &[i32], parents: &[Vec<u32>]) -> Tensor<1> {
    let [b, leaves] = logits.dims();
    assert_eq!(labels.len(), b, "one label per record");
    let (mut target, mut weight) = (vec![0.0f32; b * leaves], vec![1.0f32; b * leaves]);
    let (mut outside, mut of_parent) = (vec![false; b * leaves], vec![0.0f32; b]);
    for (i, &label) in labels.iter().enumerate() {
        let row = i * leaves..(i + 1) * leaves;
        match usize::try_from(label) {
            Err(_) => weight[row].fill(0.0),
            Ok(label) if label < leaves => target[row.start + label] = 1.0,
            Ok(label) => {
                outside[row.clone()].fill(true);
                of_parent[i] = 1.0;
                for &leaf in &parents[label - leaves] {
                    weight[row.start + leaf as usize] = 0.0;
                    outside[row.start + leaf as usize] = false;
                }
            }
        }
    }
    let device = logits.device();
    let tensor = |values| Tensor::<2>::from_data(TensorData::new(values, [b, leaves]), &device);
    let entries = (softplus(logits.clone()) - logits.clone() * tensor(target)) * tensor(weight);
    let sums = entries.sum_dim(1);
    if of_parent.iter().all(|&w| w == 0.0) {
        return sums.squeeze_dim(1);
    }
    // Records without a parent label have all leaves inside: a finite number of weight 0.
    let inside = logits.mask_fill(Tensor::<2, Bool>::from_data(TensorData::new(outside, [b, leaves]), &device), NEVER);
    let most = inside.clone().max_dim(1).detach();
    let parent = (inside - most.clone()).exp().sum_dim(1).log() + most;
    let of_parent = Tensor::<2>::from_data(TensorData::new(of_parent, [b, 1]), &device);
    (sums + softplus(-parent) * of_parent).squeeze_dim(1)
}

/// Stands for −∞ in a sum of exponentials.
const NEVER: f32 = -1e30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{tensor, values};
    use crate::model::spatia::classes::UNKNOWN;

    #[test]
    fn the_loss_equals_its_vectors() {
        for (labels, reference) in [([0, 3], 0.19064226), ([0, UNKNOWN], 0.18888950)] {
            let logits = tensor(vec![2., -1., 0., 0.5, 0.5, -2.], [2, 3]);
            let sums = values(hierarchical(logits, &labels, &[vec![0, 1]]));
            let mean = sums.iter().map(|&v| f64::from(v)).sum::<f64>() / n_entries(&labels, 3) as f64;
            assert!((mean - reference).abs() < 1e-7, "{labels:?}: {mean}");
        }
    }

    #[test]
    fn nothing_is_asked_of_a_cell_of_which_nothing_is_known() {
        let logits = tensor(vec![20., -10., 3.], [1, 3]);
        assert_eq!(values(hierarchical(logits, &[UNKNOWN], &[])), [0.0]);
    }
}
