//! The driver's library (`libcuda`): devices, memory and streams, as far as a reduction needs them.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};

use super::Version;
use super::library::{Known, Library, LibraryError};

const KNOWN: Known = Known {
    what: "NVIDIA's driver library",
    names: &["libcuda.so.1", "libcuda.so"],
    advice: "run on a node with an NVIDIA driver (in a container: with `--nv` or `--gpus`)",
};

/// The file to load instead of what the loader finds; for tests and odd installations.
pub const FILE: &str = "SYNCYTIA_LIBCUDA";

type Code = c_int;
/// A device's handle.
pub type DeviceHandle = c_int;
/// A context, a stream: opaque.
pub type Handle = *mut c_void;
/// An address on the device.
pub type Address = u64;

const SUCCESS: Code = 0;
const NOT_READY: Code = 600;
/// Not ordered against the legacy stream.
const NON_BLOCKING: c_uint = 1;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;

/// The functions, each looked up once.
#[derive(Debug)]
pub struct Driver {
    library: Library,
    get_error_string: unsafe extern "C" fn(Code, *mut *const c_char) -> Code,
    driver_get_version: unsafe extern "C" fn(*mut c_int) -> Code,
    device_get_count: unsafe extern "C" fn(*mut c_int) -> Code,
    device_get: unsafe extern "C" fn(*mut DeviceHandle, c_int) -> Code,
    device_get_name: unsafe extern "C" fn(*mut c_char, c_int, DeviceHandle) -> Code,
    device_total_mem: unsafe extern "C" fn(*mut usize, DeviceHandle) -> Code,
    device_get_attribute: unsafe extern "C" fn(*mut c_int, c_int, DeviceHandle) -> Code,
    primary_ctx_retain: unsafe extern "C" fn(*mut Handle, DeviceHandle) -> Code,
    ctx_set_current: unsafe extern "C" fn(Handle) -> Code,
    mem_alloc: unsafe extern "C" fn(*mut Address, usize) -> Code,
    mem_free: unsafe extern "C" fn(Address) -> Code,
    copy_to: unsafe extern "C" fn(Address, *const c_void, usize, Handle) -> Code,
    copy_from: unsafe extern "C" fn(*mut c_void, Address, usize, Handle) -> Code,
    stream_create: unsafe extern "C" fn(*mut Handle, c_uint) -> Code,
    stream_query: unsafe extern "C" fn(Handle) -> Code,
    host_alloc: unsafe extern "C" fn(*mut *mut c_void, usize) -> Code,
    host_free: unsafe extern "C" fn(*mut c_void) -> Code,
    module_load: unsafe extern "C" fn(*mut Handle, *const c_void) -> Code,
    module_unload: unsafe extern "C" fn(Handle) -> Code,
}

/// A device as the driver tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Compute capability: 9.0.
    pub capability: (u32, u32),
}

impl Driver {
    /// Loads the library and initialises it. `file`: that file alone.
    ///
    /// # Errors
    /// What is missing or refuses, in one line.
    pub fn open(file: Option<&OsStr>) -> Result<Driver, LibraryError> {
        let library = Library::open(KNOWN, file)?;
        // SAFETY: the types are those of cuda.h; the suffixes are the current versions of the functions.
        let driver = unsafe {
            let init: unsafe extern "C" fn(c_uint) -> Code = library.function("cuInit")?;
            let driver = Driver {
                get_error_string: library.function("cuGetErrorString")?,
                driver_get_version: library.function("cuDriverGetVersion")?,
                device_get_count: library.function("cuDeviceGetCount")?,
                device_get: library.function("cuDeviceGet")?,
                device_get_name: library.function("cuDeviceGetName")?,
                device_total_mem: library.function("cuDeviceTotalMem_v2")?,
                device_get_attribute: library.function("cuDeviceGetAttribute")?,
                primary_ctx_retain: library.function("cuDevicePrimaryCtxRetain")?,
                ctx_set_current: library.function("cuCtxSetCurrent")?,
                mem_alloc: library.function("cuMemAlloc_v2")?,
                mem_free: library.function("cuMemFree_v2")?,
                copy_to: library.function("cuMemcpyHtoDAsync_v2")?,
                copy_from: library.function("cuMemcpyDtoHAsync_v2")?,
                stream_create: library.function("cuStreamCreate")?,
                stream_query: library.function("cuStreamQuery")?,
                host_alloc: library.function("cuMemAllocHost_v2")?,
                host_free: library.function("cuMemFreeHost")?,
                module_load: library.function("cuModuleLoadData")?,
                module_unload: library.function("cuModuleUnload")?,
                library,
            };
            driver.check("cuInit", init(0))?;
            driver
        };
        Ok(driver)
    }

