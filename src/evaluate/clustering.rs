//! How alike are two partitions (`evaluation.md` §3): ARI, NMI, AMI and homogeneity of found clusters against true classes,
//! as scikit-learn defines them; silhouette of points.
//!
//! Unassigned records are the caller's to leave out and to count.

use std::collections::BTreeMap;

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

/// How alike two partitions are; 1 is equality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Rand index of pairs, adjusted for chance; may be negative.
    pub ari: f64,
    /// Mutual information over the mean of both entropies.
    pub nmi: f64,
    /// The same less what chance gives (exact hypergeometric expectation); may be negative.
    pub ami: f64,
    /// Share of the classes' entropy that the clusters explain.
    pub homogeneity: f64,
}

/// Compares the class and the cluster of each record, `[n]` both.
///
/// # Panics
/// If the lengths differ.
pub fn agreement(classes: &[u32], clusters: &[u32]) -> Agreement {
    let table = Table::of(classes, clusters);
    let (of_classes, of_clusters) = (entropy(&table.rows, table.n), entropy(&table.columns, table.n));
    let information = table.mutual_information();
    let mean = 0.5 * (of_classes + of_clusters);
    let one_is_flat = of_classes == 0.0 || of_clusters == 0.0;
    let (nmi, ami) = match (table.is_trivial(), one_is_flat) {
        (true, _) => (1.0, 1.0),
        (false, true) => (0.0, 0.0),
        (false, false) => {
            let expected = table.expected_information();
            (information / mean, (information - expected) / (mean - expected))
        }
    };
    Agreement {
        ari: table.ari(),
        nmi,
        ami,
        homogeneity: if of_classes == 0.0 { 1.0 } else { information / of_classes },
    }
}

/// The adjusted Rand index of counts alone: `[classes · clusters]`, row by row.
pub fn adjusted_rand(counts: &[u64], n_clusters: usize) -> f64 {
    Table::of_counts(counts, n_clusters).ari()
}

/// How many records each class has in each cluster.
struct Table {
    n: u64,
    /// (class, cluster) in dense numbers: records.
    cells: BTreeMap<(usize, usize), u64>,
    rows: Vec<u64>,
    columns: Vec<u64>,
}

impl Table {
    fn of(classes: &[u32], clusters: &[u32]) -> Table {
        assert_eq!(classes.len(), clusters.len(), "one class and one cluster per record");
        let dense = |of: &[u32]| -> BTreeMap<u32, usize> {
            let mut names = of.to_vec();
            names.sort_unstable();
            names.dedup();
            names.into_iter().enumerate().map(|(i, name)| (name, i)).collect()
        };
        let (row_of, column_of) = (dense(classes), dense(clusters));
        let mut table = Table {
            n: classes.len() as u64,
            cells: BTreeMap::new(),
            rows: vec![0; row_of.len()],
            columns: vec![0; column_of.len()],
        };
        for (class, cluster) in classes.iter().zip(clusters) {
            let (row, column) = (row_of[class], column_of[cluster]);
            *table.cells.entry((row, column)).or_default() += 1;
            table.rows[row] += 1;
            table.columns[column] += 1;
        }
        table
    }

    /// Classes and clusters without records do not count as such.
    fn of_counts(counts: &[u64], n_clusters: usize) -> Table {
        let n_classes = counts.len() / n_clusters;
        let mut table = Table {
            n: counts.iter().sum(),
            cells: BTreeMap::new(),
            rows: vec![0; n_classes],
            columns: vec![0; n_clusters],
        };
        for (at, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (row, column) = (at / n_clusters, at % n_clusters);
            table.cells.insert((row, column), count);
            table.rows[row] += count;
            table.columns[column] += count;
        }
        table.rows.retain(|&sum| sum > 0);
        table.columns.retain(|&sum| sum > 0);
        table
    }

    /// Whether both partitions are of one part, or both of single records.
    fn is_trivial(&self) -> bool {
        let singletons = |sums: &[u64]| sums.iter().all(|&sum| sum == 1);
        (self.rows.len() <= 1 && self.columns.len() <= 1) || (singletons(&self.rows) && singletons(&self.columns))
    }

    fn ari(&self) -> f64 {
        if self.is_trivial() {
            return 1.0;
        }
        let pairs = |n: u64| 0.5 * n as f64 * (n as f64 - 1.0);
        let both: f64 = self.cells.values().map(|&n| pairs(n)).sum();
        let of_classes: f64 = self.rows.iter().map(|&n| pairs(n)).sum();
        let of_clusters: f64 = self.columns.iter().map(|&n| pairs(n)).sum();
        let expected = of_classes * of_clusters / pairs(self.n);
        (both - expected) / (0.5 * (of_classes + of_clusters) - expected)
    }

    /// Nats.
    fn mutual_information(&self) -> f64 {
        let n = self.n as f64;
        let of_cell = |(&(row, column), &count): (&(usize, usize), &u64)| {
            let (count, a, b) = (count as f64, self.rows[row] as f64, self.columns[column] as f64);
            count / n * libm::log(count * n / (a * b))
        };
        self.cells.iter().map(of_cell).sum::<f64>().max(0.0)
    }

