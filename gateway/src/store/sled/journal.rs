//! What was written since sled last wrote everything out. A batch is safe once it stands here, which takes one write
//! and no other thread, where sled takes two and wakes all of its own; and it is done whole or not at all, since a
//! start does it again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::super::backend::{Batch, Change};

/// The number of the batch, the length of what follows, and a checksum of both and of that.
const HEAD: usize = 16;

/// Where the checksum is.
const SUM: usize = 12;

/// Stands for the length of a value that is none: the key is taken away.
const GONE: u32 = u32::MAX;

/// The file, written from its begin after each time that sled wrote everything out.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    length: u64,
    /// Used again and again.
    buffer: Vec<u8>,
}

impl Journal {
    /// The journal in this file, which is made when it is not there, and the batches in it with their numbers. One that
    /// was half written when the process was killed is none.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData` where it is damaged before its end.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<(u64, Batch)>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let read = read(&file)?;
        if read.damaged {
            return Err(io::ErrorKind::InvalidData.into());
        }
        file.set_len(read.length)?;
        Ok((Self { file, length: read.length, buffer: Vec::new() }, read.batches))
    }

    /// Writes a batch down.
    pub(super) fn write<'b>(&mut self, number: u64, batch: impl Iterator<Item = &'b Change>) -> io::Result<()> {
        encode(&mut self.buffer, number, batch);
        if let Err(error) = self.file.write_all_at(&self.buffer, self.length) {
            // Half of it may be there; it must not pass for damage, or stand behind what is written next.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.buffer.len() as u64;
        Ok(())
    }

    /// How many bytes are in it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// All that is in it is safe elsewhere.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.length = 0;
        self.file.sync_data()
    }
}

/// The batches of a journal up to the first that is not whole, without changing it.
pub(super) fn batches(path: &Path) -> io::Result<Vec<(u64, Batch)>> {
    match File::open(path) {
        Ok(file) => Ok(read(&file)?.batches),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a journal holds.
struct Read {
    /// The batches up to the first that is not whole.
    batches: Vec<(u64, Batch)>,
    /// Where that begins.
    length: u64,
    /// Whether more stands behind it: then it was whole once.
    damaged: bool,
}

fn read(file: &File) -> io::Result<Read> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    let (mut rest, mut batches) = (bytes.as_slice(), Vec::new());
    while let Some((number, batch, behind)) = decode(rest) {
        batches.push((number, batch));
        rest = behind;
    }
    let body = rest.get(size_of::<u64>()..).and_then(|head| head.first_chunk()).map(|body| u32::from_le_bytes(*body));
    let damaged = body.is_some_and(|body| u64::from(body) + (HEAD as u64) <= rest.len() as u64);
    Ok(Read { batches, length: (bytes.len() - rest.len()) as u64, damaged })
}

fn encode<'b>(buffer: &mut Vec<u8>, number: u64, batch: impl Iterator<Item = &'b Change>) {
    buffer.clear();
    buffer.extend_from_slice(&number.to_le_bytes());
    buffer.extend_from_slice(&[0; HEAD - size_of::<u64>()]);
    for (key, value) in batch {
        put(buffer, length(key));
        buffer.extend_from_slice(key);
        put(buffer, value.as_ref().map_or(GONE, |value| length(value)));
        buffer.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let body = u32::try_from(buffer.len() - HEAD).unwrap_or(GONE);
    set(buffer, size_of::<u64>(), body);
    let sum = sum(buffer);
    set(buffer, SUM, sum);
}

fn decode(bytes: &[u8]) -> Option<(u64, Batch, &[u8])> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    let (_, mut head) = bytes.split_at_checked(size_of::<u64>())?;
    let body = usize::try_from(take(&mut head)?).ok()?;
    let written = take(&mut head)?;
    let (record, behind) = bytes.split_at_checked(HEAD.checked_add(body)?)?;
    if sum(record) != written {
        return None;
    }
    let (mut rest, mut batch) = (record.get(HEAD..)?, Batch::default());
    while !rest.is_empty() {
        let key = take(&mut rest).and_then(|length| cut(&mut rest, length))?;
        let value = match take(&mut rest)? {
            GONE => None,
            length => Some(cut(&mut rest, length)?),
        };
        batch.changes.push((key, value));
    }
    Some((number, batch, behind))
}

fn sum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(record.get(..SUM).unwrap_or_default());
    hasher.update(record.get(HEAD..).unwrap_or_default());
    hasher.finalize()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(GONE)
}

fn put(buffer: &mut Vec<u8>, number: u32) {
    buffer.extend_from_slice(&number.to_le_bytes());
}

fn set(buffer: &mut [u8], at: usize, number: u32) {
    if let Some(place) = buffer.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = number.to_le_bytes();
    }
}

fn take(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_le_bytes(*number))
}

fn cut(rest: &mut &[u8], length: u32) -> Option<Vec<u8>> {
    let (bytes, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn any_batch() -> impl Strategy<Value = Batch> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..30);
        let changes = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..5);
        changes.prop_map(|changes| Batch { changes })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whole_batches_come_back_wherever_the_file_ends(
            batches in proptest::collection::vec(any_batch(), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let (mut journal, none) = Journal::open(&path).unwrap();
            prop_assert!(none.is_empty());
            let mut ends = Vec::new();
            for (number, batch) in batches.iter().enumerate() {
                journal.write(number as u64, batch.changes.iter()).unwrap();
                ends.push(journal.length());
            }
            let end = end.index(usize::try_from(journal.length()).unwrap() + 1) as u64;
            journal.file.set_len(end).unwrap();
            let (mut again, read) = Journal::open(&path).unwrap();
            let whole = ends.iter().filter(|at| **at <= end).count();
            let expected: Vec<_> = (0..).zip(batches).take(whole).collect();
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!(again.length(), ends.get(whole.wrapping_sub(1)).copied().unwrap_or(0));
            // What is written next takes the place of the half.
            again.write(9, [].iter()).unwrap();
            prop_assert_eq!(super::batches(&path).unwrap().last().map(|(number, _)| *number), Some(9));
            again.file.write_all_at(&[255], 0).unwrap();
            prop_assert_eq!(Journal::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
            again.clear().unwrap();
            prop_assert!(super::batches(&path).unwrap().is_empty());
        }
    }
}
