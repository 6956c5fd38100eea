//! Listeners, the store, health and logs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{At, Check};
use crate::config::file::{Listener, OnRedisLoss, Redis, Server, Store, Webhook};
use crate::config::value::{Duration, Secret};
use crate::log;

pub(super) fn server(check: &mut Check<'_>, server: &Server, at: &At<'_>) {
    check.secret(server.admin_token.as_ref(), &at.key("admin_token"));
    if server.listen.0.is_empty() {
        check.fault(&at.key("listen"), "there is no address to listen on", "write `listen: 127.0.0.1:8080`".to_owned());
    }
    if server.max_body.get() == 0 {
        check.fault(&at.key("max_body"), "this must be more than 0", "write `max_body: 64MiB`".to_owned());
    }
    if server.threads.is_some_and(|threads| !(1..=1_024).contains(&threads.get())) {
        check.fault(&at.key("threads"), "this must be from 1 to 1024", None);
    }
    if server.wrong_keys.is_some_and(|count| !(1..=u64::from(u32::MAX)).contains(&count.get())) {
        let help = "leave it out to allow any number".to_owned();
        check.fault(&at.key("wrong_keys"), "this must be 1 or more, and no more than 4,294,967,295", help);
    }
    for (name, patience) in [("idle", server.idle), ("stall", server.stall)] {
        if patience < Duration::secs(1) {
            check.fault(&at.key(name), "this is too short for any client", "write 1s or more".to_owned());
        }
    }
    addresses(check, server, at);
    if let Some(admin) = &server.admin {
        open_admin(check, server, admin, &at.key("admin"));
    }
}

/// More sockets could not be handed to the next process.
const MOST_LISTENERS: usize = 32;

/// Two listeners cannot have one address; port 0 is a free one.
fn addresses(check: &mut Check<'_>, server: &Server, at: &At<'_>) {
    if server.listen.0.len() + usize::from(server.admin.is_some()) > MOST_LISTENERS {
        check.fault(at, format!("there are more than {MOST_LISTENERS} listeners"), None);
    }
    let mut seen = Vec::new();
    for listener in server.listen.0.iter().chain(&server.admin) {
        let address = listener.address.get();
        if address.port() != 0 && seen.contains(&address) {
            check.fault(at, format!("two listeners have the address {address}"), None);
        }
        seen.push(address);
    }
}

/// Whoever reaches the admin listener off loopback must show a token, over TLS.
fn open_admin(check: &mut Check<'_>, server: &Server, admin: &Listener, at: &At<'_>) {
    if admin.address.get().ip().is_loopback() || server.insecure_admin {
        return;
    }
    let mut missing = Vec::new();
    if server.admin_token.is_none() {
        missing.push("a token (`server.admin_token`)");
    }
    if admin.tls.is_none() && server.tls.is_none() {
        missing.push("TLS (`server.tls`)");
    }
    if missing.is_empty() {
        return;
    }
    let message = format!("the admin listener is open to the network without {}", missing.join(" and "));
    check.fault(
        at,
        message,
        "add that, listen on loopback, or accept it with `server.insecure_admin: true`".to_owned(),
    );
}

pub(super) fn store(check: &mut Check<'_>, store: &Store, at: &At<'_>) {
    let key = at.key("master_key");
    check.secret(store.master_key.as_ref(), &key);
    if let Some(Secret::Literal(text)) = &store.master_key
        && !is_master_key(text)
    {
        check.fault(&key, NO_MASTER_KEY, "`openssl rand -base64 32` makes one".to_owned());
    }
    if store.commit_within > Duration::secs(10) {
        check.fault(&at.key("commit_within"), "rows would wait longer than 10s for the disk", None);
    }
    if store.retention < Duration::secs(3_600) {
        check.fault(&at.key("retention"), "rows would be gone within the hour", "such as `retention: 90d`".to_owned());
    }
    match &store.redis {
        Some(redis) => self::redis(check, redis, &at.key("redis")),
        None if store.on_redis_loss != OnRedisLoss::Lease => {
            check.warn(&at.key("on_redis_loss"), "this has no effect without `redis`", None);
        }
        None => {}
    }
}

