//! What can be read of sled's files without sled, which gives up, or cuts, where the first byte is wrong.
//!
//! sled 0.34 writes one log in segments of 512 KiB. A message in it replaces a leaf, or changes one key of a leaf, and
//! has a checksum; its place in the order of all is the number of its segment and its place in it. So every message
//! that is whole is found, wherever damage is, and played back in that order. What comes out is trusted only with our
//! own seal.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::super::seal;

/// How long a segment is, and the head of one.
pub(super) const SEGMENT: usize = 512 << 10;
pub(super) const SEGMENT_HEAD: usize = 20;

/// The longest head of a message.
pub(super) const LONGEST_HEAD: usize = 32;

/// What stands before the content of a file of its own.
const BLOB_HEAD: u64 = 5;

/// What could be read.
#[derive(Debug)]
pub(in crate::store) struct Salvaged {
    folder: PathBuf,
    log: File,
    pairs: BTreeMap<Vec<u8>, Place>,
    /// In how many places of the log something stood that could not be read.
    pub(in crate::store) holes: u64,
}

/// Where bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) file: Source,
    offset: u64,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Log,
    /// A file of its own, for what is large.
    Blob(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The rest of its segment is empty.
    Cap,
    /// The changes from here to the place that it names are one batch.
    Batch,
    /// A page is gone.
    Free,
    Node,
    Link,
    /// Nothing that holds values.
    Other,
}

#[derive(Debug)]
pub(super) struct Message {
    /// Its place in the order, and where it ends.
    pub(super) order: u64,
    end: u64,
    page: u64,
    pub(super) kind: Kind,
    pub(super) body: Place,
}

/// What a leaf was replaced by, and where in the message its pairs are.
struct Node {
    low: Vec<u8>,
    high: Vec<u8>,
    prefix: usize,
    pairs: Vec<(Part, Part)>,
}

/// A leaf, as far as its keys are to be understood.
#[derive(Debug)]
struct Leaf {
    low: Vec<u8>,
    /// How much of `low` its keys leave out.
    prefix: usize,
}

impl Salvaged {
    /// Reads the files in this folder.
    pub(in crate::store) fn read(folder: &Path) -> io::Result<Self> {
        let log = match File::open(folder.join("db")) {
            // As good as an empty one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null")?,
            opened => opened?,
        };
        let mut salvaged = Self { folder: folder.to_owned(), log, pairs: BTreeMap::new(), holes: 0 };
        let mut messages = salvaged.messages()?;
        messages.sort_unstable_by_key(|message| message.order);
        salvaged.drop_torn_batch(&mut messages);
        salvaged.play(&messages);
        Ok(salvaged)
    }

