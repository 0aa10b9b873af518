//! The tables of the page.

use super::super::findings::{Better, Column, Row, Score, Table};
use super::{Report, published};
use crate::evaluate::clustering::Agreement;
use crate::evaluate::domains::Domains;
use crate::evaluate::embedding::spread;
use crate::evaluate::gene_metrics::{Metric, OverGenes};
use crate::evaluate::imputation::{Judged, Point, Protocol};
use crate::evaluate::markers::Spread;
use crate::evaluate::metrics::Figure;

/// In the order of the page.
pub(super) fn all(report: &Report) -> Vec<Table> {
    let mut tables = vec![genes(report)];
    tables.extend((!report.sweep.is_empty()).then(|| sparse(report)));
    tables.extend(clusters(report));
    tables.extend(markers(report));
    tables.extend(published(report.data_set));
    tables
}

fn column(metric: impl Into<String>, title: impl Into<String>, better: Better, decimals: usize) -> Column {
    Column { metric: metric.into(), title: title.into(), better, decimals }
}

fn score(value: f64, n_used: u64, n_skipped: u64) -> Option<Score> {
    Some(Score { figure: Figure { value, n_used, n_skipped }, sd: None, se: None })
}

fn genes(report: &Report) -> Table {
    let better = |metric: Metric| if metric.higher_is_better() { Better::Higher } else { Better::Lower };
    let mut columns: Vec<Column> =
        Metric::ALL.iter().map(|&m| column(m.name(), m.name().to_uppercase(), better(m), 4)).collect();
    columns.extend(
        Metric::ALL.iter().map(|&m| {
            column(format!("{}_median", m.name()), format!("{} median", m.name().to_uppercase()), better(m), 4)
        }),
    );
    columns.push(column("pcc_flat", "PCC of all entries", Better::Higher, 4));
    let row = |of: &Judged| {
        let figure = |metric: &Metric, value: fn(&OverGenes) -> f64| {
            let found = of.over_genes(*metric);
            score(value(found), found.n_used, found.n_skipped)
        };
        let mut scores: Vec<Option<Score>> = Metric::ALL.iter().map(|m| figure(m, |g| g.mean)).collect();
        scores.extend(Metric::ALL.iter().map(|m| figure(m, |g| g.median)));
        scores.push(score(of.flat.pcc, of.flat.n, 0));
        Row { method: of.name.clone(), what: of.what.clone(), scores }
    };
    let how = match report.truth.protocol {
        Protocol::GeneFolds(n) => format!("{n} folds of genes; each gene over all spots."),
        Protocol::Entries(share) => {
            format!("{:.0} % of all entries hidden, zeros included; each gene over its hidden entries.", 100.0 * share)
        }
    };
    Table {
        title: "Genes: mean and median over genes".to_owned(),
        note: format!(
            "{how} SSIM of columns by their maximum, RMSE of z-scored columns, JS of columns by their sum; PCC of all entries is one \
             vector of all of them, which is another question."
        ),
        columns,
        rows: report.methods.iter().map(row).collect(),
    }
}

/// The methods of a sweep in order.
pub(super) fn methods_of(sweep: &[Point]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    sweep.iter().for_each(|p| {
        if !names.contains(&p.method.as_str()) {
            names.push(&p.method);
        }
    });
    names
}

/// Under the table and the picture of a sweep.
pub(super) const SPARSE: &str = "One model, trained where the shards' share was hidden. Scored are entries that the shards hide, for the \
                                 others were seen in training; masks are nested, and every method sees the same entries.";

fn sparse(report: &Report) -> Table {
    let sweep = report.sweep;
    let mut fractions: Vec<f64> = sweep.iter().map(|p| p.hidden).collect();
    fractions.sort_by(f64::total_cmp);
    fractions.dedup();
    let row = |name: &str| {
        let at = |hidden: &f64| {
            let point = sweep.iter().find(|p| p.method == name && p.hidden == *hidden)?;
            score(point.pcc.mean, point.pcc.n_used, point.pcc.n_skipped)
        };
        Row { method: name.to_owned(), what: String::new(), scores: fractions.iter().map(at).collect() }
    };
    let title = |hidden: f64| format!("{} %", (1000.0 * hidden).round() / 10.0);
    Table {
        title: "Sparse data: mean PCC where more and more is hidden".to_owned(),
        note: SPARSE.to_owned(),
        columns: fractions.iter().map(|&h| column(format!("pcc_at_{h}"), title(h), Better::Higher, 4)).collect(),
        rows: methods_of(sweep).into_iter().map(row).collect(),
    }
}

