//! The process under test: the binary `weir` with a configuration of its own, ended when its handle falls.
//!
//! The access log goes to standard output, so that a test waits for a line instead of looking into a file again and
//! again. Standard error is kept and shown when a test fails.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use simulator::Simulator;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::client::Call;
use crate::patience::within;

/// The key of the tenant that a configuration has when it names none.
pub const KEY: &str = "sk-weir-test";

/// The hash of [`KEY`].
pub const KEY_HASH: &str = "sha256:a8cb3a47c642e82386ef7afaf9fbde5020ad9625e4095ad5eb382ada6578a84c";

/// One request's failure leaves the targets of the next as they were, unless a test is about that.
const NO_COOLDOWN: &str = "health: {cooldown: {rate_limit: 0s, auth: 0s, connection: 0s, server: 0s}}\n";

/// A configuration in the making.
#[derive(Clone, Debug, Default)]
pub struct Config {
    server: Vec<String>,
    store: Vec<String>,
    providers: Vec<String>,
    models: Vec<String>,
    tenants: Vec<String>,
    rest: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Config {
    /// Nothing but two listeners on free ports, a store, and the access log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Two providers, both the simulator: `openai` and `claude`, of the kind `anthropic`.
    #[must_use]
    pub fn of(simulator: &Simulator) -> Self {
        Self::new().openai("openai", &format!("http://{}/v1", simulator.addr())).provider(
            "claude",
            &format!(
                "{{kind: anthropic, base_url: 'http://{}', credentials: [{{id: claude-1, api_key: sk-ant-sim}}]}}",
                simulator.addr()
            ),
        )
    }

    /// A line of the section `server`, such as `max_body: 1KiB`.
    #[must_use]
    pub fn server(mut self, line: &str) -> Self {
        self.server.push(line.to_owned());
        self
    }

    /// A line of the section `store`, such as `redis: redis://127.0.0.1:6379`.
    #[must_use]
    pub fn store(mut self, line: &str) -> Self {
        self.store.push(line.to_owned());
        self
    }

    /// A provider, its settings in YAML's flow style.
    #[must_use]
    pub fn provider(mut self, name: &str, settings: &str) -> Self {
        self.providers.push(format!("{name}: {settings}"));
        self
    }

    /// A provider of the kind `openai` at `base_url`, with one credential named `NAME-1`.
    #[must_use]
    pub fn openai(self, name: &str, base_url: &str) -> Self {
        let settings =
            format!("{{kind: openai, base_url: '{base_url}', credentials: [{{id: {name}-1, api_key: sk-{name}}}]}}");
        self.provider(name, &settings)
    }

    /// A model, in YAML's flow style.
    #[must_use]
    pub fn model(mut self, settings: &str) -> Self {
        self.models.push(settings.to_owned());
        self
    }

    /// A tenant, in YAML's flow style. Without any there is `acme` with the key [`KEY`], named `ci`, and all models.
    #[must_use]
    pub fn tenant(mut self, settings: &str) -> Self {
        self.tenants.push(settings.to_owned());
        self
    }

    /// A section of its own.
    #[must_use]
    pub fn section(mut self, yaml: &str) -> Self {
        self.rest.push(yaml.to_owned());
        self
    }

    /// A variable of the process's environment, which is empty otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a process with this configuration and waits until it listens.
    pub async fn start(&self) -> Weir {
        Weir::start(self).await
    }

    /// The configuration as a file holds it, with its store in `folder`.
    #[must_use]
    pub fn yaml(&self, folder: &Path) -> String {
        let mut yaml = String::from("version: 1\nserver:\n");
        let given = |name: &str| self.server.iter().any(|line| line.starts_with(name));
        for name in ["listen", "admin"].into_iter().filter(|name| !given(&format!("{name}:"))) {
            writeln!(yaml, "  {name}: 127.0.0.1:0").unwrap();
        }
        self.server.iter().for_each(|line| writeln!(yaml, "  {line}").unwrap());
        writeln!(yaml, "store:\n  path: '{}'", folder.join("data").display()).unwrap();
        self.store.iter().for_each(|line| writeln!(yaml, "  {line}").unwrap());
        if !self.rest.iter().any(|section| section.starts_with("observability:")) {
            yaml.push_str("observability: {access_log: stdout}\n");
        }
        if !self.rest.iter().any(|section| section.starts_with("health:")) {
            yaml.push_str(NO_COOLDOWN);
        }
        entries(&mut yaml, "providers", "  ", &self.providers);
        entries(&mut yaml, "models", "  - ", &self.models);
        let own = format!("{{id: acme, keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}");
        entries(
            &mut yaml,
            "tenants",
            "  - ",
            if self.tenants.is_empty() { std::slice::from_ref(&own) } else { &self.tenants },
        );
        self.rest.iter().for_each(|section| writeln!(yaml, "{section}").unwrap());
        yaml
    }
}

fn entries(yaml: &mut String, section: &str, indent: &str, entries: &[String]) {
    if entries.is_empty() {
        let empty = if section == "providers" { "{}" } else { "[]" };
        writeln!(yaml, "{section}: {empty}").unwrap();
        return;
    }
    writeln!(yaml, "{section}:").unwrap();
    entries.iter().for_each(|entry| writeln!(yaml, "{indent}{entry}").unwrap());
}

/// A running process.
#[derive(Debug)]
pub struct Weir {
    child: Child,
    folder: PathBuf,
    api: SocketAddr,
    admin: Option<SocketAddr>,
    printed: Arc<Printed>,
}

/// What a process that was killed left behind.
#[derive(Debug)]
pub struct Killed {
    folder: PathBuf,
}

impl Killed {
    /// Starts the next one on it.
    pub async fn started(self, config: &Config) -> Weir {
        Weir::start_in(self.folder, config).await
    }
}

/// What the process printed on standard output.
#[derive(Debug, Default)]
struct Printed {
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    ready: Vec<String>,
    log: Vec<Value>,
    ended: bool,
}

impl Weir {
    async fn start(config: &Config) -> Self {
        Self::start_in(folder(), config).await
    }

