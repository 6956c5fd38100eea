//! Each dialect's whole answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::reply(data));
