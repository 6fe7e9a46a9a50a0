//! [`bield_fuzz::identifiers`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::identifiers(data);
});