    /// Ends the process as `kill -9` does, and starts the next one on what it left behind.
    pub async fn killed_and_started(self, config: &Config) -> Self {
        self.killed().started(config).await
    }

    /// Ends the process as `kill -9` does.
    #[must_use]
    pub fn killed(mut self) -> Killed {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Killed { folder: std::mem::take(&mut self.folder) }
    }

    /// Ends the process by SIGTERM, and starts the next one on what it left behind.
    pub async fn stopped_and_started(mut self, config: &Config) -> Self {
        self.signal("TERM");
        self.ended().await;
        let folder = std::mem::take(&mut self.folder);
        Self::start_in(folder, config).await
    }

    async fn start_in(folder: PathBuf, config: &Config) -> Self {
        fs::write(folder.join("weir.yaml"), config.yaml(&folder)).unwrap();
        let mut child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(folder.join("weir.yaml"))
            .current_dir(&folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"))
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let printed = Arc::<Printed>::default();
        let out = child.stdout.take().unwrap();
        let keeper = Arc::clone(&printed);
        std::thread::spawn(move || keeper.keep(BufReader::new(out)));
        let mut weir = Self { child, folder, api: ([0; 4], 0).into(), admin: None, printed };
        weir.wait_until_ready(config).await;
        weir
    }

    async fn wait_until_ready(&mut self, config: &Config) {
        let wants_admin = !config.server.iter().any(|line| line.trim() == "admin: null");
        let address = |lines: &Lines, of: &str| {
            let line = lines.ready.iter().find_map(|line| line.strip_prefix("weir: ")?.strip_prefix(of));
            line.map(|url| url.rsplit("//").next().unwrap_or_default().parse().unwrap())
        };
        let (api, admin) = self
            .printed
            .until("the process to listen", |lines| {
                assert!(!lines.ended, "the process ended before it listened");
                let api = address(lines, "api on ")?;
                let admin = address(lines, "admin on ");
                (admin.is_some() || !wants_admin).then_some((api, admin))
            })
            .await;
        (self.api, self.admin) = (api, admin);
    }

    /// Where the API listens.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where the admin API listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("an admin listener")
    }

