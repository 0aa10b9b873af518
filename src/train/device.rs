//! Where this process computes: the cores, or the GPU that is its own. All that a GPU needs is looked for first: Burn would
//! panic without it.

use std::ffi::OsString;

use syncytia_launch::world::World;

use super::config::{ComputeOn, Products, Ranks, TrainConfig};
use super::error::TrainError;
use crate::gpu::nccl::Nccl;
use crate::gpu::nvrtc;
use crate::gpu::probe::{self, Needs, Probe};
use crate::tensor::{self, Device};

/// What a reader of `world.json` must know of a build whose bits differ from run to run.
const BY_TIMING: &str = if cfg!(feature = "tuned") { ", kernels by timing" } else { "" };

/// A place to compute.
#[derive(Debug, Clone)]
pub struct Place {
    /// Without gradients.
    pub device: Device,
    /// Its number among the GPUs that this process sees.
    pub ordinal: usize,
    /// In words, for `world.json`.
    pub words: String,
}

impl Place {
    /// The cores.
    pub fn cores() -> Place {
        Place { device: tensor::cpu(), ordinal: 0, words: "cpu".to_owned() }
    }
}

/// The place that `train.device` asks for; `vars` is the environment.
///
/// # Errors
/// [`TrainError::Config`] in one line: a build without CUDA, the first thing that a GPU needs and is not there, ranks that
/// cannot have a GPU each.
pub fn find(config: &TrainConfig, world: &World, vars: impl Fn(&str) -> Option<OsString>) -> Result<Place, TrainError> {
    if config.train.device == ComputeOn::Cpu {
        return Ok(Place::cores());
    }
    tensor::allow_tf32(config.train.products == Products::Tf32);
    let name = if config.train.device == ComputeOn::Wgpu { "wgpu" } else { "cuda" };
    let refused = |what: String| TrainError::Config(vec![format!("train.device = \"{name}\": {what}")]);
    if let (1, Ranks::Count(n @ 2..)) = (world.world_size, config.train.ranks) {
        return Err(refused(format!(
            "train.ranks = {n} in one process; a GPU is one process's: start {n} processes (`syncytia launch -n {n} -- train …`, \
             srun, torchrun) and leave train.ranks (--ranks) out"
        )));
    }
    let place = match config.train.device {
        ComputeOn::Wgpu => wgpu(config.train.keeps_there())?,
        _ => gpu(world, &vars)?,
    };
    let narrow = config.train.products == Products::Bf16;
    if config.train.products != Products::F32 {
        if config.train.device == ComputeOn::Cuda {
            let include = nvrtc::headers(vars("CUDA_PATH").as_deref()).map_err(refused)?;
            nvrtc::has_tensor_cores(&include).map_err(refused)?;
            if narrow {
                Probe::look(&vars).has_bf16(place.ordinal).map_err(refused)?;
            }
        }
        tensor::try_product(&place.device, narrow).map_err(|why| {
            let (words, why) = (&place.words, tensor::cause(&why));
            refused(format!(
                "{words} has no such products as train.products asks for ({why}); set train.products = \"f32\""
            ))
        })?;
    }
    Ok(place)
}

/// What wgpu finds. `sums`: whether exact sums are made there.
///
/// # Errors
/// [`TrainError::Config`] where the build has no wgpu, no driver shows a device, or it lacks what sums need.
pub fn wgpu(sums: bool) -> Result<Place, TrainError> {
    let refused = |what: &str| TrainError::Config(vec![format!("train.device = \"wgpu\": {what}")]);
    if !cfg!(feature = "wgpu") {
        return Err(refused("this build has no wgpu: rebuild with `--features wgpu`"));
    }
    let (device, name) = tensor::wgpu().ok_or_else(|| {
        refused("no driver of Vulkan shows a device: install the GPU's, or Mesa's in software (mesa-vulkan-drivers, libvulkan1)")
    })?;
    if let (true, Some(missing)) = (sums, tensor::lacks(&device)) {
        let advice = "set train.keep = \"host\"";
        return Err(refused(&format!("{name} has no {missing} in its shaders, which sums there need: {advice}")));
    }
    Ok(Place { device, ordinal: 0, words: format!("{name}, wgpu{BY_TIMING}") })
}

/// The GPU of this process.
///
/// # Errors
/// As [`find`].
pub fn gpu(world: &World, vars: impl Fn(&str) -> Option<OsString>) -> Result<Place, TrainError> {
    let refused = |what: String| TrainError::Config(vec![format!("train.device = \"cuda\": {what}")]);
    if !cfg!(feature = "cuda") {
        return Err(refused("this build computes on the cores only: rebuild with `--features cuda`".to_owned()));
    }
    let (probe, local_rank) = (Probe::look(&vars), world.local_rank as usize);
    let needs = if world.world_size > 1 { Needs::WithPeers } else { Needs::Alone };
    let n_devices = probe.require(needs, local_rank).map_err(refused)?;
    let ordinal = probe::ordinal(local_rank, n_devices);
    // Who sees one GPU has it to itself under Slurm's --gpus-per-task=1; where it is another's as well, NCCL will say so.
    if n_devices > 1 && local_rank >= n_devices {
        shares(&vars, world.local_rank, n_devices).map_err(refused)?;
    }
    probe.try_one(ordinal, &vars).map_err(refused)?;
    let device = tensor::cuda(ordinal).expect("a build with the feature has the device");
    Ok(Place { device, ordinal, words: in_words(&probe, ordinal) })
}

/// Refuses ranks that share a GPU where NCCL would not have it.
fn shares(vars: impl Fn(&str) -> Option<OsString>, local_rank: u32, n_devices: usize) -> Result<(), String> {
    let nccl = Nccl::open(vars(crate::gpu::nccl::FILE).as_deref()).map_err(|e| e.to_string())?;
    nccl.must_share_a_gpu().map_err(|e| e.to_string())?;
    match vars("NCCL_MULTI_RANK_GPU_ENABLE") {
        Some(on) if on == "1" => Ok(()),
        _ => Err(format!(
            "local rank {local_rank} sees {n_devices} GPUs: ask for one per process, or let ranks share them with \
             NCCL_MULTI_RANK_GPU_ENABLE=1 (and NCCL_MAX_CTAS=4)"
        )),
    }
}

fn in_words(probe: &Probe, ordinal: usize) -> String {
    let Ok((driver, devices)) = &probe.driver else { return "cuda".to_owned() };
    let name = devices.get(ordinal).map_or("?", |device| device.name.as_str());
    let compiler = probe.nvrtc.as_ref().map_or("none".to_owned(), |(_, v)| format!("{}.{}", v.major, v.minor));
    let nccl = probe.nccl.as_ref().map_or("none".to_owned(), |(_, v)| v.to_string());
    format!("{name}, driver CUDA {}.{}, NVRTC {compiler}, NCCL {nccl}{BY_TIMING}", driver.major, driver.minor)
}
