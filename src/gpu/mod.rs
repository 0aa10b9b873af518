//! NVIDIA's libraries, found when they are asked for: nothing is linked, and nothing here panics. What is missing is an
//! error of one line that says what was looked for, where, and what to do. Knows no tensor and no rank; every build has
//! it, so that `doctor` can look also where this build computes on the cores.

pub mod driver;
pub mod library;
pub mod nccl;
pub mod nvrtc;
pub mod probe;
pub mod trial;

pub use driver::Driver;
pub use library::LibraryError;
pub use nccl::Nccl;

/// A version as NVIDIA's libraries pack it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch; 0 where there is none.
    pub patch: u32,
}

impl Version {
    /// A version by its parts.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
