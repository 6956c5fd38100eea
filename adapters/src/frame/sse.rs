//! Server-sent events. Lines end at LF, CRLF or CR and nowhere else; an event ends at an empty line; comments, `id:`
//! and
//! `retry:` lines carry nothing for us.

use memchr::memchr2;

use super::{BYTE_ORDER_MARK, Event, FrameError};

/// The largest event that is taken: a large image or audio part in base64 fits.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Once empty, a buffer that grew over this is given back: a held stream stays small.
const KEEP_CAPACITY: usize = 16 * 1024;

/// Cuts bytes into events. `buffer[start..]` is not yet handed out; `buffer[start..line]` are whole lines of the event
/// that is being read, and `buffer[line..scanned]` is known to hold no end of a line.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
    line: usize,
    scanned: usize,
    after_cr: bool,
    /// Behind a byte order mark, if there is one.
    begun: bool,
    event: Pending,
}

/// What the lines so far have said of the event: spans of the buffer, or joined data where it had several lines.
#[derive(Debug, Default)]
struct Pending {
    name: (usize, usize),
    data: (usize, usize),
    data_lines: usize,
    joined: Vec<u8>,
}

impl Framer {
    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.compact();
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// An event over [`MAX_EVENT`]; the stream cannot be read on.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, FrameError> {
        if !self.begun && !self.begin() {
            return Ok(None);
        }
        while let Some((line_end, next_line)) = self.next_line() {
            let line = (self.line, line_end);
            self.line = next_line;
            self.scanned = next_line;
            if line.0 < line.1 {
                self.read_line(line);
                continue;
            }
            let raw = (self.start, next_line);
            self.start = next_line;
            if self.event.data_lines == 0 {
                self.event = Pending::default();
                continue;
            }
            return Ok(Some(self.hand_out(raw)));
        }
        if self.buffer.len() - self.start > MAX_EVENT {
            return Err(FrameError::TooLarge(MAX_EVENT));
        }
        Ok(None)
    }

    /// Whether bytes of an event that has not ended are left.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.buffer.get(self.start..).unwrap_or_default().iter().any(|b| !b.is_ascii_whitespace())
    }

    /// Passes by a byte order mark; false where more has to come to tell.
    fn begin(&mut self) -> bool {
        let begin = self.buffer.get(..BYTE_ORDER_MARK.len()).unwrap_or(&self.buffer);
        self.begun = begin.len() == BYTE_ORDER_MARK.len() || !BYTE_ORDER_MARK.starts_with(begin);
        if begin == BYTE_ORDER_MARK {
            (self.start, self.line, self.scanned) = (begin.len(), begin.len(), begin.len());
        }
        self.begun
    }

    /// The next line's end and the start of the one behind it.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if self.after_cr && self.line == self.scanned {
            if *self.buffer.get(self.line)? == b'\n' {
                self.line += 1;
                self.scanned += 1;
                if self.start + 1 == self.line {
                    self.start = self.line;
                }
            }
            self.after_cr = false;
        }
        let Some(found) = memchr2(b'\n', b'\r', self.buffer.get(self.scanned..)?) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let end = self.scanned + found;
        if self.buffer.get(end) == Some(&b'\n') {
            return Some((end, end + 1));
        }
        match self.buffer.get(end + 1) {
            Some(b'\n') => Some((end, end + 2)),
            Some(_) => Some((end, end + 1)),
            None => {
                self.after_cr = true;
                Some((end, end + 1))
            }
        }
    }

    fn read_line(&mut self, (start, end): (usize, usize)) {
        let line = self.buffer.get(start..end).unwrap_or_default();
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let space = usize::from(line.get(colon + 1) == Some(&b' '));
        let value = ((start + colon + 1 + space).min(end), end);
        match line.get(..colon) {
            Some(b"data") => self.event.add_data(&self.buffer, value),
            Some(b"event") => self.event.name = value,
            _ => {}
        }
    }

    fn hand_out(&mut self, raw: (usize, usize)) -> Event<'_> {
        let Pending { name, data, data_lines, joined } = std::mem::take(&mut self.event);
        self.event.joined = joined;
        let span = |(start, end): (usize, usize)| self.buffer.get(start..end).unwrap_or_default();
        let data = if data_lines > 1 { self.event.joined.as_slice() } else { span(data) };
        Event { name: span(name), data, raw: span(raw) }
    }

    /// Drops what was handed out. Spans of a pending event move along.
    fn compact(&mut self) {
        if self.start == 0 {
            return;
        }
        self.buffer.drain(..self.start);
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_CAPACITY {
            self.buffer = Vec::new();
        }
        let moved = self.start;
        let back = |at: usize| at.saturating_sub(moved);
        self.line = back(self.line);
        self.scanned = back(self.scanned);
        self.event.name = (back(self.event.name.0), back(self.event.name.1));
        self.event.data = (back(self.event.data.0), back(self.event.data.1));
        self.start = 0;
    }
}

