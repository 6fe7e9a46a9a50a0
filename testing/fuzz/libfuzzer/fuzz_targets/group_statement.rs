//! [`bield_fuzz::group_statement`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::group_statement(data);
});
