//! [`bield_fuzz::session_certificate`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::session_certificate(data);
});
