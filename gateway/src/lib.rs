//! Weir.

pub mod config;
