//! Mappings that the allocator hands out as blocks, and the table by which it knows them again.
//!
//! The table is fixed and has no lock, since it is used while any lock may be held. A slot is claimed before a region
//! is handed out and emptied before it is unmapped, so an address is never in it twice. Ordinary blocks are told
//! apart by alignment: a region starts a page, which 1 of 256 ordinary blocks does; those cost a look at each slot
//! that was ever used.
//!
//! Huge pages are asked for and tried. Where a host backs a guest's memory late, what the guest has not used for
//! seconds is gone again, and it goes in units of huge pages: each of those costs 512 faults in the host then, while
//! small pages come from blocks that were in use a moment ago (measured in decision 0012). So up to three are touched,
//! and one that comes slowly decides for small pages.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags};

/// Most regions at once. Each is a model or as large as one; a process that has more has another limit wrong.
pub const REGIONS_MAX: usize = 1024;
/// Bytes of a huge page on the machines there are; from here on a region starts one.
const HUGE: usize = 2 << 20;
/// What the first touch of a huge page may take: 1 GiB/s, which small pages reach. Clearing it takes a tenth of that.
const HUGE_TOUCH_MAX: Duration = Duration::from_millis(2);
/// No machine has smaller pages, none larger. Asking the system would open a file, which an allocator must not and a
/// confined process cannot.
const PAGE_LEAST: usize = 4096;
const PAGE_GREATEST: usize = 64 << 10;

static TABLE: [AtomicPtr<u8>; REGIONS_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; REGIONS_MAX];
/// Slots that were ever used: those from here on are empty.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether the block is a region.
pub(super) fn holds(block: *const u8) -> bool {
    slot(block).is_some()
}

/// Takes a region off the table; `false` for any other block. Only its owner may ask.
pub(super) fn forget(block: *const u8) -> bool {
    let slot = slot(block);
    if let Some(slot) = slot {
        slot.store(ptr::null_mut(), Ordering::Release);
    }
    slot.is_some()
}

/// Maps a region of at least `bytes`, all zero; null when there is no memory or no slot.
pub(super) fn map(bytes: usize) -> *mut u8 {
    let Some(len) = bytes.checked_next_multiple_of(PAGE_GREATEST) else {
        return ptr::null_mut();
    };
    let slack = if len >= HUGE { HUGE } else { 0 };
    let Some(reach) = len.checked_add(slack) else {
        return ptr::null_mut();
    };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place.
    let mapped =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), reach, access, MapFlags::PRIVATE) };
    let Ok(start) = mapped else {
        return ptr::null_mut();
    };
    let start = start.cast::<u8>();
    let before = match slack {
        0 => 0,
        _ => start.align_offset(HUGE).min(slack),
    };
    // SAFETY: all of it lies in the fresh mapping: `before` ≤ `slack`, and `before + len + (slack − before)` is its
    // length; each part is made of whole pages, and nothing refers to what is unmapped.
    unsafe {
        let region = start.add(before);
        give_back(start, before);
        give_back(region.add(len), slack - before);
        // Best effort: a kernel without huge pages, or a limit on locked memory, leaves a region that works.
        let _ = rustix::mm::madvise(region.cast(), len, Advice::LinuxDontDump);
        let _ = rustix::mm::mlock_with(region.cast(), len, MlockFlags::ONFAULT);
        if slack > 0 {
            let _ = rustix::mm::madvise(region.cast(), len, Advice::LinuxHugepage);
            if !comes_quickly(region, len) {
                let _ = rustix::mm::madvise(region.cast(), len, Advice::LinuxNoHugepage);
            }
        }
        if !keep(region) {
            give_back(region, len);
            return ptr::null_mut();
        }
        region
    }
}

/// Touches up to three huge pages of a fresh region of `len` zeroes, for as long as they come quickly.
///
/// # Safety
/// The region is mapped for writing, holds at least a huge page and is nobody's yet.
unsafe fn comes_quickly(region: *mut u8, len: usize) -> bool {
    [0, len / 2, len - HUGE].into_iter().all(|offset| {
        let began = Instant::now();
        // SAFETY: the caller's promise; all offsets are within `len`.
        unsafe { region.add(offset).write_volatile(0) };
        began.elapsed() <= HUGE_TOUCH_MAX
    })
}

/// Wipes a region of `bytes` bytes and gives it back to the kernel.
///
/// # Safety
/// [`map`] made it for `bytes` bytes, it is off the table, and nobody uses it any more.
pub(super) unsafe fn unmap(region: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise; `map` rounded up in the same way.
    unsafe {
        super::wipe(region, bytes);
        #[cfg(test)]
        super::tests::before_it_is_unmapped(std::slice::from_raw_parts(region, bytes));
        give_back(region, bytes.next_multiple_of(PAGE_GREATEST));
    }
}

/// # Safety
/// As [`rustix::mm::munmap`]; `len` may be 0.
unsafe fn give_back(start: *mut u8, len: usize) {
    if len > 0 {
        // It fails where cutting a mapping in two exceeds the system's number of mappings: then it stays, empty.
        // SAFETY: the caller's promise.
        let _ = unsafe { rustix::mm::munmap(start.cast(), len) };
    }
}

fn keep(region: *mut u8) -> bool {
    let taken = TABLE.iter().position(|slot| {
        let (empty, order) = (ptr::null_mut(), Ordering::AcqRel);
        slot.compare_exchange(empty, region, order, Ordering::Relaxed)
            .is_ok()
    });
    if let Some(index) = taken {
        USED.fetch_max(index + 1, Ordering::AcqRel);
    }
    taken.is_some()
}

fn slot(block: *const u8) -> Option<&'static AtomicPtr<u8>> {
    if !block.addr().is_multiple_of(PAGE_LEAST) {
        return None;
    }
    // Whoever passed the block on passed on what happened before, too: its slot is seen.
    TABLE
        .iter()
        .take(USED.load(Ordering::Acquire))
        .find(|slot| ptr::eq(slot.load(Ordering::Acquire), block))
}
