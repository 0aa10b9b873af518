//! The `syncytia` program: arguments in, exit code out.

use std::io::Write;

use syncytia_launch::exit;

/// glibc's allocator gives big tensors back to the kernel after every operation: 25 % of a step in page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    syncytia::tensor::keep_free_pages();
    let code = syncytia::cmd::main();
    let _ = std::io::stdout().flush(); // nobody is left to tell
    // What libraries do at exit may wait for a peer, or pull memory from under a thread that one of them left behind.
    exit::now(code.code())
}
