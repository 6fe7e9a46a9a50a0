//! [`bield_fuzz::tlog_note`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::tlog_note(data);
});
