//! [`bield_fuzz::inference_parts`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::inference_parts(data);
});
