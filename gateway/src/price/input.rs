//! The most tokens that a request's input can have in all likelihood, before anybody has counted them: what money is
//! held for.
//!
//! Text is never held for at less than two bytes a token, whatever was learned from other requests, since those may
//! have been pictures, of which thousands of bytes make a token. What stands in base64 is a picture, a sound or a
//! document, and what is only named may be one too.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use memchr::memchr;

/// Fewer bytes than most tokens of text have, in any script.
const TEXT_BYTES: u64 = 2;

/// Fewer bytes than a token of a picture or a document has in base64.
const MEDIA_BYTES: u64 = 64;

/// More tokens than most pictures have, however few bytes they are or however they are named.
const ITEM: u64 = 2_048;

/// What something that is no text stands behind, as it is written in JSON: in a text the quotes would have backslashes
/// before them. Whether it is one more thing, and whether it is there, in base64.
const MARKS: [(&str, bool, bool); 8] = [
    (";base64,", false, true),
    ("\"data\":\"", true, true),
    ("\"data\": \"", true, true),
    ("\"data\"", true, false),
    ("\"url\"", true, false),
    ("\"file_id\"", true, false),
    ("\"file_data\"", true, false),
    ("\"file_url\"", true, false),
];

/// All of them in one pass.
static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(MARKS.map(|(mark, ..)| mark));
    #[expect(clippy::expect_used, reason = "eight short words fit into it, as every start shows")]
    finder.expect("a finder of eight words")
});

/// What a body holds beside its text.
#[derive(Default)]
struct Media {
    items: usize,
    bytes: usize,
}

impl Media {
    fn of(body: &[u8]) -> Self {
        let (mut media, mut from) = (Self::default(), 0);
        while let Some(found) = FINDER.find(Input::new(body).range(from..)) {
            from = found.end();
            let (_, is_item, is_base64) = MARKS.get(found.pattern().as_usize()).copied().unwrap_or_default();
            media.items += usize::from(is_item);
            if is_base64 {
                let behind = body.get(from..).unwrap_or_default();
                let length = memchr(b'"', behind).unwrap_or(behind.len());
                media.bytes += length;
                from += length;
            }
        }
        media
    }
}

/// The most tokens of `body`, where `learned` tells how many so many bytes mostly have.
#[must_use]
pub fn most_tokens(body: &[u8], learned: impl Fn(usize) -> u64) -> u64 {
    let media = Media::of(body);
    let text = body.len() - media.bytes;
    let likely = |bytes: usize, least: u64| {
        let count = count(bytes);
        learned(bytes).saturating_mul(2).max(count.div_ceil(least)).min(count)
    };
    let tokens = likely(text, TEXT_BYTES).saturating_add(likely(media.bytes, MEDIA_BYTES));
    tokens.saturating_add(count(media.items).saturating_mul(ITEM))
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is believed after many pictures.
    fn pictures(bytes: usize) -> u64 {
        count(bytes / 4_000)
    }

    #[test]
    fn what_was_learned_of_pictures_lowers_nothing_that_is_held_for_text() {
        let text = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(20_000));
        assert!(most_tokens(text.as_bytes(), pictures) >= 50_000);
        assert_eq!(most_tokens(text.as_bytes(), pictures), most_tokens(text.as_bytes(), |_| 0));
    }

    #[test]
    fn what_was_learned_of_dense_text_raises_it_up_to_a_token_a_byte() {
        let text = [b'7'; 1_000];
        assert_eq!([0, 400, 5_000].map(|learned| most_tokens(&text, |_| learned)), [500, 800, 1_000]);
    }

    #[test]
    fn a_picture_is_not_held_for_as_if_it_were_text() {
        let picture = format!(r#"{{"image_url":{{"url":"data:image/png;base64,{}"}}}}"#, "iVBORw0K".repeat(100_000));
        let tokens = most_tokens(picture.as_bytes(), pictures);
        assert!((8_000..20_000).contains(&tokens), "{tokens}");
        let sound = format!(r#"{{"input_audio":{{"format":"wav","data":"{}"}}}}"#, "UklGRgAA".repeat(100_000));
        assert!(most_tokens(sound.as_bytes(), pictures) < 20_000);
    }

    #[test]
    fn what_is_only_named_is_held_for_too() {
        let named = br#"{"image_url":{"url":"https://example.com/a.png"}}"#;
        assert!(most_tokens(named, pictures) >= ITEM);
        let quoted = br#"{"content":"it says \"url\" here"}"#;
        assert!(most_tokens(quoted, pictures) < ITEM);
    }
}
