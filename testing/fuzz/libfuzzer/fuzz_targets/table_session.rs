//! [`bield_fuzz::table_session`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::table_session(data);
});
