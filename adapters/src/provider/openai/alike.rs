//! Chunks of one stream differ in little but the texts that they bring. What stands between the texts is remembered, so
//! that a chunk that has the same there need not be read: it says nothing else that the one before did not say.

use std::ops::Range;

use crate::openai::texts::{Authorship, Texts, behind_text};

/// Fields whose texts may differ.
const TEXTS: [&[u8]; 7] =
    [b"content", b"reasoning_content", b"reasoning", b"refusal", b"text", b"arguments", b"obfuscation"];

/// What is longer between the texts is not remembered.
const MOST: usize = 1024;

/// So often something else is remembered in one stream; one that is never the same is not worth it.
const MOST_LEARNT: u32 = 16;

/// What stood between the texts of a chunk: each piece ends with a text's opening quote and begins with the closing one
/// of the text before.
#[derive(Debug, Default)]
pub(super) struct Alike {
    pieces: Vec<u8>,
    ends: Vec<End>,
    cut: Option<Cut>,
    learnt: u32,
}

/// Where a piece ends.
#[derive(Debug)]
struct End {
    at: usize,
    /// Whether the text behind it is the model's, and tells what no other does.
    is_models: bool,
}

/// A chunk that is the same but for its texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed<'r> {
    /// What is passed on, before and behind what is left out.
    pub(super) parts: [&'r [u8]; 2],
    /// How many bytes the model wrote.
    pub(super) length: usize,
}

/// What is left out of a piece when a chunk is passed on.
#[derive(Debug)]
struct Cut {
    /// Which piece.
    piece: usize,
    at: usize,
    length: usize,
}

