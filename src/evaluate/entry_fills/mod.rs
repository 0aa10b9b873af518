//! Simple ways to entries hidden at random (`evaluation.md` §10, random entries): a closed set, each sees the visible entries only.
//!
//! To add one: a file here, a variant, an arm in `name`, `what` and `fill`.

mod spatial_knn;
mod svd10;

use syncytia_shards::processed::Matrix;

/// What a fill may see.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// `[n, G]`: values; what stands at a hidden entry is not read.
    pub values: &'a Matrix<f32>,
    /// `[n, G]`: measured and not hidden.
    pub visible: &'a Matrix<bool>,
    /// Where the spots are; a plane has z = 0.
    pub xyz: &'a [[f32; 3]],
}

/// A simple fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryFill {
    /// Mean of a gene's visible values.
    GeneMean,
    /// Mean over the 10 nearest spots.
    SpatialKnn,
    /// 20 rounds of a rank-10 SVD.
    Svd10,
}

impl EntryFill {
    /// All, in the order of the report.
    pub const ALL: [EntryFill; 3] = [EntryFill::GeneMean, EntryFill::SpatialKnn, EntryFill::Svd10];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            EntryFill::GeneMean => "gene_mean",
            EntryFill::SpatialKnn => "spatial_knn",
            EntryFill::Svd10 => "svd10",
        }
    }

    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            EntryFill::GeneMean => "mean of a gene's visible values",
            EntryFill::SpatialKnn => "mean of the visible values of the 10 nearest spots",
            EntryFill::Svd10 => "rank-10 SVD, hidden entries put back 20 times",
        }
    }

    /// Values for every entry, `[n, G]`.
    pub fn fill(self, given: &Given) -> Matrix<f32> {
        match self {
            EntryFill::GeneMean => gene_mean(given),
            EntryFill::SpatialKnn => spatial_knn::fill(given),
            EntryFill::Svd10 => svd10::fill(given),
        }
    }
}

fn gene_mean(given: &Given) -> Matrix<f32> {
    let row: Vec<f32> = means(given).into_iter().map(|mean| mean as f32).collect();
    Matrix { n_cols: row.len(), values: row.repeat(given.values.n_rows()) }
}

/// Mean of each gene's visible values; 0 of a gene without any.
fn means(given: &Given) -> Vec<f64> {
    let genes = given.values.n_cols;
    let of = |gene: usize| {
        let visible = (gene..given.values.values.len()).step_by(genes).filter(|&at| given.visible.values[at]);
        let (sum, n) = visible.fold((0.0, 0u64), |(sum, n), at| (sum + f64::from(given.values.values[at]), n + 1));
        sum / n.max(1) as f64
    };
    (0..genes).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six spots on a line, two genes; hidden entries hold 1e9, which no fill may show.
    fn given() -> (Matrix<f32>, Matrix<bool>, Vec<[f32; 3]>) {
        let values = Matrix { n_cols: 2, values: vec![1., 2., 2., 4., 1e9, 6., 4., 8., 5., 1e9, 6., 12.] };
        let visible = Matrix { n_cols: 2, values: values.values.iter().map(|v| *v < 1e8).collect() };
        (values, visible, (0..6).map(|i| [0.0, 0.0, i as f32]).collect())
    }

    #[test]
    fn hidden_values_reach_no_fill() {
        let (values, visible, xyz) = given();
        let mut other = values.clone();
        other.values.iter_mut().zip(&visible.values).filter(|(_, v)| !**v).for_each(|(x, _)| *x = f32::NAN);
        for fill in EntryFill::ALL {
            let of = |values: &Matrix<f32>| fill.fill(&Given { values, visible: &visible, xyz: &xyz });
            let found = of(&values);
            assert_eq!(found, of(&other), "{}", fill.name());
            assert!(found.values.iter().all(|v| v.abs() < 100.0), "{}: {found:?}", fill.name());
        }
    }

    #[test]
    fn a_spot_is_the_mean_of_the_others_and_a_gene_its_own_mean() {
        let (values, visible, xyz) = given();
        let of = |fill: EntryFill| fill.fill(&Given { values: &values, visible: &visible, xyz: &xyz });
        assert_eq!(of(EntryFill::GeneMean).row(2)[0], 3.6);
        // Fewer than ten others: all of them. Gene 0 of spot 0: (2 + 4 + 5 + 6) / 4.
        assert_eq!(of(EntryFill::SpatialKnn).row(0), [4.25, 7.5]);
    }

    #[test]
    fn the_ten_nearest_are_counted_in_three_dimensions() {
        // Two layers of 11 spots at the same (x, y): without z the other layer would be as near.
        let xyz: Vec<[f32; 3]> = (0..22).map(|i| [(i % 11) as f32, 0.0, if i < 11 { 0.0 } else { 1000.0 }]).collect();
        let values = Matrix { n_cols: 1, values: (0..22).map(|i| if i < 11 { 1.0 } else { 9.0 }).collect() };
        let visible = Matrix { n_cols: 1, values: vec![true; 22] };
        let found = EntryFill::SpatialKnn.fill(&Given { values: &values, visible: &visible, xyz: &xyz });
        assert_eq!(found.values, values.values);
    }

    /// 40 × 15 entries of which three in eleven are hidden, by `numpy.linalg.svd` in the same 20 rounds. Tolerance: values in and
    /// out are f32.
    #[test]
    fn the_svd_is_numpys() {
        let value = |i: usize, g: usize| {
            let (i, g) = (i as f64, g as f64);
            ((i * 0.37).sin() * (g * 0.9).cos() + (i * 0.11 + g).cos()) as f32
        };
        let values = Matrix { n_cols: 15, values: (0..600).map(|at| value(at / 15, at % 15)).collect() };
        let visible = Matrix { n_cols: 15, values: (0..600).map(|at| at * 7 % 11 >= 3).collect() };
        let found = EntryFill::Svd10.fill(&Given { values: &values, visible: &visible, xyz: &[[0.0; 3]; 40] });
        let known =
            [(0, 0, 0.0604636), (12, 4, 0.0914898), (24, 8, -0.0531904), (36, 10, 0.4165129), (0, 1, 0.5581517)];
        for (i, g, known) in known {
            let ours = found.row(i)[g];
            assert!((ours - known).abs() < 2e-6, "({i}, {g}): {ours} against {known}");
        }
    }
}
