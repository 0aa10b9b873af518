//! Counts as (zero-inflated) negative binomials of mean μ and dispersion θ (`spatia.md` §4).
//!
//! In f32 the textbook form loses everything: lnΓ(x+θ) − lnΓ(θ) of θ = 3·10⁶ are two numbers near 4·10⁷, whose spacing is 4.
//! Here the large parts are cancelled on paper first, by Stirling's series for arguments moved up by 3, and what is added
//! is of the size of the result. The gradient is autodiff's of the same terms.

use super::softplus;
use crate::tensor::Tensor;

/// Added inside logarithms, as in the release.
const EPS: f64 = 1e-8;

/// How far an argument is moved up before Stirling's series: four terms are then good to 4·10⁻⁸.
const SHIFT: f64 = 3.0;

/// ½ ln 2π
const HALF_LN_TAU: f64 = 0.918_938_533_204_672_7;

/// ln Γ(z) for z > 0: to 10⁻⁶, relative to its value or absolute where that is below 1.
pub fn ln_gamma<const D: usize>(z: Tensor<D>) -> Tensor<D> {
    let w = z.clone() + SHIFT;
    let below = |i: f64| (z.clone() + i) / w.clone();
    let moved = (below(0.0) * below(1.0) * below(2.0)).log();
    (w.clone() - (SHIFT + 0.5)) * w.clone().log() - w.clone() + HALF_LN_TAU + tail(w) - moved
}

/// Stirling's series: ln Γ(w) less (w − ½) ln w − w + ½ ln 2π.
fn tail<const D: usize>(w: Tensor<D>) -> Tensor<D> {
    let r = w.recip();
    let r2 = r.clone() * r.clone();
    let inner = r2.clone() * (-1.0 / 1680.0) + 1.0 / 1260.0;
    r * ((inner * r2.clone() - 1.0 / 360.0) * r2 + 1.0 / 12.0)
}

/// log p of count 0: θ(log(θ+ε) − log(θ+μ+ε)).
fn log_nb_of_zero<const D: usize>(mean: &Tensor<D>, dispersion: &Tensor<D>) -> Tensor<D> {
    -dispersion.clone() * (mean.clone() / (dispersion.clone() + EPS)).log1p()
}

/// log p of the counts `x` ≥ 0 (data: no gradient is asked of them) under NB(μ, θ).
pub fn log_nb<const D: usize>(x: Tensor<D>, mean: Tensor<D>, dispersion: Tensor<D>) -> Tensor<D> {
    let z = dispersion.clone().clamp_min(EPS);
    let w = z.clone() + SHIFT;
    let positive = x.clone() + x.clone().equal_elem(0.0).float(); // x, or 1 where a factor x is 0
    // x ln x − x − lnΓ(x+1), the counts' own part.
    let y = x.clone() + SHIFT;
    let own = -(x.clone() * (positive.clone().recip() * SHIFT).log1p()) - y.clone().log() * (SHIFT - 0.5)
        + ((x.clone() + 1.0) * (x.clone() + 2.0)).log()
        + (SHIFT - HALF_LN_TAU)
        - tail(y);
    // lnΓ(x+z) − lnΓ(z), less x ln(w+x) − x, which meets x ln μ and x ln x below.
    let zx = z.clone() + x.clone();
    let wx = w.clone() + x.clone();
    let first = z.clone() / zx.clone();
    let next = (z.clone() + 1.0) * (z + 2.0) / ((zx.clone() + 1.0) * (zx + 2.0));
    let rise =
        (w.clone() - 0.5) * (x.clone() / w.clone()).log1p() + tail(wx.clone()) - tail(w) + first.log() + next.log();
    let total = dispersion.clone() + mean.clone() + EPS;
    let mixed = x * ((wx / total) * ((mean.clone() + EPS) / positive)).log();
    log_nb_of_zero(&mean, &dispersion) + mixed + rise + own
}

