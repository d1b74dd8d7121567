//! See `properties::claims`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::claims::check(data);
});
