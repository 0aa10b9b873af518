//! What an evaluation of an imputation found, as findings: genes, more and more hidden, clusters, markers, both sets of spots on one
//! picture, and what was published, under that word.

pub mod published;
mod tables;

use std::collections::BTreeMap;

use super::chart::{self, Legend, Line};
use super::findings::{Findings, Gallery, Key, Picture};
use super::map::{self, Scale};
use crate::evaluate::domains::Domains;
use crate::evaluate::gene_metrics::Metric;
use crate::evaluate::imputation::{Judged, Point, Protocol, Truth};

/// Everything that was judged.
#[derive(Debug)]
pub struct Report<'a> {
    /// What it is held against.
    pub truth: Truth<'a>,
    /// Name of the data set; where the paper has it, its column is shown.
    pub data_set: &'a str,
    /// Evaluated split.
    pub split: &'a str,
    /// The model first, then other models, then the fills.
    pub methods: &'a [Judged],
    /// How many of them are the model's own, by several readouts.
    pub own: usize,
    /// How many after them are other trained models.
    pub beside: usize,
    /// What the model imputed, `[n, G]`: shown on maps of markers.
    pub imputed: &'a syncytia_shards::processed::Matrix<f32>,
    /// Clusters of what was measured.
    pub raw: Option<Domains>,
    /// Less and more hidden; empty where it was not asked for.
    pub sweep: &'a [Point],
    /// Where spots are, on the page.
    pub xy: &'a [[f64; 2]],
    /// First paragraph.
    pub lead: String,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// What makes the numbers again.
    pub provenance: BTreeMap<String, String>,
}

/// Markers that are shown on the tissue.
const MAPS: usize = 6;
/// The model's colour, then the fills'.
const COLOURS: [&str; 6] = ["#0b6", "#25c", "#c60", "#a3a", "#777", "#0aa"];

