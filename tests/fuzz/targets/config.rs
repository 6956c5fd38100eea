//! Configurations: every one is read, or told all its faults.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::config::fuzz(data));
