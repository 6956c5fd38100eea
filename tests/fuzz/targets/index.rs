//! The index of a request, and bodies rewritten by it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::index(data));
