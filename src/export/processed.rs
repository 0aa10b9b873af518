//! A processed data set as one AnnData, under the names of the SpaRED package (`spared.md` §7), so that its users and their
//! scripts find every layer and column where they expect it.

use std::collections::BTreeMap;

use syncytia_shards::ingest::h5ad_write::{AnnData, Uns, Values, X, slide};
use syncytia_shards::process::{Normalize, ProcessConfig, deltas, tpm};
use syncytia_shards::processed::{Matrix, Piece, Processed, SectionFacts, Split};

/// What a model adds: its completed layer, one matrix per piece, and whether it learned batch-corrected values.
pub struct Completed {
    /// Measured values as they are, missing ones as predicted, `[n, G]` per piece.
    pub values: Vec<Matrix<f32>>,
    /// `c_t_log1p` instead of `t_log1p`.
    pub corrected: bool,
}

/// The whole data set; rows ordered by section, then as ingested; columns are the genes of the layers.
///
/// `places`: lattice row and column of every row of each section, where the instrument has them.
pub fn ann_data(
    processed: &Processed,
    config: &ProcessConfig,
    places: &[Option<Vec<[i32; 2]>>],
    completed: Option<&Completed>,
) -> AnnData {
    let order = rows_in_order(&processed.pieces);
    let genes = processed.panel.n_selected();
    let stack = |of: &dyn Fn(usize) -> Matrix<f32>| -> Matrix<f32> {
        let pieces: Vec<Matrix<f32>> = (0..processed.pieces.len()).map(of).collect();
        let values = order.iter().flat_map(|&(piece, row)| pieces[piece].row(row).iter().copied()).collect();
        Matrix { n_cols: genes, values }
    };
    let measured: Vec<bool> =
        order.iter().flat_map(|&(p, row)| processed.pieces[p].measured.row(row).iter().copied()).collect();
    let is_train = |&at: &u32| processed.pieces[order[at as usize].0].split == Split::Train;
    let train: Vec<u32> = (0..order.len() as u32).filter(is_train).collect();
    let train_mean = |layer: &Matrix<f32>| deltas::column_means(&[&layer.select_rows(&train)]);

    let mut layers = BTreeMap::new();
    let counts = stack(&|p| selected_counts(&processed.pieces[p], &processed.panel.selected));
    if config.normalize == Normalize::Tpm {
        let lengths: Vec<f64> = processed.panel.genes.iter().filter_map(|g| g.length).collect();
        let tpm = stack(&|p| tpm::tpm(&processed.pieces[p].counts, &lengths, &processed.panel.selected));
        layers.insert("tpm".to_owned(), tpm);
    }
    for name in processed.pieces.iter().flat_map(|p| p.layers.keys()) {
        if !layers.contains_key(name) {
            layers.insert(name.clone(), stack(&|p| processed.pieces[p].layers[name].clone()));
        }
    }
    if let Some(completed) = completed {
        let prefix = if completed.corrected { "c_t" } else { "t" };
        let values = stack(&|p| completed.values[p].clone());
        layers.insert(format!("{prefix}_deltas"), deltas::subtract(&values, &train_mean(&values)));
        layers.insert(format!("{prefix}_log1p"), values);
    }
    let mut var = gene_columns(processed, &counts);
    for letters in ["", "d_", "c_", "c_d_", "t_", "c_t_"] {
        let (base, deltas) = (format!("{letters}log1p"), format!("{letters}deltas"));
        let Some(layer) = layers.get(&base) else { continue };
        let mean = train_mean(layer);
        if letters.contains(['d', 't']) {
            let noisy = with_missing(layer, &measured, |_| 0.0);
            let noisy_deltas = with_missing(&layers[&deltas], &measured, |gene| -mean[gene] as f32);
            layers.insert(format!("noisy_{base}"), noisy);
            layers.insert(format!("noisy_{deltas}"), noisy_deltas);
            var.push((format!("used_mean_{deltas}"), Values::F64(mean.clone())));
        }
        var.push((format!("{base}_avg_exp"), Values::F64(mean)));
    }
    let x = counts.clone();
    layers.insert("counts".to_owned(), counts);
    let mut layers: BTreeMap<String, X> = layers.into_iter().map(|(name, values)| (name, X::Dense(values))).collect();
    layers.insert("mask".to_owned(), X::Mask(Matrix { n_cols: genes, values: measured }));

    let xy = order.iter().flat_map(|&(p, row)| processed.pieces[p].xy[row]).collect();
    let names: Vec<String> = order
        .iter()
        .map(|&(p, row)| format!("{}_{}", processed.pieces[p].library_id, processed.pieces[p].obs_ids[row]))
        .collect();
    AnnData {
        obs: spot_columns(processed, &order, &names, places),
        obs_names: names,
        var_names: processed.panel.selected_genes().map(|g| g.id.clone()).collect(),
        var,
        x: Some(X::Dense(x)),
        layers,
        obsm: BTreeMap::from([("spatial".to_owned(), Matrix { n_cols: 2, values: xy })]),
        uns: BTreeMap::from([
            ("spatial".to_owned(), Uns::Dict(processed.sections.iter().map(slide_of).collect())),
            ("syncytia".to_owned(), Uns::Dict(provenance(processed))),
        ]),
        raw: None,
    }
}

fn slide_of(section: &SectionFacts) -> (String, Uns) {
    (section.library_id.clone(), slide(section.um_per_unit, section.image.as_ref()))
}

/// (piece, row) of every observation: by section, then as ingested.
fn rows_in_order(pieces: &[Piece]) -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize)> =
        pieces.iter().enumerate().flat_map(|(p, piece)| (0..piece.n_obs()).map(move |row| (p, row))).collect();
    order.sort_by_key(|&(p, row)| pieces[p].record_id(row));
    order
}

