//! One imputation judged in all the ways of `spotdiff.md` §6 and §6.1: genes, markers, measured and imputed spots as two sets,
//! clusters against labels, more and more hidden. Numbers in, numbers out; `report::imputation` shows them.

use rayon::prelude::*;
use syncytia_shards::processed::Matrix;

use super::domains::{self, Domains};
use super::entry_fills::{EntryFill, Given};
use super::gene_metrics::{Entries, Flat, GeneScore, Metric, OverGenes, Undefined, flat, over_genes, per_gene};
use super::markers::{Marker, marker};
use super::mean_discrepancy::{Discrepancy, mean_discrepancy};
use super::pca;
use super::standard::Scale;

/// How genes were hidden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Protocol {
    /// Whole genes in turn, in this many folds: predicted from the others and a reference, scored on all spots.
    GeneFolds(u32),
    /// This share of all entries, zeros included: scored there alone.
    Entries(f64),
}

impl Protocol {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::GeneFolds(_) => "gene_folds",
            Protocol::Entries(_) => "entries",
        }
    }
}

/// What everything is held against: only the evaluator has it.
#[derive(Debug, Clone, Copy)]
pub struct Truth<'a> {
    /// `[n, G]`: as measured; not finite where it was not.
    pub values: &'a Matrix<f32>,
    /// Names of the genes.
    pub genes: &'a [String],
    /// How they were hidden.
    pub protocol: Protocol,
    /// Which entries; none under gene folds, where all are scored.
    pub hidden: Option<&'a Matrix<bool>>,
    /// Genes whose distributions are told.
    pub markers: &'a [String],
    /// Class of each spot `[n]`, where there are labels.
    pub classes: Option<&'a [u32]>,
}

impl<'a> Truth<'a> {
    /// What is scored.
    pub fn entries(&self) -> Entries<'a> {
        self.hidden.map_or(Entries::All, Entries::Hidden)
    }

    /// Measured where it was visible, imputed where it was hidden (everywhere, under gene folds); 0 of what is neither.
    pub fn completed(&self, imputed: &Matrix<f32>) -> Matrix<f32> {
        let hidden =
            |at: usize| self.hidden.is_none_or(|hidden| hidden.values[at] || !self.values.values[at].is_finite());
        let value = |at: usize| if hidden(at) { imputed.values[at] } else { self.values.values[at] };
        let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
        let values = (0..imputed.values.len()).map(|at| finite(value(at))).collect();
        Matrix { n_cols: imputed.n_cols, values }
    }

    /// What was measured; 0 where nothing was.
    fn measured(&self) -> Matrix<f32> {
        let values = self.values.values.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        Matrix { n_cols: self.values.n_cols, values }
    }
}

/// Measured and imputed spots on the same two axes, and how far apart they are as sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Joint {
    /// `[n, 2]` of measured, then of imputed spots: principal components of both together.
    pub places: [Matrix<f32>; 2],
    /// Over the first 30 components; none where all spots are equal.
    pub discrepancy: Option<Discrepancy>,
}

/// All that is said of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Stable name.
    pub name: String,
    /// In words.
    pub what: String,
    /// Every metric over genes, in the order of [`Metric::ALL`].
    pub metrics: Vec<(Metric, OverGenes)>,
    /// All scored entries as one vector.
    pub flat: Flat,
    /// Gene by gene; none where a gene was left out.
    pub genes: Vec<Option<GeneScore>>,
    /// The markers that the method has values for.
    pub markers: Vec<Marker>,
    /// Beside the measured spots.
    pub joint: Joint,
    /// Clusters of the completed spots against the classes.
    pub clustered: Option<Domains>,
}

impl Judged {
    /// A metric over genes.
    pub fn over_genes(&self, metric: Metric) -> &OverGenes {
        let at = self.metrics.iter().find(|(of, _)| *of == metric);
        &at.expect("every metric is there").1
    }
}

/// Judges a method's values `[n, G]`, in the truth's space where the protocol allows one.
pub fn judge(truth: &Truth, name: &str, what: &str, imputed: &Matrix<f32>) -> Judged {
    let entries = truth.entries();
    let genes = per_gene(truth.values, imputed, entries, Undefined::Ours);
    let of_marker = |name: &String| {
        let at = truth.genes.iter().position(|gene| gene == name)?;
        marker(name, at, truth.values, imputed, entries)
    };
    let completed = truth.completed(imputed);
    Judged {
        name: name.to_owned(),
        what: what.to_owned(),
        metrics: Metric::ALL.into_iter().map(|metric| (metric, over_genes(&genes, metric))).collect(),
        flat: flat(truth.values, imputed, entries),
        markers: truth.markers.iter().filter_map(of_marker).collect(),
        joint: joint(truth, &completed),
        clustered: truth.classes.map(|classes| domains::against_classes(&completed, classes)),
        genes,
    }
}

