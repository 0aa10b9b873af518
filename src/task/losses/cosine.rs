//! Losses of angles: 1 − cosine to a target that learns nothing, and the likeness of a cell's own tokens (`spatia.md` §4, §5).

use crate::tensor::{Tensor, matmul};

/// Added to lengths, so that a zero vector has a finite gradient.
const EPS: f64 = 1e-8;

/// Vectors of length 1 along the last axis; a zero vector stays zero.
pub fn unit<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let squared = (x.clone() * x.clone()).sum_dim(D - 1);
    x / squared.add_scalar(EPS * EPS).sqrt()
}

/// 1 − cosine per row, `[b, n, h]` twice → `[b, n]`. The target gets no gradient.
pub fn distance(prediction: Tensor<3>, target: Tensor<3>) -> Tensor<2> {
    let likeness: Tensor<2> = (unit(prediction) * unit(target.detach())).sum_dim(2).squeeze_dim(2);
    1.0 - likeness
}

/// Likeness of a cell's extra tokens, `[b, t, d]` → `[b]`: |cosine| of every pair, the diagonal 0, mean over the whole
/// t × t matrix.
pub fn dissimilarity(tokens: Tensor<3>) -> Tensor<1> {
    let [b, t, _] = tokens.dims();
    let tokens = unit(tokens);
    let cosines = matmul(tokens.clone(), tokens.swap_dims(1, 2)).abs(); // [b, t, t]
    let off: Tensor<2> = 1.0 - Tensor::<2>::eye(t, &cosines.device());
    let sums = (cosines * off.unsqueeze()).reshape([b, t * t]).sum_dim(1);
    sums.div_scalar((t * t) as f64).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};
    use crate::tensor::{TensorData, cpu};

    #[test]
    fn the_distance_is_one_minus_the_cosine_and_moves_the_prediction_only() {
        let leaf =
            |v: Vec<f32>| Tensor::<3>::from_data(TensorData::new(v, [1, 2, 2]), &cpu().autodiff()).require_grad();
        let (prediction, target) = (leaf(vec![3., 4., 0., 0.]), leaf(vec![1., 0., 1., 1.]));
        let loss = distance(prediction.clone(), target.clone());
        assert_near(&values(loss.clone()), &[0.4, 1.0], 1e-6);
        let gradients = loss.sum().backward();
        assert!(target.grad(&gradients).is_none(), "the target learns nothing");
        let of: Vec<f32> = prediction.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert!(of.iter().all(|v| v.is_finite()));
        assert_near(&of[..2], &[-0.128, 0.096], 1e-6); // (1/5)(−e₁ + .6·(.6, .8))
    }

    #[test]
    fn dissimilarity_counts_the_zero_diagonal() {
        let tokens = tensor(vec![1., 0., 0., -2., 3., 3., 1., 0., 1., 0., 1., 0.], [2, 3, 2]);
        let half = 0.5f64.sqrt();
        assert_near(&values(dissimilarity(tokens)), &[4.0 * half / 9.0, 6.0 / 9.0], 1e-6);
    }
}
