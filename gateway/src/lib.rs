//! Weir.

use std::net::SocketAddr;
use std::process::ExitCode;

pub mod cli;
pub mod config;

/// Serves this configuration until the process is told to end.
#[must_use]
pub fn serve(loaded: config::Loaded) -> ExitCode {
    eprintln!("error: this build of Weir cannot serve yet ({})", loaded.hash);
    ExitCode::from(cli::INTERNAL_FAULT)
}

/// Runs the provider simulator until the process is told to end.
#[must_use]
pub fn simulate(listen: SocketAddr) -> ExitCode {
    eprintln!("error: this build of Weir cannot simulate yet ({listen})");
    ExitCode::from(cli::INTERNAL_FAULT)
}