    /// The CUDA version that the driver knows.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn version(&self) -> Result<Version, LibraryError> {
        let mut packed = 0;
        // SAFETY: a pointer to a local.
        self.check("cuDriverGetVersion", unsafe { (self.driver_get_version)(&mut packed) })?;
        Ok(cuda_version(packed))
    }

    /// Devices that this process may see (`CUDA_VISIBLE_DEVICES`).
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn count(&self) -> Result<usize, LibraryError> {
        let mut count = 0;
        // SAFETY: a pointer to a local.
        self.check("cuDeviceGetCount", unsafe { (self.device_get_count)(&mut count) })?;
        Ok(count.max(0) as usize)
    }

    /// What the device `ordinal` is.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn facts(&self, ordinal: usize) -> Result<DeviceFacts, LibraryError> {
        let device = self.device(ordinal)?;
        let mut name = [0u8; 256];
        let mut memory = 0usize;
        let attribute = |which: c_int| {
            let mut value = 0;
            // SAFETY: a pointer to a local.
            let code = unsafe { (self.device_get_attribute)(&mut value, which, device) };
            self.check("cuDeviceGetAttribute", code).map(|()| value.max(0) as u32)
        };
        // SAFETY: pointers to locals, the length of the name's.
        unsafe {
            let code = (self.device_get_name)(name.as_mut_ptr().cast(), name.len() as c_int - 1, device);
            self.check("cuDeviceGetName", code)?;
            self.check("cuDeviceTotalMem", (self.device_total_mem)(&mut memory, device))?;
        }
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        Ok(DeviceFacts { name, memory: memory as u64, capability: (attribute(MAJOR)?, attribute(MINOR)?) })
    }

    /// The device's primary context, the one that Burn's kernels run in, and a stream of our own in it.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn lane(&self, ordinal: usize) -> Result<(Handle, Handle), LibraryError> {
        let (context, mut stream) = (self.primary(ordinal)?, std::ptr::null_mut());
        // SAFETY: a pointer to a local.
        self.check("cuStreamCreate", unsafe { (self.stream_create)(&mut stream, NON_BLOCKING) })?;
        Ok((context, stream))
    }

    /// Loads kernels, and lets them go again. `ptx` ends with a zero.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn try_to_load(&self, ordinal: usize, ptx: &[u8]) -> Result<(), LibraryError> {
        assert_eq!(ptx.last(), Some(&0), "a text of C");
        self.primary(ordinal)?;
        let mut module = std::ptr::null_mut();
        // SAFETY: a pointer to a local, a text that ends, and nothing of the module is in use.
        unsafe {
            self.check("cuModuleLoadData", (self.module_load)(&mut module, ptx.as_ptr().cast()))?;
            self.check("cuModuleUnload", (self.module_unload)(module))
        }
    }

    /// The device's primary context, this thread's own.
    fn primary(&self, ordinal: usize) -> Result<Handle, LibraryError> {
        let (device, mut context) = (self.device(ordinal)?, std::ptr::null_mut());
        // SAFETY: a pointer to a local, and a context that is kept until the process ends.
        unsafe {
            self.check("cuDevicePrimaryCtxRetain", (self.primary_ctx_retain)(&mut context, device))?;
            self.enter(context)?;
        }
        Ok(context)
    }

    /// Makes a context this thread's own.
    ///
    /// # Safety
    /// The context must be one of [`Driver::lane`].
    ///
    /// # Errors
    /// The driver's refusal.
    pub unsafe fn enter(&self, context: Handle) -> Result<(), LibraryError> {
        // SAFETY: the caller's word.
        self.check("cuCtxSetCurrent", unsafe { (self.ctx_set_current)(context) })
    }

    /// `bytes` on the device of this thread's context.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn allocate(&self, bytes: usize) -> Result<Address, LibraryError> {
        let mut address = 0;
        // SAFETY: a pointer to a local.
        self.check("cuMemAlloc", unsafe { (self.mem_alloc)(&mut address, bytes) })?;
        Ok(address)
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// The address must be one of [`Driver::allocate`], in this thread's context, and nothing may use it any more.
    ///
    /// # Errors
    /// The driver's refusal.
    pub unsafe fn free(&self, address: Address) -> Result<(), LibraryError> {
        // SAFETY: the caller's word.
        self.check("cuMemFree", unsafe { (self.mem_free)(address) })
    }

    /// `bytes` of the host that stay where they are, so that copies run beside the host.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn allocate_host(&self, bytes: usize) -> Result<*mut u8, LibraryError> {
        let mut address = std::ptr::null_mut();
        // SAFETY: a pointer to a local.
        self.check("cuMemAllocHost", unsafe { (self.host_alloc)(&mut address, bytes) })?;
        Ok(address.cast())
    }

    /// Gives host memory back.
    ///
    /// # Safety
    /// The address must be one of [`Driver::allocate_host`], and nothing may use it any more.
    ///
    /// # Errors
    /// The driver's refusal.
    pub unsafe fn free_host(&self, address: *mut u8) -> Result<(), LibraryError> {
        // SAFETY: the caller's word.
        self.check("cuMemFreeHost", unsafe { (self.host_free)(address.cast()) })
    }

    /// Host to device, in the order of the stream.
    ///
    /// # Safety
    /// Both sides must have `bytes` bytes, and the host's must stay until the stream has come by.
    ///
    /// # Errors
    /// The driver's refusal.
    pub unsafe fn copy_to(&self, to: Address, from: *const u8, bytes: usize, on: Handle) -> Result<(), LibraryError> {
        // SAFETY: the caller's word.
        self.check("cuMemcpyHtoDAsync", unsafe { (self.copy_to)(to, from.cast(), bytes, on) })
    }

    /// Device to host, in the order of the stream.
    ///
    /// # Safety
    /// As [`Driver::copy_to`].
    ///
    /// # Errors
    /// The driver's refusal.
    pub unsafe fn copy_from(&self, to: *mut u8, from: Address, bytes: usize, on: Handle) -> Result<(), LibraryError> {
        // SAFETY: the caller's word.
        self.check("cuMemcpyDtoHAsync", unsafe { (self.copy_from)(to.cast(), from, bytes, on) })
    }

    /// Whether everything on the stream is done.
    ///
    /// # Safety
    /// The stream must be one of [`Driver::lane`].
    ///
    /// # Errors
    /// An error of what ran on it.
    pub unsafe fn is_done(&self, stream: Handle) -> Result<bool, LibraryError> {
        // SAFETY: the caller's word.
        match unsafe { (self.stream_query)(stream) } {
            NOT_READY => Ok(false),
            code => self.check("cuStreamQuery", code).map(|()| true),
        }
    }

    fn device(&self, ordinal: usize) -> Result<DeviceHandle, LibraryError> {
        let mut device = 0;
        // SAFETY: a pointer to a local.
        self.check("cuDeviceGet", unsafe { (self.device_get)(&mut device, ordinal as c_int) })?;
        Ok(device)
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), LibraryError> {
        if code == SUCCESS {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: a pointer to a local; what comes back is null or a string of the library's.
        let words = unsafe {
            (self.get_error_string)(code, &mut text);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        Err(self.library.refused(call, format!("{} (error {code})", words.unwrap_or_else(|| "unknown".to_owned()))))
    }
}

/// 12040 is 12.4.
pub(super) fn cuda_version(packed: c_int) -> Version {
    let packed = packed.max(0) as u32;
    Version::new(packed / 1000, packed % 1000 / 10, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_driver_packs_them() {
        assert_eq!(cuda_version(12_040), Version::new(12, 4, 0));
        assert_eq!(cuda_version(13_000).to_string(), "13.0.0");
    }
}
