//! Idle HTTP/1.1 connections, by the address that they lead to.
//!
//! Pingora's own pool spawns a task for each connection that goes idle, and waits for that task
//! when the connection is taken again: 2 of the 13 µs of a request. Here an idle connection just
//! lies there, is looked at when it is taken, and one task for all sweeps the dead and the old out.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;

/// Idle connections kept for all providers together. A pool smaller than the concurrency is the
/// worst setting there is (each request then pays a handshake); an idle one costs a descriptor.
const MOST_IDLE: usize = 8192;
/// How long an idle connection is kept: load balancers in front of providers close theirs after 60 s
/// and more, and a connection that dies first at this end is never sent a request in vain.
pub(super) const IDLE: Duration = Duration::from_secs(55);
/// How often the shelves are swept: a connection that its provider closed holds its descriptor so long.
const SWEEP: Duration = Duration::from_secs(5);
/// Connections looked at under one lock, so that no request waits for a long sweep.
const SWEPT_AT_ONCE: usize = 64;

/// All idle connections.
#[derive(Default)]
pub(super) struct Shelves {
    by_key: Mutex<HashMap<u64, Arc<Shelf>>>,
    idle: Arc<AtomicUsize>,
    swept: AtomicBool,
}

/// The idle connections of one address, the latest used last.
pub(super) struct Shelf {
    resting: Mutex<VecDeque<Resting>>,
    /// How many lie on all shelves.
    idle: Arc<AtomicUsize>,
}

struct Resting {
    stream: Stream,
    since: Instant,
}

impl Shelves {
    /// The shelf of an address; all who ask with the same key share it, across reloads.
    pub(super) fn of(self: &Arc<Self>, key: u64) -> Arc<Shelf> {
        self.see_to_sweeping();
        let mut shelves = locked(&self.by_key);
        shelves.entry(key).or_insert_with(|| Arc::new(Shelf::new(self.idle.clone()))).clone()
    }

    fn see_to_sweeping(self: &Arc<Self>) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let sweeper = Sweeper(Arc::downgrade(self));
        if let Ok(runtime) = Handle::try_current() {
            // Not waited for at shutdown: it owns nothing and ends with the shelves.
            runtime.spawn(sweeper.run());
        }
    }

    fn sweep(&self) {
        let shelves: Vec<_> = locked(&self.by_key).values().cloned().collect();
        for shelf in shelves {
            shelf.sweep();
        }
        locked(&self.by_key).retain(|_, shelf| Arc::strong_count(shelf) > 1 || !locked(&shelf.resting).is_empty());
    }
}

impl Shelf {
    fn new(idle: Arc<AtomicUsize>) -> Shelf {
        Shelf { resting: Mutex::default(), idle }
    }

    /// The connection that was used last and is still good.
    pub(super) fn take(&self) -> Option<Stream> {
        loop {
            let mut resting = locked(&self.resting).pop_back()?;
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if resting.is_good() {
                return Some(resting.stream);
            }
        }
    }

    /// Lays a connection down. When there are too many, it pushes the oldest off, or falls off itself.
    pub(super) fn put(&self, stream: Stream) {
        let mut resting = Resting { stream, since: Instant::now() };
        if !resting.is_silent() {
            return;
        }
        let mut shelf = locked(&self.resting);
        if self.idle.fetch_add(1, Ordering::Relaxed) >= MOST_IDLE {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if shelf.pop_front().is_none() {
                return;
            }
        }
        shelf.push_back(resting);
    }

    /// Drops what is not good any more. Goes once around, a few under each lock.
    fn sweep(&self) {
        let mut left = locked(&self.resting).len();
        while left > 0 {
            let some = left.min(SWEPT_AT_ONCE);
            left -= some;
            self.sweep_some(some);
        }
    }

    fn sweep_some(&self, some: usize) {
        // Outlives the lock: closing is a system call each.
        let mut bad = Vec::new();
        let mut shelf = locked(&self.resting);
        for _ in 0..some {
            let Some(mut resting) = shelf.pop_front() else {
                return;
            };
            if resting.is_good() {
                shelf.push_back(resting);
            } else {
                self.idle.fetch_sub(1, Ordering::Relaxed);
                bad.push(resting);
            }
        }
    }
}

