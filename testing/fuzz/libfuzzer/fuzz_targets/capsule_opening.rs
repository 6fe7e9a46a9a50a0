//! [`bield_fuzz::capsule_opening`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::capsule_opening(data);
});