/// The measured expression clustered: what every method is beside.
pub fn raw_clusters(truth: &Truth) -> Option<Domains> {
    truth.classes.map(|classes| domains::against_classes(&truth.measured(), classes))
}

/// Each gene in its deviations from its mean: under random entries those of what was measured on both sides, under gene folds
/// each side's own, for a gene that no spot showed has no unit there.
fn joint(truth: &Truth, completed: &Matrix<f32>) -> Joint {
    let measured = truth.measured();
    let of_measured = Scale::of(&measured);
    let of_completed = match truth.protocol {
        Protocol::GeneFolds(_) => Scale::of(completed),
        Protocol::Entries(_) => of_measured.clone(),
    };
    let mut both = of_measured.apply(&measured);
    both.values.extend(of_completed.apply(completed).values);
    let scores = pca::scores(&both, domains::COMPONENTS);
    let n = measured.n_rows();
    let half = |from: usize, width: usize| -> Matrix<f32> {
        let width = width.min(scores.n_cols);
        Matrix { n_cols: width, values: (from..from + n).flat_map(|i| &scores.row(i)[..width]).copied().collect() }
    };
    let all = scores.n_cols;
    Joint { places: [half(0, 2), half(n, 2)], discrepancy: mean_discrepancy(&half(0, all), &half(n, all), 0) }
}

/// Shares of the entries that are hidden in turn, beside the shards' own.
pub const FRACTIONS: [f64; 4] = [0.1, 0.3, 0.5, 0.7];

/// What there is where some share of all entries is hidden.
#[derive(Debug)]
pub struct Sparse {
    /// The share.
    pub hidden: f64,
    /// `[n, G]`: what is visible, 0 elsewhere.
    pub values: Matrix<f32>,
    /// `[n, G]`: whether it is.
    pub visible: Matrix<bool>,
    /// Where the spots are.
    pub xyz: Vec<[f32; 3]>,
    /// `[n, G]`: as measured, in the unit of `values`; only what is scored is read.
    pub truth: Matrix<f32>,
    /// `[n, G]`: what is scored: hidden here, and from whoever learned.
    pub scored: Matrix<bool>,
    /// What models made of it by name, `[n, G]` each.
    pub models: Vec<(&'static str, Matrix<f32>)>,
}

/// One method where that share was hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Share of all entries.
    pub hidden: f64,
    /// Method.
    pub method: String,
    /// Pearson's r over genes, on scored entries.
    pub pcc: OverGenes,
}

/// The models, then every simple fill, of the same visible entries and on the same scored ones.
pub fn points(sparse: &Sparse) -> Vec<Point> {
    let shows = |at: usize| sparse.visible.values[at] && sparse.scored.values[at];
    assert!(!(0..sparse.visible.values.len()).any(shows), "what is scored is hidden");
    let given = Given { values: &sparse.values, visible: &sparse.visible, xyz: &sparse.xyz };
    let point = |method: &str, imputed: &Matrix<f32>| {
        let scores = per_gene(&sparse.truth, imputed, Entries::Hidden(&sparse.scored), Undefined::Ours);
        Point { hidden: sparse.hidden, method: method.to_owned(), pcc: over_genes(&scores, Metric::Pcc) }
    };
    let models = sparse.models.iter().map(|(name, imputed)| point(name, imputed));
    let fills: Vec<Point> = EntryFill::ALL.par_iter().map(|fill| point(fill.name(), &fill.fill(&given))).collect();
    models.chain(fills).collect()
}

#[cfg(test)]
mod tests {
    use syncytia_shards::draw::{DrawKey, Purpose, bernoulli};

    use super::*;

    /// 120 spots of three kinds on a line, 12 genes.
    fn spots() -> (Matrix<f32>, Vec<[f32; 3]>, Vec<u32>) {
        let value = |i: usize, g: usize| {
            let kind = i / 40;
            3.0 + 2.0 * ((kind * 5 + g) as f32).sin() + 0.2 * ((i * 31 + g * 17) as f32).sin()
        };
        let values = (0..120).flat_map(|i| (0..12).map(move |g| value(i, g))).collect();
        let xyz = (0..120).map(|i| [i as f32, 0.0, 0.0]).collect();
        (Matrix { n_cols: 12, values }, xyz, (0..120).map(|i| i / 40).collect())
    }

