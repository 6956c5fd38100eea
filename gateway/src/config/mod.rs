//! The configuration: as it is written (`file`), read with every fault at once (`read`, `check`).

mod fault;
mod file;
mod read;
mod shape;
mod tree;
mod value;

pub use fault::{Fault, Faults, MOST_FAULTS, Place};
pub use file::*;
pub use value::{
    AccessLog, Address, AffinityBy, BaseUrl, ByteSize, Count, Duration, DurationRange, Expiry,
    Header, Json, KeyHash, Money, Percent, Proxy, Secret, SecretError, Upstream, Zone,
};
