//! [`bield_fuzz::package_header_fields`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::package_header_fields(data);
});
