//! NCCL by a table of its own. cudarc carries one as well, but never looks for `libnccl.so.2`, which is what every package
//! ships, and panics where a function is missing; its safe communicator knows no deadline and no asynchronous error.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};

use super::Version;
use super::driver::{Address, Handle};
use super::library::{Known, Library, LibraryError};

const KNOWN: Known = Known {
    what: "NCCL",
    names: &["libnccl.so.2", "libnccl.so"],
    advice: "load NCCL's module, install libnccl2, or set SYNCYTIA_NCCL to the file (pip's nvidia-nccl-cu12 has one)",
};

/// The variable that names the library's file.
pub const FILE: &str = "SYNCYTIA_NCCL";

/// The first with communicators that are made without blocking (`ncclCommInitRankConfig`).
pub const LEAST: Version = Version::new(2, 14, 0);
/// The first that lets several ranks share a GPU (`NCCL_MULTI_RANK_GPU_ENABLE=1`).
pub const SHARES_A_GPU: Version = Version::new(2, 30, 3);

type Code = c_int;
const SUCCESS: Code = 0;
/// Also what NCCL says of a GPU that two ranks have.
const INVALID_USAGE: Code = 5;
const IN_PROGRESS: Code = 7;

/// Names one group of ranks; made by one of them and told to the others.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; UNIQUE_ID_BYTES]);

/// `NCCL_UNIQUE_ID_BYTES`.
pub const UNIQUE_ID_BYTES: usize = 128;

impl std::fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UniqueId") // it is a password as well
    }
}

/// A communicator's handle.
#[derive(Debug, Clone, Copy)]
pub struct Communicator(*mut c_void);

// SAFETY: the handle names a communicator of the process; NCCL asks that calls on it do not run at the same time, and its
// engine is used through `&mut`. Asking for its asynchronous error and aborting are allowed beside them.
unsafe impl Send for Communicator {}

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DataType {
    /// 64-bit integers, wrapping.
    I64 = 4,
    /// f32.
    F32 = 7,
    /// bf16.
    Bf16 = 9,
}

impl DataType {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            DataType::I64 => 8,
            DataType::F32 => 4,
            DataType::Bf16 => 2,
        }
    }
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Operation {
    /// Sum.
    Sum = 0,
    /// Maximum.
    Max = 2,
}

/// `ncclConfig_t` as it was in 2.14, the shortest there is: newer libraries fill in the rest.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
}

const MAGIC: u32 = 0xcafe_beef;
const CONFIG_VERSION: u32 = 21_400;

/// The functions.
#[derive(Debug)]
pub struct Nccl {
    library: Library,
    version: Version,
    get_error_string: unsafe extern "C" fn(Code) -> *const c_char,
    get_last_error: Option<unsafe extern "C" fn(*mut c_void) -> *const c_char>,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Code,
    comm_init_rank_config: unsafe extern "C" fn(*mut *mut c_void, c_int, UniqueId, c_int, *mut Config) -> Code,
    comm_get_async_error: unsafe extern "C" fn(*mut c_void, *mut Code) -> Code,
    comm_finalize: unsafe extern "C" fn(*mut c_void) -> Code,
    comm_destroy: unsafe extern "C" fn(*mut c_void) -> Code,
    comm_abort: unsafe extern "C" fn(*mut c_void) -> Code,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> Code,
    all_gather: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, *mut c_void, *mut c_void) -> Code,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> Code,
    receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> Code,
    group_start: unsafe extern "C" fn() -> Code,
    group_end: unsafe extern "C" fn() -> Code,
}

