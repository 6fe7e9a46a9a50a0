//! Both rings in one file without a name (`memfd`), mapped by host and program.
//!
//! ```text
//!  0      4 KiB   8 KiB         8 KiB + RING_BYTES
//!  │ control │ control │ frames to the program │ frames from the program │
//!    head 0, tail 128, consumer sleeps 256, producer sleeps 384
//! ```
//!
//! Each word has a pair of cache lines to itself: processors fetch lines in pairs.
//!
//! Always true: the file cannot shrink while it is mapped, so no access of ours can fault; every access is checked
//! against sizes that are constants of this crate. This is the only module with `unsafe`.
#![expect(unsafe_code, reason = "mapped memory that another process writes to")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::memory::{End, Memory};
use crate::{FRAME_ALIGN, HEAD_BYTES};

/// Bytes of each direction. Both together, with what they carry copied out, stay within a second-level cache.
pub const RING_BYTES: usize = 512 << 10;
const CONTROL_BYTES: usize = 4096;
const MAPPING_BYTES: usize = 2 * (CONTROL_BYTES + RING_BYTES);

/// Why memory that was handed over cannot hold the rings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// It has another size.
    #[error(
        "the rings' memory has {found} bytes instead of {MAPPING_BYTES}; run launcher and program from one release"
    )]
    OtherSize {
        /// Its size.
        found: u64,
    },
    /// It could be taken away while it is mapped.
    #[error(
        "the rings' memory is not sealed against shrinking; run launcher and program from one release"
    )]
    NotSealed,
    /// The system refused.
    #[error(
        "the rings' memory cannot be mapped: {0}; give the process more memory, then start again"
    )]
    System(#[from] io::Error),
}

/// Makes the memory and this process's view of it: the ring to the program, then the one from it. The file is
/// what the other side [`open`]s.
///
/// # Errors
/// The system gives no memory or no file descriptor.
pub fn create() -> io::Result<(OwnedFd, [Shared; 2])> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"bield-door", flags)?;
    rustix::fs::ftruncate(&file, MAPPING_BYTES as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let views = map(&file)?;
    Ok((file, views))
}

/// Maps memory that the other side made: the ring to the program, then the one from it.
///
/// # Errors
/// See [`MapError`].
pub fn open(file: impl AsFd) -> Result<[Shared; 2], MapError> {
    has_size(&file)?;
    // Files that know no seals are no memory of ours either.
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
    if !seals.contains(SealFlags::SHRINK) {
        return Err(MapError::NotSealed);
    }
    // Once more: it may have been made smaller, then sealed, after the first look. From here on it cannot.
    has_size(&file)?;
    Ok(map(&file)?)
}

fn has_size(file: impl AsFd) -> Result<(), MapError> {
    let found = rustix::fs::fstat(file).map_err(io::Error::from)?.st_size;
    match usize::try_from(found) {
        Ok(MAPPING_BYTES) => Ok(()),
        _ => Err(MapError::OtherSize {
            found: u64::try_from(found).unwrap_or(0),
        }),
    }
}

/// One direction of the mapped memory.
#[derive(Clone)]
pub struct Shared {
    mapping: Arc<Mapping>,
    /// Which of the two.
    direction: usize,
}

#[repr(C, align(128))]
struct Line<T>(T);

#[repr(C)]
struct Control {
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    consumer_sleeps: Line<AtomicU32>,
    producer_sleeps: Line<AtomicU32>,
}

const _: () = assert!(size_of::<Control>() == 512 && size_of::<Control>() <= CONTROL_BYTES);
const _: () = assert!(crate::is_capacity(RING_BYTES));

impl Shared {
    fn control(&self) -> &Control {
        let at = self.direction * CONTROL_BYTES;
        // SAFETY: the mapping has two control pages at its begin (`at` is the start of one), aligned as `Control` wants
        // because mappings are page-aligned, and lives as long as `self`. `Control` holds atomics only, for which any
        // bytes are valid and which another process may change. The reference does not leave this module.
        unsafe { self.mapping.base.add(at).cast::<Control>().as_ref() }
    }

    fn index_of(&self, end: End) -> &AtomicU64 {
        match end {
            End::Producer => &self.control().head.0,
            End::Consumer => &self.control().tail.0,
        }
    }

    fn mark_of(&self, end: End) -> &AtomicU32 {
        match end {
            End::Producer => &self.control().producer_sleeps.0,
            End::Consumer => &self.control().consumer_sleeps.0,
        }
    }

