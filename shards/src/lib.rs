//! What is the data? Instrument files → sections → processed pieces → Parquet shards → batches in order.
//!
//! Knows no tensor, no rank and no model. A record's walk through this crate, in reading order:
//! `ingest/` reads a [`section::Section`]; `process/` filters it and makes [`processed::Piece`]s with layers;
//! `pictures` cuts pictures of single cells when they are written; `writer` lays records out as Parquet row groups under a `manifest`; `reader` decodes a row group; `order` says which
//! record a lane reads at a step; `loader` brings it there; `tables` are what stands beside the records. `draw` holds every keyed random draw, `durable` every
//! crash-safe write.

mod decode;
pub mod draw;
pub mod durable;
pub mod encode;
pub mod error;
pub mod holdout;
pub mod ingest;
pub mod layout;
pub mod loader;
pub mod manifest;
pub mod matrix;
pub mod nearest;
pub mod order;
pub mod panel;
pub mod pictures;
pub mod process;
pub mod processed;
pub mod reader;
pub mod row_group;
pub mod schema;
pub mod section;
pub mod tables;
pub mod verify;
pub mod visible;
pub mod writer;

#[cfg(test)]
mod store_tests;
