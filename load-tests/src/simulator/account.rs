//! What the simulator served: counts, and the last requests as they came.
//! Everything is bounded: the rows of the account, the requests kept, and the bytes kept of each.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::reply::Usage;
use super::served::{self, End, Served};
use super::text::Seed;

/// The requests that are kept.
const MAX_REQUESTS: usize = 256;

/// The bytes of a body that are kept.
const MAX_BODY: usize = 64 << 10;

/// The rows of the account; what comes after is counted in a row named `other`.
const MAX_ROWS: usize = 10_000;

/// The names with directives whose requests are counted for `times`.
const MAX_COUNTED: usize = 10_000;

/// What was served since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Requests that reached a dialect.
    pub requests: u64,
    /// Of these, refused with a status of 400 or more, by a fault or by the dialect's rules.
    pub refused: u64,
    /// Input tokens of the requests that were answered.
    pub input_tokens: u64,
    /// Output tokens that were sent.
    pub output_tokens: u64,
    /// Requests whose answer has not ended.
    pub in_flight: u64,
    /// Of these, streams.
    pub open_streams: u64,
    /// Streams that the peer left before their end.
    pub aborted_streams: u64,
    /// Requests, streams among them, that the peer left before the end of the answer.
    pub aborted_requests: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Of these, open now.
    pub open_connections: u64,
    /// The same by dialect, model and credential.
    pub rows: Vec<Row>,
}

/// One dialect, model and credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `openai`, `anthropic`, …
    pub dialect: String,
    /// The model with its directives, as it was asked for.
    pub model: String,
    /// The credential as it came.
    pub credential: String,
    /// Requests.
    pub requests: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Since the simulator's start.
    pub at: Duration,
    /// The body, up to 64 KiB of it.
    pub body: Bytes,
    /// How long the body was.
    pub body_bytes: usize,
    method: String,
    path: String,
    version: Version,
    headers: HeaderMap,
}

impl Recorded {
    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, with the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The version of HTTP.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's value, where it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A request as it is kept: all of it in one buffer, which the next request in its place uses again. To keep hyper's
/// own buffers alive would cost more than this copy.
#[derive(Debug)]
struct Kept {
    at: Duration,
    version: Version,
    bytes: Vec<u8>,
    /// Where method, path, and each header's name and value end.
    ends: Vec<usize>,
    body_bytes: usize,
}

impl Kept {
    fn empty() -> Self {
        Self { at: Duration::ZERO, version: Version::HTTP_11, bytes: Vec::new(), ends: Vec::new(), body_bytes: 0 }
    }

    fn fill(&mut self, at: Duration, head: &Parts, body: &[u8]) {
        self.bytes.clear();
        self.ends.clear();
        (self.at, self.version, self.body_bytes) = (at, head.version, body.len());
        self.add(head.method.as_str().as_bytes());
        self.add(head.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
        for (name, value) in &head.headers {
            self.add(name.as_str().as_bytes());
            self.add(value.as_bytes());
        }
        self.bytes.extend_from_slice(body.get(..MAX_BODY).unwrap_or(body));
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        self.ends.push(self.bytes.len());
    }

    fn recorded(&self) -> Recorded {
        let mut start = 0;
        let mut parts = self.ends.iter().map(|end| {
            let part = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            part
        });
        let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let (method, path) = (text(), text());
        let mut headers = HeaderMap::new();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let pair = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            if let Some((name, value)) = pair {
                headers.append(name, value);
            }
        }
        let body = self.ends.last().and_then(|end| self.bytes.get(*end..)).unwrap_or_default();
        Recorded {
            at: self.at,
            body: Bytes::copy_from_slice(body),
            body_bytes: self.body_bytes,
            method,
            path,
            version: self.version,
            headers,
        }
    }
}

/// The books of one simulator.
#[derive(Debug)]
pub(crate) struct Books {
    started: Instant,
    rows: Mutex<HashMap<u64, Row>>,
    requests: Mutex<VecDeque<Kept>>,
    served: Mutex<VecDeque<Served>>,
    counted: Mutex<HashMap<String, u64>>,
    gauges: Gauges,
    changed: Notify,
    /// How many wait for a change: mostly none, and then nobody is told.
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Gauges {
    in_flight: AtomicU64,
    open_streams: AtomicU64,
    aborted_streams: AtomicU64,
    aborted_requests: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            rows: Mutex::default(),
            requests: Mutex::default(),
            served: Mutex::default(),
            counted: Mutex::default(),
            gauges: Gauges::default(),
            changed: Notify::new(),
            waiting: AtomicU64::new(0),
        }
    }

