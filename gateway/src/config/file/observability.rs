//! Logs, traces and webhooks.

use crate::config::read::{choices, section};
use crate::config::value::{AccessLog, BaseUrl, Secret};

section! {
    /// Logs, traces and what they may hold.
    pub struct Observability {
        /// What is logged: a level, or directives such as `info,gateway::exchange=debug`.
        log: String = "info".to_owned();
        /// Where the access log goes.
        access_log: AccessLog = AccessLog::Stdout;
        /// Webhooks that are told when a budget comes to its soft limit, and when it is spent.
        alerts: Vec<Webhook> = Vec::new();
        /// The OTLP endpoint for traces; `null`: none.
        otlp: Option<BaseUrl> = None;
        /// Which requests and answers are logged with their bodies.
        log_bodies: LogBodies = LogBodies::None;
    }
}

choices! {
    /// Which requests and answers are logged with their bodies.
    pub enum LogBodies {
        /// None.
        None = "none",
        /// Those that failed.
        Errors = "errors",
        /// All.
        All = "all",
    }
}

section! {
    /// A webhook.
    pub struct Webhook {
        /// Where to post to. A secret where the URL itself is one.
        url: Secret;
        /// What posts are signed with, as Standard Webhooks do: base64 with or without `whsec_` before it. Without it they are not signed.
        secret: Option<Secret> = None;
    }
}
