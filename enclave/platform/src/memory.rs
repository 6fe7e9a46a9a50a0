//! Where plaintext lies: regions of their own for models, and freed memory that keeps nothing.
//!
//! ```text
//! region(len) ──▶ Vec<u8> ──▶ engine keeps it, reads weights in place ──▶ drop ──▶ wiped ──▶ unmapped
//!
//! Wiping::begin() ──▶ a request, its tensors, its answer ──▶ each freed block is zeroed first ──▶ drop
//! ```
//!
//! Goes in: sizes. Comes out: memory that looks like any other, so that no engine needs to know of it; the
//! process's allocator ([`EnclaveAllocator`]) tells regions from ordinary blocks when they are freed.
//!
//! Always true, where that allocator is installed: a region is a mapping of its own, and every byte of it is zeroed
//! before the kernel gets it back, which is when it is dropped; while any [`Wiping`] lives, no block leaves the
//! allocator with its contents, whichever thread frees it and whether it is dropped, shrunk or moved. Where it is not
//! installed (other crates' unit tests, programs outside the enclave) a region is an ordinary zeroed vector and
//! nothing is wiped here.
//!
//! Not here: stacks and registers; memory that C or C++ code takes from `malloc` itself (aws-lc wipes its own); what
//! was freed before the guard began; who is isolated from whom.
//!
//! On paper: a region of 178 MB is 85 huge pages instead of 43 000 small ones, so filling it for the first time costs
//! 85 page faults (where a host backs memory so late that small ones are faster, it takes those); wiping it costs one
//! pass over it, as fast as memory is. Without a guard, a free costs one relaxed load and an allocation one
//! thread-local load more than `System`.
#![expect(
    unsafe_code,
    reason = "a global allocator, and vectors over memory it maps itself"
)]

mod regions;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::optimization_barrier;

/// Makes a vector of `len` zeroes whose memory is a mapping of its own: wiped and given back to the kernel when it is
/// dropped, left out of core dumps, locked against swapping as far as `RLIMIT_MEMLOCK` lets, and from 2 MiB on backed
/// by huge pages where those come quickly.
///
/// It stays a region for as long as it keeps its capacity. One that is grown or shrunk moves into an ordinary block;
/// the region is wiped and given back then.
///
/// # Errors
/// The system gives no such memory, or the process holds [`REGIONS_MAX`] regions.
pub fn region(len: usize) -> Result<Vec<u8>, NoMemory> {
    let mut region = Vec::new();
    REGION_WANTED.set(true);
    let reserved = region.try_reserve_exact(len);
    REGION_WANTED.set(false);
    reserved.map_err(|_| NoMemory { bytes: len })?;
    if regions::holds(region.as_ptr()) {
        // SAFETY: the allocation is a fresh anonymous mapping, which the kernel fills with zeroes, and the reservation
        // succeeded, so `len` bytes of it belong to the vector.
        unsafe { region.set_len(len) };
    } else {
        region.resize(len, 0);
    }
    Ok(region)
}

/// While one lives, every block that is freed or moved anywhere in the process is zeroed first.
///
/// Begin it before the first secret byte is in memory, and drop it after everything that held one is dropped.
#[must_use = "wiping ends when this is dropped"]
pub struct Wiping(());

impl Wiping {
    /// Begins to wipe. Guards count: wiping ends with the last.
    pub fn begin() -> Self {
        WIPING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Wiping {
    fn drop(&mut self) {
        WIPING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives the kernel back whatever the system's allocator keeps of freed blocks, in all its heaps. For when much was
/// freed that will not be asked for again soon, a model for example: glibc returns the end of a heap by itself, never
/// its middle. Locks one heap after another, a millisecond or a few in all.
pub fn give_back_freed() {
    // SAFETY: no pointer goes in, and only memory in no block is given back.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The system gives no memory for a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system gives no region of {bytes} bytes; unload models or give the process more memory, then retry"
)]
pub struct NoMemory {
    /// Bytes asked for.
    pub bytes: usize,
}

/// The system's allocator, with regions and wiping. A program installs it with `#[global_allocator]`.
pub struct EnclaveAllocator;

// SAFETY: blocks come from `System` or from `regions::map`, which hands out fresh, page-aligned mappings of at least
// the asked size to one owner each; every block goes back to where it came from, since `regions` knows its own.
unsafe impl GlobalAlloc for EnclaveAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if REGION_WANTED.get() {
            // Only `region` asks so, for bytes: any alignment does.
            return regions::map(layout.size());
        }
        // SAFETY: the caller's promise about `layout` is the one `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns `block`, of `layout`, and gives it up. A region of that size is one that
        // `regions::map` made; anything else came from `System`.
        unsafe {
            if regions::forget(block) {
                regions::unmap(block, layout.size());
                return;
            }
            if is_wiping() {
                wipe(block, layout.size());
            }
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_wiping() && !regions::holds(block) {
            // SAFETY: the block is of `System`; the rest is the caller's promise.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // `System` would leave the old bytes behind where it moves, and a tail where it shrinks in place.
        // SAFETY: `realloc`'s contract: `new_size` with this alignment is a layout. Both blocks have the copied bytes,
        // do not overlap, and the old one is given up after its last use.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

fn is_wiping() -> bool {
    // Relaxed: whoever frees what a guard protects began that guard, or got the block from who did.
    WIPING.load(Ordering::Relaxed) != 0
}

/// Zeroes a block that nobody reads again; the compiler cannot leave it out.
///
/// # Safety
/// `block` has `bytes` bytes that the caller may write.
unsafe fn wipe(block: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise, twice. Any bytes are valid as `MaybeUninit`.
    let wiped = unsafe {
        block.write_bytes(0, bytes);
        std::slice::from_raw_parts(block.cast::<MaybeUninit<u8>>(), bytes)
    };
    optimization_barrier(wiped);
}

pub use regions::REGIONS_MAX;

static WIPING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's next allocation is a region. Constant and without a destructor: reading it allocates nothing.
    static REGION_WANTED: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
mod tests;
