//! The FISH embryo and its cells, as plain arrays: for measuring the model alone, without shards.

use std::io::Read as _;
use std::path::Path;

use syncytia::task::paired::{Paired, Side};
use syncytia_shards::matrix::Matrix;

/// Spots and cells of the same genes, each gene standardised on its own side.
pub struct Fish {
    /// `[n, G]`: spots.
    pub spots: Matrix<f64>,
    /// `[m, G]`: cells, ln(1 + counts per 10⁴).
    pub cells: Matrix<f64>,
    /// Places of the spots.
    pub places: Vec<[f32; 3]>,
    logged: [Matrix<f64>; 2],
}

impl Fish {
    /// From the folder of the data set.
    pub fn read(dir: &Path) -> Fish {
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a table of the data set");
        let numbers = |line: &str| -> Vec<f64> { line.split_whitespace().filter_map(|v| v.parse().ok()).collect() };
        let spots = text("bdtnp.txt");
        let mut lines = spots.lines();
        let genes: Vec<String> =
            lines.next().expect("a header").split_whitespace().map(|g| g.trim_matches('"').to_owned()).collect();
        let spots: Vec<f64> = lines.flat_map(numbers).collect();
        let places = text("geometry.txt");
        let places = places.lines().skip(1).map(|line| {
            let at = numbers(line);
            [at[0] as f32, at[1] as f32, at[2] as f32]
        });
        let mut counts = String::new();
        let file = std::fs::File::open(dir.join("dge_raw.txt.gz")).expect("the counts");
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut counts).expect("gzip");
        let mut totals = Vec::new();
        let mut of_gene = std::collections::HashMap::new();
        for line in counts.lines() {
            let (name, rest) = line.split_once('\t').expect("a gene and its counts");
            let values: Vec<f64> = rest.split('\t').map(|v| v.parse().expect("a count")).collect();
            totals.resize(values.len(), 0.0);
            totals.iter_mut().zip(&values).for_each(|(t, v)| *t += v);
            of_gene.insert(name.trim_matches('"').to_owned(), values);
        }
        let (n_cols, m) = (genes.len(), totals.len());
        let cell = |i: usize| {
            let (genes, of_gene, totals) = (&genes, &of_gene, &totals);
            genes.iter().map(move |g| (of_gene[g][i] / totals[i] * 1e4).ln_1p()).collect::<Vec<f64>>()
        };
        let logged = [Matrix { n_cols, values: spots }, Matrix { n_cols, values: (0..m).flat_map(cell).collect() }];
        let [spots, cells] = [0, 1].map(|i| standardised(&logged[i]));
        Fish { spots, cells, places: places.collect(), logged }
    }

    /// The pairs of a fold that hides `folded`, with the `n` nearest cells of each: those that are `moved`, or as they are.
    /// `blank`: hidden values of spots are made something else first, which must change nothing.
    pub fn paired(&self, folded: &[bool], n: usize, blank: bool, moved: Option<Matrix<f32>>) -> Paired {
        let genes = folded.len();
        let mut spots = self.spots.clone();
        if blank {
            let hidden = spots.values.iter_mut().enumerate().filter(|(at, _)| folded[at % genes]);
            hidden.for_each(|(at, v)| *v = (at % 7) as f64);
        }
        let visible: Vec<usize> = (0..genes).filter(|&g| !folded[g]).collect();
        let unit = |of: &Matrix<f32>| -> Vec<Vec<f64>> {
            let row = |i: usize| {
                let seen: Vec<f64> = visible.iter().map(|&g| f64::from(of.row(i)[g])).collect();
                let length = seen.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                seen.into_iter().map(|v| v / length).collect()
            };
            (0..of.n_rows()).map(row).collect()
        };
        let scaled = |of: &Matrix<f64>| Matrix {
            n_cols: genes,
            values: of.values.iter().map(|v| (v.clamp(-3.0, 3.0) / 3.0) as f32).collect::<Vec<f32>>(),
        };
        let (spots, cells) = (scaled(&spots), moved.unwrap_or_else(|| scaled(&self.cells)));
        let (of_spots, of_cells) = (unit(&spots), unit(&cells));
        let pairs = |asking: &[Vec<f64>], itself: bool| -> (Vec<f32>, Vec<Vec<u32>>) {
            let (mut pair, mut near) = (Vec::new(), Vec::new());
            for (i, a) in asking.iter().enumerate() {
                let cosine = |b: &Vec<f64>| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
                let mut best: Vec<(f64, usize)> =
                    of_cells.iter().map(cosine).enumerate().map(|(j, c)| (c, j)).collect();
                best.retain(|&(_, j)| !(itself && i == j));
                best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                best.truncate(n);
                let total: f64 = best.iter().map(|(c, _)| c.max(0.0)).sum();
                let mean = |g: usize| best.iter().map(|&(c, j)| c.max(0.0) * f64::from(cells.row(j)[g])).sum::<f64>();
                pair.extend((0..genes).map(|g| (mean(g) / total) as f32));
                near.push(best.iter().take(15).map(|&(_, j)| j as u32).collect());
            }
            (pair, near)
        };
        let side = |values: Vec<f32>, logged: &Matrix<f64>, hides: bool, (pair, near): (Vec<f32>, Vec<Vec<u32>>)| {
            let n = values.len() / genes;
            let bits: Vec<bool> = (0..n * genes).map(|at| !(hides && folded[at % genes])).collect();
            let shown = |of: Vec<f32>| Matrix {
                n_cols: genes,
                values: of.iter().zip(&bits).map(|(v, bit)| if *bit { *v } else { 0.0 }).collect::<Vec<f32>>(),
            };
            Side {
                ids: (0..n as u64).collect(),
                values: shown(values),
                expression: shown(logged.values.iter().map(|v| *v as f32).collect()),
                bits: Matrix { n_cols: genes, values: bits.clone() },
                pair: Matrix { n_cols: genes, values: pair },
                near,
                around: None,
                text: None,
            }
        };
        let (pair, _) = pairs(&of_spots, false);
        let spots = side(spots.values, &self.logged[0], true, (pair, self.near()));
        let cells = side(cells.values.clone(), &self.logged[1], false, pairs(&of_cells, true));
        Paired::new(spots, self.places.clone(), Some(cells), folded.to_vec(), None).expect("pairs that fit")
    }

    /// The nearest spots of each, nearest first.
    fn near(&self) -> Vec<Vec<u32>> {
        let distance = |a: [f32; 3], b: [f32; 3]| (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f32>();
        let of = |i: usize| {
            let mut all: Vec<(f32, u32)> =
                self.places.iter().enumerate().map(|(j, &at)| (distance(self.places[i], at), j as u32)).collect();
            all.retain(|&(_, j)| j as usize != i);
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            all.into_iter().take(6).map(|(_, j)| j).collect()
        };
        (0..self.places.len()).map(of).collect()
    }
}

/// Each gene less its mean, over its deviation.
fn standardised(of: &Matrix<f64>) -> Matrix<f64> {
    let (n, genes) = (of.n_rows() as f64, of.n_cols);
    let column = |g: usize| of.values.iter().skip(g).step_by(genes);
    let mean: Vec<f64> = (0..genes).map(|g| column(g).sum::<f64>() / n).collect();
    let sd: Vec<f64> =
        (0..genes).map(|g| (column(g).map(|v| (v - mean[g]).powi(2)).sum::<f64>() / n).sqrt().max(1e-12)).collect();
    let value = |(at, v): (usize, &f64)| (v - mean[at % genes]) / sd[at % genes];
    Matrix { n_cols: genes, values: of.values.iter().enumerate().map(value).collect() }
}
