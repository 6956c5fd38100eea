//! The sockets that are listened on: bound before anything else is started, so that what is wrong with an address is said
//! at once, or taken over from the process that they served so far.
//!
//! Pingora would bind them itself, but late: for half a minute it tries again, then the service's task panics and the
//! process serves on without it. It takes what is in its table of sockets as it is; this fills the table beforehand.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pingora::server::{Fds, ListenFds};

/// How long a process waits for the sockets of the one before it; somebody has to send that one a signal meanwhile.
const WAIT: Duration = Duration::from_secs(60);

/// The longest path of a Unix socket.
const LONGEST_PATH: usize = 107;

/// Listening sockets by their address.
pub struct Sockets {
    table: Mutex<Fds>,
}

/// Where sockets are handed from one process to the next.
#[derive(Clone, Debug)]
pub struct Handover(PathBuf);

impl Handover {
    /// In the folder that both processes have for their store.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("upgrade.sock"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path as text, once it is known that a socket can be made there: Pingora panics where it can't.
    fn checked(&self) -> Result<&str, String> {
        let path = self.0.to_str().filter(|path| path.len() <= LONGEST_PATH).ok_or_else(|| {
            format!(
                "{} is too long for the path of a socket, or not UTF-8: choose another store.path",
                self.0.display()
            )
        })?;
        let trial = || {
            std::fs::create_dir_all(self.0.parent().unwrap_or(Path::new(".")))?;
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(path).map(drop)
        };
        trial().map_err(|error| format!("no socket can be made at {path}: {error}"))?;
        Ok(path)
    }
}

impl Sockets {
    /// Listens on `addresses`; a port 0 among them becomes the port that was free.
    ///
    /// # Errors
    /// An address that cannot be had, and why.
    pub fn bind<'a>(addresses: impl Iterator<Item = &'a mut SocketAddr>) -> Result<Self, String> {
        Self { table: Mutex::new(Fds::new()) }.with(addresses)
    }

    /// Waits for the sockets of the process that listens now, then binds those of `addresses` that are not among them.
    ///
    /// # Errors
    /// Nobody hands sockets over, or an address cannot be had.
    pub fn take_over<'a>(
        handover: &Handover,
        addresses: impl Iterator<Item = &'a mut SocketAddr>,
    ) -> Result<Self, String> {
        let path = handover.checked()?;
        let until = Instant::now() + WAIT;
        let mut table = Fds::new();
        // Each try takes a few seconds.
        while let Err(error) = table.get_from_sock(path) {
            if Instant::now() > until {
                return Err(format!(
                    "no process handed its sockets over at {path} within {WAIT:?} ({error}): start with --upgrade \
                     first, then send SIGQUIT to the process that serves"
                ));
            }
        }
        Self { table: Mutex::new(table) }.with(addresses)
    }

    fn with<'a>(self, addresses: impl Iterator<Item = &'a mut SocketAddr>) -> Result<Self, String> {
        let mut kept = HashSet::new();
        for address in addresses {
            self.add(address)?;
            kept.insert(address.to_string());
        }
        // A socket that nobody accepts from would swallow connections.
        self.table().close_unclaimed(&kept);
        Ok(self)
    }

    fn add(&self, address: &mut SocketAddr) -> Result<(), String> {
        let mut table = self.table();
        if table.get(&address.to_string()).is_some() {
            return Ok(());
        }
        let bound = TcpListener::bind(*address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (bound, listener) = bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does"),
            _ => format!("cannot listen on {address}: {error}"),
        })?;
        *address = bound;
        table.add(bound.to_string(), listener.into_raw_fd());
        Ok(())
    }

    /// Puts the sockets where Pingora looks for them before it binds its own.
    pub fn give(&self, pingora: &ListenFds) {
        let (addresses, sockets) = self.table().serialize();
        let mut table = pingora.lock();
        for (address, socket) in addresses.into_iter().zip(sockets) {
            table.add(address, socket);
        }
    }

    /// Hands the sockets to the process that waits for them. Blocks, for some seconds where nobody waits.
    ///
    /// # Errors
    /// Nobody waits.
    pub fn hand_over(&self, handover: &Handover) -> Result<(), String> {
        let path = handover.path().to_str().ok_or("the path of the socket is not UTF-8")?;
        let sent = self.table().send_to_sock(path);
        sent.map(drop).map_err(|error| format!("no process waits for the sockets at {path}: {error}"))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Fds> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.table().serialize().0).finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_at_once() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut address = taken.local_addr().unwrap();
        let refused = Sockets::bind([&mut address].into_iter()).unwrap_err();
        assert_eq!(refused, format!("cannot listen on {address}: another process does"));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_told() {
        let long = Handover::in_folder(Path::new(&"x".repeat(LONGEST_PATH)));
        assert!(Sockets::take_over(&long, std::iter::empty()).unwrap_err().contains("too long"));
    }
}
