//! The texts in JSON of OpenAI's shape, found by their names and quotes alone: what is around them is not read.

use std::ops::Range;

use memchr::memchr2;

/// A string that stands for a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<'j> {
    /// The field.
    pub name: &'j [u8],
    /// Where it stands, between its quotes.
    pub span: Range<usize>,
}

/// All of them, as they come.
#[derive(Debug)]
pub(crate) struct Texts<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Texts<'j> {
    /// Those of what is JSON.
    pub(crate) fn of(json: &'j [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// The next string, be it a name or not.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at + memchr::memchr(b'"', self.json.get(self.at..)?)? + 1;
        let end = self.json.len() - behind_text(self.json.get(start..)?)?.len();
        self.at = end + 1;
        Some(start..end)
    }

    fn is_name(&self) -> bool {
        self.json.get(self.at..).unwrap_or_default().trim_ascii_start().starts_with(b":")
    }
}

impl<'j> Iterator for Texts<'j> {
    type Item = Text<'j>;

    fn next(&mut self) -> Option<Text<'j>> {
        let mut name = None;
        loop {
            let span = self.string()?;
            match (self.is_name(), name) {
                (true, _) => name = self.json.get(span),
                (false, Some(name)) => return Some(Text { name, span }),
                (false, None) => {}
            }
        }
    }
}

/// Tells the texts that a model wrote, each once: hosts tell reasoning under two names, or in parts beside it.
#[derive(Debug, Default)]
pub(crate) struct Authorship<'j> {
    thoughts: Option<&'j [u8]>,
}

impl<'j> Authorship<'j> {
    /// Whether the model wrote it, and it was not told before.
    pub(crate) fn is_models(&mut self, text: &Text<'j>) -> bool {
        match text.name {
            b"content" | b"refusal" | b"name" | b"arguments" => true,
            b"reasoning" | b"reasoning_content" | b"text" if text.span.is_empty() => true,
            b"reasoning" | b"reasoning_content" | b"text" => *self.thoughts.get_or_insert(text.name) == text.name,
            _ => false,
        }
    }
}

/// How many bytes of this JSON a model has written.
pub(crate) fn length(json: &[u8]) -> usize {
    let mut authorship = Authorship::default();
    Texts::of(json).filter(|text| authorship.is_models(text)).map(|text| text.span.len()).sum()
}

/// From the closing quote of a text on.
pub(crate) fn behind_text(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        let found = memchr2(b'"', b'\\', rest)?;
        match rest.get(found) {
            Some(b'"') => return rest.get(found..),
            _ => rest = rest.get(found + 2..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_wrote_is_counted_once_whatever_its_names_and_what_it_did_not_is_not() {
        for (json, counted) in [
            (r#"[{"index":0,"delta":{"role":"assistant","content":"hi \"x\""},"finish_reason":"stop"}]"#, 8),
            (
                r#"[{"delta":{"content":null,"reasoning":"abc","reasoning_details":[{"type":"reasoning.text","text":"abc"}]}}]"#,
                3,
            ),
            (r#"[{"delta":{"reasoning_content":"","reasoning":"abc"}}]"#, 3),
            (r#"[{"delta":{"reasoning_content":"abc","reasoning":"abc","content":"d"}}]"#, 4),
            (r#"[{"text":"ab"},{"text":"c"}]"#, 3),
            (r#"[{"delta":{"tool_calls":[{"id":"call_1","function":{"name":"f","arguments":"{}"}}]}}]"#, 3),
            (r#"[{"delta":{"content":"x"},"logprobs":{"content":[{"token":"x","logprob":-1,"top_logprobs":[]}]}}]"#, 1),
            (r#"{"content":"x","obfuscation":"abcdef"}"#, 1),
            (r#"[{"delta":{"content":[{"type":"text","text":"abc"}]}}]"#, 3),
            (r#"{"content":"cut"#, 0),
            ("", 0),
        ] {
            assert_eq!(length(json.as_bytes()), counted, "{json}");
        }
    }
}
