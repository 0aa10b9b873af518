//! Columns that a model sees beside the genes of the layers, in every row of a neighbourhood, and never predicts: context genes
//! (the next in Moran order; `spackle.md` §5, ablations), features that the input carries, features of its picture.

use super::config::ProcessConfig;
use super::error::ProcessError;
use super::layers::WholeLayers;
use super::picture;
use crate::panel::Panel;
use crate::processed::{Matrix, Piece};
use crate::section::{Features, Section};

/// Fills `Piece::covariates` and gives the names of the columns.
///
/// Context genes have the values of `d_log1p` (batch correction is for the layers); features are standardised per section over
/// all its observations (without layers there are no context genes), so that two instruments can be told apart by nothing but shape.
pub(super) fn attach(
    sections: &[Section],
    pieces: &mut [Piece],
    whole: &[WholeLayers],
    panel: &Panel,
    config: &ProcessConfig,
) -> Result<Vec<String>, ProcessError> {
    let features = sections.iter().map(|s| features_of(s, config)).collect::<Result<Vec<_>, _>>()?;
    let names = features.first().map(|f| f.0.clone()).unwrap_or_default();
    if let Some(other) = (1..features.len()).find(|&i| features[i].0 != names) {
        return Err(ProcessError::Features {
            library_id: sections[other].library_id.clone(),
            n: features[other].0.len(),
            expected: names.len(),
        });
    }
    for (at, piece) in pieces.iter_mut().enumerate() {
        let mut values = Vec::with_capacity(piece.n_obs() * (panel.context.len() + names.len()));
        for (i, &row) in piece.rows.iter().enumerate() {
            values.extend(panel.context.iter().map(|&gene| whole[at].d_log1p.row(i)[gene as usize]));
            values.extend_from_slice(features[piece.section as usize].1.row(row as usize));
        }
        piece.covariates = Matrix { n_cols: panel.context.len() + names.len(), values };
    }
    Ok(panel.context.iter().map(|&gene| panel.genes[gene as usize].id.clone()).chain(names).collect())
}

/// Names and values of a section's features, `[n_obs, features]`: those of its input, then of its picture, standardised.
///
/// # Errors
/// [`ProcessError::NoPicture`].
pub fn features_of(section: &Section, config: &ProcessConfig) -> Result<(Vec<String>, Matrix<f32>), ProcessError> {
    let mut all: Vec<Features> = section.features.iter().map(standardised).collect();
    if config.picture_features > 0 {
        all.push(standardised(&picture::features(section, config.picture_features as usize)?));
    }
    let names: Vec<String> =
        all.iter().flat_map(|f| (0..f.values.n_cols).map(move |k| format!("{}[{k}]", f.name))).collect();
    let row = |i: usize| all.iter().flat_map(move |f| f.values.row(i).iter().copied());
    let values = (0..section.n_obs()).flat_map(row).collect();
    Ok((names.clone(), Matrix { n_cols: names.len(), values }))
}

/// Each column less its mean, over its standard deviation; 0 where it is constant.
fn standardised(features: &Features) -> Features {
    let (n, width) = (features.values.n_rows(), features.values.n_cols);
    let mut values = features.values.values.clone();
    for k in 0..width {
        let column = || features.values.values.iter().skip(k).step_by(width).map(|&v| f64::from(v));
        let mean = column().sum::<f64>() / n.max(1) as f64;
        let deviation = (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n.max(1) as f64).sqrt();
        for value in values.iter_mut().skip(k).step_by(width) {
            *value = if deviation > 0.0 { ((f64::from(*value) - mean) / deviation) as f32 } else { 0.0 };
        }
    }
    Features { name: features.name.clone(), values: Matrix { n_cols: width, values } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_mean_0_and_deviation_1_and_a_constant_one_is_0() {
        let values = Matrix { n_cols: 2, values: vec![1.0, 7.0, 3.0, 7.0, 5.0, 7.0] };
        let ours = standardised(&Features { name: "X".into(), values }).values.values;
        let expected = [-1.224_744_9, 0.0, 0.0, 0.0, 1.224_744_9, 0.0];
        assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?}");
    }
}
