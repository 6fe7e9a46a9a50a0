//! [`bield_fuzz::evidence_vendor_roots`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bield_fuzz::evidence_vendor_roots(data);
});
