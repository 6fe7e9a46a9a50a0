//! [`bield_fuzz::door_ring`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::door_ring(data);
});
