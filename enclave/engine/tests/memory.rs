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
        let (bytes, format) = (constant_model(NUMBERS), ModelFormat::Onnx);
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

/// An ONNX that adds its input to a constant of so many numbers, which it says in a few bytes.
fn constant_model(numbers: u64) -> Vec<u8> {
    let node = |inputs: &[&[u8]], output: &[u8], operator: &[u8]| {
        let inputs = inputs.iter().map(|input| field(1, input));
        let rest = [field(2, output), field(4, operator)];
        field(1, &inputs.chain(rest).collect::<Vec<_>>().concat())
    };
    let end = |name: &[u8]| {
        let shape = field(1, &number(1, numbers));
        let tensor = [number(1, 1), field(2, &shape)].concat();
        [field(1, name), field(2, &field(1, &tensor))].concat()
    };
    let shape = [
        number(1, 1),
        number(2, 7),
        field(8, b"shape"),
        field(9, &numbers.to_le_bytes()),
    ];
    let graph = [
        node(&[b"shape"], b"zeros", b"ConstantOfShape"),
        node(&[b"x", b"zeros"], b"y", b"Add"),
        field(2, b"graph"),
        field(5, &shape.concat()),
        field(11, &end(b"x")),
        field(12, &end(b"y")),
    ];
    let opset = field(8, &number(2, 13));
    [number(1, 8), field(7, &graph.concat()), opset].concat()
}

/// Bytes in a message of protobuf.
fn field(key: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(key << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

/// A number in a message of protobuf.
fn number(key: u64, value: u64) -> Vec<u8> {
    [varint(key << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
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
