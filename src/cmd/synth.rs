//! `syncytia synth`: a tissue with known truth, as a tool would have written it.

use std::path::PathBuf;

use anyhow::Context;
use syncytia_launch::ExitCode;
use syncytia_shards::ingest::h5ad_write::{self, AnnData};
use syncytia_shards::ingest::synthetic::{SyntheticSpec, synthesize};

use super::exit::UsageError;
use super::out;

/// Arguments of `synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of spots.
    #[arg(long)]
    spots: u32,
    /// Seed of factors, states and counts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder to write `synthetic-<seed>.h5ad` into.
    #[arg(long)]
    out: PathBuf,
    /// Switch off the product of own and neighbours' factors: what only a nonlinear model can use.
    #[arg(long)]
    no_product: bool,
    /// Genes beyond those of the model, weakly bound to its factors (for `filter.context_genes`).
    #[arg(long, default_value_t = 0)]
    context_genes: u32,
    /// Print where it was written as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.spots < 100 {
        return Err(
            UsageError(format!("--spots {}: at least 100, so that there are neighbourhoods", args.spots)).into()
        );
    }
    let library_id = format!("synthetic-{}", args.seed);
    let spec = SyntheticSpec {
        library_id: library_id.clone(),
        n_obs: args.spots,
        seed: args.seed,
        product: !args.no_product,
        context_genes: args.context_genes,
    };
    let synthetic = synthesize(&spec);
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let path = args.out.join(format!("{library_id}.h5ad"));
    h5ad_write::write(&path, &AnnData::from_section(&synthetic.section))?;
    if args.json {
        out::json(
            &serde_json::json!({"path": path, "library_id": library_id, "spots": args.spots, "seed": args.seed}),
        )?;
    } else {
        out::line(path.display())?;
    }
    Ok(ExitCode::Done)
}