    /// The folder of its configuration (`weir.yaml`) and its store.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A call to the API with [`KEY`].
    #[must_use]
    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.api, method, path).header("authorization", &format!("Bearer {KEY}"))
    }

    /// A `POST` to the API with [`KEY`].
    #[must_use]
    pub fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    /// A `GET` to the API with [`KEY`].
    #[must_use]
    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    /// A call for a chat completion with [`KEY`].
    #[must_use]
    pub fn chat(&self) -> Call {
        self.post("/v1/chat/completions")
    }

    /// A connection to the API, for bytes that no client would send.
    pub async fn connect(&self) -> TcpStream {
        let stream = within("a connection", TcpStream::connect(self.api)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The line of the access log for the request of that id; waits for it.
    pub async fn logged(&self, request_id: &str) -> Value {
        let what = format!("the access log's line of {request_id}");
        self.printed.until(&what, |lines| lines.log.iter().find(|line| line["request_id"] == request_id).cloned()).await
    }

    /// The first line of the access log that `wanted` holds for; waits for it.
    pub async fn logged_where(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.printed
            .until("a line of the access log", |lines| lines.log.iter().find(|line| wanted(line)).cloned())
            .await
    }

    /// Waits until the access log has more than so many lines.
    pub async fn logged_more(&self, than: usize) {
        self.printed.until("a line more in the access log", |lines| (lines.log.len() > than).then_some(())).await;
    }

    /// The lines of the access log so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.printed.lines().log.clone()
    }

    /// The metrics, as the admin listener gives them.
    pub async fn metrics(&self) -> String {
        Call::new(self.admin(), "GET", "/metrics").send().await.text().await
    }

    /// Waits until the page of metrics has each of these lines.
    pub async fn measures(&self, lines: &[&str]) {
        let looking = async {
            loop {
                let metrics = self.metrics().await;
                if lines.iter().all(|wanted| metrics.lines().any(|line| line == *wanted)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(&format!("{lines:?}"), looking).await;
    }

    /// What the process has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success(), "the process is gone");
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.printed.until("the process's end", |lines| lines.ended.then_some(())).await;
        // Its standard output is closed: the rest is the kernel's.
        self.child.wait().unwrap()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let yaml = fs::read_to_string(self.folder.join("weir.yaml")).unwrap_or_default();
            eprintln!("--- configuration\n{yaml}--- standard error of weir\n{}---", self.stderr());
            self.printed.lines().log.iter().for_each(|line| eprintln!("{line}"));
        }
        if !self.folder.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Printed {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps every line until the process ends.
    fn keep(&self, out: impl BufRead) {
        for line in out.lines().map_while(Result::ok) {
            let mut lines = self.lines();
            match serde_json::from_str(&line) {
                Ok(entry) if line.starts_with('{') => lines.log.push(entry),
                _ => lines.ready.push(line),
            }
            drop(lines);
            self.changed.notify_waiters();
        }
        self.lines().ended = true;
        self.changed.notify_waiters();
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Lines) -> Option<T>) -> T {
        within(what, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.lines()) {
                    return found;
                }
                changed.await;
            }
        })
        .await
    }
}

/// A folder of its own, in the system's place for such.
fn folder() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("weir-test-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The binary: `WEIR_BIN`, or what cargo built beside the test. A test of one package can't ask cargo for the binary of
/// another, so one that is missing or older than its sources is an error, not a pass.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().find(|folder| folder.join("deps").is_dir()).expect("a cargo target folder");
    let binary = profile.join("weir");
    assert!(binary.is_file(), "{} is missing: build it (`cargo build -p gateway`) or set WEIR_BIN", binary.display());
    if let Some(newer) = newer_source(&binary) {
        panic!("{} is older than {newer}: build it (`cargo build -p gateway`)", binary.display());
    }
    binary
}

/// A source that was changed after `binary` was built from it, by the list that cargo leaves beside it.
fn newer_source(binary: &Path) -> Option<String> {
    let modified =
        |path: &Path| fs::metadata(path).and_then(|about| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let list = fs::read_to_string(binary.with_extension("d")).ok()?;
    let built = modified(binary);
    let sources = list.split_once(": ")?.1;
    sources.split_whitespace().find(|source| modified(Path::new(source)) > built).map(str::to_owned)
}
