//! [`bield_fuzz::command_statement`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::command_statement(data);
});
