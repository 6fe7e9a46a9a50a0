//! [`bield_fuzz::tlog_add_checkpoint`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::tlog_add_checkpoint(data);
});
