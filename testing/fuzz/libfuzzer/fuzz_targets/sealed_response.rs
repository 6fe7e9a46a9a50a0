//! [`bield_fuzz::sealed_response`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::sealed_response(data);
});
