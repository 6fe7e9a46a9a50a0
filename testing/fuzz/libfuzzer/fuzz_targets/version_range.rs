//! [`bield_fuzz::version_range`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::version_range(data);
});
