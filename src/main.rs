//! The `syncytia` program: arguments in, exit code out.

use syncytia_launch::ExitCode;

/// glibc's allocator gives big tensors back to the kernel after every operation: 25 % of a step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    syncytia::tensor::keep_free_pages();
    syncytia::cmd::main()
}
