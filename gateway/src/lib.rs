//! Weir.

pub mod net;