    /// The account now.
    pub(crate) fn account(&self) -> Account {
        let mut rows: Vec<Row> = lock(&self.rows).values().cloned().collect();
        rows.sort_by(|a, b| (&a.dialect, &a.model, &a.credential).cmp(&(&b.dialect, &b.model, &b.credential)));
        let total = |of: fn(&Row) -> u64| rows.iter().map(of).sum();
        Account {
            requests: total(|row| row.requests),
            refused: total(|row| row.refused),
            input_tokens: total(|row| row.input_tokens),
            output_tokens: total(|row| row.output_tokens),
            in_flight: get(&self.gauges.in_flight),
            open_streams: get(&self.gauges.open_streams),
            aborted_streams: get(&self.gauges.aborted_streams),
            aborted_requests: get(&self.gauges.aborted_requests),
            connections: get(&self.gauges.connections),
            open_connections: get(&self.gauges.open_connections),
            rows,
        }
    }

    /// Forgets the counts; what is open stays counted as open.
    pub(crate) fn reset_account(&self) {
        lock(&self.rows).clear();
        lock(&self.counted).clear();
        lock(&self.served).clear();
        for total in [&self.gauges.aborted_streams, &self.gauges.aborted_requests, &self.gauges.connections] {
            total.store(0, Ordering::Relaxed);
        }
        self.tell();
    }

    /// The last requests, the oldest first.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        lock(&self.requests).iter().map(Kept::recorded).collect()
    }

    /// Forgets the requests.
    pub(crate) fn reset_requests(&self) {
        lock(&self.requests).clear();
    }

    /// Keeps a request.
    pub(crate) fn record(&self, head: &Parts, body: &[u8]) {
        let at = self.started.elapsed();
        let mut requests = lock(&self.requests);
        let oldest = if requests.len() == MAX_REQUESTS { requests.pop_front() } else { None };
        let mut kept = oldest.unwrap_or_else(Kept::empty);
        kept.fill(at, head, body);
        requests.push_back(kept);
    }

    /// Whether `directives`, which say `times`, still hold; it counts this request.
    pub(crate) fn still(&self, directives: &str, times: u64) -> bool {
        let mut counted = lock(&self.counted);
        if counted.len() >= MAX_COUNTED && !counted.contains_key(directives) {
            return false;
        }
        let count = counted.entry(directives.to_owned()).or_default();
        *count += 1;
        *count <= times
    }

    /// Counts a connection until the guard falls.
    pub(crate) fn connection(self: &Arc<Self>) -> Connection {
        add(&self.gauges.connections);
        add(&self.gauges.open_connections);
        self.tell();
        Connection { books: self.clone() }
    }

    /// Opens a request's receipt.
    pub(crate) fn open(self: &Arc<Self>) -> Receipt {
        add(&self.gauges.in_flight);
        let (row, name) = (None, None);
        Receipt { books: self.clone(), row, name, kind: Kind::Whole, end: End::Left, input: 0, output: 0 }
    }

    /// What was served of each request that has ended and that its caller named, the oldest first.
    pub(crate) fn served(&self) -> Vec<Served> {
        lock(&self.served).iter().cloned().collect()
    }

    /// Tells those who wait that something changed.
    fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Waits until `wanted` holds.
    pub(crate) async fn until(&self, wanted: impl Fn(&Account) -> bool) -> Account {
        let _waiting = Waiting::begin(&self.waiting);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let account = self.account();
            if wanted(&account) {
                return account;
            }
            changed.await;
        }
    }
}

