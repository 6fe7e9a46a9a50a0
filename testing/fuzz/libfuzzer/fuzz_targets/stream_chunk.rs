//! [`bield_fuzz::stream_chunk`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::stream_chunk(data);
});
