//! [`bield_fuzz::ledger_files`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::ledger_files(data);
});
