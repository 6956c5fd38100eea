//! Each framing, whole and cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::frame(data));
