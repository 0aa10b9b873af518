//! What lies on the host goes to the device in pieces, is summed there, and comes back.

use std::sync::Arc;

use super::{HALVES, NcclEngine, PIECE, Place};
use crate::elementwise::bf16;
use crate::engine::EngineError;
use crate::gpu::driver::Address;
use crate::gpu::nccl::{DataType, Operation};

impl NcclEngine {
    /// `values`, at most [`PIECE`] bytes, by way of the device. `bytes`: of the whole operation, for the error.
    pub(super) fn reduce<T: Copy>(
        &mut self,
        operation: &'static str,
        bytes: usize,
        values: &mut [T],
        of: (DataType, Operation),
    ) -> Result<(), EngineError> {
        let size = size_of_val(values);
        assert!(size <= PIECE, "a piece is cut before it travels");
        let Some(communicator) = self.communicator else {
            return Err(self.refused(operation, "the group was left or given up"));
        };
        if size == 0 {
            return Ok(());
        }
        let (driver, nccl) = (Arc::clone(&self.driver), Arc::clone(&self.nccl));
        let Place { context, stream, device, host } = self.place;
        let length = values.len();
        // SAFETY: both buffers have PIECE bytes and stay; nothing else uses them before the stream is done, which `settle` waits
        // for, or the group is given up and they are never touched again. Plain numbers are copied as bytes.
        unsafe {
            let begin = || {
                driver.enter(context)?;
                std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), host, size);
                driver.copy_to(device, host, size, stream)?;
                nccl.all_reduce(communicator, device, length, of, stream)
            };
            let begun = begin();
            self.settle(operation, bytes, communicator, begun, || driver.copy_from(host, device, size, stream))?;
            std::ptr::copy_nonoverlapping(host, values.as_mut_ptr().cast::<u8>(), size);
        }
        Ok(())
    }

    /// The sums of bf16, at most [`HALVES`] in whole segments of all ranks. NCCL's own would be rounded at every rank on the way, in
    /// an order that is its own: each rank gets all ranks' values of its segment, adds them on the host, and sends the segment
    /// back; the same bytes in all as a sum by segments.
    pub(super) fn sum_bf16(
        &mut self,
        operation: &'static str,
        bytes: usize,
        values: &mut [u16],
    ) -> Result<(), EngineError> {
        let w = self.world_size;
        let segment = values.len().div_ceil(w);
        assert!(segment * w <= HALVES, "a piece is cut before it travels");
        let Some(communicator) = self.communicator else {
            return Err(self.refused(operation, "the group was left or given up"));
        };
        let (driver, nccl) = (Arc::clone(&self.driver), Arc::clone(&self.nccl));
        let Place { context, stream, device, host } = self.place;
        let (here, there) = (device, device + (PIECE / 2) as Address);
        let (size, all, mine) = (size_of_val(values), 2 * segment * w, 2 * segment);
        // SAFETY: as in `reduce`; `here` and `there` are the two halves of the device's buffer, each with room for `all` bytes, and
        // the host's buffer is aligned for any number.
        unsafe {
            let exchange = || {
                driver.enter(context)?;
                std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), host, size);
                host.add(size).write_bytes(0, all - size);
                driver.copy_to(here, host, all, stream)?;
                nccl.exchange(communicator, (here, there), (w, segment), DataType::Bf16, stream)
            };
            let begun = exchange();
            self.settle(operation, bytes, communicator, begun, || driver.copy_from(host, there, all, stream))?;
            let theirs = std::slice::from_raw_parts(host.cast::<u16>(), segment * w);
            let sum = bf16::sum(&theirs.chunks_exact(segment).collect::<Vec<_>>());
            let gather = || {
                std::ptr::copy_nonoverlapping(sum.as_ptr().cast::<u8>(), host, mine);
                driver.copy_to(here, host, mine, stream)?;
                nccl.all_gather(communicator, (here, there), segment, DataType::Bf16, stream)
            };
            let begun = gather();
            self.settle(operation, bytes, communicator, begun, || driver.copy_from(host, there, size, stream))?;
            std::ptr::copy_nonoverlapping(host, values.as_mut_ptr().cast::<u8>(), size);
        }
        Ok(())
    }
}
