//! What is judged and where it lies, in words.

use syncytia_shards::reader::Shards;
use syncytia_shards::tables::vectors::VectorsOf;

/// In words, of several.
pub fn plural(of: VectorsOf) -> &'static str {
    match of {
        VectorsOf::Obs => "cells",
        _ => of.plural(),
    }
}

/// Name of a section.
pub fn library(shards: &Shards, section: u32) -> &str {
    &shards.manifest().sections[section as usize].library_id
}