impl Nccl {
    /// Loads the library and sees that it is new enough. `file`: that file alone.
    ///
    /// # Errors
    /// What is missing or too old, in one line.
    pub fn open(file: Option<&OsStr>) -> Result<Nccl, LibraryError> {
        let library = Library::open(KNOWN, file)?;
        // SAFETY: the types are those of nccl.h.
        unsafe {
            let get_version: unsafe extern "C" fn(*mut c_int) -> Code = library.function("ncclGetVersion")?;
            let mut packed = 0;
            let code = get_version(&mut packed);
            if code != SUCCESS {
                return Err(library.refused("ncclGetVersion", format!("error {code}")));
            }
            let version = unpacked(packed);
            if version < LEAST {
                return Err(library.too_old(version, "a reduction with a deadline", LEAST));
            }
            Ok(Nccl {
                version,
                get_error_string: library.function("ncclGetErrorString")?,
                get_last_error: library.function("ncclGetLastError").ok(),
                get_unique_id: library.function("ncclGetUniqueId")?,
                comm_init_rank_config: library.function("ncclCommInitRankConfig")?,
                comm_get_async_error: library.function("ncclCommGetAsyncError")?,
                comm_finalize: library.function("ncclCommFinalize")?,
                comm_destroy: library.function("ncclCommDestroy")?,
                comm_abort: library.function("ncclCommAbort")?,
                all_reduce: library.function("ncclAllReduce")?,
                all_gather: library.function("ncclAllGather")?,
                send: library.function("ncclSend")?,
                receive: library.function("ncclRecv")?,
                group_start: library.function("ncclGroupStart")?,
                group_end: library.function("ncclGroupEnd")?,
                library,
            })
        }
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The name it was loaded by.
    pub fn file(&self) -> &str {
        self.library.file()
    }

    /// Refuses a library that cannot put several ranks on one GPU.
    ///
    /// # Errors
    /// [`LibraryError::TooOld`].
    pub fn must_share_a_gpu(&self) -> Result<(), LibraryError> {
        if self.version >= SHARES_A_GPU {
            return Ok(());
        }
        Err(self.library.too_old(self.version, "several ranks on one GPU", SHARES_A_GPU))
    }

    /// The name of a new group.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub fn unique_id(&self) -> Result<UniqueId, LibraryError> {
        let mut id = UniqueId([0; UNIQUE_ID_BYTES]);
        // SAFETY: a pointer to a local.
        self.check("ncclGetUniqueId", unsafe { (self.get_unique_id)(&mut id) })?;
        Ok(id)
    }

