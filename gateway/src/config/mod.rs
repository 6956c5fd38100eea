//! The configuration: as it is written (`file`), read with every fault at once (`read`, `check`), from files or a
//! text (`load`), with the providers that are known by name (`preset`).

mod check;
mod fault;
mod file;
mod load;
mod preset;
mod read;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use fault::{Fault, Faults, MOST_FAULTS, Place};
pub use file::*;
pub use load::{Loaded, fuzz, load, parse_str, providers_folder};
pub use preset::{Auth, Manifest, Manifests};
pub use value::{
    AccessLog, Address, AffinityBy, BaseUrl, ByteSize, Count, Duration, DurationRange, Expiry, Header, Json, KeyHash,
    Money, Percent, Proxy, Secret, SecretError, Upstream, Zone,
};
