//! [`bield_fuzz::session_accept`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::session_accept(data);
});
