//! [`bield_fuzz::evidence`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::evidence(data);
});
