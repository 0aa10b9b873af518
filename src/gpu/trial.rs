//! One small kernel, compiled and loaded as Burn does it with all others: the versions of compiler and driver, the compiler's own
//! parts and the headers' folder are seen to go together before Burn would panic.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::path::Path;

use super::driver::Driver;
use super::library::{Library, LibraryError};
use super::nvrtc;

type Code = c_int;
type Program = *mut std::ffi::c_void;

/// A header of each folder that a compiler may not find.
const SOURCE: &str = "#include <cuda_fp16.h>\nextern \"C\" __global__ void trial(float *x) { x[0] = 1.0f; }\n";

/// NVRTC's functions that make PTX.
struct Compiler {
    library: Library,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Code,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Code,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Code,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Code,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Code,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Code,
    destroy: unsafe extern "C" fn(*mut Program) -> Code,
}

/// Compiles for the device `ordinal` with the headers in `include`, and loads it there. `file` names NVRTC's library where it is not
/// the usual one.
///
/// # Errors
/// In one line: what does not go together, and what to do.
pub fn run(driver: &Driver, file: Option<&OsStr>, include: &Path, ordinal: usize) -> Result<(), String> {
    let words = |error: LibraryError| error.to_string();
    let (major, minor) = driver.facts(ordinal).map_err(words)?.capability;
    let compiler = Compiler::open(file).map_err(words)?;
    let suffix = if major >= 9 { "a" } else { "" }; // as Burn names it
    let options = [format!("--gpu-architecture=sm_{major}{minor}{suffix}"), format!("-I{}", include.display())];
    let ptx = compiler.ptx_of(SOURCE, &options).map_err(|error| {
        format!("{error}; it compiles nothing for compute capability {major}.{minor} here: load a complete CUDA module, of CUDA 12 or later")
    })?;
    driver.try_to_load(ordinal, &ptx).map_err(|error| {
        let version = driver.version().map_or("?".to_owned(), |v| format!("{}.{}", v.major, v.minor));
        format!(
            "{error}; the driver, of CUDA {version}, does not load what {} compiles: load a CUDA module that is not newer than the driver",
            compiler.library.file()
        )
    })
}

impl Compiler {
    fn open(file: Option<&OsStr>) -> Result<Compiler, LibraryError> {
        let library = nvrtc::open(file)?;
        // SAFETY: the types are nvrtc.h's.
        unsafe {
            Ok(Compiler {
                create: library.function("nvrtcCreateProgram")?,
                compile: library.function("nvrtcCompileProgram")?,
                log_size: library.function("nvrtcGetProgramLogSize")?,
                log: library.function("nvrtcGetProgramLog")?,
                ptx_size: library.function("nvrtcGetPTXSize")?,
                ptx: library.function("nvrtcGetPTX")?,
                destroy: library.function("nvrtcDestroyProgram")?,
                library,
            })
        }
    }

    /// The PTX of a source, with the zero behind it.
    fn ptx_of(&self, source: &str, options: &[String]) -> Result<Vec<u8>, LibraryError> {
        let c = |text: &str| CString::new(text).expect("no zeros in a source, a name or an option");
        let (source, name) = (c(source), c("trial.cu"));
        let options: Vec<CString> = options.iter().map(|option| c(option)).collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        let none = std::ptr::null();
        // SAFETY: strings and options live until the program is destroyed, which is used nowhere else.
        unsafe {
            let code = (self.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none);
            self.check("nvrtcCreateProgram", code, String::new)?;
            let code = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let log = || String::from_utf8_lossy(&self.text(program, self.log_size, self.log)).into_owned();
            let compiled = self.check("nvrtcCompileProgram", code, log);
            let ptx = compiled.map(|()| self.text(program, self.ptx_size, self.ptx));
            (self.destroy)(&mut program);
            let ptx = ptx?;
            if ptx.last() == Some(&0) { Ok(ptx) } else { Err(self.library.refused("nvrtcGetPTX", "no text")) }
        }
    }

    /// # Safety
    /// `program` is alive, and both functions are of one text of it.
    unsafe fn text(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Code,
        get: unsafe extern "C" fn(Program, *mut c_char) -> Code,
    ) -> Vec<u8> {
        let mut bytes = 0;
        // SAFETY: the caller's word; the text has as many bytes as it says.
        unsafe {
            if size(program, &mut bytes) != 0 {
                return Vec::new();
            }
            let mut text = vec![0u8; bytes.max(1)];
            if get(program, text.as_mut_ptr().cast()) != 0 { Vec::new() } else { text }
        }
    }

    fn check(&self, call: &'static str, code: Code, log: impl FnOnce() -> String) -> Result<(), LibraryError> {
        if code == 0 {
            return Ok(());
        }
        let log = log();
        let said = log.lines().map(|line| line.trim_matches('\0').trim()).find(|line| line.contains("error"));
        Err(self.library.refused(call, said.map_or_else(|| format!("error {code}"), ToOwned::to_owned)))
    }
}
