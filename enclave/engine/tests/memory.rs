//! What loading a model takes, counted by the allocator of this process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bield_engine::{Engine, Rten};
use bield_fixtures::Network;
use bield_package::ModelFormat;

#[test]
fn a_rten_file_is_loaded_in_its_own_memory_and_onnx_in_twice_it() {
    let _alone = ALONE.lock();
    let engine = Rten::new(1);
    for (format, network, copies) in [
        (
            ModelFormat::Rten,
            bield_fixtures::rten(Network::Densenet121),
            1,
        ),
        (ModelFormat::Onnx, bield_fixtures::densenet121(), 2),
    ] {
        let bytes = network.len();
        let footprint = engine.footprint(format, bytes as u64);
        assert_eq!(footprint.loading, copies * bytes as u64);

        // The file itself is alive when counting begins.
        let before = LIVE.load(Ordering::Relaxed) - bytes;
        PEAK.store(before, Ordering::Relaxed);
        let model = engine.load(network, format).unwrap();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let after = LIVE.load(Ordering::Relaxed) - before;
        drop(model);
        let left = LIVE.load(Ordering::Relaxed).saturating_sub(before);

        let within = |bytes: u64| (bytes + bytes / 20) as usize;
        assert!(
            peak <= within(footprint.loading),
            "{format}: peak {peak} of {bytes}"
        );
        assert!(
            after <= within(footprint.resident),
            "{format}: after {after} of {bytes}"
        );
        assert!(after >= bytes * 19 / 20, "{format}: the counter counts");
        assert!(left <= bytes / 20, "{format}: {left} of {bytes} stay");
    }
}

/// What depends on constants only is computed while loading, on threads that keep some of it, and stays.
#[test]
fn a_model_that_is_loaded_apart_computes_nothing_meanwhile() {
    const NUMBERS: u64 = 1 << 22;
    let _alone = ALONE.lock();
    let engine = Rten::new(1);
    let stays = |apart: bool| {
        let before = LIVE.load(Ordering::Relaxed);
        let (bytes, format) = (bield_fixtures::computed_model(NUMBERS), ModelFormat::Onnx);
        let model = match apart {
            true => engine.load_apart(bytes, format).unwrap(),
            false => engine.load(bytes, format).unwrap(),
        };
        let stays = LIVE.load(Ordering::Relaxed) - before;
        drop(model);
        stays as u64
    };
    assert!(stays(false) > NUMBERS * 4);
    assert!(stays(true) < NUMBERS);
}

/// The engine widens the weights of the one and computes those of the other.
#[test]
fn what_a_model_takes_beyond_its_file_is_told() {
    const NUMBERS: u64 = 1 << 22;
    let _alone = ALONE.lock();
    let engine = Rten::new(1);
    for mut file in [
        bield_fixtures::half_model(NUMBERS),
        bield_fixtures::computed_model(NUMBERS),
    ] {
        file.shrink_to_fit();
        let (bytes, format) = (file.len(), ModelFormat::Onnx);
        let footprint = engine.footprint_of(&file, format);
        let before = LIVE.load(Ordering::Relaxed) - bytes;
        let model = engine.load(file, format).unwrap();
        let after = (LIVE.load(Ordering::Relaxed) - before) as u64;
        let told = model.resident_bytes().unwrap();
        assert!(
            after >= NUMBERS * 4 * 19 / 20,
            "{after}: the counter counts"
        );
        assert!(
            told >= NUMBERS * 4 && after <= told + told / 20,
            "{after} of {told}"
        );
        if bytes as u64 > NUMBERS {
            // Its weights are in the file, so that this is known before it is loaded.
            assert_eq!(footprint.loading, bytes as u64 + NUMBERS * 4);
        }
    }
}

/// Whoever counts counts for all threads.
static ALONE: Mutex<()> = Mutex::new(());

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
