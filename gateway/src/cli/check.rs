//! `weir check`: every fault of a configuration and all that `weir serve` would refuse or warn of, or what it holds. Faults
//! are shown as compilers show them, so that editors and CI find the place; no line of the file is quoted, because it may
//! hold a secret.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{INTERNAL_FAULT, WRONG_INPUT, complain, say};
use crate::config::{self, Fault, Faults, Loaded};
use crate::explain::{self, Elsewhere, Unexplained};

/// How far the check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// At what is written.
    Text,
    /// Also whether its secrets and certificates are there.
    Strict,
}

pub(super) fn run(file: &Path, depth: Depth) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(faults) => return refuse(&faults),
    };
    warn(&loaded.warnings);
    warn(&loaded.pending);
    let missing = match depth {
        Depth::Text => Vec::new(),
        Depth::Strict => loaded.missing(),
    };
    if !missing.is_empty() {
        return refuse(&Faults { faults: missing, more: 0 });
    }
    let contents = contents(&loaded);
    let elsewhere = if depth == Depth::Strict { Elsewhere::Wanted } else { Elsewhere::Spared };
    match explain::rehearse(loaded, elsewhere) {
        Ok(()) => say(&format!("{}: {contents}\n", file.display())),
        Err(Unexplained::Faults(faults)) => refuse(&faults),
        Err(Unexplained::Machine(why)) => {
            complain(&format!("error: {why}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

/// Shows the warnings.
pub(super) fn warn(warnings: &[Fault]) {
    complain(&warnings.iter().map(|warning| show("warning", warning)).collect::<String>());
}

/// Shows the faults.
pub(super) fn refuse(faults: &Faults) -> ExitCode {
    let mut text: String = faults.faults.iter().map(|fault| show("error", fault)).collect();
    let count = faults.faults.len() + faults.more;
    if faults.more > 0 {
        _ = writeln!(text, "… and {} more", faults.more);
    }
    _ = writeln!(text, "{count} {}", if count == 1 { "fault" } else { "faults" });
    complain(&text);
    ExitCode::from(WRONG_INPUT)
}

fn show(what: &str, fault: &Fault) -> String {
    let mut text = format!("{what}: {}\n", fault.message);
    if let Some(place) = &fault.place {
        _ = writeln!(text, "  --> {place}");
    }
    if !fault.path.is_empty() {
        _ = writeln!(text, "   = {}", fault.path);
    }
    if let Some(help) = &fault.help {
        _ = writeln!(text, "   = help: {help}");
    }
    text.push('\n');
    text
}

fn contents(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let keys = config.tenants.iter().map(|tenant| tenant.keys.len()).sum();
    let count = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let parts = [
        count(config.providers.len(), "provider"),
        count(config.models.len(), "model"),
        count(config.tenants.len(), "tenant"),
        count(keys, "key"),
    ];
    format!("no fault; {}", parts.join(", "))
}
