//! The simple fills beside which SpotDiff is judged have the values known for them on real tables (`evaluation.md` §10). The
//! perceptron and what is blended with it take minutes: their figures are in `benches/IMPUTATION.md`, a floor is here.
//!
//! Needs the data folder (`SYNCYTIA_DATA`, else `../shared/data`), as `yardsticks`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use syncytia::evaluate::entry_fills::{self, EntryFill};
use syncytia::evaluate::gene_metrics::{Entries, Metric, Undefined, over_genes, per_gene};
use syncytia::evaluate::reference_fills::{EFFORT, Effort, ReferenceFill, mean, over_folds};
use syncytia::evaluate::standard::Scale;
use syncytia_shards::draw::{DrawKey, Purpose, ShuffleStream, bernoulli};
use syncytia_shards::processed::Matrix;

/// Other masks and folds than those of the known values move the third digit (§10).
const TOLERANCE: f64 = 0.01;

fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SYNCYTIA_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("SYNCYTIA_REQUIRE_ALL").is_none(), "{} is required", path.display());
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {} is not here (set SYNCYTIA_DATA)", path.display());
    None
}

/// Spots, places and cells of the embryo: the spots' genes as measured, the cells' as ln(1 + counts per 10⁴ of all genes).
struct Embryo {
    spots: Matrix<f32>,
    xyz: Vec<[f32; 3]>,
    cells: Matrix<f32>,
}

