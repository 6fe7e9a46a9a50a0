//! [`bield_fuzz::function_manifest`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::function_manifest(data);
});
