//! [`bield_fuzz::door_calls`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::door_calls(data);
});
