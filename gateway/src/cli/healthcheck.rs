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
    let Some(address) = plain_listener(&loaded.config) else {
        complain("error: no listener without TLS that could be asked\n");
        return ExitCode::from(WRONG_INPUT);
    };
    match ask(address) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG_INPUT),
        Err(error) => {
            complain(&format!("error: {address}: {error}\n"));
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// The admin listener, or one of the API's, that speaks plain HTTP.
fn plain_listener(config: &Config) -> Option<SocketAddr> {
    let server = &config.server;
    let listeners = server.admin.iter().chain(&server.listen.0);
    let plain = listeners.filter(|listener| listener.tls.is_none() && server.tls.is_none());
    plain.map(|listener| reachable(listener.address.get())).next()
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

fn ask(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
