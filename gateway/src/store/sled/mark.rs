//! How far the store was written, in a small file beside it. sled cuts its log at the first damage that it meets, or
//! begins anew, and says nothing; a store that ends before its mark has lost something.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often sled writes everything out while batches come, and the mark follows. Each time costs a flush of the disk's
/// own cache, which sled leaves out; without it the mark might be ahead of the store after a power failure.
const EVERY: Duration = Duration::from_secs(1);

/// The number, and a checksum of it.
const LENGTH: usize = size_of::<u64>() + size_of::<u32>();

/// The file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    /// `None` until this process has written it.
    written: Option<Instant>,
}

impl Mark {
    /// The mark in this file, which is made when it is not there, and the number in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; LENGTH];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decoded(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self { file, written: None }, number))
    }

    /// Whether it is time to write it again.
    pub(super) fn is_due(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed() >= EVERY)
    }

    /// All up to `number` is safe.
    pub(super) fn write(&mut self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&encoded(number), 0)?;
        self.written = Some(Instant::now());
        Ok(())
    }
}

fn encoded(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (value, sum) = bytes.split_at_mut(size_of::<u64>());
    value.copy_from_slice(&number.to_le_bytes());
    sum.copy_from_slice(&crc32fast::hash(&number.to_le_bytes()).to_le_bytes());
    bytes
}

fn decoded(bytes: [u8; LENGTH]) -> Option<u64> {
    let number = bytes.first_chunk().map(|number| u64::from_le_bytes(*number))?;
    (encoded(number) == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_a_torn_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let (mut mark, number) = Mark::open(&path).unwrap();
        assert_eq!((number, mark.is_due()), (None, true));
        mark.write(u64::MAX - 7).unwrap();
        assert!(!mark.is_due());
        assert_eq!(Mark::open(&path).unwrap().1, Some(u64::MAX - 7));
        mark.file.write_all_at(&[0], 3).unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, None);
    }
}
