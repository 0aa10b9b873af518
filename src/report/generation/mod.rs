//! What an evaluation of painted pictures found, as findings: tables by method, histograms of shapes, a contact sheet.

mod strip;
mod verdict;

use std::collections::BTreeMap;

use super::findings::{Better, Column, Findings, Gallery, Key, Picture, Row, Score, Table};
use super::histogram::{self, histogram};
use crate::evaluate::generation::Pictures;
use crate::evaluate::generation::ks_score::ks_score;
use crate::evaluate::generation::scores::{FeatureScores, Measured, Scores};
use crate::evaluate::metrics::Figure;
use crate::evaluate::shape::{NAMES, UNITS};

/// Cells of the contact sheet.
const SHEET: usize = 24;

/// A way to paint pictures of cells, and what it is worth.
#[derive(Debug)]
pub struct Method {
    /// Stable name.
    pub name: &'static str,
    /// What it is, in words.
    pub what: String,
    /// In what the model is to beat it.
    pub compared: Compared,
    /// Its scores.
    pub scores: Scores,
}

/// What a comparison with a method can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Cell by cell and as a set.
    All,
    /// Cell by cell alone: it is the same set but for noise.
    CellByCell,
}

/// Everything that was judged.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The model first, then the fills that it is to beat.
    pub methods: Vec<Method>,
    /// Real pictures beside other real ones of the split.
    pub noise: Method,
    /// The cells' names.
    pub names: &'a [String],
    /// The real pictures.
    pub real: &'a Measured,
    /// What the model painted.
    pub painted: &'a Measured,
    /// Pictures beside the painted one on the contact sheet, and what they are.
    pub beside: Vec<(&'static str, &'a Pictures)>,
    /// Evaluated split.
    pub split: String,
    /// Its cells.
    pub n_records: usize,
    /// First paragraph.
    pub lead: String,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// What makes the numbers again.
    pub provenance: BTreeMap<String, String>,
}

