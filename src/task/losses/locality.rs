//! Near spots agree, far ones differ (`spotdiff.md` §3, L_LOC), as printed in the paper and as it must have been meant.

use serde::{Deserialize, Serialize};

use crate::tensor::{Tensor, relu};

/// Which formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocForm {
    /// ‖y_i − y_j‖²/G · e^(−d(i,j)/σ) + max(0, m − ‖y_i − y_k‖²/G).
    #[default]
    Ours,
    /// ‖y_i − y_j‖² e^(d(i,j)/σ) + ‖y_i − y_k‖² e^(d(i,k)/σ): pulls far spots together harder than near ones.
    Printed,
}

/// Distances over σ of each spot to a near and to a far one, `[b]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// d(i, j)/σ.
    pub near: Vec<f64>,
    /// d(i, k)/σ.
    pub far: Vec<f64>,
}

/// ‖a − b‖² of each row, `[b]`.
pub fn squared_distances(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let off = a - b;
    (off.clone() * off).sum_dim(1).squeeze_dim(1)
}

/// Per spot, `[b]`; `y`, `near`, `far`: `[b, G]`, of which only the genes that are `shown` `[G]` are looked at: what a fold hides gets
/// no gradient.
pub fn locality(
    form: LocForm,
    [y, near, far]: [Tensor<2>; 3],
    shown: &[bool],
    apart: &Apart,
    margin: f64,
) -> Tensor<1> {
    let device = y.device();
    let genes = shown.iter().filter(|shown| **shown).count().max(1) as f64;
    let mask: Vec<f32> = shown.iter().map(|&shown| f32::from(u8::from(shown))).collect();
    let mask = Tensor::<1>::from_floats(mask.as_slice(), &device).unsqueeze::<2>();
    let [y, near, far] = [y, near, far].map(|of| of * mask.clone());
    let weights = |of: &[f64], sign: f64| {
        let values: Vec<f32> = of.iter().map(|d| libm::exp(sign * d) as f32).collect();
        Tensor::<1>::from_floats(values.as_slice(), &device)
    };
    let (to_near, to_far) = (squared_distances(y.clone(), near), squared_distances(y, far));
    match form {
        LocForm::Ours => {
            let push = relu(to_far.div_scalar(genes).neg().add_scalar(margin));
            to_near.div_scalar(genes) * weights(&apart.near, -1.0) + push
        }
        LocForm::Printed => to_near * weights(&apart.near, 1.0) + to_far * weights(&apart.far, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};

    const APART: ([f64; 1], [f64; 1]) = ([0.5], [1.5]); // d = 1 and 3, σ = 2

    fn of(form: LocForm, margin: f64) -> Vec<f32> {
        let row = |v: [f32; 2]| tensor(v.to_vec(), [1, 2]);
        let apart = Apart { near: APART.0.to_vec(), far: APART.1.to_vec() };
        values(locality(form, [row([1., 2.]), row([1.5, 2.5]), row([4., 0.])], &[true; 2], &apart, margin))
    }

    /// `spotdiff.md` §3; the near term is printed there before the division by G = 2.
    #[test]
    fn both_forms_equal_their_vectors() {
        assert_near(&of(LocForm::Printed, 0.1), &[59.08631855], 2e-5); // f32 near 59
        assert_near(&of(LocForm::Ours, 0.1), &[0.30326533 / 2.0], 1e-7);
        assert_near(&of(LocForm::Ours, 10.0), &[0.30326533 / 2.0 + 10.0 - 6.5], 1e-6);
    }
}
