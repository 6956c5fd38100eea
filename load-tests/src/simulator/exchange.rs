//! One request from its head to the body of its answer.
//! Directives are read from the header, the credential and the model's name; faults of the transport come first,
//! then the faults that stand for an answer, then the dialect.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::account::{Books, Receipt};
use super::control;
use super::dialect::{Answer, Ask, DIALECTS, Dialect, Refusal};
use super::fault::{self, Fault, RetryAfter};
use super::reply::Usage;
use super::script::{self, Play, TRUNCATED_BY};
use super::served;
use super::text::Seed;

/// The largest body that is read.
const MAX_BODY: usize = 128 << 20;

/// How far into a body its model is looked for before the whole is read.
const PEEK: usize = 64 << 10;

/// How long a body is still read after an early answer, so that the peer reads the answer before a reset.
const LINGER: Duration = Duration::from_secs(2);

/// The connection is closed without an answer.
#[derive(Debug)]
pub(crate) struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by a directive")
    }
}

impl std::error::Error for Closed {}

/// Answers one request.
pub(crate) async fn exchange(books: Arc<Books>, request: Request<Incoming>) -> Result<Response<Play>, Closed> {
    let (head, body) = request.into_parts();
    if head.uri.path().starts_with(control::PREFIX) {
        return Ok(control::answer(&books, &head));
    }
    let receipt = books.open();
    let upload = Upload::read(body, &head).await.map_err(|_| Closed)?;
    books.record(&head, &upload.bytes);
    let Some(dialect) = DIALECTS.iter().find(|dialect| dialect.claims(&head)) else {
        return Err(Closed);
    };
    let turn = Turn { books: &books, dialect: *dialect, head: &head, seed: Seed::of(&upload.bytes), receipt };
    turn.take(upload).await
}

/// A request's body: all of it, or what came before an early answer.
struct Upload {
    bytes: Bytes,
    rest: Option<Incoming>,
}

impl Upload {
    async fn read(mut body: Incoming, head: &Parts) -> Result<Self, hyper::Error> {
        let mut whole = BytesMut::new();
        let mut first = Bytes::new();
        if is_early(directives_of_header(head)) {
            return Ok(Self { bytes: first, rest: Some(body) });
        }
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let opening = first.is_empty() && whole.is_empty();
            if opening {
                if is_early(peek_model(&data).map(|model| fault::base_name(model).1)) {
                    return Ok(Self { bytes: data, rest: Some(body) });
                }
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.reserve(promised(head));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
            if whole.len() > MAX_BODY {
                return Ok(Self { bytes: whole.freeze(), rest: Some(body) });
            }
        }
        Ok(Self { bytes: if whole.is_empty() { first } else { whole.freeze() }, rest: None })
    }
}

/// One request's turn with its dialect.
struct Turn<'a> {
    books: &'a Books,
    dialect: &'static dyn Dialect,
    head: &'a Parts,
    seed: Seed,
    receipt: Receipt,
}