    fn hidden_at(fraction: f64) -> Matrix<bool> {
        let key = DrawKey::new(1, Purpose::Synthetic);
        Matrix { n_cols: 12, values: (0..1440).map(|at| bernoulli(key.word(at, [0; 3]), fraction)).collect() }
    }

    fn genes() -> Vec<String> {
        (0..12).map(|g| format!("gene{g}")).collect()
    }

    #[test]
    fn a_good_imputation_beats_a_bad_one_in_all_that_is_said() {
        let (values, xyz, classes) = spots();
        let (hidden, genes) = (hidden_at(0.5), genes());
        let truth = Truth {
            values: &values,
            genes: &genes,
            protocol: Protocol::Entries(0.5),
            hidden: Some(&hidden),
            markers: &["gene3".to_owned(), "absent".to_owned()],
            classes: Some(&classes),
        };
        let visible = Matrix { n_cols: 12, values: hidden.values.iter().map(|h| !h).collect() };
        let given = Given { values: &values, visible: &visible, xyz: &xyz };
        let of = |fill: EntryFill| judge(&truth, fill.name(), fill.what(), &fill.fill(&given));
        let (good, bad) = (of(EntryFill::SpatialKnn), of(EntryFill::GeneMean));
        assert!(good.over_genes(Metric::Pcc).mean > 0.9 && bad.over_genes(Metric::Pcc).mean == 0.0);
        assert!(good.flat.mse < bad.flat.mse && good.markers.len() == 1);
        let apart = |of: &Judged| of.joint.discrepancy.unwrap().value;
        assert!(apart(&good) < apart(&bad), "{} {}", apart(&good), apart(&bad));
        assert!(good.clustered.unwrap().clustered.seeds[0].ari > 0.99);
        assert_eq!(raw_clusters(&truth).unwrap().clustered.seeds[0].ari, 1.0);
        // What was visible stays as it was.
        let completed = truth.completed(&Matrix { n_cols: 12, values: vec![-7.0; 1440] });
        let kept = |at: usize| completed.values[at] == if hidden.values[at] { -7.0 } else { values.values[at] };
        assert!((0..1440).all(kept));
    }

    #[test]
    fn the_more_is_hidden_the_less_the_places_tell_and_every_method_is_scored_on_the_same_entries() {
        let (truth, xyz, _) = spots();
        let at = |hidden: f64| {
            let scored = hidden_at(hidden);
            let visible = Matrix { n_cols: 12, values: scored.values.iter().map(|h| !h).collect::<Vec<bool>>() };
            let shown = |(value, open): (&f32, &bool)| if *open { *value } else { 0.0 };
            let values = truth.values.iter().zip(&visible.values).map(shown).collect();
            // Half of the entries are not scored: what a model says of them does not matter.
            let mut told = truth.clone();
            told.values.iter_mut().step_by(2).for_each(|v| *v = f32::NAN);
            let scored = scored.values.iter().enumerate().map(|(at, h)| *h && at % 2 == 1).collect();
            Sparse {
                hidden,
                values: Matrix { n_cols: 12, values },
                visible,
                xyz: xyz.clone(),
                truth: truth.clone(),
                scored: Matrix { n_cols: 12, values: scored },
                models: vec![("all-knowing", told)],
            }
        };
        let found: Vec<Point> = FRACTIONS.iter().flat_map(|&share| points(&at(share))).collect();
        let of = |method: &str| -> Vec<(f64, f64)> {
            found.iter().filter(|p| p.method == method).map(|p| (p.hidden, p.pcc.mean)).collect()
        };
        let near = of("spatial_knn");
        assert_eq!(near.iter().map(|p| p.0).collect::<Vec<_>>(), FRACTIONS);
        assert!(near[0].1 > near[3].1 && near[3].1 > 0.5, "{near:?}");
        assert!(of("gene_mean").iter().all(|p| p.1 == 0.0));
        assert!(of("all-knowing").iter().all(|p| (p.1 - 1.0).abs() < 1e-6), "{:?}", of("all-knowing"));
        let mut shown = at(0.3);
        shown.visible.values[1..].fill(true);
        assert!(std::panic::catch_unwind(|| points(&shown)).is_err(), "a scored entry was visible");
    }
}
