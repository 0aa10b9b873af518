//! `syncytia synth`: a tissue with known truth, as a tool would have written it.

use std::path::PathBuf;

use anyhow::Context;
use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData};
use syncytia_shards::ingest::synthetic::{SyntheticSpec, synthesize};
use syncytia_shards::ingest::synthetic_cells::{self, CellsSpec};

use super::exit::UsageError;
use super::out;

/// Cells of a section at most, where the number of sections is not given: an image of 3,200 pixels a side.
const CELLS_PER_SECTION: u32 = 2500;
/// Sections at least, so that one can be held out.
const MIN_SECTIONS: u32 = 4;

/// Arguments of `synth`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Args {
    /// Number of spots: one section as Visium would give it.
    #[arg(long, group = "what")]
    spots: Option<u32>,
    /// Number of cells: a cohort of sections, an `.h5ad` and an image each, for `shard --config configs/spatia/shard.toml`.
    #[arg(long, group = "what")]
    cells: Option<u32>,
    /// Seed of factors, states and counts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder to write into: `synthetic-<seed>.h5ad`, or of cells `synthetic-<seed>-000.h5ad`, `.png` and so on.
    #[arg(long)]
    out: PathBuf,
    /// Spots: switch off the product of own and neighbours' factors: what only a nonlinear model can use.
    #[arg(long, conflicts_with = "cells")]
    no_product: bool,
    /// Spots: genes beyond those of the model, weakly bound to its factors (for `filter.context_genes`).
    #[arg(long, default_value_t = 0, conflicts_with = "cells")]
    context_genes: u32,
    /// Cells: sections to deal them out to; one per 2,500 and at least 4 without it.
    #[arg(long, conflicts_with = "spots")]
    sections: Option<u32>,
    /// Cells: side of a cell's place in pixels; 32 for the tiny sizes.
    #[arg(long, default_value_t = 64, conflicts_with = "spots")]
    crop_px: u32,
    /// Print where it was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match (args.spots, args.cells) {
        (Some(spots), _) => run_spots(args, spots),
        (None, Some(cells)) => run_cells(args, cells),
        (None, None) => Err(UsageError("give --spots or --cells".to_owned()).into()),
    }
}

fn run_spots(args: &Args, spots: u32) -> anyhow::Result<ExitCode> {
    if spots < 100 {
        return Err(UsageError(format!("--spots {spots}: at least 100, so that there are neighbourhoods")).into());
    }
    let library_id = format!("synthetic-{}", args.seed);
    let spec = SyntheticSpec {
        library_id: library_id.clone(),
        n_obs: spots,
        seed: args.seed,
        product: !args.no_product,
        context_genes: args.context_genes,
    };
    let synthetic = synthesize(&spec);
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let path = args.out.join(format!("{library_id}.h5ad"));
    h5ad_write::write(&path, &AnnData::from_section(&synthetic.section))?;
    if args.json {
        out::json(&serde_json::json!({"path": path, "library_id": library_id, "spots": spots, "seed": args.seed}))?;
    } else {
        out::line(path.display())?;
    }
    Ok(ExitCode::Done)
}

/// One section at a time: a cohort may be larger than memory.
fn run_cells(args: &Args, cells: u32) -> anyhow::Result<ExitCode> {
    let n_sections = args.sections.unwrap_or(cells.div_ceil(CELLS_PER_SECTION).max(MIN_SECTIONS));
    if n_sections == 0 || cells / n_sections < 16 {
        let problem =
            format!("--cells {cells} in {n_sections} sections: at least 16 a section, the cells of one niche");
        return Err(UsageError(problem).into());
    }
    if !(8..=256).contains(&args.crop_px) {
        return Err(UsageError(format!("--crop-px {}: from 8 to 256", args.crop_px)).into());
    }
    let spec = CellsSpec {
        name: format!("synthetic-{}", args.seed),
        n_cells: cells,
        n_sections,
        sections_per_donor: 2,
        crop_px: args.crop_px,
        seed: args.seed,
    };
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut files = Vec::new();
    for section in 0..n_sections {
        let made = synthetic_cells::synthesize(&spec, section);
        let path = args.out.join(format!("{}.h5ad", made.section.library_id));
        let picture = path.with_extension("png");
        made.image.save(&picture).with_context(|| format!("cannot write {}", picture.display()))?;
        h5ad_write::write(&path, &AnnData::from_section(&made.section))?;
        if !args.json {
            out::line(path.display())?;
        }
        files.push(path);
    }
    if args.json {
        out::json(&serde_json::json!({"paths": files, "cells": cells, "seed": args.seed, "crop_px": args.crop_px}))?;
    } else {
        // A wider window would show the neighbours too.
        let (dir, px) = (args.out.display(), args.crop_px);
        eprintln!(
            "next: syncytia shard {dir} --config configs/spatia/shard.toml --set process.crop_px={px} --out SHARDS"
        );
    }
    Ok(ExitCode::Done)
}