    /// Mean of the mutual information over all tables with these margins.
    fn expected_information(&self) -> f64 {
        let n = self.n;
        let factorials = Factorials::up_to(n);
        let ln = |count: u64| factorials.ln(count);
        let mut sum = 0.0;
        for &a in &self.rows {
            for &b in &self.columns {
                for count in (a + b).saturating_sub(n).max(1)..=a.min(b) {
                    let information =
                        count as f64 / n as f64 * libm::log(n as f64 * count as f64 / (a as f64 * b as f64));
                    let ways = ln(a) + ln(b) + ln(n - a) + ln(n - b)
                        - ln(n)
                        - ln(count)
                        - ln(a - count)
                        - ln(b - count)
                        - ln(n + count - a - b);
                    sum += information * libm::exp(ways);
                }
            }
        }
        sum
    }
}

/// ln 0!, ln 1!, …
struct Factorials(Vec<f64>);

impl Factorials {
    fn up_to(n: u64) -> Factorials {
        Factorials((0..=n).map(|k| libm::lgamma(k as f64 + 1.0)).collect())
    }

    fn ln(&self, k: u64) -> f64 {
        self.0[k as usize]
    }
}

/// Nats.
fn entropy(sums: &[u64], n: u64) -> f64 {
    let share = |&sum: &u64| sum as f64 / n as f64;
    sums.iter().map(share).filter(|&p| p < 1.0).map(|p| -p * libm::log(p)).sum()
}

/// Of each point: how much nearer its own class is than the next, −1 to 1; 0 in a class of one. `points`: `[n, d]`.
pub fn silhouette(points: &Matrix<f32>, classes: &[u32]) -> Vec<f64> {
    let mut names = classes.to_vec();
    names.sort_unstable();
    names.dedup();
    let distance = |i: usize, j: usize| {
        let squares = points.row(i).iter().zip(points.row(j)).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let of_point = |i: usize| {
        let mut sums = vec![(0.0, 0u64); names.len()];
        for j in (0..classes.len()).filter(|&j| j != i) {
            let class = names.binary_search(&classes[j]).expect("all classes are there");
            sums[class] = (sums[class].0 + distance(i, j), sums[class].1 + 1);
        }
        let own = names.binary_search(&classes[i]).expect("all classes are there");
        let mean = |(sum, n): (f64, u64)| sum / n as f64;
        let others = sums.iter().enumerate().filter(|&(k, of)| k != own && of.1 > 0).map(|(_, &of)| mean(of));
        let (a, b) = (mean(sums[own]), others.fold(f64::INFINITY, f64::min));
        if sums[own].1 == 0 || b == f64::INFINITY { 0.0 } else { (b - a) / a.max(b) }
    };
    (0..classes.len()).into_par_iter().map(of_point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance 5e-11: the references are printed with 10 decimals.
    fn check(classes: &[u32], clusters: &[u32], expected: [f64; 4]) {
        let found = agreement(classes, clusters);
        let found = [found.ari, found.nmi, found.ami, found.homogeneity];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 5e-11, "{found} against {expected} of {classes:?} / {clusters:?}");
        }
    }

    #[test]
    fn partitions_agree_as_in_the_table() {
        let expected = [0.2380952381, 0.5588730382, 0.3196726506, 0.5588730382];
        check(&[0, 0, 0, 1, 1, 1, 2, 2], &[0, 0, 1, 1, 1, 2, 2, 2], expected);
        check(&[0, 0, 1, 2], &[5, 5, 3, 9], [1.0; 4]);
        check(&[0, 0, 1, 1], &[0, 1, 0, 1], [-0.5, 0.0, -0.5, 0.0]);
        check(&[0, 0, 1, 2], &[0, 0, 1, 1], [0.5714285714, 0.8, 0.5714285714, 0.6666666667]);
    }

    #[test]
    fn counts_alone_tell_as_much_as_the_records() {
        let (classes, clusters) = ([0, 0, 0, 1, 1, 1, 3, 3], [0, 0, 1, 1, 1, 2, 2, 2]);
        let mut counts = [0; 4 * 3];
        classes.iter().zip(clusters).for_each(|(&class, cluster)| counts[(class * 3 + cluster) as usize] += 1);
        assert_eq!(adjusted_rand(&counts, 3), agreement(&classes, &clusters).ari);
        assert_eq!(adjusted_rand(&[0, 4, 0, 0], 2), 1.0);
    }

    #[test]
    fn trivial_partitions_have_a_value() {
        check(&[7, 7, 7], &[1, 1, 1], [1.0; 4]);
        check(&[1, 2, 3], &[3, 1, 2], [1.0; 4]);
        check(&[0, 0, 0, 0], &[0, 1, 2, 3], [0.0, 0.0, 0.0, 1.0]);
        check(&[0, 0, 1, 1], &[0, 0, 0, 0], [0.0; 4]);
    }

    #[test]
    fn a_point_is_near_its_class_as_in_the_table() {
        let points = Matrix { n_cols: 2, values: vec![0., 0., 1., 0., 0., 1., 1., 1., 2., 1.] };
        let found = silhouette(&points, &[0, 0, 0, 1, 1]);
        for (found, expected) in found.iter().zip([0.45209706, 0.0, 0.19526215, 0.12132034, 0.46905300]) {
            // The references' eighth decimal is cut, not rounded: the last is 0.4690530058.
            assert!((found - expected).abs() < 1e-8, "{found} against {expected}");
        }
        assert!((found.iter().sum::<f64>() / 5.0 - 0.2475465104).abs() < 5e-11);
    }
}
