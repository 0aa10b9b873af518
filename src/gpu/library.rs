//! A shared library by the names it may have, and its functions by name.

use std::ffi::OsStr;

/// What is missing of a library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// Not found, or not to be loaded.
    #[error("{what} cannot be loaded: tried {}; {why}; {advice}", .tried.join(", "))]
    Absent {
        /// What it is.
        what: &'static str,
        /// Names that were tried.
        tried: Vec<String>,
        /// What the system's loader said of the first.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// A function is not in it.
    #[error("{what} ({file}) has no function {symbol}: {advice}")]
    Symbol {
        /// What it is.
        what: &'static str,
        /// The name it was loaded by.
        file: String,
        /// The function.
        symbol: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It is there and refuses.
    #[error("{what} ({file}): {call}: {says}")]
    Refused {
        /// What it is.
        what: &'static str,
        /// The name it was loaded by.
        file: String,
        /// What was asked.
        call: &'static str,
        /// Its words.
        says: String,
    },
    /// Too old for what is asked of it.
    #[error("{what} ({file}) is version {found}, and {needs} needs {least} or later: {advice}")]
    TooOld {
        /// What it is.
        what: &'static str,
        /// The name it was loaded by.
        file: String,
        /// Its version.
        found: super::Version,
        /// What asks for more.
        needs: &'static str,
        /// The first that will do.
        least: super::Version,
        /// What to do.
        advice: &'static str,
    },
}

/// What a library is called, and what to do without it.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// As people call it.
    pub what: &'static str,
    /// File names, the likeliest first.
    pub names: &'static [&'static str],
    /// What to do where it is missing.
    pub advice: &'static str,
}

/// A loaded library. It stays loaded to the end of the process: its threads and what it registered for the end may outlive
/// any of us.
#[derive(Debug)]
pub struct Library {
    known: Known,
    file: String,
    inner: std::mem::ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Loads the first of its names that the system's loader finds; with `path` that file alone.
    ///
    /// # Errors
    /// [`LibraryError::Absent`].
    pub fn open(known: Known, path: Option<&OsStr>) -> Result<Library, LibraryError> {
        let names: Vec<&OsStr> = match path {
            Some(path) => vec![path],
            None => known.names.iter().map(OsStr::new).collect(),
        };
        let mut why = None;
        for name in &names {
            // SAFETY: the initialisers of NVIDIA's libraries run; a file that the user names is the user's word.
            match unsafe { libloading::Library::new(*name) } {
                Ok(inner) => {
                    let file = name.to_string_lossy().into_owned();
                    return Ok(Library { known, file, inner: std::mem::ManuallyDrop::new(inner) });
                }
                Err(error) => why = why.or_else(|| Some(said(&error))),
            }
        }
        let tried = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let (what, advice) = (known.what, known.advice);
        Err(LibraryError::Absent { what, tried, why: why.unwrap_or_default(), advice })
    }

    /// The name it was loaded by.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// A function's address.
    ///
    /// # Safety
    /// `F` must be the type of a pointer to that function.
    ///
    /// # Errors
    /// [`LibraryError::Symbol`].
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str) -> Result<F, LibraryError> {
        // SAFETY: the caller's word on the type; the library is never unloaded.
        match unsafe { self.inner.get::<F>(symbol.as_bytes()) } {
            Ok(function) => Ok(*function),
            Err(_) => {
                let (what, file, advice) = (self.known.what, self.file.clone(), self.known.advice);
                Err(LibraryError::Symbol { what, file, symbol, advice })
            }
        }
    }

    /// Its refusal in words.
    pub fn refused(&self, call: &'static str, says: impl Into<String>) -> LibraryError {
        LibraryError::Refused { what: self.known.what, file: self.file.clone(), call, says: says.into() }
    }

    /// That it is too old.
    pub fn too_old(&self, found: super::Version, needs: &'static str, least: super::Version) -> LibraryError {
        let Known { what, advice, .. } = self.known;
        LibraryError::TooOld { what, file: self.file.clone(), found, needs, least, advice }
    }
}

/// The loader's own words, on one line.
fn said(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    source.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Known = Known {
        what: "a library of nobody's",
        names: &["libsyncytia-nowhere.so.2", "libsyncytia-nowhere.so"],
        advice: "install it",
    };

    #[test]
    fn a_library_that_is_not_there_is_one_line_with_what_was_tried_and_what_to_do() {
        let words = Library::open(NOWHERE, None).unwrap_err().to_string();
        for fragment in ["a library of nobody's", "libsyncytia-nowhere.so.2, libsyncytia-nowhere.so", "install it"] {
            assert!(words.contains(fragment), "{words}");
        }
        assert_eq!(words.lines().count(), 1, "{words}");
    }

    #[test]
    fn a_function_that_is_not_there_is_an_error_that_names_it() {
        let c = Known { what: "the C library", names: &["libc.so.6"], advice: "use glibc" };
        let library = Library::open(c, None).unwrap();
        // SAFETY: getpid takes nothing and gives an int; the other does not exist.
        unsafe {
            let getpid = library.function::<unsafe extern "C" fn() -> i32>("getpid").unwrap();
            assert_eq!(getpid() as u32, std::process::id());
            let error = library.function::<unsafe extern "C" fn()>("syncytia_nothing").unwrap_err().to_string();
            assert!(error.contains("libc.so.6") && error.contains("syncytia_nothing"), "{error}");
        }
    }
}
