//! What loading a model takes, counted by the allocator of this process.

use std::sync::Mutex;

use bield_engine::{Engine, Rten};
use bield_fixtures::{Counting, Network};
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
        let before = MEMORY.begin() - bytes;
        let model = engine.load(network, format).unwrap();
        let peak = MEMORY.peak() - before;
        let after = MEMORY.live() - before;
        drop(model);
        let left = MEMORY.live().saturating_sub(before);

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
        let before = MEMORY.live();
        let (bytes, format) = (bield_fixtures::computed_model(NUMBERS), ModelFormat::Onnx);
        let model = match apart {
            true => engine.load_apart(bytes, format).unwrap(),
            false => engine.load(bytes, format).unwrap(),
        };
        let stays = MEMORY.live() - before;
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
        let before = MEMORY.live() - bytes;
        let model = engine.load(file, format).unwrap();
        let after = (MEMORY.live() - before) as u64;
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

#[global_allocator]
static MEMORY: Counting = Counting::new();