/// Somebody waits for a change.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    books: Arc<Books>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        sub(&self.books.gauges.open_connections);
        self.books.tell();
    }
}

/// A request from its head to the last byte of its answer; it is counted when it falls.
#[derive(Debug)]
pub(crate) struct Receipt {
    books: Arc<Books>,
    row: Option<u64>,
    name: Option<Box<Name>>,
    kind: Kind,
    /// [`End::Left`] until the answer has ended.
    end: End,
    input: u64,
    output: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Stream,
}

/// A request that is told of by itself.
#[derive(Debug)]
struct Name {
    name: String,
    model: String,
    began: Instant,
}

impl Receipt {
    /// Says whose request it is.
    pub(crate) fn name(&mut self, dialect: &str, model: &str, credential: &str) {
        let key = Seed::of(dialect.as_bytes()).with(Seed::of(model.as_bytes()).value());
        let key = key.with(Seed::of(credential.as_bytes()).value()).value();
        let mut rows = lock(&self.books.rows);
        let key = if rows.contains_key(&key) || rows.len() < MAX_ROWS { key } else { 0 };
        let row = rows.entry(key).or_insert_with(|| match key {
            0 => Row { dialect: "other".to_owned(), ..Row::default() },
            _ => Row {
                dialect: dialect.to_owned(),
                model: model.to_owned(),
                credential: credential.to_owned(),
                ..Row::default()
            },
        });
        row.requests += 1;
        drop(rows);
        self.row = Some(key);
        self.books.tell();
    }

    /// Its caller named it, so it is told of by itself.
    pub(crate) fn named(&mut self, name: &str, model: &str) {
        let (name, model) = (name.to_owned(), model.to_owned());
        self.name = Some(Box::new(Name { name, model, began: Instant::now() }));
    }

    /// The answer is a stream.
    pub(crate) fn streams(&mut self) {
        self.kind = Kind::Stream;
        add(&self.books.gauges.open_streams);
        self.books.tell();
    }

    /// The request was refused.
    pub(crate) fn refused(&mut self) {
        self.post(|row| row.refused += 1);
    }

    /// So many input tokens are to be paid for.
    pub(crate) fn input(&mut self, usage: Usage) {
        self.input = usage.input;
    }

    /// So many output tokens were sent.
    pub(crate) fn sent(&mut self, tokens: u64) {
        self.output += tokens;
    }

    /// Everything was sent, of so many tokens where that is known.
    pub(crate) fn sent_all(&mut self, tokens: Option<u64>) {
        self.output = tokens.unwrap_or(self.output);
    }

    /// The answer has ended, well or by a fault.
    pub(crate) fn answered(&mut self) {
        self.end = End::Answered;
    }

    fn post(&self, change: impl FnOnce(&mut Row)) {
        let mut rows = lock(&self.books.rows);
        if let Some(row) = self.row.and_then(|key| rows.get_mut(&key)) {
            change(row);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let (input, output) = (self.input, self.output);
        if input + output > 0 {
            self.post(|row| {
                row.input_tokens += input;
                row.output_tokens += output;
            });
        }
        if let Some(name) = self.name.take() {
            let Name { name, model, began } = *name;
            let (end, ended) = (self.end, Instant::now());
            let one = Served { name, model, input_tokens: input, output_tokens: output, end, began, ended };
            served::keep(&mut lock(&self.books.served), one);
        }
        let gauges = &self.books.gauges;
        if self.end == End::Left {
            add(&gauges.aborted_requests);
        }
        if self.kind == Kind::Stream {
            sub(&gauges.open_streams);
            if self.end == End::Left {
                add(&gauges.aborted_streams);
            }
        }
        sub(&gauges.in_flight);
        self.books.tell();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get(gauge: &AtomicU64) -> u64 {
    gauge.load(Ordering::Relaxed)
}

fn add(gauge: &AtomicU64) {
    gauge.fetch_add(1, Ordering::Relaxed);
}

fn sub(gauge: &AtomicU64) {
    gauge.fetch_sub(1, Ordering::Relaxed);
}