impl Judged<'_> {
    /// Tables, pictures and words.
    pub fn findings(&self) -> Findings {
        let (model, fills) = self.methods.split_first().expect("the model is judged");
        Findings {
            task: "generate".to_owned(),
            split: self.split.clone(),
            protocol: "genes_to_picture".to_owned(),
            title: format!("{}: pictures of cells from their genes", model.name),
            lead: self.lead.clone(),
            verdict: verdict::verdict(&model.scores, &fills.iter().collect::<Vec<_>>()),
            notes: self.notes.iter().cloned().chain(self.other_n()).collect(),
            model: model.name.to_owned(),
            tables: self.tables(),
            galleries: vec![self.histograms(), self.sheet()],
            provenance: self.provenance.clone(),
        }
    }

    /// Whether the noise is of as many pictures as everything else: else it is in no table, where it would be compared.
    fn noise_is_of_one_n(&self) -> bool {
        self.noise.scores.n == self.real.pictures.n()
    }

    /// The noise of another n, in words.
    fn other_n(&self) -> Option<String> {
        let scores = &self.noise.scores;
        let said = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.4}"));
        let shapes = scores.over_features(|f| f.w1_scaled).map(|mean| mean.value);
        (!self.noise_is_of_one_n()).then(|| {
            format!(
                "The noise of the figures, {} (n = {}, in no table because it is another n): W1 / sd {}, FID-rand {}, KID-rand {}. \
                 With --cells {} or fewer it would be of their own n.",
                self.noise.what,
                scores.n,
                said(shapes),
                said(scores.fid_rand),
                said(scores.kid_rand),
                self.n_records / 2
            )
        })
    }

    fn tables(&self) -> Vec<Table> {
        let per_feature = |prefix: &str, title: &str, note: &str, better, decimals, score: Each| {
            let column = |(k, name): (usize, &&str)| {
                let unit =
                    if prefix == "w1" && !UNITS[k].is_empty() { format!(" {}", UNITS[k]) } else { String::new() };
                let title = format!("{}{unit}", name.replace('_', " "));
                Column { metric: format!("{prefix}.{name}"), title, better, decimals }
            };
            let columns = NAMES.iter().enumerate().map(column).collect();
            let score = move |s: &Scores, k: usize| {
                let value = score(&s.features.as_ref()?[k])?;
                Some(figure(value, s.n_shapes(), s.without_region))
            };
            let mut table = self.table(title, note, columns, NAMES.len(), &score);
            table.rows.iter_mut().for_each(|row| row.what.clear()); // said in the first table
            table
        };
        vec![
            self.overall(),
            per_feature(
                "pcc",
                "Does this cell get its own shape? Pearson's r over cells",
                "Each feature of the painted picture against that of the cell's real one. –: one side does not vary.",
                Better::Higher,
                3,
                |f| f.pcc,
            ),
            per_feature(
                "w1_scaled",
                "Are the shapes right as a set? Wasserstein-1 in standard deviations of the real ones",
                "0: the distribution is the real one. –: the real ones do not vary.",
                Better::Lower,
                3,
                |f| f.w1_scaled,
            ),
            per_feature(
                "w1",
                "The same in the feature's unit",
                "px: of the picture that the network paints; intensities are bytes.",
                Better::Lower,
                2,
                |f| Some(f.w1),
            ),
            per_feature(
                "ks",
                "Kolmogorov–Smirnov statistic",
                "The largest difference of the cumulative shares: 0 to 1.",
                Better::Lower,
                3,
                |f| Some(f.ks),
            ),
        ]
    }

    fn overall(&self) -> Table {
        let column = |metric: &str, title: &str, better, decimals| Column {
            metric: metric.to_owned(),
            title: title.to_owned(),
            better,
            decimals,
        };
        let columns = vec![
            column("n", "n", Better::Neither, 0),
            column("without_region", "no region", Better::Neither, 0),
            column("pcc_shape", "r", Better::Higher, 3),
            column("ssim", "SSIM", Better::Higher, 3),
            column("psnr", "PSNR dB", Better::Higher, 2),
            column("w1_shape", "W1 / sd", Better::Lower, 3),
            column("swd_shape", "SWD", Better::Lower, 3),
            column("ks_score", "KS score", Better::Higher, 3),
            column("fid_rand", "FID-rand", Better::Lower, 4),
            column("kid_rand", "KID-rand", Better::Lower, 5),
        ];
        let score = |s: &Scores, k: usize| {
            let of_all = |value: f64| figure(value, s.n, 0);
            let of_shapes = |value: f64| figure(value, s.n_shapes(), s.without_region);
            let over = |each: Each| s.over_features(each).map(|mean| of_shapes(mean.value));
            match k {
                0 => Some(of_all(s.n as f64)),
                1 => Some(of_all(s.without_region as f64)),
                2 => over(|f| f.pcc),
                3 => s.ssim.map(of_all),
                4 => Some(of_all(s.psnr)),
                5 => over(|f| f.w1_scaled),
                6 => s.swd.map(of_shapes),
                7 => ks_score(&s.features.iter().flatten().map(|f| f.ks).collect::<Vec<_>>()).map(of_shapes),
                8 => s.fid_rand.map(of_all),
                _ => s.kid_rand.map(of_all),
            }
        };
        let n = columns.len();
        self.table(
            "Painted beside real pictures of the same cells",
            "r, W1 / sd and the KS score (1 − mean KS; ours) are means over the ten features of the tables below; r, SSIM and PSNR are cell by cell, \
             the others of the set. n: pictures on each side; figures of another n are not to be compared. No region: cells left out \
             of what is measured of shapes. FID-rand and KID-rand are distances of features of a convolution network with random \
             weights: comparable on this page and with runs on the same pictures, never with a published FID or KID. –: the fill \
             gives all cells one picture.",
            columns,
            n,
            &score,
        )
    }

    fn table(
        &self,
        title: &str,
        note: &str,
        columns: Vec<Column>,
        n: usize,
        score: &dyn Fn(&Scores, usize) -> Option<Score>,
    ) -> Table {
        let row = |method: &Method| Row {
            method: method.name.to_owned(),
            what: method.what.clone(),
            scores: (0..n).map(|k| score(&method.scores, k)).collect(),
        };
        let rows = self.methods.iter().chain(self.noise_is_of_one_n().then_some(&self.noise)).map(row).collect();
        Table { title: title.to_owned(), note: note.to_owned(), columns, rows }
    }

    fn histograms(&self) -> Gallery {
        let of = |measured: &Measured, k: usize| -> Vec<f64> {
            measured.shapes.iter().flatten().map(|shape| shape[k]).collect()
        };
        let picture = |(k, name): (usize, &&str)| {
            let unit = if UNITS[k].is_empty() { String::new() } else { format!(", {}", UNITS[k]) };
            let caption = format!("{}{unit}", name.replace('_', " "));
            let bytes = histogram(&of(self.real, k), &of(self.painted, k), &caption).into_bytes();
            Picture { file: format!("shape-{name}.svg"), caption, bytes }
        };
        Gallery {
            title: "Shapes, real and painted".to_owned(),
            note: "Share of the cells in each of thirty bins.".to_owned(),
            legend: vec![
                Key { colour: histogram::REAL.to_owned(), name: "real".to_owned() },
                Key { colour: histogram::COMPARED.to_owned(), name: "painted".to_owned() },
            ],
            width_px: 220,
            pictures: NAMES.iter().enumerate().map(picture).collect(),
        }
    }

    fn sheet(&self) -> Gallery {
        let (n, side) = (self.real.pictures.n(), self.real.pictures.side);
        let shown: Vec<usize> = (0..n.min(SHEET)).map(|k| k * n / n.min(SHEET)).collect();
        let stretch = strip::stretch(shown.iter().map(|&i| self.real.pictures.get(i)), self.real.pictures.channels);
        let picture = |&i: &usize| {
            let mut tiles = vec![self.real.pictures.get(i), self.painted.pictures.get(i)];
            tiles.extend(self.beside.iter().map(|(_, pictures)| pictures.get(i)));
            let (file, caption) = (format!("cell-{i:05}.png"), self.names[i].clone());
            Picture { file, caption, bytes: strip::png(&tiles, side, &stretch) }
        };
        let what: Vec<&str> =
            ["real", "painted"].into_iter().chain(self.beside.iter().map(|(what, _)| *what)).collect();
        Gallery {
            title: "Contact sheet".to_owned(),
            note: format!(
                "{} of the cells; left to right: {}. Contrast stretched per channel over the real pictures shown, the same for all.",
                shown.len(),
                what.join(" | ")
            ),
            legend: Vec::new(),
            width_px: 440,
            pictures: shown.iter().map(picture).collect(),
        }
    }
}

/// A score of a feature.
type Each = fn(&FeatureScores) -> Option<f64>;

fn figure(value: f64, n_used: usize, n_skipped: usize) -> Score {
    Score { figure: Figure { value, n_used: n_used as u64, n_skipped: n_skipped as u64 }, sd: None, se: None }
}

#[cfg(test)]
mod tests;
