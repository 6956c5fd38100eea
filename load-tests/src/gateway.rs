//! What stands between the generator and the simulator: Weir, nginx, or nothing; each with the configuration that it
//! is measured with.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::process::{Meter, Pin, Process};
use crate::scenario::{Answer, Scenario, Template, Upstream};

/// The caller's key, at Weir and at the simulator alike.
pub(crate) const KEY: &str = "sk-weir-load-tests-only";

/// Its SHA-256, as Weir's configuration has it.
const KEY_HASH: &str = "c8a652be3d41118595b0b3bf0f5d3974a69dfa33d98ed9e8c377e4060364fc9c";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Weir,
    Nginx,
    Direct,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Nginx => "nginx",
            Self::Direct => "direct",
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Weir's admin listener.
    pub(crate) admin: Option<SocketAddr>,
    /// What is measured of it; of the simulator, where nothing stands between.
    pub(crate) meter: Meter,
    process: Option<Process>,
}

/// What Weir's configuration has beside the models of the scenarios and one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) models: usize,
    pub(crate) rules: Rules,
    /// Whether it writes an access log.
    pub(crate) log: bool,
}

/// Limits, budgets and prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    None,
    Own,
    /// Shared through the Redis at this address.
    Shared(SocketAddr),
}

impl Size {
    /// A key, and nothing else that a request pays for but its alias, routing, ledger, metrics and log.
    pub(crate) const SMALL: Self = Self { keys: 0, models: 0, rules: Rules::None, log: true };

    /// As near to an open relay as Weir comes.
    pub(crate) const BARE: Self = Self { log: false, ..Self::SMALL };

    /// The same under rules.
    pub(crate) fn under(rules: Rules) -> Self {
        Self { rules, ..Self::SMALL }
    }
}

impl Gateway {
    /// No gateway: the simulator itself.
    pub(crate) fn direct(address: SocketAddr, meter: Meter) -> Self {
        Self { kind: Kind::Direct, address, admin: None, meter, process: None }
    }

    /// Starts nginx in `room`.
    pub(crate) async fn nginx(program: &str, room: &Path, upstream: SocketAddr, pin: Pin) -> io::Result<Self> {
        let address = free_address()?;
        let config = room.join("nginx.conf");
        fs::create_dir_all(room)?;
        fs::write(&config, nginx_conf(room, address, upstream))?;
        let path = config.to_string_lossy().into_owned();
        let mut process = Process::start(Path::new(program), &["-c", &path, "-p", &room.to_string_lossy()], pin, &[])?;
        process.forget_output();
        until_it_accepts(address).await?;
        Ok(Self { kind: Kind::Nginx, address, admin: None, meter: process.meter(), process: Some(process) })
    }

    /// Starts Weir in `room`.
    pub(crate) async fn weir(
        program: &Path,
        room: &Path,
        upstream: SocketAddr,
        size: Size,
        pin: Pin,
    ) -> io::Result<Self> {
        fs::create_dir_all(room)?;
        let config = config_path(room);
        fs::write(&config, weir_yaml(room, upstream, size))?;
        let arguments = ["serve", "--config", &config.to_string_lossy()];
        let mut process = Process::start(program, &arguments, pin, &[("LOAD_UPSTREAM_KEY", "sk-upstream")])?;
        let api = process.line_with("weir: api on http://").await?;
        let admin = process.line_with("weir: admin on http://").await?;
        process.forget_output();
        let address = |text: &str| text.trim().parse().map_err(|_| io::Error::other(format!("not an address: {text}")));
        let (address, admin) = (address(&api)?, Some(address(&admin)?));
        Ok(Self { kind: Kind::Weir, address, admin, meter: process.meter(), process: Some(process) })
    }

    /// What this gateway is asked in `scenario`.
    pub(crate) fn template(&self, scenario: &Scenario) -> Template {
        match self.kind {
            Kind::Weir => scenario.to_weir(),
            Kind::Nginx if scenario.answer == Answer::Streamed => scenario.to_provider("/stream"),
            Kind::Nginx | Kind::Direct => scenario.to_provider(""),
        }
    }

    /// Where readiness is asked; the simulator has none of its own.
    pub(crate) fn readiness(&self) -> Template {
        match self.kind {
            Kind::Weir | Kind::Nginx => Template::get("/readyz"),
            Kind::Direct => Template::get("/_sim/account"),
        }
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        if let Some(process) = self.process {
            process.end().await;
        }
    }
}

