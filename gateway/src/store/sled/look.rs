//! How far sled's log can be read, seen without sled: that would cut the log at the first message that it cannot read,
//! or wipe what stands behind it, and only then could be asked what is left.
//!
//! At a start sled reads the log from its last snapshot on, segment by segment, each message behind the one before.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::super::seal;
use super::salvage::{self, Kind, LONGEST_HEAD, Message, SEGMENT, SEGMENT_HEAD, Source};
use super::{NEWEST, number};

/// What files with a snapshot are called, before the place in the log that it is of.
const SNAPSHOT: &str = "snap.";

/// What numbers in a segment's head are mixed with.
const MASK: u64 = 0x7fff_ffff_ffff_ffff;

/// The number of the newest batch that sled comes to without passing over anything; 0 where there is none.
pub(super) fn newest(folder: &Path) -> io::Result<u64> {
    let log = match File::open(folder.join("db")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut look = Look { folder: folder.to_owned(), log, segment: vec![0; SEGMENT], newest: None };
    let (first, mut slots) = (snapshot(folder)? / SEGMENT as u64, look.slots()?);
    slots.sort_unstable_by_key(|slot| slot.number);
    let (before, behind) = slots.split_at(slots.partition_point(|slot| slot.number < first));
    look.walk(first, behind)?;
    look.search(before)?;
    Ok(look.newest.unwrap_or(0))
}

/// One look at a log.
struct Look {
    folder: PathBuf,
    log: File,
    /// The segment that is looked at.
    segment: Vec<u8>,
    newest: Option<u64>,
}

/// A segment.
#[derive(Debug)]
struct Slot {
    /// Its place among all that were written.
    number: u64,
    /// The segment up to which all was safe when it was begun; `None` where its head is not what was written.
    safe: Option<u64>,
    offset: u64,
}

impl Look {
    fn slots(&mut self) -> io::Result<Vec<Slot>> {
        let length = self.log.metadata()?.len();
        let offsets = (0..length).step_by(SEGMENT);
        offsets.filter_map(|offset| self.slot(offset).transpose()).collect()
    }

    /// The segment at this place; none where nothing is in it.
    fn slot(&mut self, offset: u64) -> io::Result<Option<Slot>> {
        let mut head = [0; SEGMENT_HEAD];
        let read = salvage::read_some(&self.log, &mut head, offset)?;
        if let (SEGMENT_HEAD, Some((written, safe))) = (read, decoded(head)) {
            let (number, safe) = (written / SEGMENT as u64, Some(safe / SEGMENT as u64));
            return Ok(Some(Slot { number, safe, offset }));
        }
        self.load(offset)?;
        let first = (SEGMENT_HEAD..self.segment.len()).find_map(|at| salvage::message(&self.segment, at, offset));
        Ok(first.map(|(_, number, _)| Slot { number, safe: None, offset }))
    }

    fn load(&mut self, offset: u64) -> io::Result<()> {
        self.segment.resize(SEGMENT, 0);
        let length = salvage::read_some(&self.log, &mut self.segment, offset)?;
        self.segment.truncate(length);
        Ok(())
    }

    /// Goes through what is behind the snapshot, up to the first place that cannot be read.
    fn walk(&mut self, first: u64, slots: &[Slot]) -> io::Result<()> {
        // Before that, a number that is not there is a segment that is free.
        let safe = slots.iter().filter_map(|slot| slot.safe).max().unwrap_or(first);
        let mut next = first;
        for slot in slots {
            let missing = slot.number > next && slot.number > safe;
            if missing || slot.safe.is_none() || !self.walk_segment(slot)? {
                return Ok(());
            }
            next = slot.number + 1;
        }
        Ok(())
    }

    /// Whether it can be read to its end.
    fn walk_segment(&mut self, slot: &Slot) -> io::Result<bool> {
        self.load(slot.offset)?;
        let mut at = SEGMENT_HEAD;
        while at + LONGEST_HEAD <= SEGMENT {
            let found = salvage::message(&self.segment, at, slot.offset);
            let Some((message, _, length)) = found.filter(|(_, number, _)| *number == slot.number) else {
                return Ok(false);
            };
            if message.kind == Kind::Cap {
                return Ok(true);
            }
            if !self.see(&message, slot.offset)? {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }

    /// Looks before the snapshot, from the end, where nothing behind it told.
    fn search(&mut self, slots: &[Slot]) -> io::Result<()> {
        for slot in slots.iter().rev() {
            if self.newest.is_some() {
                return Ok(());
            }
            self.load(slot.offset)?;
            let mut messages = Vec::new();
            salvage::scan(&self.segment, slot.offset, &mut messages);
            messages.retain(|message| message.order / SEGMENT as u64 == slot.number);
            for message in &messages {
                self.see(message, slot.offset)?;
            }
        }
        Ok(())
    }

    /// Notes the number of a batch if there is one in this message; whether the message can be read.
    fn see(&mut self, message: &Message, offset: u64) -> io::Result<bool> {
        let found = match message.body.file {
            Source::Log => newest_in(message.kind, message.body.within(&self.segment, offset).unwrap_or_default()),
            Source::Blob(id) => match salvage::blob(&self.folder, id) {
                // Its page was replaced since, which sled knows by that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
                Ok(mut blob) => {
                    let mut bytes = Vec::new();
                    blob.read_to_end(&mut bytes)?;
                    let Some(body) = unpacked(&bytes) else { return Ok(false) };
                    newest_in(message.kind, body)
                }
            },
        };
        self.newest = found.or(self.newest);
        Ok(true)
    }
}

/// The body in a file of its own: a checksum, a kind, and what the checksum is of with that.
fn unpacked(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_first_chunk()?;
    let (_kind, body) = rest.split_first()?;
    (crc32fast::hash(rest) == u32::from_le_bytes(*sum)).then_some(body)
}

fn newest_in(kind: Kind, body: &[u8]) -> Option<u64> {
    let values =
        salvage::values(kind, body).into_iter().filter(|value| value.len() == size_of::<u64>() + size_of::<u32>());
    values.filter_map(|value| seal::open(NEWEST, value.to_vec()).ok()).map(number).next_back()
}

/// What a segment's head tells: its own place in the order, and up to where all was safe.
fn decoded(head: [u8; SEGMENT_HEAD]) -> Option<(u64, u64)> {
    let (sum, rest) = head.split_first_chunk()?;
    let (own, safe) = rest.split_first_chunk()?;
    let place = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) ^ MASK;
    let whole = crc32fast::hash(rest) == !u32::from_le_bytes(*sum);
    // What is safe is none at first, which is less than 0.
    let safe = i64::from_ne_bytes(place(safe.first_chunk()?).to_ne_bytes());
    whole.then_some((place(own), u64::try_from(safe).unwrap_or(0)))
}

/// The place in the log that the last snapshot is of; 0 where there is none.
fn snapshot(folder: &Path) -> io::Result<u64> {
    let places = fs::read_dir(folder)?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        u64::from_str_radix(name.to_str()?.strip_prefix(SNAPSHOT)?, 16).ok()
    });
    Ok(places.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::super::backend::{Backend as _, Batch};
    use super::super::{Embedded, files};
    use super::*;
    use crate::store::StoreFault;

    fn open(folder: &Path) -> Embedded {
        loop {
            match Embedded::open(folder) {
                // sled lets a lock go some time after it was closed.
                Err(StoreFault::Busy) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    /// Segments are cleaned and used again, and some values are so large that they have a file of their own.
    #[test]
    fn a_look_at_a_store_that_nothing_befell_finds_what_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest(&files(folder.path())).unwrap(), 0);
        for run in 1..=6_u64 {
            let store = open(folder.path());
            for number in 0..200_u64 {
                let mut batch = Batch::default();
                let length = if number % 50 == 7 { 200_000 } else { 3_000 };
                batch.put(format!("r{run}-{number}"), vec![7; length]);
                batch.delete(format!("r{}-{number}", run - 1));
                store.apply(&batch).unwrap();
                store.flush().unwrap();
            }
            drop(store);
            assert_eq!(newest(&files(folder.path())).unwrap(), run * 200, "after run {run}");
            drop(open(folder.path()));
            assert_eq!(newest(&files(folder.path())).unwrap(), run * 200, "after a start that wrote nothing");
        }
    }
}
