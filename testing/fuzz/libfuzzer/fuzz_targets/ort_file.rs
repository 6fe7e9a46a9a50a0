//! [`bield_fuzz::ort_file`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::ort_file(data);
});
