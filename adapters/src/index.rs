//! Where the top-level fields of a JSON object stand in its bytes.
//!
//! One pass that jumps over strings; what stands between the spans is never copied or parsed. It refuses what is not an
//! object in its structure (unclosed, unbalanced, a key twice, nested deeper than [`MAX_DEPTH`]); the inside of a value is
//! not judged beyond its brackets and strings.

use std::borrow::Cow;
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

    /// Reads an object whose first `kept` fields are those of the one before, byte for byte; the next one starts at `at`.
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

/// Fields are compared only where a hash of their names meets another's: nearly never.
fn refuse_duplicates(fields: &[Field], bytes: &[u8]) -> Result<(), IndexError> {
    let mut met: u128 = 0;
    for (seen, field) in fields.iter().enumerate() {
        // A name with escapes may be any other's.
        let bits = if field.escaped { u128::MAX } else { 1 << field.hash };
        let is_met = met & bits != 0;
        met |= bits;
        if is_met && is_among(field, fields.get(..seen).unwrap_or_default(), bytes) {
            return Err(IndexError { at: field.start(), what: "a field that was already there" });
        }
    }
    Ok(())
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
        let name = self.string()?;
        let written = slice(self.bytes, name);
        let (escaped, hash) = (written.contains(&b'\\'), hash(written));
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

    /// At an opening quote; leaves behind the closing one: the first that has an even number of backslashes before it.
    fn string(&mut self) -> Result<Span, IndexError> {
        let start = self.at + 1;
        let mut from = start;
        loop {
            let Some(end) = self.quote(from) else {
                return Err(self.fault("a string that does not end"));
            };
            let text = Span { start, end };
            if !is_escaped(slice(self.bytes, text)) {
                self.at = end + 1;
                return Ok(text);
            }
            from = end + 1;
        }
    }

    /// At an opening bracket; leaves behind the one that closes it.
    fn nested(&mut self) -> Result<(), IndexError> {
        let mut kinds: u128 = 0;
        let mut depth: u32 = 0;
        loop {
            let Some((at, byte)) = self.mark(self.at) else {
                self.at = self.bytes.len();
                return Err(self.fault("an object or array that does not end"));
            };
            self.at = at;
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => {
                    if depth == MAX_DEPTH {
                        return Err(self.fault("nested too deep"));
                    }
                    kinds = kinds << 1 | u128::from(byte == b'{');
                    depth += 1;
                }
                _ => {
                    if (kinds & 1 == 1) != (byte == b'}') {
                        return Err(self.fault("a bracket that closes another kind"));
                    }
                    kinds >>= 1;
                    depth -= 1;
                }
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Where the next quote is. Most strings are short: the block at hand and the one after it are looked at before the search
    /// is called that is fast over long ones.
    fn quote(&mut self, from: usize) -> Option<usize> {
        let found = self.block_at(from)?.quotes >> (from % BLOCK);
        if found != 0 { Some(from + found.trailing_zeros() as usize) } else { self.quote_behind(next_block(from)) }
    }

    fn quote_behind(&mut self, start: usize) -> Option<usize> {
        let found = self.block_at(start)?.quotes;
        if found != 0 {
            return Some(start + found.trailing_zeros() as usize);
        }
        let far = next_block(start);
        memchr(b'"', self.bytes.get(far..)?).map(|found| far + found)
    }

    /// The next quote or bracket, and where it is.
    fn mark(&mut self, from: usize) -> Option<(usize, u8)> {
        let mut from = from;
        loop {
            let found = self.block_at(from)?.marks >> (from % BLOCK);
            if found != 0 {
                let at = from + found.trailing_zeros() as usize;
                return self.bytes.get(at).map(|byte| (at, *byte));
            }
            from = next_block(from);
        }
    }

    /// The block that holds the byte at `at`, looked through once.
    #[inline]
    fn block_at(&mut self, at: usize) -> Option<&Block> {
        let start = at - at % BLOCK;
        if self.block.start != start {
            self.look_through(start)?;
        }
        Some(&self.block)
    }

    #[inline(never)]
    fn look_through(&mut self, start: usize) -> Option<()> {
        self.block = Block::of(self.bytes.get(start..)?, start);
        Some(())
    }

    fn scalar(&mut self) -> Result<(), IndexError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| matches!(b, b',' | b'}' | b']') || is_space(b)).unwrap_or(rest.len());
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
            if !is_space(byte) {
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

/// How many of them one instruction looks at.
const LANES: usize = 16;

/// Where quotes and brackets are among the bytes from `start` on: a bit for each byte.
struct Block {
    start: usize,
    quotes: u64,
    /// Quotes and brackets.
    marks: u64,
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
    const NONE: Self = Self { start: usize::MAX, quotes: 0, marks: 0 };

    /// The first of `rest`, which begins at `start`.
    fn of(rest: &[u8], start: usize) -> Self {
        let Some(whole) = rest.first_chunk() else {
            let mut padded = [0; BLOCK];
            padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            return Self::whole(&padded, start);
        };
        Self::whole(whole, start)
    }

    fn whole(bytes: &[u8; BLOCK], start: usize) -> Self {
        let (mut quotes, mut marks) = (0, 0);
        for (place, lanes) in bytes.as_chunks::<LANES>().0.iter().enumerate() {
            let bytes = u8x16::new(*lanes);
            let quote = bytes.simd_eq(u8x16::splat(b'"'));
            // Brackets become braces, and nothing else does.
            let folded = bytes | u8x16::splat(b' ');
            let bracket = folded.simd_eq(u8x16::splat(b'{')) | folded.simd_eq(u8x16::splat(b'}'));
            quotes |= u64::from(quote.to_bitmask()) << (place * LANES);
            marks |= u64::from((quote | bracket).to_bitmask()) << (place * LANES);
        }
        Self { start, quotes, marks }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
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
