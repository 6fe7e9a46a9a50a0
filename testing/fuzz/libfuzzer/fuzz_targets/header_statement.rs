//! [`bield_fuzz::header_statement`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::header_statement(data);
});
