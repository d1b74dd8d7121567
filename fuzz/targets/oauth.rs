//! See `properties::oauth`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::oauth::check(data);
});
