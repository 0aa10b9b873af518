//! Symmetric InfoNCE between two views of the same records (`spatia.md` §4), over a lane or over the whole step.
//!
//! Over the step it is a cross-lane term (`docs/step.md` §4): [`over_step`] gives the value and the gradient with respect to
//! all vectors, and [`along`] is what each lane adds to its loss, so that its backward starts from its slice.

use super::cosine::unit;
use crate::tensor::{Device, Tensor, TensorData, log_softmax, matmul, total};

/// Per record ½(a→b + b→a), `[n]`: cross-entropy of the record's partner among all n, of cosines × `scale` (`[1]`, the
/// inverse temperature). `a`, `b`: `[n, w]`, of any length.
pub fn info_nce(a: Tensor<2>, b: Tensor<2>, scale: Tensor<1>) -> Tensor<1> {
    let [n, _] = a.dims();
    let logits = matmul(unit(a), unit(b).transpose()) * scale.unsqueeze(); // [n, n]
    let partner = Tensor::<2>::eye(n, &logits.device());
    let of_rows = log_softmax(logits.clone(), 1);
    let of_columns = log_softmax(logits, 0);
    let both: Tensor<1> = ((of_rows + of_columns) * partner).sum_dim(1).squeeze_dim(1);
    both.mul_scalar(-0.5)
}

/// InfoNCE over the vectors of a whole step, and where it leads them.
#[derive(Debug, Clone, PartialEq)]
pub struct OverStep {
    /// Per record, in slot order.
    pub values: Vec<f32>,
    /// Gradient of the values' sum with respect to `a`, `[n, w]` flat in slot order.
    pub of_a: Vec<f32>,
    /// The same for `b`.
    pub of_b: Vec<f32>,
    /// And for the scale, which lane 0 alone adds.
    pub of_scale: f32,
}

/// [`info_nce`] of gathered vectors, `[n, width]` flat in slot order, with its gradient; the same on every rank.
/// `device`: one without gradients.
pub fn over_step(a: &[f32], b: &[f32], width: usize, scale: f32, device: &Device) -> OverStep {
    let device = device.clone().autodiff();
    let leaf = |v: &[f32]| {
        let shape = [v.len() / width, width];
        Tensor::<2>::from_data(TensorData::new(v.to_vec(), shape), &device).require_grad()
    };
    let (a, b) = (leaf(a), leaf(b));
    let scale = Tensor::<1>::from_data(TensorData::new(vec![scale], [1]), &device).require_grad();
    let values = info_nce(a.clone(), b.clone(), scale.clone());
    let gradients = total(values.clone()).backward();
    let of = |t: &Tensor<2>| t.grad(&gradients).expect("it is used").into_data().try_to_vec().expect("f32");
    let of_scale: Vec<f32> = scale.grad(&gradients).expect("it is used").into_data().try_to_vec().expect("f32");
    OverStep {
        values: values.into_data().try_to_vec().expect("f32"),
        of_a: of(&a),
        of_b: of(&b),
        of_scale: of_scale[0],
    }
}

/// Σ v·g, `[1]`, with g constant: its gradient with respect to `vectors` is `gradient`, of the same shape, flat.
pub fn along<const D: usize>(vectors: Tensor<D>, gradient: &[f32]) -> Tensor<1> {
    let gradient = TensorData::new(gradient.to_vec(), vectors.dims());
    total(vectors.clone() * Tensor::from_data(gradient, &vectors.device()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};
    use crate::tensor::cpu;

    const A: [f32; 6] = [1., 0., 0.6, 0.8, 0., 1.];
    const B: [f32; 6] = [0.9, 0.1, 0.5, 0.9, -0.2, 1.];

    #[test]
    fn the_loss_equals_its_vector_whatever_the_lengths() {
        for longer in [1.0, 3.0] {
            let b = B.iter().map(|v| v * longer).collect();
            let ours = values(info_nce(tensor(A.into(), [3, 2]), tensor(b, [3, 2]), tensor(vec![10.0], [1])));
            let mean = ours.iter().map(|&v| f64::from(v)).sum::<f64>() / 3.0;
            assert!((mean - 0.12475291).abs() < 1e-6, "{mean}");
        }
    }

    #[test]
    fn a_lane_that_goes_along_the_gradient_gets_what_one_backward_would_give() {
        let device = cpu();
        let step = over_step(&A, &B, 2, 10.0, &device);
        let sum = |a: &[f32], scale: f32| -> f64 {
            over_step(a, &B, 2, scale, &cpu()).values.iter().map(|&v| f64::from(v)).sum()
        };
        let numeric = |i: usize| {
            let (mut up, mut down) = (A, A);
            (up[i], down[i]) = (A[i] + 1e-2, A[i] - 1e-2);
            (sum(&up, 10.0) - sum(&down, 10.0)) / 2e-2
        };
        let numeric: Vec<f64> = (0..6).map(numeric).collect();
        assert_near(&step.of_a, &numeric, 5e-3); // second order of the differences
        let of_scale = (sum(&A, 10.1) - sum(&A, 9.9)) / 0.2;
        assert!((f64::from(step.of_scale) - of_scale).abs() < 1e-4);
        // Records 1 and 2 are a lane of their own.
        let lane = Tensor::<2>::from_data(TensorData::new(A[2..].to_vec(), [2, 2]), &device.autodiff()).require_grad();
        let gradients = along(lane.clone(), &step.of_a[2..]).backward();
        let of_lane: Vec<f32> = lane.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert_eq!(of_lane, step.of_a[2..]);
    }
}
