//! How good is it? Metrics, baselines and protocols: numbers in, numbers out. Knows no file and no network.
//!
//! Every figure comes with how many entries, genes or spots it used and skipped; every model is judged beside the simple
//! fills, on the same masks.

pub mod baselines;
pub mod block;
pub mod classification;
pub mod clustering;
pub mod completion;
pub mod correction;
pub mod distance;
pub mod domains;
pub mod embedding;
pub mod entry_fills;
pub mod frechet;
pub mod gene_metrics;
pub mod generation;
pub mod graph;
pub mod imputation;
pub mod kernel_distance;
pub mod kmeans;
pub mod leiden;
pub mod linear_map;
pub mod markers;
pub mod mean_discrepancy;
pub mod metrics;
pub mod nearest;
pub mod pca;
mod quantile;
pub mod random_features;
pub mod reference_fills;
pub mod retrieval;
pub mod shape;
pub mod similarity;
pub mod standard;
pub mod sweep;
