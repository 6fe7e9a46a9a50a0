//! [`bield_fuzz::selectors`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::selectors(data);
});
