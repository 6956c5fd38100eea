//! Requests of every endpoint in each dialect's words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::encode(data));