    /// Begins to join a group, on the device of this thread's context. Until [`Nccl::is_settled`] says so nothing else may
    /// be asked of the communicator but to abort.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub fn begin(&self, id: &UniqueId, rank: usize, world_size: usize) -> Result<Communicator, LibraryError> {
        let mut config = Config { size: size_of::<Config>(), magic: MAGIC, version: CONFIG_VERSION, blocking: 0 };
        let mut handle = std::ptr::null_mut();
        // SAFETY: pointers to locals; NCCL copies the configuration before it returns.
        let code =
            unsafe { (self.comm_init_rank_config)(&mut handle, world_size as c_int, *id, rank as c_int, &mut config) };
        self.started("ncclCommInitRankConfig", code)?;
        Ok(Communicator(handle))
    }

    /// Whether what was asked of the communicator has begun for good.
    ///
    /// # Errors
    /// Its asynchronous error.
    pub fn is_settled(&self, communicator: Communicator) -> Result<bool, LibraryError> {
        let mut state = SUCCESS;
        // SAFETY: the handle is a communicator's; a pointer to a local.
        let code = unsafe { (self.comm_get_async_error)(communicator.0, &mut state) };
        self.check("ncclCommGetAsyncError", code)?;
        match state {
            IN_PROGRESS => Ok(false),
            state => self.check("the communicator", state).map(|()| true),
        }
    }

    /// Sums, or takes the maximum of, `count` values in their place over ranks, in the order of the stream. Gives whether it
    /// is on the stream already; if not, [`Nccl::is_settled`] tells when.
    ///
    /// # Safety
    /// The address must have so many values of that type until the stream has come by; the stream must belong to the
    /// communicator's device.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub unsafe fn all_reduce(
        &self,
        communicator: Communicator,
        at: Address,
        count: usize,
        (of, how): (DataType, Operation),
        stream: Handle,
    ) -> Result<bool, LibraryError> {
        let at = at as usize as *mut c_void;
        // SAFETY: the caller's word.
        let code = unsafe { (self.all_reduce)(at, at, count, of as c_int, how as c_int, communicator.0, stream) };
        self.started("ncclAllReduce", code).map(|()| code != IN_PROGRESS)
    }

    /// `count` values from every rank, in rank order at `to`, in the order of the stream. Gives what [`Nccl::all_reduce`] gives.
    ///
    /// # Safety
    /// As [`Nccl::all_reduce`]: so many values at `from`, so many of each rank at `to`.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub unsafe fn all_gather(
        &self,
        communicator: Communicator,
        (from, to): (Address, Address),
        count: usize,
        of: DataType,
        stream: Handle,
    ) -> Result<bool, LibraryError> {
        let (from, to) = (from as usize as *const c_void, to as usize as *mut c_void);
        // SAFETY: the caller's word.
        let code = unsafe { (self.all_gather)(from, to, count, of as c_int, communicator.0, stream) };
        self.started("ncclAllGather", code).map(|()| code != IN_PROGRESS)
    }

    /// To every of `world_size` ranks its own `count` values of those at `from`, and at `to` what the ranks have for this one, both
    /// in rank order, in the order of the stream. Gives what [`Nccl::all_reduce`] gives.
    ///
    /// # Safety
    /// As [`Nccl::all_reduce`]: so many values of each rank at `from` and at `to`, which must not overlap.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub unsafe fn exchange(
        &self,
        communicator: Communicator,
        (from, to): (Address, Address),
        (world_size, count): (usize, usize),
        of: DataType,
        stream: Handle,
    ) -> Result<bool, LibraryError> {
        let (of, bytes) = (of as c_int, count * of.bytes());
        // SAFETY: the caller's word; the group that is opened is closed, whatever is refused within.
        unsafe {
            self.started("ncclGroupStart", (self.group_start)())?;
            let each = (0..world_size).try_for_each(|peer| {
                let (from, to) = (from as usize + peer * bytes, to as usize + peer * bytes);
                let (peer, communicator) = (peer as c_int, communicator.0);
                let sent = (self.send)(from as *const c_void, count, of, peer, communicator, stream);
                self.started("ncclSend", sent)?;
                let received = (self.receive)(to as *mut c_void, count, of, peer, communicator, stream);
                self.started("ncclRecv", received)
            });
            let code = (self.group_end)();
            each?;
            self.started("ncclGroupEnd", code).map(|()| code != IN_PROGRESS)
        }
    }

    /// Leaves a group in order: every rank must.
    ///
    /// # Errors
    /// NCCL's refusal.
    pub fn leave(&self, communicator: Communicator) -> Result<(), LibraryError> {
        // SAFETY: the handle is a communicator's, and nothing is asked of it afterwards.
        unsafe {
            self.started("ncclCommFinalize", (self.comm_finalize)(communicator.0))?;
            while !self.is_settled(communicator)? {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            self.started("ncclCommDestroy", (self.comm_destroy)(communicator.0))
        }
    }

    /// Ends a group from this side, whatever it is at. May hang itself: call it from a thread that may be left behind.
    pub fn abort(&self, communicator: Communicator) {
        // SAFETY: the handle is a communicator's, and nothing is asked of it afterwards.
        unsafe { (self.comm_abort)(communicator.0) };
    }

    fn started(&self, call: &'static str, code: Code) -> Result<(), LibraryError> {
        if code == IN_PROGRESS { Ok(()) } else { self.check(call, code) }
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), LibraryError> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: both give null or strings of the library's; the last error is asked for without a communicator.
        let (words, last) = unsafe {
            let last = self.get_last_error.map(|get| text((get)(std::ptr::null_mut())));
            (text((self.get_error_string)(code)), last.unwrap_or_default())
        };
        let mut says = if last.is_empty() { words } else { format!("{words}: {last}") };
        if code == INVALID_USAGE {
            says += "; two ranks with the same GPU are one cause: ask for a GPU per process, or let ranks share it with \
                     NCCL_MULTI_RANK_GPU_ENABLE=1 (and NCCL_MAX_CTAS=4)";
        }
        Err(self.library.refused(call, format!("{says} (error {code})")))
    }
}

/// # Safety
/// Null or a string.
unsafe fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: the caller's word.
    let words = unsafe { CStr::from_ptr(words) }.to_string_lossy();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// 23203 is 2.32.3; before 2.9 it was 2708 for 2.7.8.
fn unpacked(packed: c_int) -> Version {
    let packed = packed.max(0) as u32;
    match packed {
        0..10_000 => Version::new(packed / 1000, packed % 1000 / 100, packed % 100),
        _ => Version::new(packed / 10_000, packed % 10_000 / 100, packed % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_nccl_packs_them() {
        for (packed, expected) in [(23_203, (2, 32, 3)), (22_907, (2, 29, 7)), (2_708, (2, 7, 8)), (21_405, (2, 14, 5))]
        {
            let (major, minor, patch) = expected;
            assert_eq!(unpacked(packed), Version::new(major, minor, patch));
        }
    }

    #[test]
    fn the_configuration_is_the_shortest_that_nccl_knows() {
        assert_eq!(size_of::<Config>(), 24); // nccl.h of 2.14: size_t, two unsigned, int, padded
    }
}