impl Report<'_> {
    /// Tables, pictures and words.
    pub fn findings(&self) -> Findings {
        let model = &self.methods[0];
        Findings {
            task: "imputation".to_owned(),
            split: self.split.to_owned(),
            protocol: self.truth.protocol.name().to_owned(),
            title: format!("{}: imputed expression of {}", model.name, self.data_set),
            lead: self.lead.clone(),
            verdict: self.verdict(),
            notes: self
                .notes
                .iter()
                .cloned()
                .chain([self.compared(), self.left_out()])
                .filter(|n| !n.is_empty())
                .collect(),
            model: model.name.clone(),
            tables: tables::all(self),
            galleries: self.galleries(),
            provenance: self.provenance.clone(),
        }
    }

    /// Does the model beat what is simple? By the mean PCC over genes, the metric of the paper's tables.
    fn verdict(&self) -> String {
        let (others, fills) = self.methods[self.own..].split_at(self.beside);
        let model = &self.methods[0];
        let pcc = |of: &Judged| of.over_genes(Metric::Pcc).mean;
        let (beaten, not): (Vec<&Judged>, Vec<&Judged>) = fills.iter().partition(|fill| pcc(model) > pcc(fill));
        let named =
            |of: &[&Judged]| of.iter().map(|f| format!("{} ({:.4})", f.name, pcc(f))).collect::<Vec<_>>().join(", ");
        let mut said = format!("Mean PCC over genes {:.4}: ", pcc(model));
        said += &match (beaten.is_empty(), not.is_empty()) {
            (_, true) => format!("above all {} simple fills.", fills.len()),
            (true, false) => format!("above none of the simple fills: {}.", named(&not)),
            (false, false) => {
                format!("above {} of {} simple fills, not above {}.", beaten.len(), fills.len(), named(&not))
            }
        };
        if !others.is_empty() {
            said += &format!(" Trained here beside it: {}.", named(&others.iter().collect::<Vec<_>>()));
        }
        said
    }

    /// Which published column this may be held against, and why.
    fn compared(&self) -> String {
        let Some(at) = published::column_of(self.data_set) else {
            return "The paper has no figures of this data set.".to_owned();
        };
        let name = published::DATA_SETS[at];
        match self.truth.protocol {
            Protocol::GeneFolds(_) => format!(
                "To be held against the published column {name}: its size fits whole genes predicted from cells (simple fills reach it \
                 there), not entries hidden at random."
            ),
            Protocol::Entries(_) => format!(
                "Not to be held against the published column {name}, though the paper's text says random entries: on FISH the mean of \
                 ten spatial neighbours is .948 here and the paper's best .6215. Its figures are shown for the record."
            ),
        }
    }

    /// Genes that were not scored, in words; empty where all were.
    fn left_out(&self) -> String {
        let of = self.methods[0].over_genes(Metric::Pcc);
        if of.n_skipped == 0 {
            return String::new();
        }
        format!(
            "{} of {} genes are not scored: fewer than three scored entries.",
            of.n_skipped,
            of.n_used + of.n_skipped
        )
    }

    fn galleries(&self) -> Vec<Gallery> {
        let mut galleries = vec![self.joint()];
        galleries.extend((!self.sweep.is_empty()).then(|| self.sparse()));
        galleries.extend((!self.methods[0].markers.is_empty()).then(|| self.maps()));
        galleries
    }

    /// Measured and imputed spots on the same two components.
    fn joint(&self) -> Gallery {
        let picture = |of: &Judged| {
            let places = &of.joint.places;
            let at = |side: usize, i: usize| {
                let row = places[side].row(i);
                [f64::from(row[0]), f64::from(row.get(1).copied().unwrap_or(0.0))]
            };
            let n = places[0].n_rows();
            // By turns, so that neither set covers the other.
            let order = || (0..n).flat_map(|i| [(0, i), (1, i)]);
            let xy: Vec<[f64; 2]> = order().map(|(side, i)| at(side, i)).collect();
            let sides: Vec<Option<u32>> = order().map(|(side, _)| Some(side as u32)).collect();
            let apart = of.joint.discrepancy.map_or("–".to_owned(), |d| format!("{:.4}", d.value));
            Picture {
                file: format!("joint-{}.png", of.name),
                caption: format!("{}: MMD² {apart}", of.name),
                bytes: map::classes_png(&xy, &sides),
            }
        };
        let scale = match self.truth.protocol {
            Protocol::GeneFolds(_) => "each gene in the deviations of its own side",
            Protocol::Entries(_) => "each gene in the deviations of what was measured",
        };
        Gallery {
            title: "Measured and imputed spots together".to_owned(),
            note: format!(
                "The first two principal components of both, {scale}. MMD²: unbiased, Gaussian kernel at the median distance, over {} \
                 components; 0 of equal sets.",
                crate::evaluate::domains::COMPONENTS
            ),
            legend: [(0, "measured"), (1, "imputed")]
                .map(|(class, name)| Key { colour: map::class_css(class), name: name.to_owned() })
                .to_vec(),
            width_px: 320,
            pictures: self.methods.iter().map(picture).collect(),
        }
    }

    /// PCC over the share hidden.
    fn sparse(&self) -> Gallery {
        let names: Vec<&str> = tables::methods_of(self.sweep);
        let points = |name: &str| {
            self.sweep.iter().filter(|p| p.method == name).map(|p| (100.0 * p.hidden, p.pcc.mean)).collect::<Vec<_>>()
        };
        let lines: Vec<Line> =
            names.iter().zip(COLOURS).map(|(&name, colour)| Line { name, colour, points: points(name) }).collect();
        let svg = chart::lines(&lines, "% of entries hidden", Legend::Right);
        Gallery {
            title: "Sparse data: mean PCC".to_owned(),
            note: tables::SPARSE.to_owned(),
            legend: Vec::new(),
            width_px: 440,
            pictures: vec![Picture { file: "sparse.svg".to_owned(), caption: String::new(), bytes: svg.into_bytes() }],
        }
    }

    /// Markers on the tissue, measured and imputed.
    fn maps(&self) -> Gallery {
        let column = |of: &syncytia_shards::processed::Matrix<f32>, gene: usize| -> Vec<Option<f32>> {
            (0..of.n_rows()).map(|i| Some(of.row(i)[gene]).filter(|v| v.is_finite())).collect()
        };
        let range = |values: &[Option<f32>]| {
            let of = |f: fn(f32, f32) -> f32, start| values.iter().flatten().copied().fold(start, f);
            Scale::Sequential(of(f32::min, f32::INFINITY), of(f32::max, f32::NEG_INFINITY))
        };
        let pair = |name: &String| {
            let gene = self.truth.genes.iter().position(|gene| gene == name)?;
            let picture = |side: &str, values: Vec<Option<f32>>| Picture {
                file: format!("marker-{gene}-{side}.png"),
                caption: format!("{name}, {side}"),
                bytes: map::png(self.xy, &values, range(&values)),
            };
            Some([picture("measured", column(self.truth.values, gene)), picture("imputed", column(self.imputed, gene))])
        };
        Gallery {
            title: "Markers on the tissue".to_owned(),
            note: format!("By {}; each picture over its own range of values.", self.methods[0].name),
            legend: Vec::new(),
            width_px: 260,
            pictures: self.methods[0].markers.iter().take(MAPS).filter_map(|m| pair(&m.gene)).flatten().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
