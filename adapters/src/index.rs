//! Where the top-level fields of a JSON object stand in its bytes.
//!
//! One pass that jumps over strings; what stands between the spans is never copied or parsed. It refuses what is not an
//! object in its structure (unclosed, unbalanced, a key twice, nested deeper than [`MAX_DEPTH`]); the inside of a value
//! is not judged beyond its brackets and strings.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use memchr::memchr;
use wide::u8x16;

/// How deep objects and arrays may nest. As many as the bits of the word that remembers each one's kind.
pub const MAX_DEPTH: u32 = 128;

/// How many fields a top-level object may have: far over any dialect's, and it bounds the search for duplicates.
pub const MAX_FIELDS: usize = 1024;

/// One field: the span of its name (without quotes) and of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    name: Span,
    escaped: bool,
    /// Of its name as it was written.
    hash: u8,
    value: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

impl Field {
    /// Where the field starts: at the opening quote of its name.
    #[must_use]
    pub fn start(&self) -> usize {
        self.name.start - 1
    }

    /// Where its value stands.
    #[must_use]
    pub fn value(&self) -> Range<usize> {
        self.value.start..self.value.end
    }

    /// Its name, unescaped where it was written with escapes.
    #[must_use]
    pub fn name<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let raw = slice(bytes, self.name);
        if !self.escaped {
            return Cow::Borrowed(raw);
        }
        let quoted = bytes.get(self.name.start - 1..=self.name.end).unwrap_or_default();
        serde_json::from_slice::<String>(quoted).map_or(Cow::Borrowed(raw), |name| Cow::Owned(name.into_bytes()))
    }

    /// Whether that is its name.
    #[must_use]
    pub fn is_named(&self, bytes: &[u8], name: &[u8]) -> bool {
        if self.escaped {
            return self.name(bytes).as_ref() == name;
        }
        self.name.end - self.name.start == name.len() && slice(bytes, self.name) == name
    }
}

fn slice(bytes: &[u8], span: Span) -> &[u8] {
    bytes.get(span.start..span.end).unwrap_or_default()
}

/// Why bytes are not a JSON object in their structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct IndexError {
    /// The byte's offset.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The fields of one object, in the order in which they were written. Reused from event to event, it allocates once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    fields: Vec<Field>,
    end: usize,
}

impl Index {
    /// Reads the one object that `bytes` hold.
    ///
    /// # Errors
    /// What is not an object in its structure, and where.
    pub fn of(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut index = Self { fields: Vec::with_capacity(16), end: 0 };
        index.read(bytes)?;
        Ok(index)
    }

    /// Reads again, over what was known before.
    ///
    /// # Errors
    /// As [`Index::of`]; the index is empty then.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.fields.clear();
        let mut scanner = Scanner { bytes, at: 0, block: Block::NONE };
        let end = scanner.object(&mut self.fields);
        self.finish(bytes, end)
    }

    /// Reads an object whose first `kept` fields are those of the one before, byte for byte; the next one starts at
    /// `at`.
    ///
    /// # Errors
    /// As [`Index::of`]; the index is empty then.
    pub fn read_on(&mut self, bytes: &[u8], kept: usize, at: usize) -> Result<(), IndexError> {
        self.fields.truncate(kept);
        let mut scanner = Scanner { bytes, at, block: Block::NONE };
        let end = scanner.fields(&mut self.fields);
        self.finish(bytes, end)
    }

    fn finish(&mut self, bytes: &[u8], end: Result<usize, IndexError>) -> Result<(), IndexError> {
        let read = end.and_then(|end| {
            self.end = end;
            refuse_duplicates(&self.fields, bytes)
        });
        if read.is_err() {
            self.fields.clear();
        }
        read
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Where the closing brace stands.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end
    }

    /// The field of that name.
    #[must_use]
    pub fn find(&self, bytes: &[u8], name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is_named(bytes, name.as_bytes()))
    }

    /// The raw value of the field of that name.
    #[must_use]
    pub fn get<'b>(&self, bytes: &'b [u8], name: &str) -> Option<&'b [u8]> {
        self.find(bytes, name).map(|field| slice(bytes, field.value))
    }

    /// The raw values of the fields of these names, in one pass.
    #[must_use]
    pub fn values<'b, const N: usize>(&self, bytes: &'b [u8], names: [&str; N]) -> [Option<&'b [u8]>; N] {
        self.values_from(0, bytes, names)
    }

    /// As [`Index::values`], of the fields from this place on.
    #[must_use]
    pub fn values_from<'b, const N: usize>(
        &self,
        place: usize,
        bytes: &'b [u8],
        names: [&str; N],
    ) -> [Option<&'b [u8]>; N] {
        let mut values = [None; N];
        for field in self.fields.iter().skip(place) {
            for (value, _) in values.iter_mut().zip(names).filter(|(_, name)| field.is_named(bytes, name.as_bytes())) {
                *value = Some(slice(bytes, field.value));
            }
        }
        values
    }
}

