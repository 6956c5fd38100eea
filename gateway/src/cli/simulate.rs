//! `weir simulate`: the provider simulator as a server of its own.

use std::net::SocketAddr;
use std::process::ExitCode;

pub(super) fn run(listen: SocketAddr) -> ExitCode {
    crate::serve::simulate(listen)
}