    /// Each pair that is whole, in order, its value with its seal.
    pub(in crate::store) fn pairs(&self) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
        self.pairs.iter().filter_map(|(key, place)| {
            let value = self.bytes(*place).ok()?;
            seal::open(key, value.clone()).ok().map(|_| (key.as_slice(), value))
        })
    }

    /// The number of the newest batch of which that is known.
    pub(in crate::store) fn newest(&self) -> u64 {
        let place = self.pairs.get(super::NEWEST).and_then(|place| self.bytes(*place).ok());
        place.and_then(|sealed| seal::open(super::NEWEST, sealed).ok()).map_or(0, super::number)
    }

    fn messages(&mut self) -> io::Result<Vec<Message>> {
        let mut messages: Vec<Message> = Vec::new();
        let (mut at, mut segment) = (0, vec![0; SEGMENT]);
        loop {
            let length = read_some(&self.log, &mut segment, at)?;
            if length == 0 {
                messages.retain_mut(|message| self.measure(&mut message.body));
                return Ok(messages);
            }
            self.holes += scan(segment.get(..length).unwrap_or_default(), at, &mut messages);
            at += SEGMENT as u64;
        }
    }

    /// Whether the body is there; the log does not tell how long one in a file of its own is.
    fn measure(&self, body: &mut Place) -> bool {
        let Source::Blob(id) = body.file else { return true };
        let length = blob(&self.folder, id).and_then(|file| file.metadata()).map(|about| about.len());
        let length = length.ok().and_then(|length| length.checked_sub(BLOB_HEAD));
        body.length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        body.length > 0
    }

    /// A process that was killed may have left a batch half written; it is then the last there is.
    fn drop_torn_batch(&self, messages: &mut Vec<Message>) {
        let top = messages.iter().map(|message| message.end).max().unwrap_or(0);
        let torn = |message: &Message| {
            let end = self.bytes(message.body).ok().and_then(|body| body.try_into().ok()).map(u64::from_le_bytes);
            message.kind == Kind::Batch && end.is_some_and(|end| end > top)
        };
        if let Some(first) = messages.iter().position(torn) {
            messages.truncate(first);
        }
    }

    fn play(&mut self, messages: &[Message]) {
        let mut leaves = HashMap::new();
        for message in messages {
            let Ok(body) = self.bytes(message.body) else { continue };
            match message.kind {
                // A body that its checksum calls whole and that is not understood is a page of some other kind.
                Kind::Node => drop(self.replace(message, &body, &mut leaves)),
                Kind::Link => drop(self.change(message, &body, &leaves)),
                Kind::Free => drop(leaves.remove(&message.page)),
                Kind::Cap | Kind::Batch | Kind::Other => {}
            }
        }
    }

    fn replace(&mut self, message: &Message, body: &[u8], leaves: &mut HashMap<u64, Leaf>) -> Option<()> {
        let Node { low, high, prefix, pairs } = Node::read(body)?;
        let (count, reader) = (pairs.len(), Bytes { body, at: 0 });
        let leaf = Leaf { low, prefix };
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((leaf.key(prefix, reader.slice(key)?), reader.slice(value)?, value)))
            .filter(|(key, value, _)| seal::open(key, value.to_vec()).is_ok())
            .collect();
        // Leaves of another tree, from format 1, hold nothing that is sealed.
        let whole = leaf.low.is_empty() && high.is_empty();
        if pairs.is_empty() && (count > 0 || whole) {
            return None;
        }
        let to = if high.is_empty() { Bound::Unbounded } else { Bound::Excluded(high.as_slice()) };
        let gone: Vec<_> = self
            .pairs
            .range::<[u8], _>((Bound::Included(leaf.low.as_slice()), to))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.pairs.remove(key);
        }
        self.pairs.extend(pairs.into_iter().map(|(key, _, value)| (key, message.body.part(value))));
        leaves.insert(message.page, leaf);
        Some(())
    }

    fn change(&mut self, message: &Message, body: &[u8], leaves: &HashMap<u64, Leaf>) -> Option<()> {
        let mut reader = Bytes { body, at: 0 };
        let what = reader.byte()?;
        let key = reader.taken()?;
        let key = reader.slice(key)?;
        let unknown = Leaf { low: Vec::new(), prefix: 0 };
        let leaf = leaves.get(&message.page).unwrap_or(&unknown);
        match what {
            0 => {
                let value = reader.taken()?;
                let key = leaf.sealed_key(key, reader.slice(value)?)?;
                self.pairs.insert(key, message.body.part(value));
            }
            1 => _ = self.pairs.remove(&leaf.key(leaf.prefix, key)),
            _ => {}
        }
        Some(())
    }

    fn bytes(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.length];
        match place.file {
            Source::Log => self.log.read_exact_at(&mut bytes, place.offset)?,
            Source::Blob(id) => blob(&self.folder, id)?.read_exact_at(&mut bytes, place.offset)?,
        }
        Ok(bytes)
    }
}

impl Node {
    /// The leaf in the body of a message; `None` when it is a page of some other kind.
    fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Bytes { body, at: 0 };
        let (_next, _merging_child, _merging) = (reader.number()?, reader.number()?, reader.byte()?);
        let prefix = usize::from(reader.byte()?);
        let (low, high) = (reader.taken()?, reader.taken()?);
        let (low, high) = (reader.slice(low)?.to_vec(), reader.slice(high)?.to_vec());
        let empty = !high.is_empty() && high <= low;
        if reader.byte()? != 0 || empty {
            return None;
        }
        let count = reader.number()?;
        let keys: Vec<_> = (0..count).map(|_| reader.taken()).collect::<Option<_>>()?;
        let values: Vec<_> = (0..count).map(|_| reader.taken()).collect::<Option<_>>()?;
        Some(Self { low, high, prefix, pairs: keys.into_iter().zip(values).collect() })
    }
}

/// The values in the body of a message.
pub(super) fn values(kind: Kind, body: &[u8]) -> Vec<&[u8]> {
    let mut reader = Bytes { body, at: 0 };
    let parts = match kind {
        Kind::Node => Node::read(body).map(|node| node.pairs.into_iter().map(|(_, value)| value).collect()),
        Kind::Link if reader.byte() == Some(0) => {
            reader.taken().and_then(|_key| reader.taken()).map(|value| vec![value])
        }
        _ => None,
    };
    let parts: Vec<_> = parts.unwrap_or_default();
    parts.into_iter().filter_map(|part| reader.slice(part)).collect()
}

impl Leaf {
    /// A whole key.
    fn key(&self, prefix: usize, key: &[u8]) -> Vec<u8> {
        [self.low.get(..prefix).unwrap_or_default(), key].concat()
    }

    /// The whole key with which the value's seal is right. A leaf that was replaced by one that cannot be read may have
    /// left out more of its keys, or less.
    fn sealed_key(&self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let lengths = std::iter::once(self.prefix).chain(0..=self.low.len());
        let mut keys = lengths.map(|prefix| self.key(prefix, key));
        keys.find(|key| seal::open(key, value.to_vec()).is_ok())
    }
}