/// So many fields are told apart by the seven bits of their hashes, nearly always.
const FEW: usize = 48;

/// Few fields are compared only where a hash of their names meets another's: nearly never.
fn refuse_duplicates(fields: &[Field], bytes: &[u8]) -> Result<(), IndexError> {
    if fields.len() > FEW {
        return refuse_duplicates_of_many(fields, bytes);
    }
    let mut met: u128 = 0;
    for (seen, field) in fields.iter().enumerate() {
        // A name with escapes may be any other's.
        let bits = if field.escaped { u128::MAX } else { 1 << field.hash };
        let is_met = met & bits != 0;
        met |= bits;
        if is_met && is_among(field, fields.get(..seen).unwrap_or_default(), bytes) {
            return Err(twice(field));
        }
    }
    Ok(())
}

/// Compared with each other, many cost time by the square of their number: a thousand 3 ms, with escapes in their names
/// 43 ms. In a set they cost 0.05 and 0.3 ms.
#[cold]
fn refuse_duplicates_of_many(fields: &[Field], bytes: &[u8]) -> Result<(), IndexError> {
    let mut names = HashSet::with_capacity(fields.len());
    fields.iter().find(|field| !names.insert(field.name(bytes))).map_or(Ok(()), |field| Err(twice(field)))
}

fn twice(field: &Field) -> IndexError {
    IndexError { at: field.start(), what: "a field that was already there" }
}

fn is_among(field: &Field, earlier: &[Field], bytes: &[u8]) -> bool {
    let name = field.name(bytes);
    earlier.iter().any(|earlier| earlier.is_named(bytes, &name))
}

/// Of a name's length, its begin and its last byte: enough to tell the names of one object apart. Seven bits.
fn hash(name: &[u8]) -> u8 {
    let begin = name.first_chunk().map_or(0, |begin| u32::from_le_bytes(*begin));
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let last = name.last().copied().map_or(0, u32::from);
    let [.., top] = (begin ^ length.rotate_left(16) ^ last.rotate_left(8)).wrapping_mul(0x9E37_79B1).to_le_bytes();
    top >> 1
}

struct Scanner<'b> {
    bytes: &'b [u8],
    at: usize,
    block: Block,
}

