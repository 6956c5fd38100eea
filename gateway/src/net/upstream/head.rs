//! The two heads of an HTTP/1.1 exchange: writing the request's, reading the answer's and with it
//! how the body is delimited. Strict where two readings are possible: a head that could mean two
//! lengths is refused.

use std::fmt::Write;
use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use memchr::memmem::Finder;

use super::Outgoing;
use super::body::Framing;
use super::endpoint::Endpoint;
use super::fault::{Cause, Fault};

/// The largest head of an answer, interim answers before it included. Real ones have 1 to 3 KiB.
const LARGEST_HEAD: usize = 64 * 1024;
/// The most header lines of an answer.
const MOST_HEADERS: usize = 128;
/// Room for a request line and the usual headers.
const USUAL_HEAD: usize = 1024;

/// Finds the end of a head; making it anew for each would cost more than the search.
static BLANK_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// What is read of a success: its framing, what it is, and its id.
const READ_OF_SUCCESS: [&str; 7] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "x-request-id",
    "request-id",
];

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// Whether the connection may carry another request afterwards.
    pub(super) reusable: bool,
}

/// Collects an answer's head from the pieces that it comes in.
#[derive(Default)]
pub(super) struct HeadReader {
    gathered: BytesMut,
    /// Bytes of interim answers that were skipped.
    skipped: usize,
    /// Up to where the end of a head was looked for.
    searched: usize,
}

impl HeadReader {
    /// Whether any byte of an answer has come.
    pub(super) fn has_begun(&self) -> bool {
        self.skipped > 0 || !self.gathered.is_empty()
    }

    /// Takes a piece; gives the final head with what came after it. Interim answers are skipped.
    pub(super) fn take(&mut self, piece: &[u8], method: &Method) -> Result<Option<(Head, Bytes)>, Fault> {
        self.gathered.extend_from_slice(piece);
        while let Some(end) = self.end_of_head()? {
            let text = self.gathered.split_to(end).freeze();
            self.searched = 0;
            if let Some(head) = read_head(&text, method)? {
                return Ok(Some((head, self.gathered.split().freeze())));
            }
            self.skipped += end;
        }
        Ok(None)
    }

    /// Where the head ends, looking at each byte once however the head is dribbled.
    fn end_of_head(&mut self) -> Result<Option<usize>, Fault> {
        if !begins_like_http(&self.gathered) {
            return Err(Fault::malformed("the provider's answer is not HTTP"));
        }
        let from = self.searched.saturating_sub(3);
        let unseen = self.gathered.get(from..).unwrap_or_default();
        let found = BLANK_LINE.find(unseen).map(|at| from + at + 4);
        let length = found.unwrap_or(self.gathered.len());
        if self.skipped + length > LARGEST_HEAD {
            return Err(too_large());
        }
        self.searched = self.gathered.len();
        Ok(found)
    }
}

/// Writes the head of a request for `length` bytes of body.
pub(super) fn write_head(endpoint: &Endpoint, request: &Outgoing<'_>, length: usize, room: usize) -> BytesMut {
    let mut wire = BytesMut::with_capacity(USUAL_HEAD + room);
    wire.extend_from_slice(request.method.as_str().as_bytes());
    wire.extend_from_slice(b" ");
    wire.extend_from_slice(&endpoint.target);
    wire.extend_from_slice(request.path.as_bytes());
    wire.extend_from_slice(&endpoint.preamble);
    for (name, value) in request.all_headers() {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    if length > 0 || !matches!(request.method, Method::GET | Method::HEAD | Method::DELETE) {
        // Writing to memory does not fail.
        let _ = write!(wire, "content-length: {length}\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn begins_like_http(gathered: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    gathered.iter().zip(START).all(|(came, wanted)| came == wanted)
}

/// Reads one head; `None` for an interim one.
fn read_head(text: &Bytes, method: &Method) -> Result<Option<Head>, Fault> {
    // Not filled first: 4 KiB of empty headers cost more than reading a real head.
    let mut lines = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    match parser.parse_response_with_uninit_headers(&mut parsed, text, &mut lines) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Fault::malformed("half a head")),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(error) => return Err(bad_head(&error.to_string())),
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| bad_head("no status"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(bad_head("it switches to a protocol nobody asked for"));
    }
    if status.is_informational() {
        return Ok(None);
    }
    let headers = headers(text, parsed.headers, status)?;
    head(status, headers, parsed.version == Some(1), method).map(Some)
}

fn headers(text: &Bytes, lines: &[httparse::Header<'_>], status: StatusCode) -> Result<HeaderMap, Fault> {
    let read = |line: &&httparse::Header<'_>| !status.is_success() || is_read_of_success(line.name);
    let mut headers = HeaderMap::with_capacity(READ_OF_SUCCESS.len());
    for line in lines.iter().filter(read) {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(text.slice_ref(line.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(bad_head("a header is not one"));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether anybody looks at this header of a success. Providers send thirty; the others are not even made headers of.
fn is_read_of_success(name: &str) -> bool {
    READ_OF_SUCCESS.iter().any(|read| read.eq_ignore_ascii_case(name))
}

fn head(status: StatusCode, mut headers: HeaderMap, is_http11: bool, method: &Method) -> Result<Head, Fault> {
    let framing = framing(status, &headers, is_http11, method)?;
    let says = |word| lists(&headers, &CONNECTION, word);
    let persistent = if is_http11 { !says("close") } else { says("keep-alive") };
    for name in [CONNECTION, TRANSFER_ENCODING, KEEP_ALIVE, TRAILER, UPGRADE] {
        headers.remove(name);
    }
    Ok(Head { status, headers, reusable: persistent && framing != Framing::UntilClose, framing })
}

/// How the body ends, by RFC 9112 section 6.3, with what it calls suspicious refused.
fn framing(status: StatusCode, headers: &HeaderMap, is_http11: bool, method: &Method) -> Result<Framing, Fault> {
    let length = content_length(headers)?;
    let encoded = headers.contains_key(TRANSFER_ENCODING);
    let bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match (encoded, length) {
        _ if bodyless || *method == Method::HEAD => Ok(Framing::Length(0)),
        (true, Some(_)) => Err(bad_head("it has both content-length and transfer-encoding")),
        (true, None) if !is_http11 || !is_chunked(headers) => Err(bad_head("its transfer-encoding is not chunked")),
        (true, None) => Ok(Framing::chunked()),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::UntilClose),
    }
}

/// The one length that all content-length values agree on.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut agreed = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for part in value.as_bytes().split(|byte| *byte == b',') {
            let length = digits(part.trim_ascii());
            let length = length.ok_or_else(|| bad_head("its content-length is not a number"))?;
            if agreed.is_some_and(|agreed| agreed != length) {
                return Err(bad_head("it has two content-lengths"));
            }
            agreed = Some(length);
        }
    }
    Ok(agreed)
}

fn digits(text: &[u8]) -> Option<u64> {
    let all_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| all_digits)?;
    text.parse().ok()
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Whether one of the comma-separated words of a header is `word`.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn bad_head(why: &str) -> Fault {
    Fault::malformed(format!("the head of the provider's answer is not HTTP: {why}"))
}

fn too_large() -> Fault {
    Fault::new(Cause::TooLarge, "the head of the provider's answer is too large")
}
