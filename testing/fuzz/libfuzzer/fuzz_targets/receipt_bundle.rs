//! [`bield_fuzz::receipt_bundle`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::receipt_bundle(data);
});
