//! Peak memory while a model is opened, counted by the allocator of this process.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use bield_package::{CHUNK_BYTES, PackageHead};
use support::{key, packed};

#[test]
fn opening_takes_the_model_and_one_chunk() {
    // 8 chunks of 1 MiB and a short one.
    const MODEL: usize = 8 * CHUNK_BYTES as usize + 12_345;
    let (file, _) = packed(MODEL, "1.0.0", CHUNK_BYTES, 7);

    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut source = Cursor::new(&file);
    let package = PackageHead::read(&mut source)
        .unwrap()
        .open_manifest(&key())
        .unwrap();
    let mut region = vec![0; MODEL];
    package
        .open_model(&mut source, &mut region, &mut |_, _| {})
        .unwrap();
    let peak = PEAK.load(Ordering::Relaxed) - before;

    assert_eq!(region, support::model(MODEL));
    let allowed = MODEL + MODEL / 20 + CHUNK_BYTES as usize;
    assert!(peak <= allowed, "peak {peak} bytes, allowed {allowed}");
    assert!(peak >= MODEL, "the counter counts");
}

/// Counts live bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator that counts is the measurement")]
// SAFETY: every call is passed on unchanged to the system's allocator; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
