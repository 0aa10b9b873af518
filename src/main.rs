//! The `syncytia` program: arguments in, exit code out.

use syncytia_launch::ExitCode;

/// glibc's allocator gives big tensors back to the kernel after every operation: 25 % of a step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, for which the crate has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: an option of the allocator, before any thread is started. −1: pages that are free are kept, as the next step
    // fills them again; giving them back after 10 ms, which is the default, was a quarter of a step in page faults.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    syncytia::cmd::main()
}