impl Scanner<'_> {
    fn object(&mut self, fields: &mut Vec<Field>) -> Result<usize, IndexError> {
        self.expect(b'{', "expected a JSON object")?;
        if self.peek() == Some(b'}') {
            return self.close();
        }
        self.fields(fields)
    }

    /// At a field; leaves behind the object's end.
    fn fields(&mut self, fields: &mut Vec<Field>) -> Result<usize, IndexError> {
        loop {
            let field = self.field()?;
            if fields.len() == MAX_FIELDS {
                return Err(self.fault("too many fields"));
            }
            fields.push(field);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.close(),
                _ => return Err(self.fault("expected `,` or `}`")),
            }
        }
    }

    fn close(&mut self) -> Result<usize, IndexError> {
        let end = self.at;
        self.at += 1;
        match self.peek() {
            None => Ok(end),
            Some(_) => Err(self.fault("expected nothing after the object")),
        }
    }

    fn field(&mut self) -> Result<Field, IndexError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a field's name in quotes"));
        }
        let (name, escaped) = self.string()?;
        let hash = hash(slice(self.bytes, name));
        self.expect(b':', "expected `:`")?;
        self.peek();
        let start = self.at;
        self.value()?;
        Ok(Field { name, escaped, hash, value: Span { start, end: self.at } })
    }

    fn value(&mut self) -> Result<(), IndexError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{' | b'[') => self.nested(),
            Some(_) => self.scalar(),
            None => Err(self.fault("expected a value")),
        }
    }

    /// At an opening quote; leaves behind the closing one. Whether backslashes are inside is told too.
    fn string(&mut self) -> Result<(Span, bool), IndexError> {
        let start = self.at + 1;
        let Some(end) = self.plain(start).or_else(|| self.plain_on(start)) else {
            return self.long(start);
        };
        self.at = end + 1;
        Ok((Span { start, end }, false))
    }

    /// Where the string ends that begins at `start`, if it does within the block and has no backslashes: most do.
    fn plain(&mut self, start: usize) -> Option<usize> {
        let block = self.block_at(start)?;
        let (quotes, backslashes) = (block.quotes >> (start % BLOCK), block.backslashes >> (start % BLOCK));
        let length = quotes.trailing_zeros();
        (quotes != 0 && backslashes.trailing_zeros() >= length).then(|| start + length as usize)
    }

    /// The same where it ends within the next one.
    fn plain_on(&mut self, start: usize) -> Option<usize> {
        let is_plain = (self.block.quotes | self.block.backslashes) >> (start % BLOCK) == 0;
        if is_plain { self.plain(next_block(start)) } else { None }
    }

    /// Any string: it ends at the first quote that has an even number of backslashes before it.
    fn long(&mut self, start: usize) -> Result<(Span, bool), IndexError> {
        let mut from = start;
        while let Some(length) = memchr(b'"', self.bytes.get(from..).unwrap_or_default()) {
            let text = Span { start, end: from + length };
            self.at = text.end + 1;
            if !is_escaped(slice(self.bytes, text)) {
                return Ok((text, memchr(b'\\', slice(self.bytes, text)).is_some()));
            }
            from = self.at;
        }
        self.at = start - 1;
        Err(self.fault(UNENDED_STRING))
    }

    /// At an opening bracket; leaves behind the one that closes it. Block by block, what is inside of strings is masked
    /// out, so that only brackets are looked at one by one.
    fn nested(&mut self) -> Result<(), IndexError> {
        let (mut open, mut strings) = (Open::default(), Strings::default());
        let mut from = self.at;
        while let Some(block) = self.block_at(from) {
            let seen = u64::MAX << (from % BLOCK);
            let (inside, strays) = strings.read(block.quotes & seen, block.backslashes & seen);
            let start = block.start;
            let mut brackets = if inside == u64::MAX { 0 } else { brackets(self.bytes, start) & seen & !inside };
            while brackets != 0 {
                let place = brackets.trailing_zeros();
                brackets &= brackets - 1;
                self.at = start + place as usize;
                let is_last = open.read(self.bytes.get(self.at).copied()).map_err(|what| self.fault(what))?;
                if is_last {
                    return self.leave(strays & below(place));
                }
            }
            if strays != 0 {
                return self.leave(strays);
            }
            from = next_block(from);
        }
        self.at = self.bytes.len();
        Err(self.fault(if strings.inside == 0 { "an object or array that does not end" } else { UNENDED_STRING }))
    }

    /// Goes behind the bracket at hand, unless there were backslashes outside of strings.
    fn leave(&mut self, strays: u64) -> Result<(), IndexError> {
        if strays != 0 {
            return Err(self.fault("a backslash outside of a string"));
        }
        self.at += 1;
        Ok(())
    }

    /// The block that holds the byte at `at`, looked through once.
    #[inline]
    fn block_at(&mut self, at: usize) -> Option<&Block> {
        let start = at - at % BLOCK;
        if self.block.start != start {
            self.block = Block::of(self.bytes, start)?;
        }
        Some(&self.block)
    }

    fn scalar(&mut self) -> Result<(), IndexError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| ends_scalar(byte)).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        if !is_scalar(word) {
            return Err(self.fault("expected a value"));
        }
        self.at += length;
        Ok(())
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), IndexError> {
        if self.peek() != Some(byte) {
            return Err(self.fault(what));
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is not white space, and moves there.
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte > b' ' || !is_space(byte) {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn fault(&self, what: &'static str) -> IndexError {
        IndexError { at: self.at, what }
    }
}

/// How many bytes are looked through at once.
const BLOCK: usize = 64;

const UNENDED_STRING: &str = "a string that does not end";

/// Where quotes and backslashes are among the bytes from `start` on: a bit for each byte.
struct Block {
    start: usize,
    quotes: u64,
    backslashes: u64,
}

/// What is open of a value.
#[derive(Default)]
struct Open {
    /// The kind of each bracket, the innermost in the lowest bit: 1 is an object's.
    kinds: u128,
    depth: u32,
}

impl Open {
    /// Takes a bracket; whether it closes the last.
    fn read(&mut self, bracket: Option<u8>) -> Result<bool, &'static str> {
        match bracket {
            Some(bracket @ (b'{' | b'[')) => {
                if self.depth == MAX_DEPTH {
                    return Err("nested too deep");
                }
                self.kinds = self.kinds << 1 | u128::from(bracket == b'{');
                self.depth += 1;
            }
            closing => {
                if (self.kinds & 1 == 1) != (closing == Some(b'}')) {
                    return Err("a bracket that closes another kind");
                }
                self.kinds >>= 1;
                self.depth -= 1;
            }
        }
        Ok(self.depth == 0)
    }
}

/// Which bytes are inside of strings, block after block.
#[derive(Default)]
struct Strings {
    /// All ones where the block before ended inside of one.
    inside: u64,
    /// One where that block's last byte escapes the next.
    escapes: u64,
}

impl Strings {
    /// The bytes of a block that are inside of strings, opening quotes too, and the backslashes that are not.
    #[inline]
    fn read(&mut self, quotes: u64, backslashes: u64) -> (u64, u64) {
        let quotes = if backslashes | self.escapes == 0 { quotes } else { quotes & !self.escaped(backslashes) };
        let inside = if quotes == 0 { self.inside } else { self.toggled(quotes) };
        (inside, backslashes & !inside)
    }

    /// Each bit becomes the parity of all up to it: from an opening quote to the closing one that is odd.
    fn toggled(&mut self, quotes: u64) -> u64 {
        let inside = [1, 2, 4, 8, 16, 32].iter().fold(quotes, |parity, by| parity ^ (parity << by)) ^ self.inside;
        self.inside = if inside >> (BLOCK - 1) == 1 { u64::MAX } else { 0 };
        inside
    }

    /// The bytes behind a backslash that is not itself behind one.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        let mut escaped = std::mem::take(&mut self.escapes);
        let mut rest = backslashes & !escaped;
        while rest != 0 {
            let at = rest & rest.wrapping_neg();
            let next = at << 1;
            escaped |= next;
            self.escapes = u64::from(next == 0);
            rest &= !(at | next);
        }
        escaped
    }
}

