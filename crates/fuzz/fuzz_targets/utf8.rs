//! [`fuzz::text::utf8`] on what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::text::utf8(data));
