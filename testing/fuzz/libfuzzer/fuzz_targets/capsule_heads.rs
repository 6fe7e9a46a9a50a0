//! [`bield_fuzz::capsule_heads`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::capsule_heads(data);
});
