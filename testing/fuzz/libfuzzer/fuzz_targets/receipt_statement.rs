//! [`bield_fuzz::receipt_statement`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::receipt_statement(data);
});
