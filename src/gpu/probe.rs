//! What there is of all that a run on GPUs needs: one look, before anything of Burn's is asked, which would panic.

use std::ffi::OsString;
use std::path::PathBuf;

use super::driver::{self, DeviceFacts, Driver};
use super::library::LibraryError;
use super::{Nccl, Version, nccl, nvrtc, trial};

/// Burn's kernels need this compute capability.
const LEAST_CAPABILITY: (u32, u32) = (7, 0);

/// bf16 in tensor cores needs this one.
const OF_BF16: (u32, u32) = (8, 0);

/// What was found, each thing or why it is not there.
#[derive(Debug)]
pub struct Probe {
    /// The driver's CUDA version and its devices.
    pub driver: Result<(Version, Vec<DeviceFacts>), LibraryError>,
    /// The compiler's file and version.
    pub nvrtc: Result<(String, Version), LibraryError>,
    /// The folder of the headers.
    pub headers: Result<PathBuf, String>,
    /// NCCL's file and version.
    pub nccl: Result<(String, Version), LibraryError>,
}

/// What a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// One GPU.
    Alone,
    /// One GPU among other processes'.
    WithPeers,
}

impl Probe {
    /// Looks; `vars` is the environment.
    pub fn look(vars: impl Fn(&str) -> Option<OsString>) -> Probe {
        let driver =
            Driver::open(vars(driver::FILE).as_deref()).and_then(|driver| Ok((driver.version()?, devices(&driver)?)));
        let nccl = Nccl::open(vars(nccl::FILE).as_deref()).map(|nccl| (nccl.file().to_owned(), nccl.version()));
        Probe { driver, nvrtc: nvrtc::version(None), headers: nvrtc::headers(vars("CUDA_PATH").as_deref()), nccl }
    }

    /// The number of devices where all is there, for the process of this local rank on its host: which device is its own, see
    /// [`ordinal`].
    ///
    /// # Errors
    /// The first thing that is missing, in one line.
    pub fn require(&self, needs: Needs, local_rank: usize) -> Result<usize, String> {
        let (version, devices) = self.driver.as_ref().map_err(ToString::to_string)?;
        if devices.is_empty() {
            return Err(
                "the NVIDIA driver shows no GPU to this process: ask for one (Slurm: --gpus-per-task=1), and look \
                        at CUDA_VISIBLE_DEVICES"
                    .to_owned(),
            );
        }
        let own = &devices[ordinal(local_rank, devices.len())];
        if own.capability < LEAST_CAPABILITY {
            let (old, (major, minor), (least, _)) = (own, own.capability, LEAST_CAPABILITY);
            return Err(format!(
                "{} has compute capability {major}.{minor}, and the kernels need {least}.0 or later: hide it with \
                 CUDA_VISIBLE_DEVICES",
                old.name
            ));
        }
        let (file, compiler) = self.nvrtc.as_ref().map_err(ToString::to_string)?;
        if compiler.major > version.major {
            return Err(format!(
                "{file} is CUDA {}.{} and the driver knows up to {}.{}: load a CUDA module of the driver's major version",
                compiler.major, compiler.minor, version.major, version.minor
            ));
        }
        self.headers.as_ref().map_err(Clone::clone)?;
        if needs == Needs::WithPeers {
            self.nccl.as_ref().map_err(ToString::to_string)?;
        }
        Ok(devices.len())
    }

    /// Whether the device `ordinal` has products in bf16: without them NVRTC works for minutes on one kernel.
    ///
    /// # Errors
    /// In one line.
    pub fn has_bf16(&self, ordinal: usize) -> Result<(), String> {
        let (_, devices) = self.driver.as_ref().map_err(ToString::to_string)?;
        match devices.get(ordinal) {
            Some(old) if old.capability < OF_BF16 => Err(format!(
                "{} has compute capability {}.{}, and products in bf16 need {}.{}: set train.products = \"f32\"",
                old.name, old.capability.0, old.capability.1, OF_BF16.0, OF_BF16.1
            )),
            _ => Ok(()),
        }
    }

    /// One kernel, compiled with what was found and loaded on the device `ordinal`; `vars` is the environment.
    ///
    /// # Errors
    /// What does not go together, in one line.
    pub fn try_one(&self, ordinal: usize, vars: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
        let driver = Driver::open(vars(driver::FILE).as_deref()).map_err(|error| error.to_string())?;
        trial::run(&driver, None, self.headers.as_ref().map_err(Clone::clone)?, ordinal)
    }
}