/// Where Weir's configuration is.
pub(crate) fn config_path(room: &Path) -> PathBuf {
    room.join("weir.yaml")
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn until_it_accepts(address: SocketAddr) -> io::Result<()> {
    let mut last = io::Error::other("it did not listen");
    for _ in 0..200 {
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    Err(last)
}

/// One worker, connections kept to the upstream, bodies in memory, one line a request in the access log, no buffering
/// for streams. As root its worker stays root, so that it may write into its room.
fn nginx_conf(room: &Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    let room = room.display();
    let user = if is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {room}/{kind};\n"))
        .collect();
    format!(
        "{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\npid {room}/nginx.pid;\n\
         error_log {room}/error.log warn;\nevents {{ worker_connections 16384; }}\n\
         http {{\n{temporary}  access_log {room}/access.log combined;\n\
         \x20 client_max_body_size 128m;\n  client_body_buffer_size 4m;\n\
         \x20 keepalive_timeout 3600s;\n  keepalive_requests 1000000000;\n\
         \x20 upstream provider {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         \x20 server {{\n    listen {listen} backlog=4096;\n\
         \x20   proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n    proxy_read_timeout 900s;\n\
         \x20   location = /readyz {{ access_log off; return 200 \"ready\"; }}\n\
         \x20   location /stream/ {{ proxy_buffering off; proxy_pass http://provider/; }}\n\
         \x20   location / {{ proxy_pass http://provider; }}\n  }}\n}}\n"
    )
}

/// Key, aliases, ledger and metrics are on in all.
pub(crate) fn weir_yaml(room: &Path, upstream: SocketAddr, size: Size) -> String {
    let managed = size.rules != Rules::None;
    let mut yaml = head(room, upstream, size);
    yaml.push_str("models:\n");
    for scenario in crate::scenario::all(0) {
        let provider = match scenario.upstream {
            Upstream::OpenAi => "sim-openai",
            Upstream::Anthropic => "sim-claude",
        };
        let (name, model) = (scenario.alias(), scenario.model);
        let pricing = if managed { ", pricing: {input: 1.25, output: 10}" } else { "" };
        yaml.push_str(&format!(
            "  - {{name: {name}, targets: [{{provider: {provider}, model: \"{model}\"}}]{pricing}}}\n"
        ));
    }
    for index in 0..size.models {
        yaml.push_str(&format!(
            "  - {{name: model-{index}, targets: [{{provider: sim-openai, model: gpt-5.5-{index}}}]}}\n"
        ));
    }
    yaml.push_str("tenants:\n  - id: load\n");
    if managed {
        yaml.push_str(
            "    limits: {rpm: 1000000000, tpm: 1000000000000, concurrent: 100000}\n\
             \x20   budgets: [{usd: 100000000, every: month}]\n",
        );
    }
    let limits = if managed { ", limits: {rpm: 1000000000}" } else { "" };
    yaml.push_str(&format!("    keys:\n      - {{id: main, hash: \"sha256:{KEY_HASH}\"{limits}}}\n"));
    for index in 0..size.keys {
        yaml.push_str(&key_line(&format!("key-{index}"), index as u64));
    }
    yaml
}

fn key_line(id: &str, index: u64) -> String {
    format!("      - {{id: {id}, hash: \"sha256:{}\"}}\n", spread(index))
}

/// What makes another configuration of one when it is added behind it.
pub(crate) fn added_key(index: usize) -> String {
    key_line(&format!("added-{index}"), u64::MAX - index as u64)
}

/// 64 hexadecimal digits that are as evenly spread as a SHA-256; nobody has the key to them.
fn spread(index: u64) -> String {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut word = || {
        state = (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(index + 1);
        state ^ (state >> 32)
    };
    format!("{:016x}{:016x}{:016x}{:016x}", word(), word(), word(), word())
}

fn head(room: &Path, upstream: SocketAddr, size: Size) -> String {
    let room = room.display();
    let log = if size.log { format!("file:{room}/access.log") } else { "none".to_owned() };
    let redis = match size.rules {
        Rules::Shared(redis) => format!(", redis: \"redis://{redis}\""),
        Rules::None | Rules::Own => String::new(),
    };
    format!(
        "version: 1\nserver: {{listen: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", threads: 1, max_body: 64MiB, drain: 1s}}\n\
         store: {{path: {room}/data{redis}}}\n\
         observability: {{log: warn, access_log: \"{log}\"}}\n\
         providers:\n\
         \x20 sim-openai: {{kind: openai, base_url: \"http://{upstream}/v1\", credentials: [{{id: oa, api_key: \"env:LOAD_UPSTREAM_KEY\"}}]}}\n\
         \x20 sim-claude: {{kind: anthropic, base_url: \"http://{upstream}\", credentials: [{{id: an, api_key: \"env:LOAD_UPSTREAM_KEY\"}}]}}\n"
    )
}

/// A Redis that keeps nothing on a disk.
pub(crate) async fn redis(program: &str, pin: Pin) -> io::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let port = address.port().to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut process = Process::start(Path::new(program), &arguments, pin, &[])?;
    process.forget_output();
    until_it_accepts(address).await?;
    Ok((process, address))
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().next() == Some("0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_hashes_differ_in_their_first_bytes() {
        let first: std::collections::HashSet<String> =
            (0..10_000).map(|index| spread(index)[..16].to_owned()).collect();
        assert_eq!(first.len(), 10_000);
    }

    #[test]
    fn a_large_configuration_has_as_many_lines_as_it_says() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let yaml = weir_yaml(Path::new("room"), address, Size { keys: 30, models: 20, ..Size::SMALL });
        assert_eq!(yaml.matches("{id: key-").count(), 30);
        assert_eq!(yaml.matches("{name: model-").count(), 20);
    }
}
