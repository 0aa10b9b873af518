//! Limits that hold whatever a damaged file claims, and the last net under a panicking reader.
//!
//! Knows numbers only. The rule: what a data set announces must fit into what its file can hold after decompression.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Element, Extent};

/// Deflate cannot expand further (RFC 1951: 258 bytes from two bits, about 1030 : 1); LZF and LZ4 stay below.
const DEFLATE_RATIO: u64 = 1030;
/// Zstandard's run-length blocks: 128 KiB from a few bytes.
const ZSTD_RATIO: u64 = 32 * 1024;
/// Room for small data sets that lie in the file as fill value only.
const SLACK: u64 = 1 << 20;
const ZSTD: u16 = 32015;

/// Most bytes that a data set with these filters can hold in a file of `file_bytes`.
pub(super) fn max_bytes(filters: &[u16], file_bytes: u64) -> u64 {
    let ratio = if filters.is_empty() {
        1
    } else if filters.contains(&ZSTD) {
        ZSTD_RATIO
    } else {
        DEFLATE_RATIO
    };
    file_bytes.saturating_mul(ratio).saturating_add(SLACK)
}

/// Refuses a data set whose shape or chunk cannot be true in a file of `file_bytes`.
pub(super) fn check_extent(extent: &Extent, file_bytes: u64) -> Result<(), String> {
    let limit = max_bytes(&extent.filters, file_bytes);
    // A variable-length element is a reference of 16 bytes whatever its type says.
    let size = if extent.element == (Element::Text { variable: true }) { 16 } else { extent.element_size.max(1) };
    for (what, dims) in [("shape", Some(&extent.shape)), ("chunk", extent.chunk.as_ref())] {
        let Some(dims) = dims else { continue };
        // A zero among the dimensions must not hide an absurd neighbour.
        let bytes = dims.iter().map(|&d| d.max(1)).try_fold(size, u64::checked_mul);
        if bytes.is_none_or(|b| b > limit) {
            return Err(format!("{what} {dims:?} of {size} bytes each cannot be in a file of {file_bytes} bytes"));
        }
    }
    if extent.chunk.as_ref().is_some_and(|c| c.contains(&0)) {
        return Err("a chunk of no elements".into());
    }
    Ok(())
}

/// Runs a reader's call; a panic inside becomes an error like any other.
pub(super) fn caught<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    quiet::install();
    let _quiet = quiet::Guard::new();
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let words = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        Err(format!("the HDF5 reader gave up ({words})"))
    })
}

/// Keeps the panic message of a caught call off the terminal: the caller prints the error.
mod quiet {
    use std::cell::Cell;
    use std::sync::Once;

    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });

    pub(super) fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if DEPTH.with(Cell::get) == 0 {
                    previous(info);
                }
            }));
        });
    }

    pub(super) struct Guard;

    impl Guard {
        pub(super) fn new() -> Guard {
            DEPTH.with(|d| d.set(d.get() + 1));
            Guard
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            DEPTH.with(|d| d.set(d.get() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(shape: &[u64], chunk: Option<&[u64]>, filters: &[u16]) -> Extent {
        let element = Element::Float(4);
        Extent { shape: shape.into(), element, element_size: 4, chunk: chunk.map(Into::into), filters: filters.into() }
    }

    #[test]
    fn what_fits_is_read_and_what_cannot_be_is_refused() {
        let file = 10 << 20;
        assert!(check_extent(&extent(&[1000, 1000], None, &[]), file).is_ok());
        assert!(check_extent(&extent(&[10_000, 1000], None, &[]), file).is_err(), "40 MB, stored plainly, in 10 MB");
        assert!(check_extent(&extent(&[10_000, 1000], Some(&[100, 100]), &[1]), file).is_ok());
        assert!(check_extent(&extent(&[1 << 40, 1 << 40], Some(&[100, 100]), &[1]), file).is_err(), "overflow");
        assert!(check_extent(&extent(&[0, 1 << 60], Some(&[1, 1]), &[1]), file).is_err(), "zero hides nothing");
        assert!(check_extent(&extent(&[10], Some(&[1 << 50]), &[1]), file).is_err());
        assert!(check_extent(&extent(&[10], Some(&[0]), &[1]), file).is_err());
    }

    #[test]
    fn a_panic_in_a_reader_is_an_error() {
        let fact = caught::<()>(|| panic!("index 7 of 3")).unwrap_err();
        assert!(fact.contains("index 7 of 3"), "{fact}");
    }
}