impl Pending {
    fn add_data(&mut self, buffer: &[u8], value: (usize, usize)) {
        let span = |(start, end): (usize, usize)| buffer.get(start..end).unwrap_or_default();
        match self.data_lines {
            0 => self.data = value,
            1 => {
                self.joined.clear();
                self.joined.extend_from_slice(span(self.data));
                self.joined.push(b'\n');
                self.joined.extend_from_slice(span(value));
            }
            _ => {
                self.joined.push(b'\n');
                self.joined.extend_from_slice(span(value));
            }
        }
        self.data_lines += 1;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut framer = Framer::default();
        let mut events = Vec::new();
        for piece in pieces {
            framer.feed(piece);
            while let Some(event) = framer.next_event().unwrap() {
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                events.push((text(event.name), text(event.data)));
            }
        }
        events
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_line_end_ends_a_line_and_u2028_does_not() {
        let want = pairs(&[("", "a\u{2028}b"), ("x", "c")]);
        for end in ["\n", "\r\n", "\r"] {
            let text = ["data: a\u{2028}b", "", ": comment", "event: x", "id: 7", "data:c", "", ""].join(end);
            assert_eq!(events(&[text.as_bytes()]), want, "{end:?}");
        }
    }

    #[test]
    fn where_the_network_cuts_does_not_matter() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                ["event: y", "data: 1", "data: 2", "", "data: é3", "", ": ping", "", "data: [DONE]", "", ""].join(end);
            let whole = events(&[text.as_bytes()]);
            assert_eq!(whole, pairs(&[("y", "1\n2"), ("", "é3"), ("", "[DONE]")]));
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&single), whole);
            for cut in 0..text.len() {
                let (a, b) = text.as_bytes().split_at(cut);
                assert_eq!(events(&[a, b]), whole, "cut at {cut} with {end:?}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_at_the_begin_is_passed_by_wherever_it_is_cut() {
        let text = "\u{feff}data: \u{feff}1\n\n\u{feff}data: 2\n\ndata: 3\n\n".as_bytes();
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(events(&[a, b]), pairs(&[("", "\u{feff}1"), ("", "3")]), "cut at {cut}");
        }
        assert_eq!(events(&[b"\xef", b"data: 1\n\ndata: 2\n\n"]), pairs(&[("", "2")]));
    }

    #[test]
    fn raw_bytes_are_the_event_as_it_came() {
        let mut framer = Framer::default();
        framer.feed(b": c\n\nevent: a\ndata:  b \n\nrest");
        let event = framer.next_event().unwrap().unwrap();
        assert_eq!(event.raw, b"event: a\ndata:  b \n\n");
        assert_eq!(event.data, b" b ");
        assert!(framer.next_event().unwrap().is_none());
        assert!(framer.has_rest());
    }

    #[test]
    fn an_event_without_end_is_refused_at_the_bound() {
        let mut framer = Framer::default();
        framer.feed(b"data: ");
        framer.feed(&vec![b'x'; MAX_EVENT]);
        assert_eq!(framer.next_event(), Err(FrameError::TooLarge(MAX_EVENT)));
    }
}