fn clusters(report: &Report) -> Option<Table> {
    let of = |name: &str, what: &str, domains: &Domains| {
        let seeds = &domains.clustered.seeds;
        let figure = |value: fn(&Agreement) -> f64| {
            let (mean, sd) = spread(seeds.iter().map(value));
            let mut found = score(mean, seeds.len() as u64, 0)?;
            found.sd = Some(sd);
            Some(found)
        };
        let counts = spread(domains.found.iter().map(|of| of.1 as f64)).0;
        let scores = vec![
            figure(|a| a.ari),
            figure(|a| a.ami),
            figure(|a| a.nmi),
            figure(|a| a.homogeneity),
            score(counts, seeds.len() as u64, 0),
        ];
        Row { method: name.to_owned(), what: what.to_owned(), scores }
    };
    let judged = report.methods.iter().filter_map(|m| Some(of(&m.name, "", m.clustered.as_ref()?)));
    let raw = report.raw.as_ref().map(|raw| of("measured", "what was measured, nothing hidden", raw));
    let rows: Vec<Row> = judged.chain(raw).collect();
    (!rows.is_empty()).then(|| Table {
        title: "Clusters against labels".to_owned(),
        note: "30 principal components, 30 nearest neighbours, Leiden at the resolution in 0 … 3 that gives as many clusters as labels \
               (at most 30 halvings); mean and deviation over 5 seeds. Seeds of Leiden differ by some hundredths among \
               implementations too."
            .to_owned(),
        columns: vec![
            column("ari", "ARI", Better::Higher, 4),
            column("ami", "AMI", Better::Higher, 4),
            column("nmi", "NMI", Better::Higher, 4),
            column("homogeneity", "HOM", Better::Higher, 4),
            column("n_clusters", "clusters", Better::Neither, 1),
        ],
        rows,
    })
}

/// One table a marker: what was measured, then each method.
fn markers(report: &Report) -> Vec<Table> {
    let one = |(at, gene): (usize, &String)| {
        let of = |judged: &'_ Judged| judged.markers.iter().find(|m| m.gene == *gene).cloned();
        let first = report.methods.iter().find_map(of)?;
        let scores = |pcc: Option<f64>, of: &Spread, n: u64| -> Vec<Option<Score>> {
            let values = [of.mean, of.variance, of.skewness, of.excess_kurtosis].into_iter().chain(of.quantiles);
            std::iter::once(pcc.and_then(|v| score(v, n, 0))).chain(values.map(|v| score(v, n, 0))).collect()
        };
        let mut rows: Vec<Row> = Vec::new();
        for judged in report.methods {
            rows.extend(of(judged).map(|m| Row {
                method: judged.name.clone(),
                what: String::new(),
                scores: scores(m.pcc, &m.imputed, m.n),
            }));
        }
        rows.push(Row {
            method: "measured".to_owned(),
            what: String::new(),
            scores: scores(None, &first.measured, first.n),
        });
        let titles =
            ["mean", "variance", "skewness", "kurtosis − 3", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"];
        let mut columns = vec![column(format!("marker{at}_pcc"), "PCC", Better::Higher, 4)];
        columns
            .extend((0..).zip(titles).map(|(k, title)| column(format!("marker{at}_{k}"), title, Better::Neither, 4)));
        Some(Table {
            title: format!("Marker {gene}"),
            note:
                "Moments and quantiles over the scored entries; under gene folds imputed values are in the cells' unit."
                    .to_owned(),
            columns,
            rows,
        })
    };
    report.truth.markers.iter().enumerate().filter_map(one).collect()
}

fn published(data_set: &str) -> Vec<Table> {
    let named = |name: &str| format!("{name} (published)");
    let row = |name: String, values: &[f64]| Row {
        method: name,
        what: String::new(),
        scores: values.iter().map(|&v| score(v, 0, 0)).collect(),
    };
    let columns = |of: &str, names: &[&str], lower: &str| -> Vec<Column> {
        let better = |name: &str| if name == lower { Better::Lower } else { Better::Higher };
        names.iter().map(|name| column(format!("published_{of}_{name}"), *name, better(name), 4)).collect()
    };
    let mut tables = vec![Table {
        title: "Published: PCC by data set".to_owned(),
        note: format!("Not measured here. {}.", published::SPOTDIFF),
        columns: columns("pcc", &published::DATA_SETS, ""),
        rows: published::PCC.iter().map(|(name, values)| row(named(name), values)).collect(),
    }];
    let osmfish = Table {
        title: "Published: osmFISH".to_owned(),
        note: format!(
            "Not measured here. {}. The RMSE of gimVI, Tangram and GraphST are above √(2 − 2·PCC), so they are not means over the same \
             columns.",
            published::SPOTDIFF
        ),
        columns: columns("osmfish", &published::OSMFISH_METRICS, "RMSE"),
        rows: published::OSMFISH.iter().map(|(name, values)| row(named(name), values)).collect(),
    };
    let fish = Table {
        title: "Published: FISH by the benchmark".to_owned(),
        note: format!("Not measured here. {}.", published::BENCHMARK),
        columns: columns("benchmark", &["FISH"], ""),
        rows: published::FISH_BENCHMARK.iter().map(|(name, value)| row(named(name), &[*value])).collect(),
    };
    match published::column_of(data_set).map(|at| published::DATA_SETS[at]) {
        Some("osmFISH") => tables.push(osmfish),
        Some("FISH") => tables.push(fish),
        _ => {}
    }
    let switch = |on: bool| if on { "with" } else { "without" };
    tables.push(Table {
        title: "Published: ablation, PCC".to_owned(),
        note: format!(
            "Not measured here. {}. Columns and text of the paper name the two conditions the other way round.",
            published::SPOTDIFF
        ),
        columns: columns("ablation", &published::DATA_SETS[..4], ""),
        rows: published::ABLATION
            .iter()
            .map(|([rna, text], values)| {
                row(format!("{} f_rna, {} f_text (published)", switch(*rna), switch(*text)), values)
            })
            .collect(),
    });
    tables
}
