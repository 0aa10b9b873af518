//! Painted patches against what was there, each patch normalised by itself (`spatia.md` §3).

use crate::tensor::Tensor;

/// Added to a patch's variance.
const EPS: f64 = 1e-6;

/// (x − mean) / √(var + 1e-6) along the last axis, var unbiased; a constant patch becomes zeros.
pub fn normalised<const D: usize>(patches: Tensor<D>) -> Tensor<D> {
    let n = patches.dims()[D - 1];
    let centred = patches.clone() - patches.mean_dim(D - 1);
    let variance = (centred.clone() * centred.clone()).sum_dim(D - 1).div_scalar(n.saturating_sub(1).max(1) as f64);
    centred / variance.add_scalar(EPS).sqrt()
}

/// Per record the sum over patches of the mean squared error, `[b, n, v]` twice → `[b]`; the weight is the number of
/// patches. `patches` are raw.
pub fn painted(prediction: Tensor<3>, patches: Tensor<3>) -> Tensor<1> {
    let error = prediction - normalised(patches);
    (error.clone() * error).mean_dim(2).sum_dim(1).flatten::<1>(0, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};

    #[test]
    fn the_loss_of_a_patch_equals_its_vector() {
        let patches = tensor(vec![0., 0.2, 0.4, 0.9, 0.7, 0.7, 0.7, 0.7], [1, 2, 4]);
        let reference = [-0.97094339, -0.45310699, 0.06472958, 1.35932078, 0., 0., 0., 0.];
        assert_near(&values(normalised(patches.clone())), &reference, 1e-6);
        let prediction = tensor(vec![-1., 0., 0., 1., 0., 0., 0., 0.], [1, 2, 4]);
        assert_near(&values(painted(prediction, patches)), &[0.08486287], 1e-6);
    }
}
