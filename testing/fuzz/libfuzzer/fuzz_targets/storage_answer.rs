//! [`bield_fuzz::storage_answer`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::storage_answer(data);
});