/// −log p of the counts `x` under a negative binomial that is replaced by 0 with probability sigmoid(π), entry by entry.
pub fn zinb<const D: usize>(
    x: Tensor<D>,
    mean: Tensor<D>,
    dispersion: Tensor<D>,
    dropout_logit: Tensor<D>,
) -> Tensor<D> {
    let inflated = softplus(-dropout_logit.clone());
    let zero = softplus(log_nb_of_zero(&mean, &dispersion) - dropout_logit.clone());
    let is_zero = x.clone().lower_elem(EPS);
    let other = log_nb(x, mean, dispersion) - dropout_logit;
    inflated - other.mask_where(is_zero, zero)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::reference::{assert_near, tensor, values};
    use crate::tensor::{TensorData, cpu};

    fn row(values: &[f64]) -> Tensor<1> {
        tensor(values.iter().map(|&v| v as f32).collect(), [values.len()])
    }

    /// By the formula of the spec, in f64.
    fn exact(x: f64, mean: f64, theta: f64, pi: f64) -> (f64, f64) {
        let eps = EPS;
        let stay = theta * ((theta + eps).ln() - (theta + mean + eps).ln());
        let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
        let count = x * ((mean + eps).ln() - (theta + mean + eps).ln()) + libm::lgamma(x + theta)
            - libm::lgamma(theta)
            - libm::lgamma(x + 1.0);
        let (s, q) = (softplus(-pi), -pi + stay);
        (stay + count, -if x < eps { softplus(q) - s } else { -s + q + count })
    }

    #[test]
    fn losses_equal_the_vectors_of_the_release() {
        let [x, mean, theta, pi] = [[0., 1., 5.], [0.5, 1.5, 4.], [2., 1., 3.], [0.2, -1., -2.]].map(|v| row(&v));
        let mean_of = |t: Tensor<1>| values(t).iter().map(|&v| f64::from(v)).sum::<f64>() / 3.0;
        let ours = mean_of(zinb(x.clone(), mean.clone(), theta.clone(), pi));
        // The release's own figures are f32 (in f64 the first is 1.44652154): two roundings near 2.
        assert!((ours - 1.4465214).abs() < 5e-7, "{ours}");
        let ours = -mean_of(log_nb(x, mean, theta));
        assert!((ours - 1.3896179).abs() < 5e-7, "{ours}");
    }

    #[test]
    fn ln_gamma_is_good_to_a_millionth_and_autodiff_gives_digamma() {
        let at: Vec<f64> = vec![1e-7, 1e-3, 0.1, 0.5, 1.0, 1.4616, 2.0, 3.7, 10.0, 123.4, 5e3, 7e5, 3.2e6];
        let z = Tensor::<1>::from_data(
            TensorData::new(at.iter().map(|&v| v as f32).collect::<Vec<_>>(), [at.len()]),
            &cpu().autodiff(),
        )
        .require_grad();
        let y = ln_gamma(z.clone());
        for (ours, at) in values(y.clone()).iter().zip(&at) {
            let exact = libm::lgamma(f64::from(*at as f32));
            assert!((f64::from(*ours) - exact).abs() <= 1e-6 * exact.abs().max(1.0), "lnΓ({at}): {ours}, not {exact}");
        }
        let of_z: Vec<f32> = z.grad(&y.sum().backward()).unwrap().into_data().try_to_vec().unwrap();
        for (ours, at) in of_z.iter().zip(&at) {
            let at = f64::from(*at as f32);
            let step = at * 1e-4;
            let exact = (libm::lgamma(at + step) - libm::lgamma(at - step)) / (2.0 * step);
            assert!((f64::from(*ours) - exact).abs() <= 3e-6 * exact.abs().max(1.0), "ψ({at}): {ours}, not {exact}");
        }
    }

    #[test]
    fn losses_and_gradients_are_those_of_the_formula_over_all_magnitudes() {
        let mut cases = Vec::new();
        for x in [0.0, 1.0, 3.0, 40.0, 2_000.0, 100_000.0] {
            for mean in [1e-4, 0.3, 5.0, 900.0, 60_000.0] {
                for theta in [1e-3, 0.2, 4.0, 300.0, 3.2e6] {
                    for pi in [-6.0, 0.0, 4.0] {
                        cases.push([x, mean, theta, pi].map(|v| f64::from(v as f32)));
                    }
                }
            }
        }
        let n = cases.len();
        let leaf = |i: usize| {
            let data = TensorData::new(cases.iter().map(|c| c[i] as f32).collect::<Vec<_>>(), [n]);
            Tensor::<1>::from_data(data, &cpu().autodiff()).require_grad()
        };
        let (mean, theta, pi) = (leaf(1), leaf(2), leaf(3));
        let x = row(&cases.iter().map(|c| c[0]).collect::<Vec<_>>());
        let x = Tensor::from_data(x.into_data(), &cpu().autodiff());
        let loss = zinb(x, mean.clone(), theta.clone(), pi.clone());
        let ours = values(loss.clone());
        let gradients = loss.sum().backward();
        let of = |t: &Tensor<1>| -> Vec<f32> { t.grad(&gradients).unwrap().into_data().try_to_vec().unwrap() };
        let (of_mean, of_theta, of_pi) = (of(&mean), of(&theta), of(&pi));
        for (i, &[x, mean, theta, pi]) in cases.iter().enumerate() {
            let at = |mean, theta, pi| exact(x, mean, theta, pi).1;
            let value = at(mean, theta, pi);
            // f32 keeps 6e-8 of the counts and means that enter.
            let size = value.abs().max(1.0) + x.max(mean) * 0.2;
            assert!((f64::from(ours[i]) - value).abs() <= 1e-6 * size, "{:?}: {}, not {value}", cases[i], ours[i]);
            // Per relative change of a parameter, which is how the heads reach μ and θ.
            let slope = |up: f64, down: f64, by: f64| (up - down) / (2.0 * by);
            let r = 1e-4;
            for (name, ours, exact) in [
                (
                    "μ",
                    f64::from(of_mean[i]) * mean,
                    slope(at(mean * (1. + r), theta, pi), at(mean * (1. - r), theta, pi), r),
                ),
                (
                    "θ",
                    f64::from(of_theta[i]) * theta,
                    slope(at(mean, theta * (1. + r), pi), at(mean, theta * (1. - r), pi), r),
                ),
                ("π", f64::from(of_pi[i]), slope(at(mean, theta, pi + r), at(mean, theta, pi - r), r)),
            ] {
                let size = exact.abs().max(1.0) + x.max(mean);
                // lgamma in f64 near 5e7 keeps 1e-8, divided by 2e-4 here.
                let noise = if theta > 1e6 { 1e-3 } else { 1e-5 };
                assert!((ours - exact).abs() <= 3e-6 * size + noise, "{name} at {:?}: {ours}, not {exact}", cases[i]);
            }
        }
    }

    #[test]
    fn no_counts_means_or_dispersions_at_the_border_give_nan() {
        let grid = [0.0f32, 1e-30, 1e-8, 1.0, 3.3e6];
        let mut entries = Vec::new();
        for x in [0.0f32, 1.0, 1e6] {
            for mean in grid {
                for theta in grid {
                    for pi in [-90.0f32, 0.0, 90.0] {
                        entries.push([x, mean, theta, pi]);
                    }
                }
            }
        }
        let leaf = |i: usize| {
            let data = TensorData::new(entries.iter().map(|e| e[i]).collect::<Vec<_>>(), [entries.len()]);
            Tensor::<1>::from_data(data, &cpu().autodiff()).require_grad()
        };
        let parameters = [leaf(1), leaf(2), leaf(3)];
        let [mean, theta, pi] = parameters.clone();
        let loss = zinb(leaf(0).detach(), mean, theta, pi);
        assert!(values(loss.clone()).iter().all(|v| v.is_finite()));
        let gradients = loss.sum().backward();
        for parameter in parameters {
            let of: Vec<f32> = parameter.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
            assert!(of.iter().all(|v| v.is_finite()));
        }
        assert_near(&values(log_nb(row(&[0.0]), row(&[0.0]), row(&[1.0]))), &[0.0], 1e-6);
    }
}
