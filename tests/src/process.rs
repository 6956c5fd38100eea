//! The binary `weir` as a process with any arguments: for starts that are refused, for the quickstart, and for the
//! process that takes over another's sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::patience::within;
use crate::weir::binary;

/// A running process; killed when this falls.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: PathBuf,
    printed: Arc<Printed>,
}

#[derive(Debug, Default)]
struct Printed {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Notify,
}

impl Printed {
    fn lines(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `weir` in `folder`, with nothing in its environment but `environment`.
    #[must_use]
    pub fn start(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = Self::spawn(folder, arguments, environment);
        let (out, keeper) = (process.child.stdout.take().unwrap(), Arc::clone(&process.printed));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                keeper.lines().0.push(line);
                keeper.changed.notify_waiters();
            }
            keeper.lines().1 = true;
            keeper.changed.notify_waiters();
        });
        process
    }

    /// Starts `weir` in `folder` with a standard output that nobody reads.
    #[must_use]
    pub fn deaf(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Self::spawn(folder, arguments, &[]);
        drop(process.child.stdout.take());
        process
    }

    fn spawn(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let stderr = folder.join(format!("stderr-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let child = Command::new(binary())
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self { child, stderr, printed: Arc::default() }
    }

    /// Waits for a line of standard output that begins with `start`, and gives what follows; none when the process ends
    /// before.
    pub async fn line(&self, start: &str) -> Option<String> {
        within(start, async {
            loop {
                let changed = self.printed.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let (line, ended) = {
                    let lines = self.printed.lines();
                    (lines.0.iter().find_map(|line| line.strip_prefix(start).map(str::to_owned)), lines.1)
                };
                if line.is_some() || ended {
                    return line;
                }
                changed.await;
            }
        })
        .await
    }

    /// What follows `start` in the lines of standard output so far that begin with it.
    #[must_use]
    pub fn lines(&self, start: &str) -> Vec<String> {
        self.printed.lines().0.iter().filter_map(|line| line.strip_prefix(start).map(str::to_owned)).collect()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        // No line begins like that: it returns when there are no more.
        let _none = self.line("\0").await;
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of weir\n{}---", self.stderr());
        }
    }
}

/// A folder of its own, removed when this falls.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("weir-test-folder-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process's memory in KiB, as the kernel counts it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most that it ever was.
    pub peak: u64,
    /// Open file descriptors.
    pub files: usize,
}

/// The memory of the process with this id.
#[must_use]
pub fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Memory { now: of("VmRSS:"), peak: of("VmHWM:"), files }
}
