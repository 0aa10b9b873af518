//! Counts made fewer, for the denoising loss (`spatia.md` §4). Draws belong to (record, gene): neither the order of a list
//! nor what else is in it changes them.

use syncytia_shards::draw::{self, DrawKey};

/// Above this mean a Poisson draw is a rounded normal: exp(−λ) would leave f64, and the skew is below .045.
const LARGE: f64 = 500.0;

/// `counts` of `genes`, thinned by `d` (.6): x − Poisson(x·d/2), at least 0, then 0 with probability d/2.
///
/// Counter (gene, stream): words 0 and 1 draw the Poisson, word 2 the drop. Streams: (slot, global_step, 0) in training,
/// (id low, id high, assay) else.
pub fn thinned(key: DrawKey, stream: [u32; 3], genes: &[u32], counts: &[f32], d: f64) -> Vec<f32> {
    let thin = |(&gene, &count): (&u32, &f32)| {
        let words = key.block([gene, stream[0], stream[1], stream[2]]);
        if draw::bernoulli(words[2], d / 2.0) {
            return 0.0;
        }
        let less = f64::from(count) - poisson(words[0], words[1], f64::from(count) * d / 2.0);
        less.max(0.0) as f32
    };
    genes.iter().zip(counts).map(thin).collect()
}

/// A Poisson draw of mean `lambda` of two words: the inverse distribution at (w0·2³² + w1 + ½)·2⁻⁶⁴, in f64 with `libm`;
/// a rounded normal of the same words where the mean is above 500.
pub fn poisson(w0: u32, w1: u32, lambda: f64) -> f64 {
    if lambda > LARGE {
        let [z, _] = draw::normal_pair(w0, w1);
        return libm::round(lambda + libm::sqrt(lambda) * f64::from(z)).max(0.0);
    }
    let u = (((u64::from(w0) << 32) | u64::from(w1)) as f64 + 0.5) / 18_446_744_073_709_551_616.0;
    let (mut k, mut p) = (0.0, libm::exp(-lambda));
    let mut below = p;
    // Nothing of 2⁻⁶⁴ lies beyond 10 standard deviations and 30; the sum may round to just under a u next to 1.
    let most = lambda + 10.0 * libm::sqrt(lambda) + 30.0;
    while u > below && k < most {
        k += 1.0;
        p *= lambda / k;
        below += p;
    }
    k
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::Purpose;

    use super::*;

    #[test]
    fn a_draw_belongs_to_its_record_and_gene() {
        let key = DrawKey::new(5, Purpose::Thinning);
        let (genes, counts) = ([3, 9, 4, 70], [5.0, 8.0, 1.0, 900.0]);
        let together = thinned(key, [2, 7, 0], &genes, &counts, 0.6);
        for i in 0..4 {
            assert_eq!(thinned(key, [2, 7, 0], &genes[i..=i], &counts[i..=i], 0.6), together[i..=i]);
        }
        let many: Vec<u32> = (0..100).collect();
        let thin = |stream| thinned(key, stream, &many, &[20.0; 100], 0.6);
        assert_ne!(thin([2, 7, 0]), thin([3, 7, 0]));
        assert_ne!(thin([2, 7, 0]), thin([2, 8, 0]));
    }

    #[test]
    fn thinned_counts_have_the_share_that_was_asked_for() {
        let key = DrawKey::new(5, Purpose::Thinning);
        let n = 20_000;
        let genes: Vec<u32> = (0..n).collect();
        for count in [40.0f32, 3_000.0] {
            let thin = thinned(key, [0, 0, 0], &genes, &vec![count; n as usize], 0.6);
            assert!(thin.iter().all(|&x| x >= 0.0 && x <= count && x == x.round()));
            let kept: Vec<f64> = thin.iter().filter(|&&x| x > 0.0).map(|&x| f64::from(x)).collect();
            let dropped = 1.0 - kept.len() as f64 / f64::from(n);
            assert!((dropped - 0.3).abs() < 0.013, "{dropped}"); // 4 standard errors of .0032
            let m = kept.len() as f64;
            let mean = kept.iter().sum::<f64>() / m;
            let variance = kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / m;
            let lambda = f64::from(count) * 0.3;
            assert!((mean - (f64::from(count) - lambda)).abs() < 4.0 * (lambda / m).sqrt(), "{mean}");
            assert!((variance / lambda - 1.0).abs() < 4.0 * (2.0 / m).sqrt() + 0.01, "{variance}");
        }
        assert_eq!(thinned(key, [0, 0, 0], &[1, 2], &[0.0, 0.0], 0.6), [0.0, 0.0]);
    }

    #[test]
    fn poisson_is_the_inverse_of_its_distribution() {
        assert_eq!(poisson(0, 0, 2.0), 0.0);
        assert_eq!(poisson(u32::MAX, u32::MAX, 0.0), 0.0);
        // P(X ≤ 0) = .1353, P(X ≤ 1) = .4060, P(X ≤ 2) = .6767 for λ = 2.
        let at = |u: f64| poisson((u * 4_294_967_296.0) as u32, 0, 2.0);
        assert_eq!([at(0.13), at(0.14), at(0.405), at(0.41), at(0.67), at(0.68)], [0., 1., 1., 2., 2., 3.]);
        assert!(poisson(u32::MAX, u32::MAX, 500.0) < 800.0);
    }
}
