//! A process that is measured: started, pinned, asked for its processor time and memory, ended by its own id.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to say that it listens: a large configuration is read meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How long a process may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Which core a process is kept on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// This core.
    Core(usize),
    /// None: `taskset` is missing, or there is one core only.
    Free,
}

/// A started process; it ends when this falls.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    id: u32,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Process {
    /// Starts `program` on `pin`; its standard output is kept for [`Process::line_with`], or read by nobody.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        pin: Pin,
        environment: &[(&str, &str)],
    ) -> io::Result<Self> {
        let mut command = match pin {
            Pin::Free => Command::new(program),
            Pin::Core(core) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(program);
                command
            }
        };
        command.args(arguments).envs(environment.iter().copied());
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|error| named(program, &error))?;
        let id = child.id().ok_or_else(|| io::Error::other("a process ended as it began"))?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { child, id, lines })
    }

    /// Waits for the line that begins with `start`, and returns what follows.
    pub(crate) async fn line_with(&mut self, start: &str) -> io::Result<String> {
        let Some(lines) = &mut self.lines else {
            return Err(io::Error::other("its output is not read"));
        };
        let found = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(start) {
                    return Ok(rest.to_owned());
                }
            }
            Err(io::Error::other(format!("it ended before it said '{start}'")))
        };
        let late = |_| io::Error::other(format!("it did not say '{start}' in {} s", READY_WITHIN.as_secs()));
        tokio::time::timeout(READY_WITHIN, found).await.map_err(late)?
    }

    /// Reads on what it says, so that it never waits for a reader.
    pub(crate) fn forget_output(&mut self) {
        if let Some(mut lines) = self.lines.take() {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
    }

    /// What measures it.
    pub(crate) fn meter(&self) -> Meter {
        Meter(self.id)
    }

    /// Ends it, and waits until it has ended.
    pub(crate) async fn end(mut self) {
        terminate(self.id);
        if tokio::time::timeout(END_WITHIN, self.child.wait()).await.is_err() {
            // It has had its time; it may just have ended by itself.
            let _ = self.child.kill().await;
        }
    }
}

/// Reads off what a process uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter(u32);

impl Meter {
    /// The processor time so far.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu(self.family().into_iter().flat_map(threads).collect())
    }

    /// Resident memory, in bytes, of the process and its children.
    pub(crate) fn memory(&self) -> u64 {
        self.family().into_iter().map(resident).sum()
    }

    /// It and its children: nginx works in a child.
    fn family(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.0);
        let children = fs::read_to_string(path).unwrap_or_default();
        std::iter::once(self.0).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            terminate(self.id);
        }
    }
}

/// SIGTERM by `kill`, as this crate has no unsafe code and no need of a crate for one call.
fn terminate(id: u32) {
    // If it cannot be told, it has ended.
    let _ = std::process::Command::new("kill").arg("-TERM").arg(id.to_string()).status();
}

/// Processor time of each thread, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(HashMap<u32, u64>);

impl Cpu {
    /// What was used since `before`; a thread that has ended since is not counted.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let used = self.0.iter().map(|(id, now)| now.saturating_sub(before.0.get(id).copied().unwrap_or(0)));
        Duration::from_nanos(used.sum())
    }
}

fn threads(id: u32) -> Vec<(u32, u64)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| Some((task.file_name().to_str()?.parse().ok()?, on_processor(&task.path())?)))
        .collect()
}

fn on_processor(task: &Path) -> Option<u64> {
    let stat = fs::read_to_string(task.join("schedstat")).ok()?;
    stat.split_whitespace().next()?.parse().ok()
}

fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

fn named(program: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}
