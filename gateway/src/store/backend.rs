//! What a store needs of whatever keeps its bytes: an ordered map with atomic batches.

use super::{StoreFault, seal};

/// Bytes under a key.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered map of bytes that outlives the process. All of it may block.
pub trait Backend: Send + Sync {
    /// The value under `key`.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;

    /// At most `limit` pairs of `span`, from the end that `direction` begins at.
    ///
    /// # Errors
    /// They cannot be read.
    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault>;

    /// Does all of `batch` or nothing of it. It is safe from a crash once [`flush`](Self::flush) has returned.
    ///
    /// # Errors
    /// Nothing was done, or it will be done whole when the backend is opened again.
    fn apply(&self, batch: &Batch) -> Result<(), StoreFault>;

    /// Writes out what was applied.
    ///
    /// # Errors
    /// Nobody knows how much was.
    fn flush(&self) -> Result<(), StoreFault>;
}

/// Keys from one up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub from: Vec<u8>,
    /// The first key that is no longer in it.
    pub to: Vec<u8>,
}

impl Span {
    /// All keys that begin with `prefix`, which does not end with 255.
    #[must_use]
    pub fn under(prefix: &[u8]) -> Self {
        let mut to = prefix.to_vec();
        if let Some(last) = to.last_mut() {
            *last = last.saturating_add(1);
        }
        Self { from: prefix.to_vec(), to }
    }

    /// What is left of it behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        self.from = key.to_vec();
        self.from.push(0);
        self
    }

    /// What is left of it before `key`.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        self.to = key.to_vec();
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The lowest key first.
    Up,
    /// The highest key first.
    Down,
}

/// A key, and its new value; `None` takes the key away.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Changes that are made together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Puts `value` under `key`, sealed.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let key = key.into();
        let sealed = seal::close(&key, value.into());
        self.changes.push((key, Some(sealed)));
    }

    /// Puts `value` under `key` as it is.
    pub(super) fn put_bare(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Takes `key` away.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use weir_tests::redis::Redis;

    use super::*;
    use crate::config::{self, Secret};
    use crate::ledger::Fleet as _;
    use crate::redis::{Ledgers, Settings};
    use crate::store::memory::Memory;
    use crate::store::sled::Embedded;

    fn batch(changes: &[(&str, Option<&str>)]) -> Batch {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Batch { changes: changes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect() }
    }

    fn keys(backend: &dyn Backend, span: &Span, direction: Direction, limit: usize) -> Vec<String> {
        let pairs = backend.range(span, direction, limit).unwrap();
        pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    }

    /// What every backend does.
    fn conforms(backend: &dyn Backend) {
        let put = [("a1", Some("1")), ("b", Some("2")), ("a2", Some("")), ("a", Some("3")), ("b", Some("4"))];
        backend.apply(&batch(&put)).unwrap();
        assert_eq!(backend.get(b"b").unwrap().unwrap(), b"4", "the last change of a key counts");
        assert_eq!(backend.get(b"a2").unwrap().unwrap(), b"", "an empty value is a value");
        assert_eq!(backend.get(b"none").unwrap(), None);
        let under_a = Span::under(b"a");
        for (span, direction, limit, expected) in [
            (&under_a, Direction::Up, 9, vec!["a", "a1", "a2"]),
            (&under_a, Direction::Down, 2, vec!["a2", "a1"]),
            (&under_a.clone().after(b"a"), Direction::Up, 9, vec!["a1", "a2"]),
            (&under_a.clone().before(b"a2"), Direction::Down, 9, vec!["a1", "a"]),
            (&under_a.clone().after(b"a2"), Direction::Up, 9, vec![]),
            (&under_a.clone().before(b"a"), Direction::Up, 9, vec![]),
            (&Span::under(b"c"), Direction::Up, 9, vec![]),
            (&under_a, Direction::Up, 0, vec![]),
        ] {
            assert_eq!(keys(backend, span, direction, limit), expected, "{span:?} {direction:?} {limit}");
        }
        backend.apply(&batch(&[("a1", None), ("none", None), ("c", Some("5"))])).unwrap();
        backend.flush().unwrap();
        assert_eq!(keys(backend, &Span { from: vec![], to: vec![255] }, Direction::Up, 9), ["a", "a2", "b", "c"]);
    }

    #[test]
    fn each_backend_is_an_ordered_map_with_batches() {
        let folder = tempfile::tempdir().unwrap();
        conforms(&Embedded::open(folder.path()).unwrap());
        conforms(&*Memory::default().backend());
        let (redis, cluster) = (Redis::with_access_list(), Redis::cluster());
        conforms(&*shared(config::Redis { url: Some(Secret::written(&redis.url())), ..nowhere() }));
        conforms(&*shared(config::Redis { cluster: vec![Secret::written(&cluster.url())], ..nowhere() }));
    }

    fn nowhere() -> config::Redis {
        config::Redis { url: None, cluster: Vec::new(), sentinel: None, username: None, password: None }
    }

    fn shared(redis: config::Redis) -> Arc<dyn Backend> {
        Ledgers::new(Settings::of(&redis).unwrap(), 1).unwrap().own()
    }
}
