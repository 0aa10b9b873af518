//! What is the data? Instrument files → sections → processed pieces → Parquet shards → batches in order.
//!
//! Knows no tensor, no rank and no model. A record's walk through this crate, in reading order:
//! `ingest/` reads a [`section::Section`]; `process/` filters it and makes [`processed::Piece`]s with layers;
//! `writer` lays them out as Parquet row groups under a `manifest`; `reader` decodes a row group; `order` says which
//! record a lane reads at a step; `loader` brings it there. `draw` holds every keyed random draw, `durable` every
//! crash-safe write.

pub mod durable;
pub mod panel;
pub mod processed;
pub mod section;
