//! How one process hands its sockets to the next: over a Unix socket in the folder of the store that both have. The
//! next one waits there; the one that serves sends it the sockets, and ends only once it has said that it serves.
//!
//! Pingora can send sockets too, but hears nothing back: the process that serves would end for one that may never do.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Interest};
use tokio::time::{Instant, sleep, timeout};

use crate::net::sockets::Sockets;

/// How long a process waits for the sockets of the one before it; somebody has to send that one a signal meanwhile.
const WAIT: Duration = Duration::from_secs(60);

/// How long the process that serves waits for the next one, which may just be starting.
const PATIENCE: Duration = Duration::from_secs(5);

/// The next process is looked for so often.
const EACH: Duration = Duration::from_millis(100);

/// The kernel sends no more sockets at once.
const MOST_SOCKETS: usize = 253;

/// A process that serves for so long does not fail as it starts; until then both accept.
const OVERLAP: Duration = Duration::from_secs(1);

/// What the next process says once it serves.
const SERVING: &str = "serving";

/// No word of the next process is longer.
const LONGEST_WORD: u64 = 1_024;

/// Where sockets are handed from one process to the next.
#[derive(Clone, Debug)]
pub struct Handover(PathBuf);

impl Handover {
    /// In the folder that both processes have for their store.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("upgrade.sock"))
    }

    /// Waits for the sockets of the process that serves.
    ///
    /// # Errors
    /// No socket can be made there, or nobody hands sockets over.
    pub fn receive(&self) -> Result<(Vec<TcpListener>, Predecessor), String> {
        let path = self.0.display();
        let listener = self.listen().map_err(|error| format!("no socket can be made at {path}: {error}"))?;
        let received = listener.accept().and_then(|(stream, _)| Ok((received(&stream)?, Predecessor(stream))));
        let _gone = std::fs::remove_file(&self.0);
        received.map_err(|error| {
            format!(
                "no process handed its sockets over at {path} within {WAIT:?} ({error}): start with --upgrade first, \
                 then send SIGQUIT to the process that serves"
            )
        })
    }

    /// Listens there, in the place of a process that is gone.
    fn listen(&self) -> io::Result<UnixListener> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.0)?;
        set_socket_timeout(&listener, Timeout::Recv, Some(WAIT))?;
        Ok(listener)
    }

    /// Sends the sockets to the next process, which may wait for them only a moment later.
    ///
    /// # Errors
    /// Nobody waits, or the sockets cannot be sent.
    pub async fn send(&self, sockets: &Sockets) -> Result<Successor, String> {
        let path = self.0.display();
        let stream = self.connect().await.map_err(|error| {
            format!("no process waits for the sockets at {path} ({error}); start it with --upgrade first")
        })?;
        let failed = |error| format!("the sockets cannot be sent to the next process: {error}");
        stream.writable().await.map_err(failed)?;
        stream.try_io(Interest::WRITABLE, || sockets.lend(|lent| send(&stream, lent))).map_err(failed)?;
        Ok(Successor(stream))
    }

    async fn connect(&self) -> io::Result<tokio::net::UnixStream> {
        let until = Instant::now() + PATIENCE;
        loop {
            match tokio::net::UnixStream::connect(&self.0).await {
                Err(_) if Instant::now() < until => sleep(EACH).await,
                connected => return connected,
            }
        }
    }
}

/// The process that serves until this one does.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Tells it that this process serves, so that it ends. One that is gone needs not be told.
    pub fn relieve(&self) {
        self.say(SERVING);
    }

    /// Tells it why this process will not serve, so that it serves on.
    pub fn leave(&self, why: &str) {
        self.say(why);
    }

    fn say(&self, word: &str) {
        let _unheard = (&self.0).write_all(format!("{word}\n").as_bytes());
    }
}

/// The process that has the sockets, but may not serve yet.
#[derive(Debug)]
pub struct Successor(tokio::net::UnixStream);

impl Successor {
    /// Waits until it serves, however long that takes: this process serves as well meanwhile.
    ///
    /// # Errors
    /// It will not serve, and why.
    pub async fn serves(self) -> Result<(), String> {
        let mut said = String::new();
        // What cannot be read is as good as nothing said.
        let mut stream = BufReader::new(self.0.take(LONGEST_WORD));
        let _read = stream.read_line(&mut said).await;
        match said.trim_end() {
            // It says no more, so what is read next is its end.
            SERVING => match timeout(OVERLAP, stream.read_u8()).await {
                Err(_still_there) => Ok(()),
                Ok(_) => Err("the next process ended as soon as it served".to_owned()),
            },
            "" => Err("the next process ended before it served".to_owned()),
            why => Err(format!("the next process does not serve: {why}")),
        }
    }
}

fn send(stream: &tokio::net::UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other(format!("there are more than {MOST_SOCKETS}")));
    }
    sendmsg(stream, &[IoSlice::new(b"\n")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn received(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    stream.set_read_timeout(Some(WAIT))?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok(sockets.flatten().map(TcpListener::from).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_path_that_no_socket_can_have_is_told() {
        let long = Handover::in_folder(Path::new(&"x".repeat(200)));
        let refused = long.receive().unwrap_err();
        assert!(refused.starts_with("no socket can be made at xxx"), "{refused}");
    }
}
