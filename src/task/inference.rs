//! Completion as a prediction for whole matrices: what evaluation and `impute` ask of a trained model.
//!
//! The input is what is visible, nothing else: a hidden or missing entry cannot reach the network, because it is not here.

use syncytia_shards::process::deltas;
use syncytia_shards::processed::Matrix;

use crate::model::Model;
use crate::model::spackle::SpackleInput;
use crate::tensor::{Device, Padding, Tensor, TensorData};

/// One section (or block of one) as the model may see it.
#[derive(Debug, Clone, Copy)]
pub struct Visible<'a> {
    /// `[n, G]`: values as the network gets them (hidden entries 0).
    pub values: &'a Matrix<f32>,
    /// `[n, G]`: measured and not hidden.
    pub visible: &'a Matrix<bool>,
    /// `[n, E]`: covariates; no columns where there are none.
    pub covariates: &'a Matrix<f32>,
    /// `[n, k]`: neighbours by position, nearest first; `u32::MAX` is padding.
    pub neighbours: &'a Matrix<u32>,
}

/// Neighbourhoods of a forward; also the release's batch, on which `attention_axis = "batch"` depends.
const BATCH: usize = 256;

/// Predictions `[n, G]` for every entry of every spot, in order.
pub fn complete(model: &Model, seen: &Visible<'_>, device: &Device) -> Matrix<f32> {
    let (n, genes) = (seen.values.n_rows(), seen.values.n_cols);
    let spots = 1 + seen.neighbours.n_cols;
    let mean = gene_means(seen);
    let e = seen.covariates.n_cols;
    let covariate_mean: Vec<f32> = deltas::column_means(&[seen.covariates]).iter().map(|&m| m as f32).collect();
    let mut out = Vec::with_capacity(n * genes);
    for first in (0..n).step_by(BATCH) {
        let centres = first..n.min(first + BATCH);
        let b = centres.len();
        let (mut values, mut bits) = (Vec::with_capacity(b * spots * genes), Vec::with_capacity(b * spots * genes));
        let (mut absent, mut covariates) = (vec![false; b * spots], Vec::with_capacity(b * spots * e));
        for (i, centre) in centres.enumerate() {
            let rows = std::iter::once(centre as u32).chain(seen.neighbours.row(centre).iter().copied());
            for (r, row) in rows.enumerate() {
                if row == u32::MAX {
                    absent[i * spots + r] = true;
                    values.resize(values.len() + genes, 0.0);
                    bits.resize(bits.len() + genes, 0.0);
                    covariates.resize(covariates.len() + e, 0.0);
                } else {
                    values.extend_from_slice(seen.values.row(row as usize));
                    covariates.extend_from_slice(seen.covariates.row(row as usize));
                    bits.extend(seen.visible.row(row as usize).iter().map(|&v| f32::from(u8::from(v))));
                }
            }
        }
        let tensor = |v: Vec<f32>| Tensor::<3>::from_data(TensorData::new(v, [b, spots, genes]), device);
        let covariates = (e > 0).then(|| {
            (
                Tensor::from_data(TensorData::new(covariates, [b, spots, e]), device),
                Tensor::from_data(TensorData::new(covariate_mean.repeat(b), [b, e]), device),
            )
        });
        let input = SpackleInput {
            values: tensor(values),
            visible: tensor(bits),
            gene_mean: Tensor::from_data(TensorData::new(mean.repeat(b), [b, genes]), device),
            covariates,
            absent: Padding::of(absent, [b, spots]),
        };
        let Model::Spackle(model) = model else { unreachable!("completion is SpaCKLE's") };
        out.extend(super::completion::centre(model.forward(&input, None)));
    }
    Matrix { n_cols: genes, values: out }
}

/// Visible values as they are, all others as predicted.
pub fn fill_missing(model: &Model, seen: &Visible<'_>, device: &Device) -> Matrix<f32> {
    let mut completed = complete(model, seen, device);
    let known = seen.values.values.iter().zip(&seen.visible.values);
    for (out, (&value, _)) in completed.values.iter_mut().zip(known).filter(|(_, (_, visible))| **visible) {
        *out = value;
    }
    completed
}