impl Resting {
    /// Silent, and young enough.
    fn is_good(&mut self) -> bool {
        self.is_silent() && self.since.elapsed() < IDLE
    }

    /// An end, or bytes that nobody asked for, make it useless.
    fn is_silent(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer);
        read.is_pending()
    }
}

/// The task that sweeps for as long as there are shelves and a runtime.
struct Sweeper(Weak<Shelves>);

impl Sweeper {
    async fn run(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            match self.0.upgrade() {
                Some(shelves) => shelves.sweep(),
                None => return,
            }
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(shelves) = self.0.upgrade() {
            shelves.swept.store(false, Ordering::Relaxed);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// The two ends of a connection.
    async fn connection() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (Box::new(pingora::protocols::l4::stream::Stream::from(near)), far)
    }

    /// Waits until what the far end did has come to this end.
    async fn heard(shelf: &Shelf, at: usize) {
        std::future::poll_fn(|cx| {
            let mut byte = [0; 1];
            let mut shelf = locked(&shelf.resting);
            let resting = shelf.get_mut(at).unwrap();
            Pin::new(&mut resting.stream).poll_read(cx, &mut ReadBuf::new(&mut byte))
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn the_latest_connection_is_taken_first() {
        let (shelves, mut far) = (Arc::new(Shelves::default()), Vec::new());
        let shelf = shelves.of(1);
        let mut ids = Vec::new();
        for _ in 0..3 {
            let (near, other) = connection().await;
            ids.push(near.id());
            far.push(other);
            shelf.put(near);
        }
        while let Some(stream) = shelves.of(1).take() {
            assert_eq!(Some(stream.id()), ids.pop());
        }
        assert!(ids.is_empty());
        assert!(shelves.of(2).take().is_none());
    }

    #[tokio::test]
    async fn closed_and_talking_connections_are_neither_taken_nor_kept() {
        for sweeping in [false, true] {
            let shelves = Arc::new(Shelves::default());
            let shelf = shelves.of(1);
            let (near, closed) = connection().await;
            shelf.put(near);
            let (near, mut talking) = connection().await;
            shelf.put(near);
            drop(closed);
            talking.write_all(b"xx").await.unwrap();
            heard(&shelf, 0).await;
            heard(&shelf, 1).await;
            if sweeping {
                shelves.sweep();
                assert_eq!(shelves.idle.load(Ordering::Relaxed), 0);
            }
            assert!(shelf.take().is_none());
            assert_eq!(shelves.idle.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn old_connections_are_swept_and_empty_shelves_with_them() {
        let shelves = Arc::new(Shelves::default());
        let mut far = Vec::new();
        for age in [IDLE, Duration::ZERO] {
            let (near, other) = connection().await;
            far.push(other);
            let shelf = shelves.of(age.as_secs());
            shelf.put(near);
            locked(&shelf.resting).back_mut().unwrap().since -= age;
        }
        shelves.sweep();
        assert_eq!(shelves.idle.load(Ordering::Relaxed), 1);
        assert_eq!(locked(&shelves.by_key).len(), 1);
        assert!(shelves.of(0).take().is_some());
    }

    #[tokio::test]
    async fn a_full_house_lets_the_oldest_of_the_shelf_go() {
        let shelves = Arc::new(Shelves::default());
        shelves.idle.store(MOST_IDLE - 1, Ordering::Relaxed);
        let shelf = shelves.of(1);
        let ((one, _one), (two, _two), (three, _three)) = (connection().await, connection().await, connection().await);
        let two_id = two.id();
        shelf.put(one);
        shelf.put(two);
        shelves.of(2).put(three);
        assert_eq!(shelf.take().unwrap().id(), two_id);
        assert!(shelf.take().is_none() && shelves.of(2).take().is_none());
        assert_eq!(shelves.idle.load(Ordering::Relaxed), MOST_IDLE - 1);
    }
}
