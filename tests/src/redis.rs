//! A real redis-server of a test's own, on a port of its own, that keeps nothing on a disk; and what can happen to one:
//! it freezes, is slow, dies, comes back empty.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::PATIENCE;
use crate::tls::Certificate;

/// A user that may do all but run scripts and transactions, as behind many proxies.
pub const PLAIN_COMMANDS: &[&str] =
    &["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-@scripting", "-@transaction"];

const README: &str = include_str!("../../README.md");

/// A running server; killed when this falls.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server with some more arguments than it needs.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Between asking for a free port and the server's start somebody else may take it.
        for _ in 0..20 {
            let port = free_port();
            let mut redis = Self { child: launch(port, &arguments), port, arguments: arguments.clone() };
            if redis.is_up() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// A server whose user may do what the README says is needed, and nothing else.
    #[must_use]
    pub fn with_access_list() -> Self {
        Self::start(&Self::access_list("default", "nopass").iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The arguments that let `user` do no more than that, with a rule for its password.
    fn access_list(user: &str, password: &str) -> Vec<String> {
        let (_, said) = README.split_once("A Redis user with an access list needs").unwrap();
        let mut quoted = said.split('`').skip(1).step_by(2);
        let (keys, commands) = (format!("~{}", quoted.next().unwrap()), quoted.next().unwrap());
        let allowed = commands.split_whitespace().map(|command| format!("+{command}"));
        let user = ["--user", user, "on", password, "-@all", &keys].map(str::to_owned);
        user.into_iter().chain(allowed).collect()
    }

    /// A server with this certificate; gives the URL, which is none of the server's own, since that stays open for the
    /// test.
    #[must_use]
    pub fn secure(certificate: &Certificate) -> (Self, String) {
        Self::secure_with(certificate, &[])
    }

    /// The same, which lets in only a user `weir` with the password `open`, for what the README says is needed.
    #[must_use]
    pub fn secure_with_access_list(certificate: &Certificate) -> (Self, String) {
        // Nobody else is let in by TLS or without; the test itself asks nothing but whether it is up.
        let others = ["--user", "default", "on", "nopass", "-@all", "+ping"].map(str::to_owned);
        let list = [Self::access_list("weir", ">open"), others.to_vec()].concat();
        Self::secure_with(certificate, &list.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn secure_with(certificate: &Certificate, more: &[&str]) -> (Self, String) {
        let folder = PathBuf::from(folder());
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (cert, key) = (file("cert.pem", &certificate.certificate), file("key.pem", &certificate.key));
        let port = free_port();
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        let port_of_tls = port.to_string();
        let arguments: Vec<_> =
            ["--tls-port", &port_of_tls].into_iter().chain(files).chain(more.iter().copied()).collect();
        (Self::start(&arguments), format!("rediss://127.0.0.1:{port}"))
    }

    /// A cluster of one server, which has all slots.
    #[must_use]
    pub fn cluster() -> Self {
        let folder = folder();
        let redis = Self::start(&["--cluster-enabled", "yes", "--dir", &folder]);
        assert_eq!(redis.say("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
        let since = Instant::now();
        // Until then it answers every key with `-CLUSTERDOWN`.
        while redis.say("GET any") != "$-1" {
            assert!(since.elapsed() < PATIENCE, "the cluster does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    /// A sentinel that knows `master` by the name `weir`.
    #[must_use]
    pub fn sentinel(master: &Self) -> Self {
        let file = PathBuf::from(folder()).join("sentinel.conf");
        fs::write(&file, format!("sentinel monitor weir 127.0.0.1 {} 1\n", master.port)).unwrap();
        Self::start(&[file.to_str().unwrap(), "--sentinel"])
    }

    /// Where it is, as a configuration names it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// It answers nothing any more, but its connections stay.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// It answers nothing for a while.
    pub fn pause(&self, length: Duration) {
        assert_eq!(self.say(&format!("CLIENT PAUSE {} ALL", length.as_millis())), "+OK");
    }

    /// It forgets everything.
    pub fn empty(&self) {
        assert_eq!(self.say("FLUSHALL"), "+OK");
    }

    /// It dies at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It comes back at the same place, empty.
    pub fn start_again(&mut self) {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            self.child = launch(self.port, &self.arguments);
            if self.is_up() {
                return;
            }
        }
        panic!("redis-server does not start again");
    }

    /// The first line of its answer to one command.
    #[must_use]
    pub fn say(&self, command: &str) -> String {
        say(self.port, command).unwrap()
    }

    /// Waits until it answers; `false` when it ended, since somebody else has its port.
    fn is_up(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE && self.child.try_wait().unwrap().is_none() {
            let answer = say(self.port, "PING").unwrap_or_default();
            if answer == "+PONG" || answer.starts_with("-NOAUTH") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn say(port: u16, command: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// An empty folder of its own.
fn folder() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("weir-redis-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn launch(port: u16, arguments: &[String]) -> Child {
    // The arguments come first, since a file has to.
    Command::new("redis-server")
        .args(arguments)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--logfile", ""])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-server is needed for this test: {error}"))
}