fn numbers(line: &str) -> Vec<f32> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn embryo() -> Option<Embryo> {
    let folder = data("fish-drosophila-embryo")?;
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let table = text("bdtnp.txt");
    let genes: Vec<&str> = table.lines().next().unwrap().split('\t').collect();
    let spots = table.lines().skip(1).flat_map(numbers).collect();
    let xyz = text("geometry.txt").lines().skip(1).map(|line| numbers(line).try_into().unwrap()).collect();
    let mut counts = String::new();
    let packed = std::fs::File::open(folder.join("dge_raw.txt.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut counts).unwrap();
    let mut totals = vec![0.0f64; 1297];
    let mut of_gene: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for line in counts.lines() {
        let (gene, rest) = line.split_once('\t').unwrap();
        let row = numbers(rest);
        totals.iter_mut().zip(&row).for_each(|(total, &v)| *total += f64::from(v));
        // `h` and `H`, `gk` and `Gk`, `trn` and `Trn` are different genes: names are compared as they are.
        if genes.contains(&gene) {
            of_gene.insert(gene, row);
        }
    }
    let value = |cell: usize, gene: &str| (f64::from(of_gene[gene][cell]) / totals[cell] * 1e4).ln_1p() as f32;
    let cells =
        (0..1297).flat_map(|cell| genes.iter().map(move |gene| (cell, *gene))).map(|(c, g)| value(c, g)).collect();
    let matrix = |values| Matrix { n_cols: genes.len(), values };
    Some(Embryo { spots: matrix(spots), xyz, cells: matrix(cells) })
}

/// Folds of equal size, drawn.
fn folds(n_genes: usize, n: u32, draw: u64) -> Vec<u32> {
    let mut fold_of = vec![0; n_genes];
    let order = ShuffleStream::new(draw, Purpose::Synthetic, &[]).permutation(n_genes);
    order.iter().enumerate().for_each(|(at, &gene)| fold_of[gene as usize] = at as u32 % n);
    fold_of
}

#[track_caller]
fn near(what: &str, ours: f64, known: f64) {
    println!("{what}: {ours:.4} (known {known})");
    assert!((ours - known).abs() <= TOLERANCE + 0.0005, "{what}: {ours:.4}, known {known}");
}

fn pcc(truth: &Matrix<f32>, imputed: &Matrix<f32>, entries: Entries<'_>) -> f64 {
    over_genes(&per_gene(truth, imputed, entries, Undefined::Ours), Metric::Pcc).mean
}

/// Draws of the folds whose mean is held against the known value: one draw moves the ridge by .01 (.579 to .594 were met).
const DRAWS: u64 = 5;

#[test]
fn genes_of_the_embryo_from_cells_alone() {
    let Some(Embryo { spots, xyz, cells }) = embryo() else { return };
    let which = [ReferenceFill::GeneMean, ReferenceFill::Knn, ReferenceFill::Ridge, ReferenceFill::Spage];
    for (n, known) in [(5, [0.0, 0.585, 0.582, 0.561, 0.611]), (10, [0.0, 0.592, 0.596, 0.561, 0.0])] {
        let mut means = [0.0; 5];
        for draw in 0..DRAWS {
            let found = over_folds(&spots, &xyz, &cells, &folds(84, n, draw), &which, &EFFORT);
            let standard = Scale::of(&cells);
            let [a, b] = [ReferenceFill::Knn, ReferenceFill::Ridge].map(|fill| standard.apply(&found[&fill]));
            let all = which.iter().map(|fill| pcc(&spots, &found[fill], Entries::All));
            let all = all.chain([pcc(&spots, &mean(&[&a, &b]), Entries::All)]);
            means.iter_mut().zip(all).for_each(|(mean, pcc)| *mean += pcc / DRAWS as f64);
        }
        println!("{n} folds: mean, k-NN, ridge, SpaGE-like, k-NN + ridge: {means:.4?}");
        assert!(means[0].abs() < 1e-6, "the same in every spot tells nothing of them");
        near(&format!("{n} folds, k-NN"), means[1], known[1]);
        near(&format!("{n} folds, ridge"), means[2], known[2]);
        assert!(means[3] > known[3] - TOLERANCE, "as good as SpaGE itself is published (ten folds): {}", means[3]);
        if n == 5 {
            near("k-NN + ridge", means[4], known[4]);
        }
    }
}

/// 100 steps of one perceptron of the 1,500 of three: more than chance, and its blends above what they blend.
#[test]
fn a_short_perceptron_adds_to_the_blend() {
    let Some(Embryo { spots, xyz, cells }) = embryo() else { return };
    let effort = Effort { mlp_steps: 100, mlp_seeds: 1, tangram_steps: 0 };
    let which = [
        ReferenceFill::Knn,
        ReferenceFill::Ridge,
        ReferenceFill::Mlp,
        ReferenceFill::Blend,
        ReferenceFill::BlendSmooth,
    ];
    let found = over_folds(&spots, &xyz, &cells, &folds(84, 5, 0), &which, &effort);
    let of = |fill| pcc(&spots, &found[&fill], Entries::All);
    let [knn, ridge, mlp, blend, smooth] = which.map(of);
    println!("k-NN {knn:.4}, ridge {ridge:.4}, perceptron {mlp:.4}, blend {blend:.4}, smoothed {smooth:.4}");
    assert!(mlp > 0.5, "{mlp}");
    assert!(blend > knn.max(ridge).max(mlp) && smooth > blend, "{blend} {smooth}");
}

/// Hidden entries of a table, 30 % at random.
fn entries(name: &str, values: &Matrix<f32>, xyz: &[[f32; 3]], of_places: f64, of_svd: f64) {
    let key = DrawKey::new(1, Purpose::Synthetic);
    let mut hidden = vec![false; values.values.len()];
    key.for_each(hidden.len(), [0, 0, 7], |at, word| hidden[at] = bernoulli(word, 0.3));
    let measured = |at: usize| values.values[at].is_finite();
    let visible = (0..hidden.len()).map(|at| !hidden[at] && measured(at)).collect();
    let [hidden, visible] = [hidden, visible].map(|values_of| Matrix { n_cols: values.n_cols, values: values_of });
    let of = |fill: EntryFill| {
        let imputed = fill.fill(&entry_fills::Given { values, visible: &visible, xyz });
        pcc(values, &imputed, Entries::Hidden(&hidden))
    };
    near(&format!("{name}, 10 nearest spots"), of(EntryFill::SpatialKnn), of_places);
    near(&format!("{name}, SVD"), of(EntryFill::Svd10), of_svd);
    assert!(of(EntryFill::GeneMean).abs() < 1e-6);
}

#[test]
fn entries_of_the_embryo() {
    let Some(Embryo { spots, xyz, .. }) = embryo() else { return };
    entries("FISH", &spots, &xyz, 0.948, 0.746);
}

/// ln(1 + X) of an AnnData file with a dense X, and places from two columns or from `obsm/spatial`.
fn anndata(path: &str, n_genes: usize, xy: Option<[&str; 2]>) -> Option<(Matrix<f32>, Vec<[f32; 3]>)> {
    let file = hdf5_pure::File::open(data(path)?).unwrap();
    let read = |name: &str| file.dataset(name).unwrap().read_f64().unwrap();
    let values = read("X").into_iter().map(|v| v.ln_1p() as f32).collect();
    let flat = match xy {
        Some([x, y]) => read(x).into_iter().zip(read(y)).flat_map(|(x, y)| [x, y]).collect(),
        None => read("obsm/spatial"),
    };
    let xyz = flat.chunks(2).map(|xy| [xy[0] as f32, xy[1] as f32, 0.0]).collect();
    Some((Matrix { n_cols: n_genes, values }, xyz))
}

#[test]
fn entries_of_the_hypothalamus() {
    let Some((values, xyz)) = anndata("merfish-hypothalamus/merfish_mousePOA_animal1_bregma-0.29.h5ad", 161, None)
    else {
        return;
    };
    assert_eq!(values.values.iter().filter(|v| v.is_nan()).count(), 6509, "one gene was not measured");
    entries("MERFISH hypothalamus", &values, &xyz, 0.204, 0.381);
}

#[test]
fn entries_of_the_motor_cortex() {
    let path = "merfish-mop-and-smfish-visp/merfish_mop_slice_253genes.h5ad";
    let Some((values, xyz)) = anndata(path, 253, Some(["obs/x_um", "obs/y_um"])) else { return };
    entries("MERFISH MOp", &values, &xyz, 0.142, 0.359);
}
