//! What becomes of memory that is free: it stays with the process.

/// `mi_option_purge_delay` of mimalloc.h, for which the crate has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Where mimalloc is the program's allocator, pages that are free are kept: the next step fills them again. To give them back
/// after 10 ms, which is the default, was a quarter of a training step and a third of a loader's time in page faults.
pub fn keep_free_pages() {
    // SAFETY: sets an option of the allocator, which it reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
