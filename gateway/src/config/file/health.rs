//! When a target is held to be ill.

use crate::config::read::{Read, choices, section};
use crate::config::value::{Count, Duration, Percent};

section! {
    /// When a target is held to be ill, and for how long.
    pub struct Health {
        /// How many requests before a share of errors counts.
        min_samples: Count = Count::of(5);
        /// The share of errors that makes a target ill.
        error_rate: Percent = Percent::of(50);
        /// How long a target or credential is left out, by cause.
        cooldown: Cooldown = Read::placeholder();
        /// The longest that it is left out, whatever the provider asks for.
        max_cooldown: Duration = Duration::secs(600);
        /// What happens to a request when every target of its model is left out.
        when_all_cool: WhenAllCool = WhenAllCool::Fail;
        /// How long such a request waits at most; where the soonest target takes longer it fails at once.
        max_wait: Duration = Duration::secs(10);
    }
}

section! {
    /// How long a target or credential is left out, by cause; `0s` is not at all.
    pub struct Cooldown {
        /// After a rate limit without a time of its own.
        rate_limit: Duration = Duration::secs(60);
        /// After a credential was refused.
        auth: Duration = Duration::secs(10);
        /// After a connection failed.
        connection: Duration = Duration::secs(10);
        /// After the provider failed.
        server: Duration = Duration::secs(10);
    }
}

choices! {
    /// What happens to a request when every target of its model is left out.
    pub enum WhenAllCool {
        /// It fails at once, and is told when the first will be back.
        Fail = "fail",
        /// It waits for the first that comes back, no longer than `health.max_wait` and its own time.
        Wait = "wait",
        /// It goes to the one that is the soonest to be back, as if that were well.
        Try = "try",
    }
}
