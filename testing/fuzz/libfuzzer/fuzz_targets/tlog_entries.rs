//! [`bield_fuzz::tlog_entries`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::tlog_entries(data);
});
