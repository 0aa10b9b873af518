//! The index of the stories; each module's tests are claims a user may rely on.

/// What bad input gets.
mod bad_input;
/// Runs that begin with another's weights.
mod begin_from;
/// Cells with pictures and niches, from a drawn cohort to a contact sheet.
mod cells;
/// SPATIA's stages, made once.
mod chain;
/// What scripts rely on: help, JSON, pipes, full disks.
mod cli;
/// The binary as a user drives it.
mod command;
/// What a model sees beside its genes, from the file to the prediction.
mod covariates;
/// Small disks that can be full.
mod disk;
/// What the doctor finds before a run is queued.
#[cfg(target_os = "linux")]
mod doctor;
/// One suite for every engine.
mod engines;
/// Damaged checkpoints, and very many of them.
#[cfg(target_os = "linux")]
mod faults;
/// A disk that is full for a while.
#[cfg(target_os = "linux")]
mod full_disk;
/// A cell, its niche and its tissue as one vector.
mod fusion;
/// A generator beside a frozen encoder, and its pictures.
mod generate;
/// Shards of which something is hidden, from two text tables.
mod hidden;
/// The directions of the house.
mod house;
/// The simple fills of SpotDiff's tables against their known values.
mod imputed;
/// SPATIA's vectors judged by labels, and beside a file's cells where scanpy finds them.
mod judged;
/// Class heads on labels of cells.
mod labels;
/// Hidden values reach nothing.
mod leak;
/// SPATIA's stages one after the other: cells, niches, tissues.
mod levels;
/// Processes under the `mpirun` of the build's MPI library.
#[cfg(feature = "mpi")]
mod mpirun;
/// The engine over NCCL and what it finds, without a GPU.
#[cfg(target_os = "linux")]
mod nccl;
/// Painted pictures beside real ones and beside the fills.
mod painted;
/// Two devices held against each other.
mod parity;
/// SPATIA's first stage.
mod pretraining;
/// One processed AnnData, and what it refuses.
mod process;
/// Several processes train as one.
#[cfg(feature = "mpi")]
mod processes;
/// The README's commands.
mod readme;
/// Niches with the pictures of their regions.
mod regions;
/// The page of a run again, and several runs on one page.
mod report;
/// The same bits for any number of ranks and kernel threads, through stops and resumes.
mod same_bits;
/// The batch script under a fake Slurm.
#[cfg(target_os = "linux")]
mod sbatch;
/// Layer by layer what the Python package `spared` makes of the same spots.
mod spared;
/// SpotDiff through the program, fold by fold and stage by stage.
mod spotdiff;
/// What several stories stand on: a small data set from the shipped section, and a run of it.
mod stage;
/// What a step does on a bad day.
mod steps;
/// The batch script that `submit` writes, and what it refuses.
#[cfg(target_os = "linux")]
mod submit;
/// What SpaCKLE finds on a tissue with known truth.
mod synthetic;
/// Sums and state kept where the model is.
#[cfg(target_os = "linux")]
mod there;
/// The definition of a step against a second implementation.
mod vectors;
/// What a GPU runs, on a device in software.
#[cfg(feature = "wgpu")]
mod wgpu;
/// The simple fills against their known values.
mod yardsticks;