fn selected_counts(piece: &Piece, selected: &[u32]) -> Matrix<f32> {
    let counts = piece.counts.select_columns(selected);
    let mut values = vec![0.0; counts.n_rows() * selected.len()];
    for row in 0..counts.n_rows() {
        let (columns, own) = counts.row(row);
        for (&column, &value) in columns.iter().zip(own) {
            values[row * selected.len() + column as usize] = value;
        }
    }
    Matrix { n_cols: selected.len(), values }
}

fn with_missing(layer: &Matrix<f32>, measured: &[bool], fill: impl Fn(usize) -> f32) -> Matrix<f32> {
    let value = |(i, &v): (usize, &f32)| if measured[i] { v } else { fill(i % layer.n_cols) };
    Matrix { n_cols: layer.n_cols, values: layer.values.iter().enumerate().map(value).collect() }
}

fn gene_columns(processed: &Processed, counts: &Matrix<f32>) -> Vec<(String, Values)> {
    let (panel, n) = (&processed.panel, counts.n_rows() as f64);
    let column = |f: &dyn Fn(usize) -> f64| Values::F64((0..counts.n_cols).map(f).collect());
    let of_gene = |g: usize| (0..counts.n_rows()).map(move |i| f64::from(counts.row(i)[g]));
    let total = |g: usize| of_gene(g).sum::<f64>();
    let present = |g: usize| of_gene(g).filter(|v| *v > 0.0).count() as f64;
    let genes = || panel.selected_genes();
    vec![
        ("gene_ids".into(), Values::Text(genes().map(|g| g.id.clone()).collect())),
        ("gene_name".into(), Values::Text(genes().map(|g| g.symbol.clone()).collect())),
        ("feature_types".into(), Values::Text(vec!["Gene Expression".into(); counts.n_cols])),
        ("exp_frac".into(), Values::F64(genes().map(|g| g.exp_frac).collect())),
        ("glob_exp_frac".into(), Values::F64(genes().map(|g| g.glob_exp_frac).collect())),
        ("n_cells_by_counts".into(), Values::I64((0..counts.n_cols).map(|g| present(g) as i64).collect())),
        ("mean_counts".into(), column(&|g| total(g) / n)),
        ("pct_dropout_by_counts".into(), column(&|g| 100.0 * (1.0 - present(g) / n))),
        ("total_counts".into(), column(&total)),
        ("gene_length".into(), Values::F64(genes().map(|g| g.length.unwrap_or(f64::NAN)).collect())),
        ("d_log1p_moran".into(), Values::F64(genes().map(|g| g.moran.unwrap_or(f64::NAN)).collect())),
    ]
}

fn spot_columns(
    processed: &Processed,
    order: &[(usize, usize)],
    names: &[String],
    places: &[Option<Vec<[i32; 2]>>],
) -> Vec<(String, Values)> {
    let piece = |p: usize| &processed.pieces[p];
    let category = |f: &dyn Fn(usize, usize) -> Option<String>| {
        Values::Categorical(order.iter().map(|&(p, row)| f(p, row)).collect())
    };
    let whole =
        |f: &dyn Fn(&[f32]) -> f64| Values::F64(order.iter().map(|&(p, row)| f(piece(p).counts.row(row).1)).collect());
    let n_expressed =
        |&(p, row): &(usize, usize)| piece(p).counts.row(row).1.iter().filter(|v| **v > 0.0).count() as i64;
    let expressed = Values::I64(order.iter().map(n_expressed).collect());
    let mut columns = vec![
        ("slide_id".to_owned(), category(&|p, _| Some(piece(p).library_id.clone()))),
        ("split".to_owned(), category(&|p, _| Some(piece(p).split.as_str().to_owned()))),
        ("patient".to_owned(), category(&|p, _| piece(p).donor_id.clone().or_else(|| Some("unique".to_owned())))),
        ("unique_id".to_owned(), Values::Text(names.to_vec())),
        ("in_tissue".to_owned(), Values::I64(vec![1; order.len()])),
        ("n_genes_by_counts".to_owned(), expressed),
        ("total_counts".to_owned(), whole(&|counts| counts.iter().map(|&v| f64::from(v)).sum())),
    ];
    if places.iter().all(Option::is_some) {
        for (axis, name) in ["array_row", "array_col"].into_iter().enumerate() {
            let place = |&(p, row): &(usize, usize)| {
                let of_section = places[piece(p).section as usize].as_ref().expect("all have places");
                i64::from(of_section[piece(p).rows[row] as usize][axis])
            };
            columns.push((name.to_owned(), Values::I64(order.iter().map(place).collect())));
        }
    }
    let labels: std::collections::BTreeSet<&str> =
        processed.pieces.iter().flat_map(|p| p.labels.iter().map(|l| l.name.as_str())).collect();
    let taken: Vec<String> = columns.iter().map(|c| c.0.clone()).collect();
    for label in labels.into_iter().filter(|l| !taken.iter().any(|t| t == l)) {
        let of =
            |p: usize, row: usize| piece(p).labels.iter().find(|l| l.name == label).and_then(|l| l.values[row].clone());
        columns.push((label.to_owned(), category(&of)));
    }
    columns
}

fn provenance(processed: &Processed) -> BTreeMap<String, Uns> {
    let mut facts = BTreeMap::from([
        ("version".to_owned(), Uns::Text(env!("CARGO_PKG_VERSION").to_owned())),
        ("summary".to_owned(), Uns::Text(processed.summary.to_string())),
        ("species".to_owned(), Uns::Text(processed.panel.species.clone())),
    ]);
    if let Some(annotation) = &processed.panel.annotation {
        facts.insert("annotation".to_owned(), Uns::Text(annotation.clone()));
    }
    facts
}
