//! Where things are kept, and by which Redis they are shared.

use std::path::PathBuf;

use crate::config::read::{choices, section};
use crate::config::value::{Duration, Secret};

section! {
    /// Where the ledger, its counters and the history of configurations are kept.
    pub struct Store {
        /// The folder of the embedded store.
        path: PathBuf = PathBuf::from("./data");
        /// A Redis by which several gateways share limits, budgets, quotas, cooldowns and ledgers: a URL, a cluster or sentinels.
        redis: Option<Redis> = None;
        /// What happens to limits and budgets while Redis is away.
        on_redis_loss: OnRedisLoss = OnRedisLoss::Lease;
        /// 32 bytes in base64 which encrypt stored credentials. Without it none can be stored.
        master_key: Option<Secret> = None;
        /// The longest time that a row of the ledger waits before it is on the disk: what a `kill -9` can cost.
        commit_within: Duration = Duration::millis(20);
        /// How long rows of the ledger are kept.
        retention: Duration = Duration::secs(90 * 86_400);
    }
}

choices! {
    /// What happens to limits and budgets while Redis is away.
    pub enum OnRedisLoss {
        /// Each gateway keeps to the slice that it holds and its share of what was left.
        Lease = "lease",
        /// Each gateway counts for itself.
        Local = "local",
        /// Requests under a limit are refused.
        Reject = "reject",
    }
}

section! {
    /// A Redis: one of `url`, `cluster` and `sentinel`; a text is its `url`.
    pub struct Redis short url: Option<Secret> {
        /// One server: `redis://host:6379/0`, or `rediss://` with TLS.
        url: Option<Secret> = None;
        /// Some nodes of a cluster, as URLs.
        cluster: Vec<Secret> = Vec::new();
        /// Sentinels that know the master.
        sentinel: Option<Sentinel> = None;
        /// The user.
        username: Option<String> = None;
        /// The password.
        password: Option<Secret> = None;
    }
}

section! {
    /// Redis sentinels.
    pub struct Sentinel {
        /// The name of the master.
        master: String;
        /// The sentinels, as URLs.
        nodes: Vec<Secret>;
    }
}