impl Alike {
    /// What of `rest` is passed on if it is the same but for its texts.
    pub(super) fn passed<'r>(&self, rest: &'r [u8]) -> Option<Passed<'r>> {
        let (last, before) = self.ends.split_last()?;
        let mut passed = Passed { parts: [rest, &[]], length: 0 };
        let (mut from, mut left) = (0, rest);
        for (piece, end) in before.iter().enumerate() {
            self.leave_out(piece, rest, left, &mut passed.parts);
            let text = left.strip_prefix(self.pieces.get(from..end.at)?)?;
            left = behind_text(text)?;
            passed.length += if end.is_models { text.len() - left.len() } else { 0 };
            from = end.at;
        }
        self.leave_out(before.len(), rest, left, &mut passed.parts);
        (self.pieces.get(from..last.at) == Some(left)).then_some(passed)
    }

    /// Where `left` begins with that piece.
    fn leave_out<'r>(&self, piece: usize, rest: &'r [u8], left: &[u8], passed: &mut [&'r [u8]; 2]) {
        if let Some(cut) = self.cut.as_ref().filter(|cut| cut.piece == piece) {
            let at = rest.len() - left.len() + cut.at;
            *passed = [rest.get(..at), rest.get(at + cut.length..)].map(Option::unwrap_or_default);
        }
    }

    /// Remembers what stands between the texts of `rest`, which is JSON, and that this span of it is left out.
    pub(super) fn learn(&mut self, rest: &[u8], cut: Option<Range<usize>>) {
        self.forget();
        if self.learnt == MOST_LEARNT {
            return;
        }
        self.learnt += 1;
        self.read(rest, cut);
        if self.pieces.len() > MOST {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.pieces.clear();
        self.ends.clear();
        self.cut = None;
    }

    fn read(&mut self, rest: &[u8], cut: Option<Range<usize>>) {
        let (mut from, mut authorship) = (0, Authorship::default());
        for text in Texts::of(rest).filter(|text| TEXTS.contains(&text.name)) {
            self.add(rest, from..text.span.start, cut.as_ref(), authorship.is_models(&text));
            from = text.span.end;
        }
        self.add(rest, from..rest.len(), cut.as_ref(), false);
    }

    fn add(&mut self, rest: &[u8], span: Range<usize>, cut: Option<&Range<usize>>, is_models: bool) {
        if let Some(cut) = cut.filter(|cut| span.contains(&cut.start)) {
            self.cut = Some(Cut { piece: self.ends.len(), at: cut.start - span.start, length: cut.len() });
        }
        self.pieces.extend_from_slice(rest.get(span).unwrap_or_default());
        self.ends.push(End { at: self.pieces.len(), is_models });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str = r#""choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"obfuscation":"x"}"#;

    fn fits(learnt: &str, other: &str) -> bool {
        let mut alike = Alike::default();
        alike.learn(learnt.as_bytes(), None);
        let passed = alike.passed(other.as_bytes());
        passed.inspect(|passed| assert_eq!(passed.parts.concat(), other.as_bytes())).is_some()
    }

    #[test]
    fn what_is_left_out_is_so_in_whatever_stands_around_it() {
        let chunk = r#""choices":[{"delta":{"content":"hi"}}],"usage":null,"obfuscation":"x"}"#;
        let at = chunk.find(",\"usage\"").unwrap_or_default();
        let mut alike = Alike::default();
        alike.learn(chunk.as_bytes(), Some(at..at + ",\"usage\":null".len()));
        let other = chunk.replace("hi", "a longer \\\"text\\\"").replace("\"x\"", "\"\"");
        let passed = alike.passed(other.as_bytes()).map(|passed| passed.parts.concat());
        assert_eq!(passed.as_deref(), Some(other.replace(",\"usage\":null", "").as_bytes()));
    }

    #[test]
    fn a_chunk_that_is_not_read_is_counted_as_one_that_is() {
        for (learnt, other) in [
            (CHUNK, CHUNK.replace("\"hi\"", "\"a longer \\\"text\\\"\"").replace("\"x\"", "\"abcdef\"")),
            (
                r#"[{"delta":{"reasoning":"a","reasoning_details":[{"text":"a"}]}}]"#,
                r#"[{"delta":{"reasoning":"bcd","reasoning_details":[{"text":"bcd"}]}}]"#.to_owned(),
            ),
        ] {
            let mut alike = Alike::default();
            alike.learn(learnt.as_bytes(), None);
            let length = alike.passed(other.as_bytes()).map(|passed| passed.length);
            assert_eq!(length, Some(crate::openai::texts::length(other.as_bytes())), "{other}");
        }
    }

    #[test]
    fn only_texts_may_differ() {
        assert!(fits(CHUNK, CHUNK));
        for text in ["", "a\\\"b", "\\\\", "\\u0022", "}],{"] {
            assert!(fits(CHUNK, &CHUNK.replace("\"hi\"", &format!("\"{text}\""))), "{text}");
        }
        for (old, new) in [
            ("\"index\":0", "\"index\":1"),
            ("null", "\"stop\""),
            ("\"hi\"", "null"),
            ("\"hi\"", "\"hi\",\"role\":\"assistant\""),
            ("\"hi\"", "\"hi"),
            ("\"hi\"", "\"hi\\\""),
            ("\"x\"}", "\"x\",\"usage\":{}}"),
            ("\"x\"}", "\"x\"} "),
            ("\"x\"}", "\"x\""),
        ] {
            assert!(!fits(CHUNK, &CHUNK.replace(old, new)), "{old} {new}");
        }
    }

    #[test]
    fn a_text_of_another_name_may_not() {
        let chunk = r#""choices":[{"delta":{"content":"hi"},"finish_reason":""}]}"#;
        assert!(!fits(chunk, &chunk.replace("\"finish_reason\":\"\"", "\"finish_reason\":\"stop\"")));
        assert!(!fits(chunk, &chunk.replace("content", "contents")));
    }

    #[test]
    fn what_was_never_learnt_fits_nothing_and_neither_does_what_changes_too_often_or_is_long() {
        assert_eq!(Alike::default().passed(b""), None);
        let mut alike = Alike::default();
        (0..=MOST_LEARNT).for_each(|_| alike.learn(CHUNK.as_bytes(), None));
        assert_eq!(alike.passed(CHUNK.as_bytes()), None);
        let long = CHUNK.replace("\"index\":0", &format!("\"index\":{}", "1".repeat(MOST)));
        assert!(!fits(&long, &long));
    }
}
