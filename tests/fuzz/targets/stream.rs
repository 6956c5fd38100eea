//! Each dialect's stream decoder, whole and cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::stream(data));
