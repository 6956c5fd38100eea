//! The configuration: as it is written (`file`), read with every fault at once (`read`, `check`), from files or a
//! text (`load`), with the providers that are known by name (`preset`), and again when a file changes (`watch`).

mod catalog;
mod check;
mod fault;
mod file;
mod load;
mod preset;
mod read;
mod rule;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod watch;

pub use catalog::{CatalogFile, CatalogModel};
pub use check::fault_of_tenant_id;
pub use fault::{Fault, Faults, MOST_FAULTS, Place};
pub use file::*;
pub use load::{Loaded, Origin, fuzz, load, parse_str, providers_folder, quickstart};
pub use preset::{Auth, Manifest, Manifests};
pub use rule::{Rule, Verdict};
pub use value::{
    AccessLog, Address, AffinityBy, BaseUrl, ByteSize, Count, Duration, DurationRange, Expiry, Header, Json, KeyHash,
    Money, Percent, Proxy, Secret, SecretError, Upstream, Zone, bare,
};
pub use watch::{WatchGuard, watch};

/// The JSON Schema of a configuration. `config/weir.schema.json` is this.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "Weir".into());
    }
    schema
}