/// The bits under this place.
fn below(place: u32) -> u64 {
    (1 << place) - 1
}

/// Where the block behind the one that holds `at` begins.
fn next_block(at: usize) -> usize {
    (at / BLOCK + 1) * BLOCK
}

/// Whether the quote behind this text is part of it.
fn is_escaped(text: &[u8]) -> bool {
    text.last() == Some(&b'\\') && text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

impl Block {
    const NONE: Self = Self { start: usize::MAX, quotes: 0, backslashes: 0 };

    #[inline]
    fn of(bytes: &[u8], start: usize) -> Option<Self> {
        let lanes = lanes(bytes.get(start..)?);
        let quotes = bits(lanes, |lanes| lanes.simd_eq(u8x16::splat(b'"')));
        let backslashes = bits(lanes, |lanes| lanes.simd_eq(u8x16::splat(b'\\')));
        Some(Self { start, quotes, backslashes })
    }
}

/// Where brackets are in the block that begins at `start`.
#[inline]
fn brackets(bytes: &[u8], start: usize) -> u64 {
    bits(lanes(bytes.get(start..).unwrap_or_default()), |lanes| {
        // Brackets become braces, and nothing else does.
        let folded = lanes | u8x16::splat(b' ');
        folded.simd_eq(u8x16::splat(b'{')) | folded.simd_eq(u8x16::splat(b'}'))
    })
}

/// A block, as many bytes together as one instruction looks at.
type Lanes = [u8x16; 4];

/// The first block of `rest`.
#[inline]
fn lanes(rest: &[u8]) -> Lanes {
    rest.first_chunk().map_or_else(|| lanes_of(&padded(rest)), lanes_of)
}

#[inline]
fn lanes_of(block: &[u8; BLOCK]) -> Lanes {
    let mut lanes = [u8x16::ZERO; 4];
    lanes.iter_mut().zip(block.as_chunks().0).for_each(|(lanes, bytes)| *lanes = u8x16::new(*bytes));
    lanes
}

fn padded(rest: &[u8]) -> [u8; BLOCK] {
    let mut padded = [0; BLOCK];
    if let Some(start) = padded.get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    padded
}

/// A bit for each byte that `test` leaves.
#[inline]
fn bits(lanes: Lanes, test: impl Fn(u8x16) -> u8x16) -> u64 {
    let [first, second, third, last] = lanes.map(|lanes| u64::from(test(lanes).to_bitmask()));
    first | second << 16 | third << 32 | last << 48
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

fn is_scalar(word: &[u8]) -> bool {
    match word.first() {
        Some(b't') => word == b"true",
        Some(b'f') => word == b"false",
        Some(b'n') => word == b"null",
        Some(b'-' | b'0'..=b'9') => word.iter().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')),
        _ => false,
    }
}

/// Whether a field `name` with a string that is not empty stands in `bytes`, at any depth. Quotes inside of strings are
/// escaped, so the search cannot be fooled by text.
#[must_use]
pub fn has_text_field(bytes: &[u8], name: &memchr::memmem::Finder<'_>) -> bool {
    let has_text = |at: usize| {
        let behind = bytes.get(at + name.needle().len()..).unwrap_or_default().trim_ascii_start();
        let value = behind.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
        value.starts_with(b"\"") && !value.starts_with(b"\"\"")
    };
    name.find_iter(bytes).any(has_text)
}

/// The text of a raw JSON string, borrowed where it has no escapes. `None` for another type or invalid UTF-8.
#[must_use]
pub fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    let plain = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr(b'\\', plain).is_none() {
        return simdutf8::basic::from_utf8(plain).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let index = Index::of(text.as_bytes()).unwrap();
        index.fields().iter().map(|f| String::from_utf8(f.name(text.as_bytes()).into_owned()).unwrap()).collect()
    }

    #[test]
    fn fields_are_found_with_their_values_as_written() {
        let text = br#" { "a" : "x\"}" , "b":[1,{"a":2}],"c": -1.5e3 ,"d":null} "#;
        let index = Index::of(text).unwrap();
        assert_eq!(index.get(text, "a"), Some(&br#""x\"}""#[..]));
        assert_eq!(index.get(text, "b"), Some(&br#"[1,{"a":2}]"#[..]));
        assert_eq!(index.get(text, "c"), Some(&b"-1.5e3"[..]));
        assert_eq!(index.get(text, "d"), Some(&b"null"[..]));
        assert_eq!(index.get(text, "e"), None);
    }

    #[test]
    fn an_escaped_name_is_the_name_that_it_means() {
        assert_eq!(names(r#"{"mod\u0065l":1}"#), ["model"]);
        for twice in [r#"{"model":1,"mod\u0065l":2}"#, r#"{"mod\u0065l":1,"a":2,"model":3}"#] {
            assert_eq!(Index::of(twice.as_bytes()).unwrap_err().what, "a field that was already there", "{twice}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_found_among_many_as_among_few() {
        for others in [0, 10, FEW - 1, FEW, MAX_FIELDS - 2] {
            let many: String = (0..others).map(|n| format!(r#""a{n}":1,"#)).collect();
            for (one, two, is_fine) in [("b", "c", true), ("b", "b", false), ("b", r"\u0062", false)] {
                let text = format!(r#"{{"{one}":1,{many}"{two}":2}}"#);
                let read = Index::of(text.as_bytes());
                assert_eq!(read.as_ref().err().map(|error| error.at), (!is_fine).then(|| text.rfind(two).unwrap() - 1));
                assert_eq!(read.map_or(0, |index| index.fields().len()), if is_fine { others + 2 } else { 0 });
            }
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused_where_it_breaks() {
        for (text, at) in [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            ("{\"a\"", 4),
            ("{\"a\":", 5),
            ("{\"a\":}", 5),
            ("{\"a\":1", 6),
            ("{\"a\":1,}", 7),
            ("{\"a\":1}x", 7),
            ("{\"a\":[1}", 7),
            ("{\"a\":tru}", 5),
            ("{\"a\":\"\\\"}", 5),
            ("{a:1}", 1),
            ("{\"a\" 1}", 5),
        ] {
            assert_eq!(Index::of(text.as_bytes()).unwrap_err().at, at, "{text}");
        }
    }

    #[test]
    fn a_string_ends_at_its_own_quote_however_many_backslashes_and_wherever_it_stands() {
        for before in 0..40 {
            for backslashes in 0..5 {
                let text = format!("{}{}", "x".repeat(before), "\\\\".repeat(backslashes));
                for inside in [text.clone(), format!("{text}\\\"y"), format!("\\\"{text}")] {
                    let body = format!("{{\"a\":[ 1,{{\"b\":\"{inside}\"}} ],\"c\":\"{inside}\"}}");
                    let index = Index::of(body.as_bytes()).unwrap();
                    assert_eq!(index.get(body.as_bytes(), "c"), Some(format!("\"{inside}\"").as_bytes()), "{body}");
                }
            }
        }
    }

    #[test]
    fn brackets_are_found_between_plain_bytes_of_any_number() {
        for plain in 0..40 {
            let body = format!("{{\"a\":[{}[1e5,true{}]],\"b\":1}}", " ".repeat(plain), ",2".repeat(plain));
            assert_eq!(Index::of(body.as_bytes()).unwrap().get(body.as_bytes(), "b"), Some(&b"1"[..]), "{body}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(Index::of(deep(MAX_DEPTH as usize).as_bytes()).is_ok());
        assert_eq!(Index::of(deep(MAX_DEPTH as usize + 1).as_bytes()).unwrap_err().what, "nested too deep");
    }

    #[test]
    fn a_text_field_is_told_from_null_and_from_text_that_looks_like_one() {
        let finder = memchr::memmem::Finder::new("\"finish_reason\"");
        let is_there = |text: &str| has_text_field(text.as_bytes(), &finder);
        assert!(is_there(r#"{"choices":[{"finish_reason":null},{"finish_reason" : "length"}]}"#));
        assert!(!is_there(r#"{"choices":[{"finish_reason":null}]}"#));
        assert!(!is_there(r#"{"choices":[{"finish_reason": ""}]}"#));
        assert!(!is_there(r#"{"content":"\"finish_reason\":\"stop\""}"#));
    }
}