    /// The first of `length` bytes of the ring from `at`.
    fn bytes(&self, at: usize, length: usize) -> NonNull<u8> {
        let inside = at <= RING_BYTES && length <= RING_BYTES - at;
        assert!(inside, "bytes outside the ring");
        let begin = 2 * CONTROL_BYTES + self.direction * RING_BYTES;
        // SAFETY: `begin + at` is at most the mapping's size, as checked above for either direction.
        unsafe { self.mapping.base.add(begin + at) }
    }

    fn head_words(&self, at: usize) -> [&AtomicU64; 2] {
        assert!(at.is_multiple_of(FRAME_ALIGN), "a frame begins elsewhere");
        let words = self.bytes(at, HEAD_BYTES).cast::<AtomicU64>();
        // SAFETY: 16 bytes of the ring, aligned to 64, valid as atomics whatever they hold, for as long as `self` lives.
        unsafe { [words.as_ref(), words.add(1).as_ref()] }
    }
}

impl Memory for Shared {
    fn capacity(&self) -> usize {
        RING_BYTES
    }

    #[inline]
    fn index(&self, end: End) -> u64 {
        self.index_of(end).load(Ordering::Acquire)
    }

    #[inline]
    fn publish(&self, end: End, index: u64) {
        self.index_of(end).store(index, Ordering::Release);
    }

    #[inline]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn mark(&self, end: End, sleeps: bool) {
        self.mark_of(end)
            .store(u32::from(sleeps), Ordering::Relaxed);
    }

    #[inline]
    fn is_marked(&self, end: End) -> bool {
        self.mark_of(end).load(Ordering::Relaxed) != 0
    }

    fn sleep(&self, end: End, limit: Duration) {
        sleep_on(self.mark_of(end), limit);
    }

    fn wake(&self, end: End) {
        let mark = self.mark_of(end);
        mark.store(0, Ordering::SeqCst);
        wake_all(mark);
    }

    #[inline]
    fn head(&self, at: usize) -> [u64; 2] {
        self.head_words(at).map(|word| word.load(Ordering::Relaxed))
    }

    #[inline]
    fn set_head(&self, at: usize, words: [u64; 2]) {
        for (place, word) in self.head_words(at).into_iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    #[inline]
    fn read(&self, at: usize, length: usize, into: &mut Vec<u8>) {
        let from = self.bytes(at, length);
        into.reserve(length);
        let begin = into.len();
        // SAFETY: `from` has `length` bytes in the mapping, `into` has room for as many behind its length, and the two
        // do not overlap: one is private. A peer that writes meanwhile is another process, outside this program's
        // memory model; whatever mixture arrives is valid as bytes and is judged only after it was copied.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr().add(begin), length);
            into.set_len(begin + length);
        }
    }

    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.bytes(at, bytes.len());
        // SAFETY: `to` has `bytes.len()` bytes in the mapping, which no reference of this process covers; `bytes` is
        // private memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) }
    }
}

fn sleep_on(mark: &AtomicU32, limit: Duration) {
    use rustix::thread::futex::{Flags, Timespec, wait};
    let limit = Timespec::try_from(limit).ok();
    // Woken, changed meanwhile, interrupted or timed out: the caller looks again in each case.
    let _ = wait(mark, Flags::empty(), 1, limit.as_ref());
}

fn wake_all(mark: &AtomicU32) {
    use rustix::thread::futex::{Flags, wake};
    let _ = wake(mark, Flags::empty(), i32::MAX.cast_unsigned());
}

/// Bytes mapped until the last view is gone.
struct Mapping {
    base: NonNull<u8>,
}

// SAFETY: the bytes are reached through atomics and raw copies only, from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; what two threads of this process may do at once is what two ends of a ring do.
unsafe impl Sync for Mapping {}

fn map(file: impl AsFd) -> io::Result<[Shared; 2]> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice; the file has this size and cannot shrink.
    let base = unsafe {
        mmap(
            ptr::null_mut(),
            MAPPING_BYTES,
            protection,
            MapFlags::SHARED,
            file,
            0,
        )?
    };
    let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
    Ok(views(Mapping { base }))
}

fn views(mapping: Mapping) -> [Shared; 2] {
    let mapping = Arc::new(mapping);
    [0, 1].map(|direction| Shared {
        mapping: Arc::clone(&mapping),
        direction,
    })
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; no view is left that could reach it.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), MAPPING_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping that is not one");
    }
}

#[cfg(test)]
mod tests;