/// The device of a local rank: Slurm may show all GPUs of a node to every task, or each task its own.
pub fn ordinal(local_rank: usize, n_devices: usize) -> usize {
    local_rank % n_devices
}

fn devices(driver: &Driver) -> Result<Vec<DeviceFacts>, LibraryError> {
    (0..driver.count()?).map(|ordinal| driver.facts(ordinal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(what: &'static str) -> LibraryError {
        LibraryError::Absent { what, tried: vec!["libx.so".into()], why: "no such file".into(), advice: "do this" }
    }

    fn all_there() -> Probe {
        let device = DeviceFacts { name: "NVIDIA H200".into(), memory: 1 << 37, capability: (9, 0) };
        Probe {
            driver: Ok((Version::new(13, 0, 0), vec![device; 2])),
            nvrtc: Ok(("libnvrtc.so.12".into(), Version::new(12, 9, 0))),
            headers: Ok("/usr/local/cuda/include".into()),
            nccl: Ok(("libnccl.so.2".into(), Version::new(2, 30, 3))),
        }
    }

    #[test]
    fn the_first_thing_that_is_missing_is_said_in_one_line() {
        assert_eq!(all_there().require(Needs::WithPeers, 0), Ok(2));
        let device = |capability| DeviceFacts { name: "Tesla P100".into(), memory: 1 << 34, capability };
        let cases = [
            (Probe { driver: Err(absent("the driver")), ..all_there() }, "the driver"),
            (Probe { driver: Ok((Version::new(13, 0, 0), vec![])), ..all_there() }, "CUDA_VISIBLE_DEVICES"),
            (Probe { driver: Ok((Version::new(12, 0, 0), vec![device((6, 0))])), ..all_there() }, "Tesla P100"),
            (Probe { nvrtc: Err(absent("the compiler")), ..all_there() }, "the compiler"),
            (Probe { nvrtc: Ok(("libnvrtc.so".into(), Version::new(14, 1, 0))), ..all_there() }, "up to 13.0"),
            (Probe { headers: Err("no headers".into()), ..all_there() }, "no headers"),
            (Probe { nccl: Err(absent("NCCL")), ..all_there() }, "NCCL"),
        ];
        for (probe, fragment) in cases {
            let words = probe.require(Needs::WithPeers, 0).unwrap_err();
            assert!(words.contains(fragment) && words.lines().count() == 1, "{words}");
        }
        let without_nccl = Probe { nccl: Err(absent("NCCL")), ..all_there() };
        assert_eq!(without_nccl.require(Needs::Alone, 0), Ok(2), "a process alone needs none");
        let new = DeviceFacts { name: "NVIDIA H200".into(), memory: 1 << 37, capability: (9, 0) };
        let mixed = Probe { driver: Ok((Version::new(13, 0, 0), vec![device((6, 0)), new])), ..all_there() };
        assert_eq!(mixed.require(Needs::Alone, 1), Ok(2), "the old one is another's");
        assert!(mixed.require(Needs::Alone, 2).is_err());
        assert_eq!(mixed.has_bf16(1), Ok(()));
        assert!(mixed.has_bf16(0).unwrap_err().contains("Tesla P100"));
    }

    #[test]
    fn a_local_rank_has_the_gpu_of_its_number_whether_it_sees_all_or_its_own() {
        assert_eq!([0, 1, 2, 3].map(|local| ordinal(local, 4)), [0, 1, 2, 3]);
        assert_eq!([0, 1, 2, 3].map(|local| ordinal(local, 1)), [0; 4]);
        assert_eq!([0, 1, 2, 3].map(|local| ordinal(local, 2)), [0, 1, 0, 1]);
    }

    /// On a machine without a GPU this is the whole of the matter: every thing is a finding, and nothing panics.
    #[test]
    fn a_look_at_this_machine_ends_in_facts_or_words() {
        let probe = Probe::look(|_| None);
        if let Err(words) = probe.require(Needs::WithPeers, 0) {
            assert!(words.lines().count() == 1 && !words.is_empty(), "{words}");
        }
    }
}
