//! The command line: one file per command, errors with what, where and what to do, and the exit codes.

mod demo;
mod doctor;
mod embed;
mod embed_fused;
mod embed_input;
mod evaluate;
mod exit;
mod export;
mod follower;
mod generate;
mod generate_input;
mod impute;
mod impute_spots;
mod imputed;
mod inspect;
mod launch;
mod model_genes;
mod out;
mod pair;
mod parity;
mod process;
mod report;
mod sampler;
mod shard;
mod submit;
mod synth;
mod train;
mod train_folder;
mod train_pairs;
mod train_view;
mod trained;
mod vectors;
mod verify;
mod world_file;

use clap::{Parser, Subcommand};
use syncytia_launch::{ExitCode, signals};

/// Distributed data-parallel training for spatial transcriptomics.
#[derive(Debug, Parser)]
#[command(name = "syncytia", version, max_term_width = 110, after_help = exit_codes())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a real section inside the binary to a trained model and a report, offline, under a minute.
    #[command(before_help = "Example: syncytia demo --out demo")]
    Demo(demo::Args),
    /// Make a synthetic tissue with known truth, as a tool would have written it.
    #[command(before_help = "Example: syncytia synth --spots 2000 --seed 1 --out tissue")]
    Synth(synth::Args),
    /// Turn instrument files into Parquet shards.
    #[command(
        before_help = "Example: syncytia shard a.h5ad outs/ --config configs/spackle/shard.toml --split val=b --out shards"
    )]
    Shard(shard::Args),
    /// Process sections as the SpaRED package does and write one AnnData with its names for layers and columns.
    #[command(
        before_help = "Example: syncytia process a.h5ad b.h5ad --config configs/spackle/spared.toml --split val=b --out ab.h5ad"
    )]
    Process(process::Args),
    /// Train a model on shards; run the same command again to go on.
    #[command(before_help = "Example: syncytia train configs/spackle/best.toml --shards shards --run run --ranks 4")]
    Train(train::Args),
    /// Pair the spots of shards with the cells of their reference, for a stage of SpotDiff that is trained by itself.
    #[command(
        before_help = "Example: syncytia pair configs/spotdiff/small.toml --shards shards --fold 0 --out pairs\n         syncytia pair configs/spotdiff/small.toml --shards shards --fold 0 --moved-by aligned --out moved-pairs"
    )]
    Pair(pair::Args),
    /// Start N processes of `train` on this host; under srun or mpirun it is not needed.
    #[command(
        before_help = "Example: syncytia launch -n 4 -- train configs/spackle/best.toml --shards shards --run run"
    )]
    Launch(launch::Args),
    /// Write the batch script for a Slurm cluster, show it, check it and submit it.
    #[command(
        before_help = "Example: syncytia submit configs/spackle/best.toml --shards shards --run run --nodes 2 --tasks-per-node 4 --cpus-per-task 1 --time 4:00:00"
    )]
    Submit(submit::Args),
    /// Hold a GPU's numbers against the cores': our operations, and a config's first step.
    #[command(before_help = "Example: syncytia parity configs/spackle/tiny.toml --shards shards")]
    Parity(parity::Args),
    /// Score a trained model beside every simple fill and write the report.
    #[command(before_help = "Example: syncytia evaluate run --split val")]
    Evaluate(evaluate::Args),
    /// Render the page of an evaluated run again, or compare several runs on one page.
    #[command(before_help = "Example: syncytia report run-a run-b --out comparison")]
    Report(report::Args),
    /// Complete the missing values of a section: predictions in layers["spackle"].
    #[command(before_help = "Example: syncytia impute run --input a.h5ad --output completed.h5ad")]
    Impute(impute::Args),
    /// Write a vector of every cell, niche or tissue: of a shard folder, or of a file of cells for scanpy.
    #[command(
        before_help = "Example: syncytia embed run --shards cells --out vectors\n         syncytia embed niches --shards cells --level niche --vectors vectors --out niche-vectors\n         syncytia embed run --input cells.h5ad --output with-vectors.h5ad"
    )]
    Embed(embed::Args),
    /// Paint pictures of cells from their genes, and the same cells with a gene changed.
    #[command(before_help = "Example: syncytia generate run --shards cells --set-gene EPCAM=0 --seed 1 --out pictures")]
    Generate(generate::Args),
    /// Write a checkpoint as other tools load it: safetensors, config, panel, card.
    #[command(before_help = "Example: syncytia export run --out model")]
    Export(export::Args),
    /// Check every checksum and invariant of a shard folder or a checkpoint.
    #[command(before_help = "Example: syncytia verify shards")]
    Verify(verify::Args),
    /// Say what the reader sees in shards, a checkpoint, a run or an input file.
    #[command(before_help = "Example: syncytia inspect a.h5ad")]
    Inspect(inspect::Args),
    /// Look whether a run would work here: devices, MPI, Slurm, limits, storage, shards, run folder.
    #[command(
        before_help = "Example: syncytia doctor configs/spackle/best.toml --shards shards --run run",
        after_help = "The exit code is that of the first line that says fail: the one `train` would end with; 0 where none \
                      does. Writes nothing but temporary files in the run folder, or in the folder it would be made in."
    )]
    Doctor(doctor::Args),
}

fn exit_codes() -> String {
    let lines: Vec<String> = ExitCode::ALL.iter().map(|c| format!("  {:>3}  {}", c.code(), c.meaning())).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}

/// Parses the command line, runs the command, prints an error, gives the exit code.
pub fn main() -> ExitCode {
    if let Err(error) = signals::outlive_file_size_limits() {
        eprintln!("warning: a file-size limit would end this program without a word: {error}");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to stdout and are no error.
            let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
            let _ = error.print();
            return code;
        }
    };
    // Warnings of the libraries (a heartbeat that cannot be written, old checkpoints that stay) reach stderr.
    let filter = tracing_subscriber::EnvFilter::try_from_env("SYNCYTIA_LOG").unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let _ = log.with_target(false).without_time().try_init(); // a test may have set its own
    let result = match cli.command {
        Command::Shard(args) => shard::run(&args),
        Command::Process(args) => process::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Pair(args) => pair::run(&args),
        Command::Launch(args) => launch::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Submit(args) => submit::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Impute(args) => impute::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", in_words(&error));
            exit::code_of(&error)
        }
    }
}

/// The error and its causes, leaving out causes whose words the error already says.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = if words.is_empty() { text } else { format!("{words}: {text}") };
        }
    }
    words
}
