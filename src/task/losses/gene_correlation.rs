//! 1 − the mean over genes of Pearson's correlation over a lane's spots, where they are visible (`spotdiff.md` §3, L_PEA).

use crate::tensor::{Tensor, TensorData, total};

/// Fewest visible spots of a gene that has a correlation.
const FEWEST: usize = 3;

/// Added to products of variances.
const EPS: f64 = 1e-12;

/// `[1]`; `y` and `target`: `[b, G]`, `bits` row-major, true where visible. Genes with fewer than 3 visible spots, or of one
/// value, are left out; 0 where none is left.
pub fn one_minus_correlation(y: Tensor<2>, target: &[f32], bits: &[bool]) -> Tensor<1> {
    let ([b, genes], device) = (y.dims(), y.device());
    let mut counts = vec![0usize; genes];
    let mut sums = vec![0.0f64; genes];
    let entries =
        || bits.iter().zip(target).enumerate().filter(|(_, (bit, _))| **bit).map(|(at, (_, v))| (at % genes, *v));
    for (gene, value) in entries() {
        counts[gene] += 1;
        sums[gene] += f64::from(value);
    }
    let mean = |gene: usize| sums[gene] / counts[gene].max(1) as f64;
    let mut squares = vec![0.0f64; genes];
    entries().for_each(|(gene, value)| squares[gene] += (f64::from(value) - mean(gene)).powi(2));
    let used: Vec<bool> = (0..genes).map(|g| counts[g] >= FEWEST && squares[g] > EPS).collect();
    let n_used = used.iter().filter(|u| **u).count();
    if n_used == 0 {
        return total(y).mul_scalar(0.0);
    }
    let tensor =
        |values: Vec<f32>, rows: usize| Tensor::<2>::from_data(TensorData::new(values, [rows, genes]), &device);
    let seen = tensor(bits.iter().map(|&bit| f32::from(u8::from(bit))).collect(), b);
    let shares = tensor(counts.iter().map(|&n| 1.0 / n.max(1) as f32).collect(), 1);
    let centre = |(at, (&value, &bit)): (usize, (&f32, &bool))| {
        if bit { (f64::from(value) - mean(at % genes)) as f32 } else { 0.0 }
    };
    let other = tensor(target.iter().zip(bits).enumerate().map(centre).collect(), b);
    let means = (y.clone() * seen.clone()).sum_dim(0) * shares;
    let ours = (y - means) * seen;
    let over: Vec<f32> = squares.iter().map(|&s| s as f32).collect();
    let product = (ours.clone() * ours.clone()).sum_dim(0) * tensor(over, 1);
    let correlation = (ours * other).sum_dim(0) / product.add_scalar(EPS).sqrt();
    let weights = tensor(used.iter().map(|&u| if u { 1.0 / n_used as f32 } else { 0.0 }).collect(), 1);
    total(correlation * weights).neg().add_scalar(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};
    use crate::tensor::cpu;

    #[test]
    fn it_is_the_definition_over_what_is_visible() {
        // gene 0: four spots; gene 1: the last is hidden; gene 2: two visible; gene 3: constant
        let y = vec![1., 2., 9., 1., 2., 1., 9., 2., 4., 5., 9., 3., 3., 99., 9., 4.];
        let target = [2., 1., 1., 7., 1., 2., 2., 7., 5., 3., 0., 7., 3., 0., 0., 7.];
        let mut bits = [true; 16];
        for hidden in [10, 13, 14] {
            bits[hidden] = false;
        }
        let pcc = |a: &[f64], b: &[f64]| {
            let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            let (p, q) = (mean(a), mean(b));
            let dot = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>();
            dot(&|i| (a[i] - p) * (b[i] - q)) / (dot(&|i| (a[i] - p).powi(2)) * dot(&|i| (b[i] - q).powi(2))).sqrt()
        };
        let expected = 1.0 - (pcc(&[1., 2., 4., 3.], &[2., 1., 5., 3.]) + pcc(&[2., 1., 5.], &[1., 2., 3.])) / 2.0;
        let ours = one_minus_correlation(tensor(y, [4, 4]), &target, &bits);
        assert_near(&values(ours), &[expected], 1e-6);
    }

    #[test]
    fn a_lane_without_a_usable_gene_says_nothing_and_its_gradient_is_finite() {
        let y = Tensor::<2>::zeros([4, 1], &cpu().autodiff()).require_grad();
        let loss = one_minus_correlation(y.clone(), &[1., 2., 3., 4.], &[true; 4]);
        assert_near(&values(loss.clone()), &[1.0], 0.0);
        let gradient: Vec<f32> = values(y.grad(&loss.backward()).unwrap());
        assert!(gradient.iter().all(|g| g.is_finite()));
        assert_near(&values(one_minus_correlation(tensor(vec![1., 2.], [2, 1]), &[1., 2.], &[true; 2])), &[0.0], 0.0);
    }
}
