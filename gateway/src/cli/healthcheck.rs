//! `weir healthcheck`: asks the Weir that this configuration starts whether it is ready; for container images, which have
//! no other client in them.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{WRONG_INPUT, check, complain};
use crate::config::{self, Config};

/// How long each step of it may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(file: &Path) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(faults) => return check::refuse(&faults),
    };
    let Some((address, speaks)) = listener(&loaded.config) else {
        complain("error: the configuration has no listener to ask\n");
        return ExitCode::from(WRONG_INPUT);
    };
    match ask(address, speaks) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG_INPUT),
        Err(error) => {
            complain(&format!("error: {address}: {error}\n"));
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speaks {
    Plain,
    Tls,
}

/// The admin listener, or one of the API's; one that speaks plain HTTP if there is any.
fn listener(config: &Config) -> Option<(SocketAddr, Speaks)> {
    let server = &config.server;
    let listeners = server.admin.iter().chain(&server.listen.0).map(|listener| {
        let is_plain = listener.tls.is_none() && server.tls.is_none();
        (reachable(listener.address.get()), if is_plain { Speaks::Plain } else { Speaks::Tls })
    });
    listeners.min_by_key(|(_, speaks)| *speaks)
}

/// An address to connect to, for one that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether it is ready; of one that speaks TLS, with whatever certificate, only whether it takes a connection.
fn ask(address: SocketAddr, speaks: Speaks) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    if speaks == Speaks::Tls {
        return Ok(true);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