/// What is said of a master key without the right form.
pub(in crate::config) const NO_MASTER_KEY: &str = "a master key is 32 bytes in base64";

/// Whether a master key has the right form.
pub(in crate::config) fn is_master_key(text: &str) -> bool {
    STANDARD.decode(text.trim()).is_ok_and(|key| key.len() == 32)
}

fn redis(check: &mut Check<'_>, redis: &Redis, at: &At<'_>) {
    let ways = [redis.url.is_some(), !redis.cluster.is_empty(), redis.sentinel.is_some()];
    if ways.iter().filter(|way| **way).count() != 1 {
        check.fault(
            at,
            "give one of `url`, `cluster` and `sentinel`",
            "such as `redis: redis://127.0.0.1:6379`".to_owned(),
        );
    }
    check.secret(redis.password.as_ref(), &at.key("password"));
    if let Some(url) = &redis.url {
        redis_url(check, url, &at.key("url"));
    }
    let cluster = at.key("cluster");
    for (i, url) in redis.cluster.iter().enumerate() {
        redis_url(check, url, &cluster.index(i));
    }
    let Some(sentinel) = &redis.sentinel else {
        return;
    };
    let at = at.key("sentinel");
    let nodes = at.key("nodes");
    if sentinel.nodes.is_empty() {
        check.fault(&nodes, "there is no sentinel to ask", None);
    }
    for (i, url) in sentinel.nodes.iter().enumerate() {
        redis_url(check, url, &nodes.index(i));
    }
}

fn redis_url(check: &mut Check<'_>, url: &Secret, at: &At<'_>) {
    let Secret::Literal(text) = url else { return };
    if !["redis://", "rediss://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme)) {
        check.fault(at, "a Redis URL must begin with redis:// or rediss://", None);
    }
    if text.contains('@') {
        check.secret(Some(url), at);
    }
}

/// Each has a queue of its own.
const MOST_WEBHOOKS: usize = 8;

fn webhook(check: &mut Check<'_>, webhook: &Webhook, at: &At<'_>) {
    check.secret(webhook.secret.as_ref(), &at.key("secret"));
    if webhook.secret.is_none() {
        let help = "add `secret: env:NAME`; `openssl rand -base64 32` makes one".to_owned();
        check.warn(
            at,
            "without a `secret` nothing is signed, so its receiver cannot tell Weir's posts from others",
            help,
        );
    }
    let Secret::Literal(url) = &webhook.url else { return };
    let has_host = |rest: &str| !rest.is_empty() && !rest.starts_with('/');
    if !["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(has_host)) {
        check.fault(&at.key("url"), "a webhook's URL must begin with https:// or http://", None);
    }
}

pub(super) fn rest(check: &mut Check<'_>, top: &At<'_>) {
    let config = check.config;
    if config.version != 1 {
        check.fault(&top.key("version"), "this version of Weir reads configurations of version 1 only", None);
    }
    let health = top.key("health");
    if config.health.min_samples.get() == 0 {
        check.fault(&health.key("min_samples"), "this must be 1 or more", None);
    }
    let cooldown = &config.health.cooldown;
    let longest = [cooldown.rate_limit, cooldown.auth, cooldown.connection, cooldown.server].into_iter().max();
    if longest.is_some_and(|longest| longest > config.health.max_cooldown) {
        check.warn(&health.key("max_cooldown"), "a cooldown is longer than this, and will be cut to it", None);
    }
    let observability = top.key("observability");
    if let Some(fault) = log::fault(&config.observability.log) {
        let help = "write a level, such as `info`, or `info,gateway::net=debug`".to_owned();
        check.fault(&observability.key("log"), format!("this is not a log filter: {fault}"), help);
    }
    let alerts = observability.key("alerts");
    if config.observability.alerts.len() > MOST_WEBHOOKS {
        check.fault(&alerts, format!("there are more than {MOST_WEBHOOKS} webhooks"), None);
    }
    for (i, webhook) in config.observability.alerts.iter().enumerate() {
        self::webhook(check, webhook, &alerts.index(i));
    }
}
