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
pub mod embedding;
pub mod kmeans;
pub mod linear_map;
pub mod metrics;
pub mod pca;
pub mod retrieval;
pub mod sweep;
