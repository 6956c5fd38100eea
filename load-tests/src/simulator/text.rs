//! Words, tokens and identifiers: what the simulator says and how it counts it.
//! A run of non-blank bytes is a word and a word is a token, for input and output alike, so that a test can
//! count by hand. Everything here depends on the request's bytes alone: the same request gets the same reply.

/// Words that stand in where the prompt has none.
const FILLER: &str = "the quick brown fox jumps over the lazy dog";

/// Characters of two, three and four bytes, so that a cut inside a character is possible.
pub(crate) const WIDE: &str = "naïve 漢字 🦀 Straße";

/// What identifiers are spelled with.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A number made from bytes, from which identifiers, vectors and signatures are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The seed of `bytes`: four lanes of eight, so that a body of megabytes costs little.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut lanes = [1_u64, 2, 3, 4].map(|lane| lane.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = fold(*lane, u64::from_le_bytes(*word));
            }
        }
        let hash = lanes.into_iter().fold(bytes.len() as u64, fold);
        Self(rest.iter().fold(hash, |hash, byte| fold(hash, u64::from(*byte))))
    }

    /// Another seed that follows from this one.
    pub(crate) fn with(self, salt: u64) -> Self {
        Self(mix(self.0.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
    }

    /// The number itself.
    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// `prefix` and `length` letters and digits.
    pub(crate) fn id(self, prefix: &str, length: usize) -> String {
        let mut id = String::with_capacity(prefix.len() + length);
        id.push_str(prefix);
        let mut pool = 0;
        for index in 0..length {
            if index % 10 == 0 {
                pool = self.with(index as u64 + 1).value();
            }
            let letter = ALPHABET.get((pool % 62) as usize).copied().unwrap_or(b'0');
            id.push(char::from(letter));
            pool /= 62;
        }
        id
    }

    /// A vector of length one with `dimensions` numbers.
    pub(crate) fn vector(self, dimensions: usize) -> Vec<f32> {
        let mut pool = self.0;
        let raw: Vec<f32> = (0..dimensions)
            .map(|_| {
                pool = mix(pool.wrapping_add(1));
                (pool >> 40) as f32 / (1u32 << 23) as f32 - 1.0
            })
            .collect();
        let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        raw.into_iter().map(|x| x / norm).collect()
    }
}

fn fold(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    product ^ (product >> 32)
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// How many words `text` has. Short runs are summed in bytes, which the compiler turns into vector instructions.
pub(crate) fn count(text: &str) -> u64 {
    const RUN: usize = 240;
    let bytes = text.as_bytes();
    let Some((first, after)) = bytes.split_first() else { return 0 };
    let begins = |(before, byte): (&u8, &u8)| u8::from(*before <= b' ') & u8::from(*byte > b' ');
    let runs = bytes.chunks(RUN).zip(after.chunks(RUN));
    let starts = runs.map(|(before, run)| u64::from(before.iter().zip(run).map(begins).sum::<u8>()));
    starts.sum::<u64>() + u64::from(*first > b' ')
}

/// The first `limit` words of `text`, and at most `bytes` bytes.
pub(crate) fn head(text: &str, limit: usize, bytes: usize) -> String {
    let mut out = String::new();
    for word in text.split_ascii_whitespace().take(limit) {
        if !out.is_empty() {
            out.push(' ');
        }
        let room = bytes.saturating_sub(out.len());
        out.push_str(word.get(..word.floor_char_boundary(room)).unwrap_or_default());
        if out.len() >= bytes {
            break;
        }
    }
    out
}

/// The words of `source` again and again, or a filler's where it has none.
pub(crate) fn cycle(source: &str) -> impl Iterator<Item = &str> {
    let source = if source.trim_ascii().is_empty() { FILLER } else { source };
    source.split_ascii_whitespace().cycle()
}

/// `text` cut before its blanks: one word each, with the blanks that stand before it.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut cuts: Vec<usize> = vec![0];
    cuts.extend(
        bytes
            .iter()
            .zip(bytes.iter().skip(1))
            .enumerate()
            .filter(|(_, (a, b))| **a > b' ' && **b <= b' ')
            .map(|(i, _)| i + 1),
    );
    cuts.push(text.len());
    cuts.iter()
        .zip(cuts.iter().skip(1))
        .filter_map(|(a, b)| text.get(*a..*b))
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// `text` cut into exactly `parts` runs of words, as even as they can be; fewer where it has fewer words.
pub(crate) fn portions(text: &str, parts: usize) -> Vec<&str> {
    let pieces = pieces(text);
    if parts == 0 || pieces.len() <= parts {
        return pieces;
    }
    let total = pieces.len();
    let (mut out, mut start, mut taken) = (Vec::with_capacity(parts), 0, 0);
    for part in 1..=parts {
        let until = total * part / parts;
        let length: usize = pieces.get(taken..until).unwrap_or_default().iter().map(|piece| piece.len()).sum();
        out.extend(text.get(start..start + length));
        (start, taken) = (start + length, until);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_token_whatever_the_blanks() {
        assert_eq!(count(""), 0);
        assert_eq!(count("  one\n two\tthree  "), 3);
        assert_eq!(count("one"), 1);
    }

    #[test]
    fn pieces_join_to_the_text_and_are_its_words() {
        let text = "  naïve 漢字 🦀\nend ";
        assert_eq!(pieces(text).concat(), text);
        assert_eq!(pieces("a b c"), ["a", " b", " c"]);
    }

    #[test]
    fn portions_join_to_the_text_and_are_as_many_as_asked() {
        let text = "a b c d e f g";
        assert_eq!(portions(text, 3).concat(), text);
        assert_eq!(portions(text, 3).len(), 3);
        assert_eq!(portions(text, 30).len(), 7);
    }

    #[test]
    fn an_identifier_follows_from_the_bytes_alone() {
        let one = Seed::of(b"some request").id("chatcmpl-", 29);
        assert_eq!(one, Seed::of(b"some request").id("chatcmpl-", 29));
        assert_ne!(one, Seed::of(b"some requesu").id("chatcmpl-", 29));
        assert_eq!(one.len(), 38);
    }

    #[test]
    fn a_vector_has_length_one() {
        let norm: f32 = Seed::of(b"x").vector(256).iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-3, "{norm}");
    }
}
