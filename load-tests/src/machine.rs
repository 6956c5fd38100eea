//! What the numbers were measured on.

use std::fs;
use std::process::Command;

use crate::process::Pin;

/// The machine, as the report names it.
pub(crate) struct Machine {
    pub(crate) cores: usize,
    taskset: bool,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = processors.lines().filter(|line| line.starts_with("processor")).count().max(1);
        Self { cores, taskset: first_line("taskset", &["--version"]).is_some() }
    }

    /// The gateway has the last core for itself; generator and simulator share the others.
    pub(crate) fn gateway(&self) -> Pin {
        if self.cores > 1 && self.taskset { Pin::Core(self.cores - 1) } else { Pin::Free }
    }

    /// See [`Machine::gateway`].
    pub(crate) fn simulator(&self) -> Pin {
        match self.cores {
            0 | 1 => Pin::Free,
            2 if self.taskset => Pin::Core(0),
            _ if self.taskset => Pin::Core(1),
            _ => Pin::Free,
        }
    }

    /// Lines for the report.
    pub(crate) fn describe(&self, weir: Option<&str>, nginx: Option<&str>) -> Vec<(&'static str, String)> {
        let version = |program: Option<&str>| program.and_then(|program| first_line(program, &["--version"]));
        let nginx = nginx.and_then(|program| first_line(program, &["-v"]));
        let mut lines = vec![
            ("date", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_default()),
            ("processor", format!("{}, {} cores", processor(), self.cores)),
            ("memory", memory()),
            ("kernel", first_line("uname", &["-sr"]).unwrap_or_default()),
            ("pinning", self.pinning()),
        ];
        lines.extend(version(weir).map(|version| ("weir", version)));
        lines.extend(nginx.map(|version| ("nginx", version)));
        lines
    }

    fn pinning(&self) -> String {
        match self.gateway() {
            Pin::Core(core) => format!("gateway on core {core}; generator and simulator elsewhere"),
            Pin::Free => "none".to_owned(),
        }
    }
}

/// The one-minute load, which tells how much else the machine had to do.
pub(crate) fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("?").to_owned()
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

fn memory() -> String {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: f64 = total.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0);
    format!("{:.1} GiB", kibibytes / 1024.0 / 1024.0)
}

/// The first line that a program says, on either output.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().map(str::to_owned)
}
