//! What a run on GPUs needs beside the GPU: the driver's library, the compiler of the kernels and its headers, NCCL. Told in
//! every build, so that a node can be looked at before the right build is there.

use super::{Finding, bytes, engines};
use crate::gpu::nccl::SHARES_A_GPU;
use crate::gpu::probe::{Needs, Probe};
use crate::gpu::{Version, nvrtc};

/// Looks at this machine.
pub fn look() -> Vec<Finding> {
    let vars = |name: &str| std::env::var_os(name);
    let probe = Probe::look(vars);
    findings(&probe, engines::uses_gpus(), || probe.require(Needs::Alone, 0).and_then(|_| probe.try_one(0, vars)))
}

/// `needed`: whether this build could use them; `tried`: whether all together do for a run on the first GPU.
fn findings(probe: &Probe, needed: bool, tried: impl FnOnce() -> Result<(), String>) -> Vec<Finding> {
    let line = |what: &str, found: Result<String, String>| match found {
        Ok(found) => Finding::ok(what, found),
        Err(missing) if needed => Finding::warn(what, missing, "train.device = \"cuda\" cannot work here without it"),
        // Not why, nor what to do: nobody asked for it.
        Err(missing) => {
            let missing = missing.split("; ").next().unwrap_or_default();
            Finding::ok(what, format!("{missing} (not needed by this build)"))
        }
    };
    let short = |v: &Version| format!("{}.{}", v.major, v.minor);
    let driver = probe.driver.as_ref().map_err(ToString::to_string).map(|(version, devices)| {
        let devices: Vec<String> = devices
            .iter()
            .map(|d| format!("{} ({}, capability {}.{})", d.name, bytes(d.memory), d.capability.0, d.capability.1))
            .collect();
        let shown = if devices.is_empty() { "none shown to this process".to_owned() } else { devices.join(", ") };
        format!("CUDA {}; GPUs: {shown}", short(version))
    });
    let nvrtc = probe.nvrtc.as_ref().map_err(ToString::to_string);
    let nccl = probe.nccl.as_ref().map_err(ToString::to_string).map(|(file, version)| {
        let shares = if *version >= SHARES_A_GPU { "ranks may share a GPU" } else { "one rank per GPU" };
        format!("{version} ({file}), {shares}")
    });
    let whole = probe.driver.is_ok() && probe.nvrtc.is_ok() && probe.headers.is_ok();
    // What is missing has its line already.
    let together = whole.then(|| line("a run on a GPU", tried().map(|()| "a kernel compiles and loads".to_owned())));
    let tensor_cores =
        probe.headers.as_ref().ok().map(|folder| {
            line("headers of tensor cores", nvrtc::has_tensor_cores(folder).map(|()| "there".to_owned()))
        });
    let parts = [
        line("driver library", driver),
        line("NVRTC", nvrtc.map(|(file, version)| format!("{} ({file})", short(version)))),
        line("CUDA headers", probe.headers.clone().map(|folder| folder.display().to_string())),
        line("NCCL", nccl),
    ];
    parts.into_iter().chain(tensor_cores).chain(together).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::gpu::LibraryError;
    use crate::gpu::driver::DeviceFacts;

    #[test]
    fn what_is_missing_is_a_warning_where_it_could_be_used_and_a_fact_where_not() {
        let absent = || LibraryError::Absent {
            what: "NCCL",
            tried: vec!["libnccl.so.2".into()],
            why: "no such file".into(),
            advice: "install it",
        };
        let device = DeviceFacts { name: "NVIDIA H200".into(), memory: 139 << 30, capability: (9, 0) };
        let probe = Probe {
            driver: Ok((Version::new(13, 0, 0), vec![device])),
            nvrtc: Ok(("libnvrtc.so.13".into(), Version::new(13, 0, 0))),
            headers: Err("CUDA's headers are not found".into()),
            nccl: Err(absent()),
        };
        let verdicts = |needed| findings(&probe, needed, || Ok(())).iter().map(|f| f.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(true), [Verdict::Ok, Verdict::Ok, Verdict::Warn, Verdict::Warn]);
        assert_eq!(verdicts(false), [Verdict::Ok; 4]);
        assert!(!findings(&probe, false, || Ok(()))[3].found.contains("install it"));
        let said = findings(&probe, true, || Ok(()));
        assert_eq!(said[0].found, "CUDA 13.0; GPUs: NVIDIA H200 (139 GiB, capability 9.0)");
        assert!(said[3].found.contains("libnccl.so.2") && said[3].found.contains("install it"), "{said:?}");
        let there = Probe { nccl: Ok(("libnccl.so.2".into(), Version::new(2, 29, 7))), ..probe };
        assert_eq!(findings(&there, true, || Ok(()))[3].found, "2.29.7 (libnccl.so.2), one rank per GPU");
        let include = tempfile::tempdir().unwrap();
        let whole = Probe { headers: Ok(include.path().to_owned()), ..there };
        let said = findings(&whole, true, || Err("the driver does not load it".to_owned()));
        let of = |what: &str| said.iter().find(|finding| finding.what == what).unwrap();
        assert_eq!(of("a run on a GPU").verdict, Verdict::Warn);
        assert!(of("a run on a GPU").found.contains("does not load"), "{said:?}");
        assert!(of("headers of tensor cores").found.contains("no mma.h"), "{said:?}");
    }
}
