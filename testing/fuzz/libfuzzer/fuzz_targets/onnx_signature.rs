//! [`bield_fuzz::onnx_signature`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::onnx_signature(data);
});
