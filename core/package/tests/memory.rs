//! Peak memory while a model is opened, counted by the allocator of this process.

mod support;

use std::io::Cursor;

use bield_fixtures::Counting;
use bield_package::{CHUNK_BYTES, PackageHead};
use support::{key, packed};

#[test]
fn opening_takes_the_model_and_one_chunk() {
    // 8 chunks of 1 MiB and a short one.
    const MODEL: usize = 8 * CHUNK_BYTES as usize + 12_345;
    let (file, _) = packed(MODEL, "1.0.0", CHUNK_BYTES, 7);

    let before = MEMORY.begin();
    let mut source = Cursor::new(&file);
    let package = PackageHead::read(&mut source)
        .unwrap()
        .open_manifest(&key())
        .unwrap();
    let mut region = vec![0; MODEL];
    package
        .open_model(&mut source, &mut region, &mut |_, _| {})
        .unwrap();
    let peak = MEMORY.peak() - before;

    assert_eq!(region, support::model(MODEL));
    let allowed = MODEL + MODEL / 20 + CHUNK_BYTES as usize;
    assert!(peak <= allowed, "peak {peak} bytes, allowed {allowed}");
    assert!(peak >= MODEL, "the counter counts");
}

#[global_allocator]
static MEMORY: Counting = Counting::new();