impl Turn<'_> {
    async fn take(mut self, upload: Upload) -> Result<Response<Play>, Closed> {
        let json = serde_json::from_slice::<Value>(&upload.bytes);
        let full =
            json.as_ref().ok().and_then(|json| json.get("model")?.as_str()).or_else(|| peek_model(&upload.bytes));
        let full = full.unwrap_or_default().to_owned();
        let credential = self.dialect.credential(self.head).unwrap_or_default();
        self.receipt.name(self.dialect.name(), &full, credential);
        if let Some(name) = json.as_ref().ok().and_then(served::name) {
            self.receipt.named(name, &full);
        }
        let fault = match self.fault(&full, credential) {
            Ok(fault) => fault,
            Err(bad) => {
                return Ok(self.refuse(&Refusal::invalid(bad.to_string()), &Fault::default()));
            }
        };
        if fault.delay > Duration::ZERO {
            tokio::time::sleep(fault.delay).await;
        }
        if fault.close {
            self.receipt.answered();
            return Err(Closed);
        }
        if let Some(rest) = upload.rest {
            return Ok(self.refuse_early(rest, &fault));
        }
        let ask = Ask { head: self.head, json, model: fault::base_name(&full).0, fault: &fault, seed: self.seed };
        Ok(self.answer(&ask))
    }

    /// What the header, the credential and the model's name ask for, as long as `times` lets it.
    fn fault(&self, model: &str, credential: &str) -> Result<Fault, fault::BadDirective> {
        let header = directives_of_header(self.head).unwrap_or_default();
        let (_, of_model) = fault::base_name(model);
        let (_, of_credential) = fault::base_name(credential);
        if header.is_empty() && of_model.is_empty() && of_credential.is_empty() {
            return Ok(Fault::default());
        }
        let fault = Fault::parse(&[header, of_credential, of_model].join("~"))?;
        match fault.times {
            Some(times) if !self.books.still(&[header, credential, model].join("\n"), times) => Ok(Fault::default()),
            Some(_) | None => Ok(fault),
        }
    }

    fn answer(self, ask: &Ask<'_>) -> Response<Play> {
        let fault = ask.fault;
        if fault.html {
            return self.html(fault);
        }
        let refused = fault.status.map(|status| self.dialect.of_status(status));
        let answered = refused.map_or_else(|| self.dialect.answer(ask), Err);
        match answered {
            Ok(Answer::Whole { .. }) if fault.error.is_some() => self.fail_whole(fault),
            Ok(Answer::Whole { body, usage }) => self.whole(body, usage, fault),
            Ok(Answer::Stream { content_type, frames, usage }) => {
                let failure = fault
                    .error
                    .or(fault.error_after.map(|_| 500))
                    .map(|status| self.dialect.failure(status, self.seed));
                self.stream(content_type, script::stream(frames, failure, fault), usage, fault)
            }
            Err(refusal) => self.refuse(&refusal, fault),
        }
    }

    fn whole(mut self, body: Bytes, usage: Usage, fault: &Fault) -> Response<Play> {
        self.receipt.input(usage);
        let body = if fault.malformed { body.slice(..body.len() / 2) } else { body };
        let headers = self.headers("application/json");
        self.send(StatusCode::OK, headers, body, usage.output, fault)
    }

    /// A host that answers 200 with an error for a body.
    fn fail_whole(self, fault: &Fault) -> Response<Play> {
        let refusal = self.dialect.of_status(fault.error.unwrap_or(500));
        let body = self.dialect.refusal(&refusal, self.seed);
        let headers = self.headers("application/json");
        self.send(StatusCode::OK, headers, body.into(), 0, fault)
    }

    fn stream(
        mut self,
        content_type: &'static str,
        steps: std::collections::VecDeque<script::Step>,
        usage: Usage,
        fault: &Fault,
    ) -> Response<Play> {
        self.receipt.input(usage);
        self.receipt.streams();
        let mut headers = self.headers(content_type);
        if fault.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let total = Some(usage.output).filter(|_| !fault.ends_early());
        respond(StatusCode::OK, headers, Play::script(steps, self.receipt, total))
    }

    fn refuse(mut self, refusal: &Refusal, fault: &Fault) -> Response<Play> {
        self.receipt.refused();
        let body = self.dialect.refusal(refusal, self.seed);
        let body = if fault.malformed { body.get(..body.len() / 2).unwrap_or(&body).to_vec() } else { body };
        let mut headers = self.headers("application/json");
        add_retry_after(&mut headers, fault.retry_after);
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.send(status, headers, body.into(), 0, fault)
    }

    fn refuse_early(self, rest: Incoming, fault: &Fault) -> Response<Play> {
        tokio::spawn(drain(rest));
        let version = self.head.version;
        let refusal = self.dialect.of_status(fault.early.unwrap_or(413));
        let mut response = self.refuse(&refusal, &Fault { early: None, ..fault.clone() });
        if version < http::Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn html(mut self, fault: &Fault) -> Response<Play> {
        self.receipt.refused();
        let status = StatusCode::from_u16(fault.status.unwrap_or(502)).unwrap_or(StatusCode::BAD_GATEWAY);
        let page = format!(
            "<html>\r\n<head><title>{status}</title></head>\r\n<body><center><h1>{status}</h1></center></body>\r\n</html>\r\n"
        );
        let mut headers = self.headers("text/html");
        add_retry_after(&mut headers, fault.retry_after);
        self.send(status, headers, page.into(), 0, fault)
    }

    fn headers(&self, content_type: &'static str) -> HeaderMap {
        let own = self.dialect.headers(self.seed);
        let mut headers = HeaderMap::with_capacity(own.len() + 4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.extend(own);
        headers
    }

    fn send(
        mut self,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
        tokens: u64,
        fault: &Fault,
    ) -> Response<Play> {
        let body = if fault.gzip { script::gzip(&body) } else { body };
        if fault.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if !fault.plays() {
            self.receipt.sent(tokens);
            self.receipt.answered();
            return respond(status, headers, Play::Whole(body));
        }
        let promised = body.len() + if fault.truncate { TRUNCATED_BY } else { 0 };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(promised));
        respond(status, headers, Play::script(script::whole(body, tokens, fault), self.receipt, None))
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Play) -> Response<Play> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn add_retry_after(headers: &mut HeaderMap, after: Option<RetryAfter>) {
    match after {
        Some(RetryAfter::Seconds(seconds)) => drop(headers.insert(RETRY_AFTER, HeaderValue::from(seconds))),
        Some(RetryAfter::Millis(millis)) => {
            drop(headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(millis)));
        }
        Some(RetryAfter::Date(seconds)) => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
            headers.extend(HeaderValue::from_str(&date).ok().map(|date| (RETRY_AFTER, date)));
        }
        None => {}
    }
}

fn directives_of_header(head: &Parts) -> Option<&str> {
    head.headers.get(fault::HEADER)?.to_str().ok()
}

fn is_early(directives: Option<&str>) -> bool {
    directives.is_some_and(|directives| Fault::parse(directives).is_ok_and(|fault| fault.early.is_some()))
}

/// The model's name, looked for in the first bytes of a body that may not be whole or JSON.
fn peek_model(body: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"model\"";
    let body = body.get(..PEEK.min(body.len()))?;
    let place = memchr::memmem::find(body, KEY)? + KEY.len();
    let rest = body.get(place..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

/// How long the body says that it is, within bounds.
fn promised(head: &Parts) -> usize {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(PEEK).min(MAX_BODY)
}

/// Reads on for a while, and throws away what comes.
async fn drain(mut rest: Incoming) {
    let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
    // The time is the limit; either way the body is dropped.
    let _ = tokio::time::timeout(LINGER, reading).await;
}
