//! [`bield_fuzz::table_entry`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::table_entry(data);
});