impl Place {
    /// Its bytes, where they are in `segment`, which begins at `offset` of the log.
    pub(super) fn within(self, segment: &[u8], offset: u64) -> Option<&[u8]> {
        let at = usize::try_from(self.offset.checked_sub(offset)?).ok()?;
        segment.get(at..at.checked_add(self.length)?)
    }

    /// The place of some of its bytes.
    fn part(self, part: Part) -> Self {
        Self {
            offset: self.offset.saturating_add(u64::try_from(part.at).unwrap_or(u64::MAX)),
            length: part.length,
            ..self
        }
    }
}

/// Bytes, and how far they are read.
#[derive(Debug)]
struct Bytes<'a> {
    body: &'a [u8],
    at: usize,
}

/// Some of them.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: usize,
    length: usize,
}

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.body.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn four(&mut self) -> Option<u32> {
        let four = self.body.get(self.at..).and_then(|rest| rest.first_chunk()).map(|four| u32::from_le_bytes(*four));
        self.at += 4;
        four
    }

    /// A number of one to nine bytes.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        match first {
            0..=240 => Some(first.into()),
            241..=248 => Some(240 + 256 * u64::from(first - 241) + u64::from(self.byte()?)),
            249 => Some(2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?)),
            250.. => {
                let part = self.part(usize::from(first - 247))?;
                let little_end_first = self.slice(part)?.iter().rev();
                Some(little_end_first.fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
        }
    }

    /// Bytes with their length before them.
    fn taken(&mut self) -> Option<Part> {
        let length = usize::try_from(self.number()?).ok()?;
        self.part(length)
    }

    fn part(&mut self, length: usize) -> Option<Part> {
        let part = Part { at: self.at, length };
        self.at = self.at.checked_add(length).filter(|end| *end <= self.body.len())?;
        Some(part)
    }

    fn slice(&self, part: Part) -> Option<&'a [u8]> {
        self.body.get(part.at..part.at.checked_add(part.length)?)
    }
}

/// Finds the messages of a segment that begins at `offset` of the log; how many places between them cannot be read.
pub(super) fn scan(segment: &[u8], offset: u64, messages: &mut Vec<Message>) -> u64 {
    let (mut at, mut holes) = (SEGMENT_HEAD, 0);
    // The number of the segment that the message before was written in, and where it ended.
    let mut before: Option<(u64, usize)> = None;
    while at < segment.len() {
        let Some((message, number, length)) = message(segment, at, offset) else {
            at += 1;
            continue;
        };
        // What is left of an older use of the segment bears another number.
        holes += u64::from(before.is_some_and(|before| before != (number, at) && before.0 == number));
        messages.push(message);
        at += length;
        before = Some((number, at));
    }
    holes
}

/// The message at this place of a segment, the segment's number, and the message's length.
pub(super) fn message(segment: &[u8], at: usize, offset: u64) -> Option<(Message, u64, usize)> {
    let head = segment.get(at..)?;
    let mut reader = Bytes { body: head.get(..LONGEST_HEAD.min(head.len()))?, at: 0 };
    let sum = reader.four()?;
    let code = reader.byte().filter(|code| (1..=11).contains(code))?;
    let length = usize::try_from(reader.number()?).ok()?;
    let (number, page) = (reader.number()?, reader.number()?);
    let (begin, end) = (reader.at, reader.at.checked_add(length)?);
    let body = head.get(begin..end)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(head.get(4..begin)?);
    if hasher.finalize() != !sum {
        return None;
    }
    let place = |file, offset, length| Place { file, offset, length };
    let body = match (code, body.try_into()) {
        (9 | 11, Ok(id)) => place(Source::Blob(u64::from_le_bytes(id)), BLOB_HEAD, 0),
        _ => place(Source::Log, offset + u64::try_from(at + begin).ok()?, length),
    };
    let order = number.checked_mul(SEGMENT as u64)?.checked_add(u64::try_from(at).ok()?)?;
    let ends = order.checked_add(u64::try_from(end).ok()?)?;
    Some((Message { order, end: ends, page, kind: Kind::of(code), body }, number, end))
}

impl Kind {
    fn of(code: u8) -> Self {
        match code {
            2 => Self::Cap,
            3 => Self::Batch,
            4 => Self::Free,
            8 | 9 => Self::Node,
            10 | 11 => Self::Link,
            _ => Self::Other,
        }
    }
}

pub(super) fn blob(folder: &Path, id: u64) -> io::Result<File> {
    File::open(folder.join("blobs").join(id.to_string()))
}

/// As many bytes as there are from `at` on, up to a buffer full of them.
pub(super) fn read_some(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
