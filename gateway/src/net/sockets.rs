//! The sockets that are listened on: bound before anything else is started, so that what is wrong with an address is
//! said at once, or taken over from the process that they served so far.
//!
//! Pingora would bind them itself, but late: for half a minute it tries again, then the service's task panics and the
//! process serves on without it. It takes what is in its table of sockets as it is; this fills the table beforehand.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use crate::net::handover::{Handover, Predecessor};

/// Listening sockets.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<Vec<TcpListener>>);

impl Sockets {
    /// Listens on `addresses`; a port 0 among them becomes the port that was free.
    ///
    /// # Errors
    /// An address that cannot be had, and why.
    pub fn bind<'a>(addresses: impl Iterator<Item = &'a mut SocketAddr>) -> Result<Self, String> {
        Self::with(addresses, Vec::new())
    }

    /// Waits for the sockets of the process that listens now, then binds those of `addresses` that are not among them.
    ///
    /// # Errors
    /// Nobody hands sockets over, or an address cannot be had.
    pub fn take_over<'a>(
        handover: &Handover,
        addresses: impl Iterator<Item = &'a mut SocketAddr>,
    ) -> Result<(Self, Predecessor), String> {
        let (received, predecessor) = handover.receive()?;
        let sockets = Self::with(addresses, received).inspect_err(|why| predecessor.leave(why))?;
        Ok((sockets, predecessor))
    }

    /// One for each address. What else was received is closed: a socket that nobody accepts from would swallow
    /// connections.
    fn with<'a>(
        addresses: impl Iterator<Item = &'a mut SocketAddr>,
        mut received: Vec<TcpListener>,
    ) -> Result<Self, String> {
        let had = |socket: &TcpListener, address| socket.local_addr().is_ok_and(|at| at == address);
        let one = |address: &mut SocketAddr| match received.iter().position(|socket| had(socket, *address)) {
            Some(i) => Ok(received.swap_remove(i)),
            None => listen(address),
        };
        Ok(Self(Mutex::new(addresses.map(one).collect::<Result<_, _>>()?)))
    }

    /// A handle of each and its address for Pingora, which closes it when it accepts no more.
    ///
    /// # Errors
    /// The system has no handle left.
    pub fn handles(&self) -> io::Result<Vec<(String, RawFd)>> {
        let handle = |socket: &TcpListener| Ok((socket.local_addr()?.to_string(), socket.try_clone()?.into_raw_fd()));
        self.all().iter().map(handle).collect()
    }

    /// Shows them to somebody.
    pub fn lend<T>(&self, to: impl FnOnce(&[TcpListener]) -> T) -> T {
        to(&self.all())
    }

    /// Lets go of them. Pingora has its own handles; once those are closed as well, nobody can connect any more.
    pub fn close(&self) {
        self.all().clear();
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(address: &mut SocketAddr) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(*address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok((socket.local_addr()?, socket))
    });
    let (bound, socket) = bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("cannot listen on {address}: another process does"),
        _ => format!("cannot listen on {address}: {error}"),
    })?;
    *address = bound;
    Ok(socket)
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
}
