//! The compiler of Burn's kernels at run time (NVRTC) and the headers that it includes: Burn looks for both by itself and
//! panics without, so they are looked for first, at the same places.

use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};

use super::Version;
use super::library::{Known, Library, LibraryError};

/// The names that Burn's loader (cudarc) tries, in its order, less those of Windows.
const KNOWN: Known = Known {
    what: "CUDA's run-time compiler (NVRTC)",
    names: &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11"],
    advice: "load the CUDA module, or install the toolkit's nvrtc and put its folder into LD_LIBRARY_PATH",
};

/// The library.
pub(super) fn open(file: Option<&OsStr>) -> Result<Library, LibraryError> {
    Library::open(KNOWN, file)
}

/// The file and the version of a compiler that can be loaded.
///
/// # Errors
/// What is missing, in one line.
pub fn version(file: Option<&OsStr>) -> Result<(String, Version), LibraryError> {
    let library = open(file)?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the type is nvrtc.h's; pointers to locals.
    let code = unsafe {
        let get: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = library.function("nvrtcVersion")?;
        get(&mut major, &mut minor)
    };
    if code != 0 {
        return Err(library.refused("nvrtcVersion", format!("error {code}")));
    }
    Ok((library.file().to_owned(), Version::new(major.max(0) as u32, minor.max(0) as u32, 0)))
}

/// What is included by Burn's kernels.
const HEADERS: [&str; 3] = ["cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"];

/// What is included by those that take tensor cores (`train.products`), beside.
const OF_TENSOR_CORES: [&str; 2] = ["mma.h", "crt/mma.h"];

/// Whether the folder of CUDA's headers has those of tensor cores.
///
/// # Errors
/// In one line: what is missing where.
pub fn has_tensor_cores(include: &Path) -> Result<(), String> {
    match OF_TENSOR_CORES.iter().find(|header| !include.join(header).is_file()) {
        None => Ok(()),
        Some(header) => Err(format!(
            "CUDA's headers are not complete: {} has no {header}, which kernels of tensor cores include; install the toolkit's (cudart \
             and crt; of pip's, nvidia-cuda-runtime and nvidia-cuda-crt, in CUDA 12 nvidia-cuda-nvcc-cu12, all include folders in one), or \
             set train.products = \"f32\"",
            include.display()
        )),
    }
}

/// The folder of CUDA's headers; `cuda_path` is the variable `CUDA_PATH`.
///
/// # Errors
/// In one line: what is missing where.
pub fn headers(cuda_path: Option<&OsStr>) -> Result<PathBuf, String> {
    headers_below(cuda_path, Path::new("/"))
}

fn headers_below(cuda_path: Option<&OsStr>, root: &Path) -> Result<PathBuf, String> {
    let usual = [("usr/local/cuda", "usr/local/cuda"), ("opt/cuda", "opt/cuda"), ("usr/bin/nvcc", "usr")];
    let folder = match cuda_path {
        Some(path) => Some(PathBuf::from(path)),
        None => usual.iter().find(|(sign, _)| root.join(sign).exists()).map(|(_, folder)| root.join(folder)),
    };
    const ADVICE: &str =
        "set CUDA_PATH to the folder that has include/cuda_fp16.h (a module's CUDA_HOME; the toolkit's cudart headers)";
    let Some(folder) = folder else {
        return Err(format!(
            "CUDA's headers are not found: CUDA_PATH is not set and there is no /usr/local/cuda; {ADVICE}"
        ));
    };
    let include = folder.join("include");
    match HEADERS.iter().find(|header| !include.join(header).is_file()) {
        None => Ok(include),
        Some(header) => {
            Err(format!("CUDA's headers are not complete: {} has no {header}; {ADVICE}", include.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_looked_for_where_burn_looks() {
        let root = tempfile::tempdir().unwrap();
        let missing = headers_below(None, root.path()).unwrap_err();
        assert!(missing.contains("CUDA_PATH is not set") && missing.lines().count() == 1, "{missing}");
        let include = root.path().join("usr/local/cuda/include");
        std::fs::create_dir_all(&include).unwrap();
        let partly = headers_below(None, root.path()).unwrap_err();
        assert!(partly.contains("cuda_runtime.h") && partly.contains("set CUDA_PATH"), "{partly}");
        HEADERS.iter().for_each(|header| std::fs::write(include.join(header), "").unwrap());
        assert_eq!(headers_below(None, root.path()).unwrap(), include);
        let without = has_tensor_cores(&include).unwrap_err();
        assert!(without.contains("no mma.h") && without.lines().count() == 1, "{without}");
        std::fs::create_dir(include.join("crt")).unwrap();
        OF_TENSOR_CORES.iter().for_each(|header| std::fs::write(include.join(header), "").unwrap());
        assert_eq!(has_tensor_cores(&include), Ok(()));
        // what the variable names wins, also where it is wrong: Burn would look nowhere else
        let elsewhere = root.path().join("elsewhere");
        assert!(headers_below(Some(elsewhere.as_os_str()), root.path()).unwrap_err().contains("elsewhere"));
    }
}