/// Mean of the visible values per gene; 0 where none is.
fn gene_means(seen: &Visible<'_>) -> Vec<f32> {
    let genes = seen.values.n_cols;
    let (mut sum, mut n) = (vec![0.0f64; genes], vec![0u64; genes]);
    for row in 0..seen.values.n_rows() {
        for (g, (&value, &visible)) in seen.values.row(row).iter().zip(seen.visible.row(row)).enumerate() {
            if visible {
                sum[g] += f64::from(value);
                n[g] += 1;
            }
        }
    }
    sum.iter().zip(&n).map(|(s, &n)| if n == 0 { 0.0 } else { (s / n as f64) as f32 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::{AttentionAxis, NormPlacement};
    use crate::model::spackle::{InputForm, LayerInit, Readout, SpackleConfig};
    use crate::model::{DataShape, ModelConfig};
    use crate::tensor::cpu;

    const N: usize = 300;
    const GENES: usize = 5;
    const K: usize = 3;
    const NONE: Matrix<f32> = Matrix { n_cols: 0, values: Vec::new() };

    fn model(readout: Readout, input: InputForm) -> Model {
        let config = SpackleConfig {
            d: 8,
            layers: 2,
            heads: 2,
            feed_forward: 16,
            dropout: 0.1,
            norm: NormPlacement::Pre,
            attention_axis: AttentionAxis::Spots,
            init: LayerInit::Own,
            input,
            rank_embedding: true,
            readout,
        };
        let model =
            ModelConfig::Spackle(config).build(DataShape { genes: GENES, spots: 1 + K, covariates: 0 }, 3, &cpu());
        // Zero-initialised heads would hide a leak: move every weight.
        let flat: Vec<f32> =
            model.to_flat().iter().enumerate().map(|(i, w)| w + 0.3 * (i as f32 * 0.7).sin()).collect();
        model.from_flat(&flat, &cpu())
    }

    fn data() -> (Matrix<f32>, Matrix<bool>, Matrix<u32>) {
        let visible: Vec<bool> = (0..N * GENES).map(|i| i % 3 != 0).collect();
        let values = visible.iter().enumerate().map(|(i, &v)| if v { (i as f32 * 0.37).sin() + 2.0 } else { 0.0 });
        let neighbours = (0..N).flat_map(|i| [(i + 1) % N, (i + 7) % N, (i + 50) % N]).map(|j| j as u32);
        (
            Matrix { n_cols: GENES, values: values.collect() },
            Matrix { n_cols: GENES, values: visible },
            Matrix { n_cols: K, values: neighbours.collect() },
        )
    }

    /// Batch independence (`evaluation.md` §8): a record's prediction does not depend on what else is in the batch (1e-5).
    #[test]
    fn a_spot_alone_and_in_a_batch_gets_the_same_prediction() {
        for (readout, input) in
            [(Readout::AllRows, InputForm::Values), (Readout::CentreResidual, InputForm::CentredWithVisibility)]
        {
            let (values, visible, neighbours) = data();
            let model = model(readout, input);
            let all = complete(
                &model,
                &Visible { values: &values, visible: &visible, neighbours: &neighbours, covariates: &NONE },
                &cpu(),
            );
            // A visible value of a spot that spot 0 does not have as neighbour.
            let mut other = values.clone();
            let far = 200 * GENES + 1;
            assert!(visible.values[far]);
            other.values[far] += 1.0;
            let changed = complete(
                &model,
                &Visible { values: &other, visible: &visible, neighbours: &neighbours, covariates: &NONE },
                &cpu(),
            );
            let moved =
                |i: usize| all.row(i).iter().zip(changed.row(i)).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let direct = moved(200);
            assert!(direct > 1e-3, "the spot itself must feel the change, moved {direct}");
            if input == InputForm::Values {
                assert_eq!(moved(0), 0.0, "a spot out of sight changed the prediction");
            } else {
                // Through the section's gene mean alone: 1/200 of the change.
                assert!(moved(0) < direct / 20.0);
            }
        }
    }

    #[test]
    fn neighbours_are_seen() {
        let (values, visible, neighbours) = data();
        let model = model(Readout::AllRows, InputForm::Values);
        let seen = Visible { values: &values, visible: &visible, neighbours: &neighbours, covariates: &NONE };
        let all = complete(&model, &seen, &cpu());
        let mut other = values.clone();
        other.values[GENES + 1] += 1.0; // spot 1 is a neighbour of spot 0
        let changed = complete(&model, &Visible { values: &other, ..seen }, &cpu());
        assert_ne!(all.row(0), changed.row(0));
    }

    #[test]
    fn padding_is_not_seen() {
        let (values, visible, mut neighbours) = data();
        let model = model(Readout::AllRows, InputForm::Values);
        neighbours.values[2] = u32::MAX;
        let seen = Visible { values: &values, visible: &visible, neighbours: &neighbours, covariates: &NONE };
        let all = complete(&model, &seen, &cpu());
        let mut fewer = neighbours.clone();
        fewer.values.iter_mut().skip(2).step_by(K).for_each(|n| *n = u32::MAX);
        let without = complete(&model, &Visible { neighbours: &fewer, ..seen }, &cpu());
        assert_eq!(all.row(0), without.row(0));
        assert_ne!(all.row(1), without.row(1));
    }
}
