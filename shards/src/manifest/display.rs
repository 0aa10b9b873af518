//! What `syncytia inspect DIR` prints.

use std::fmt;

use super::{Manifest, TableKind};

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let obs = self.obs();
        let n_records: u64 = self.splits.iter().map(|s| s.n_records).sum();
        let n_halo: u64 = obs.row_groups.iter().map(|g| u64::from(g.n_halo)).sum();
        let bytes: u64 = obs.files.iter().map(|file| file.bytes).sum();
        let panel = &self.panel;
        writeln!(f, "shards     schema {}, written by {}", self.schema_version, self.producer)?;
        writeln!(f, "identity   {}", self.data_hash())?;
        writeln!(f, "summary    {}", self.summary)?;
        writeln!(
            f,
            "records    {n_records} in {} row groups of {} files, {:.1} MB; {n_halo} halo rows beside them",
            obs.row_groups.len(),
            obs.files.len(),
            bytes as f64 / 1e6
        )?;
        for split in &self.splits {
            let (name, groups) = (split.split.as_str(), split.n_row_groups);
            writeln!(f, "  {name:<8} {} records, {groups} row groups", split.n_records)?;
        }
        writeln!(f, "split rule {}", self.split_rule)?;
        let annotation = panel.annotation.as_deref().unwrap_or("no gene lengths");
        writeln!(f, "genes      {} ({}, {annotation})", panel.genes.len(), panel.species)?;
        if self.layers.is_empty() {
            writeln!(f, "layers     none: counts only")?;
        } else {
            let first: Vec<&str> = panel.selected_genes().take(8).map(|g| g.symbol.as_str()).collect();
            let dots = if panel.n_selected() > first.len() { " ..." } else { "" };
            writeln!(f, "selected   {}: {}{dots}", panel.n_selected(), first.join(" "))?;
            writeln!(f, "layers     {}", self.layers.join(" "))?;
        }
        if let Some(holdout) = &self.holdout {
            writeln!(f, "{holdout}")?;
        }
        if let Some(crops) = &self.crops {
            let mut rules = crops.rules.clone();
            rules.dedup();
            writeln!(f, "pictures   {}: {}", crops.channels.join(" "), rules.join("; "))?;
        }
        for table in self.tables.iter().filter(|t| t.kind != TableKind::Obs) {
            let n: u64 = table.row_groups.iter().map(|g| u64::from(g.n_own)).sum();
            writeln!(f, "{:<10} {n}", format!("{:?}", table.kind).to_lowercase())?;
        }
        if !self.labels.is_empty() {
            writeln!(f, "labels     {}", self.labels.join(" "))?;
        }
        if !self.covariates.is_empty() {
            let n_genes = panel.context.len();
            writeln!(f, "covariates {n_genes} context genes, {} features", self.covariates.len() - n_genes)?;
        }
        let whole = if self.counts.integer { "whole numbers" } else { "not whole numbers" };
        writeln!(f, "counts     {}, {whole}; {} neighbours per record", self.counts.dtype, self.n_neighbours)?;
        for (i, section) in self.sections.iter().enumerate() {
            let kept: u64 = obs.row_groups.iter().filter(|g| g.section as usize == i).map(|g| u64::from(g.n_own)).sum();
            let scale = section.um_per_unit.map_or("no scale".to_owned(), |s| format!("{s:.4} µm per unit"));
            let image = if section.image.is_some() { ", image" } else { "" };
            writeln!(
                f,
                "section {i}  {} from {} ({}): {kept} of {} obs kept, {scale}{image}",
                section.library_id, section.source, section.format, section.n_obs_ingested
            )?;
        }
        for entry in &self.ledger.entries {
            let place = entry.library_id.as_deref().unwrap_or("all sections");
            match entry.n {
                0 => writeln!(f, "noted      {place}: {}", entry.reason)?,
                n => writeln!(f, "dropped    {n} {} ({place}): {}", entry.what, entry.reason)?,
            }
        }
        Ok(())
    }
}
