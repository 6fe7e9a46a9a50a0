//! [`bield_fuzz::configuration_toml`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::configuration_toml(data);
});
