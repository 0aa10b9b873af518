//! Where a token stands, as sines and cosines: patches on their grid, members around their centre, genes on the genome.
//! Nothing here is learned (`spatia.md` §2, §3, §5).

use crate::tensor::{Tensor, TensorData};

/// Fixed 2-D sine–cosine positions of a `side` × `side` grid, row-major, `[side², width]`; `width` a multiple of 4.
///
/// With e = width/2 per axis and ω_i = 10000^{−i/(e/2)}: the first half is [sin(col·ω), cos(col·ω)], the second half the
/// row (columns first: the known quirk of MAE).
pub fn grid(side: usize, width: usize) -> Vec<f32> {
    assert!(width.is_multiple_of(4), "a grid's positions need a width that is a multiple of 4, not {width}");
    let n = width / 4;
    let omega: Vec<f64> = (0..n).map(|i| libm::pow(10_000.0, -(i as f64) / n as f64)).collect();
    let mut out = Vec::with_capacity(side * side * width);
    for row in 0..side {
        for col in 0..side {
            for at in [col, row] {
                out.extend(omega.iter().map(|w| libm::sin(at as f64 * w) as f32));
                out.extend(omega.iter().map(|w| libm::cos(at as f64 * w) as f32));
            }
        }
    }
    out
}

/// 64 features of offsets in µm, `[b, n, 2]` → `[b, n, 64]`.
///
/// For each axis, x first, 16 wavelengths λ_k = min·(max/min)^{k/15}: [sin(2πΔ/λ_k)] for k = 0…15, then the cosines.
pub fn offsets(um: Tensor<3>, wavelengths_um: (f64, f64)) -> Tensor<3> {
    let (min, max) = wavelengths_um;
    let per_um: Vec<f32> =
        (0..16).map(|k| (std::f64::consts::TAU / (min * libm::pow(max / min, f64::from(k) / 15.0))) as f32).collect();
    let per_um: Tensor<3> = Tensor::from_data(TensorData::new(per_um, [1, 1, 16]), &um.device());
    let [x, y] = [0, 1].map(|axis| um.clone().narrow(2, axis, 1) * per_um.clone());
    Tensor::cat(vec![x.clone().sin(), x.cos(), y.clone().sin(), y.cos()], 2)
}

/// Sinusoids of genomic bins (0…9,999), `[b, k]` → `[b, k, width]`: [sin(bin·ω), cos(bin·ω)], ω_i = 10000^{−i/(width/2)};
/// a negative bin is an unknown place and gives zeros.
pub fn genome(bins: Tensor<2>, width: usize) -> Tensor<3> {
    let n = width / 2;
    let omega: Vec<f32> = (0..n).map(|i| libm::pow(10_000.0, -(i as f64) / n as f64) as f32).collect();
    let omega: Tensor<3> = Tensor::from_data(TensorData::new(omega, [1, 1, n]), &bins.device());
    let bins: Tensor<3> = bins.unsqueeze_dim(2);
    let known = bins.clone().greater_equal_elem(0.0).float();
    let angles = bins * omega;
    Tensor::cat(vec![angles.clone().sin(), angles.cos()], 2) * known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cpu;

    #[test]
    fn grid_positions_are_those_of_mae_columns_first() {
        let table = grid(2, 8);
        // 1e-7: one unit in the last place of f32.
        let near = |row: usize, reference: [f64; 8]| {
            for (ours, reference) in table[row * 8..][..8].iter().zip(reference) {
                assert!((f64::from(*ours) - reference).abs() < 1e-7, "{ours} against {reference}");
            }
        };
        near(1, [0.84147098, 0.00999983, 0.54030231, 0.99995, 0., 0., 1., 1.]);
        near(2, [0., 0., 1., 1., 0.84147098, 0.00999983, 0.54030231, 0.99995]);
    }

    #[test]
    fn offset_features_are_sines_then_cosines_of_x_then_of_y() {
        let um = Tensor::<3>::from_data(TensorData::new(vec![3.0f32, -50.0], [1, 1, 2]), &cpu());
        let ours: Vec<f32> = offsets(um, (4.0, 440.0)).into_data().try_to_vec().unwrap();
        assert_eq!(ours.len(), super::super::config::POSITION_FEATURES);
        for k in 0..16 {
            let angle = |um: f64| std::f64::consts::TAU * um / (4.0 * 110f64.powf(k as f64 / 15.0));
            let reference = [angle(3.0).sin(), angle(3.0).cos(), angle(-50.0).sin(), angle(-50.0).cos()];
            for (part, reference) in reference.into_iter().enumerate() {
                // The largest angle is 79, of which f32 keeps 4e-6.
                assert!((f64::from(ours[16 * part + k]) - reference).abs() < 1e-5, "part {part}, k {k}");
            }
        }
    }

    #[test]
    fn an_unknown_place_on_the_genome_adds_nothing() {
        let bins = Tensor::<2>::from_data(TensorData::new(vec![-1.0f32, 0.0], [1, 2]), &cpu());
        let ours: Vec<f32> = genome(bins, 4).into_data().try_to_vec().unwrap();
        assert_eq!(ours, [0., 0., 0., 0., 0., 0., 1., 1.]);
    }
}
