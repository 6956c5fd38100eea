//! What the ledgers of all gateways tell: sums by what is asked for, rows page by page or as one stream, one row. Who asks blocks
//! a thread of the control plane's, never a request. Where the others cannot be asked, an answer has what is this
//! gateway's own and says so.

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRef, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use indexmap::IndexMap;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{plain, problem};
use crate::ledger::{Field, Filter, Reader, Row, Sum, Sums, Volumes};
use crate::store::StoreFault;

/// How many rows a page has if nobody says.
const PAGE: usize = 100;

/// How many it has at most.
const MOST_PAGE: usize = 1_000;

/// How many rows a stream reads at a time.
const PART: usize = 256;

/// How many parts of a stream may wait for a slow reader.
const MOST_PARTS: usize = 2;

/// About as long as a row is as CSV.
const LINE: usize = 512;

/// The kind of an answer that is lines of JSON.
pub(super) const LINES: &str = "application/jsonl";

/// The kind of one that is a table.
pub(super) const TABLE: &str = "text/csv; charset=utf-8";

/// The ledger's routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Reader: FromRef<S>,
{
    Router::new()
        .route("/admin/v1/usage", get(sums))
        .route("/admin/v1/usage/rows", get(rows))
        .route("/admin/v1/usage/rows/{id}", get(row).layer(middleware::from_fn(plain)))
}

/// What can be asked for. The names of fields are values that rows must have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    by: Option<String>,
    /// A day, or a moment with its offset.
    #[serde(deserialize_with = "moment")]
    #[schemars(with = "Option<String>")]
    from: Option<Timestamp>,
    #[serde(deserialize_with = "moment")]
    #[schemars(with = "Option<String>")]
    to: Option<Timestamp>,
    tenant: Option<String>,
    key: Option<String>,
    model: Option<String>,
    r#type: Option<String>,
    provider: Option<String>,
    credential: Option<String>,
    error: Option<String>,
    format: Option<Format>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A page with a cursor, as without a word of it.
    #[default]
    Json,
    /// All rows, each a line.
    Jsonl,
    /// All rows, for a spreadsheet.
    Csv,
}

/// What only rows are asked with.
pub(super) const OF_ROWS: &[&str] = &["format", "limit", "cursor"];

/// What only sums are.
pub(super) const OF_SUMS: &[&str] = &["by"];

impl Asked {
    /// What is asked, if it can be, without what is another endpoint's: what was not heeded would seem to be.
    fn heeded(asked: Result<Query<Self>, QueryRejection>, others: &[&str]) -> Result<Self, String> {
        let Query(asked) = asked.map_err(|error| error.body_text())?;
        let named = [
            ("by", asked.by.is_some()),
            ("format", asked.format.is_some()),
            ("limit", asked.limit.is_some()),
            ("cursor", asked.cursor.is_some()),
        ];
        match named.into_iter().find(|(name, is_there)| *is_there && others.contains(name)) {
            Some((name, _)) => Err(format!("There is no parameter `{name}` here.")),
            None => Ok(asked),
        }
    }

    fn filter(&self) -> Filter {
        let fields = [
            (Field::Tenant, &self.tenant),
            (Field::Key, &self.key),
            (Field::Model, &self.model),
            (Field::Type, &self.r#type),
            (Field::Provider, &self.provider),
            (Field::Credential, &self.credential),
            (Field::Error, &self.error),
        ];
        let equal = fields.into_iter().filter_map(|(field, value)| Some((field, value.clone()?))).collect();
        Filter { from: self.from, to: self.to, equal }
    }

    fn by(&self) -> Result<Vec<Field>, String> {
        let names = self.by.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty());
        names.map(|name| Field::named(name).ok_or_else(|| format!("there is no field `{name}` to sum by"))).collect()
    }
}

/// A moment, or a day's beginning in UTC.
fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(from)?;
    // A date with a time and no offset would be read as well, and lose its time.
    let day = || {
        text.parse::<Date>()
            .ok()
            .filter(|day| day.to_string() == text)?
            .to_zoned(TimeZone::UTC)
            .ok()
            .map(|day| day.timestamp())
    };
    let moment = text.parse().ok().or_else(day);
    moment
        .map(Some)
        .ok_or_else(|| de::Error::custom(format!("`{text}` is neither 2026-11-23 nor 2026-11-23T04:00:00Z")))
}

/// `GET /admin/v1/usage`: sums.
async fn sums(State(reader): State<Reader>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let asked = match Asked::heeded(asked, OF_ROWS) {
        Ok(asked) => asked,
        Err(message) => return wrong(message),
    };
    let by = match asked.by() {
        Ok(by) => by,
        Err(message) => return wrong(message),
    };
    answer(move || {
        let mut volumes = reader.all();
        let sums = volumes.sums(&asked.filter(), &by)?;
        let complete = volumes.is_complete();
        Ok((missing(complete), Json(Told::of(&by, sums, complete))).into_response())
    })
    .await
}

/// `GET /admin/v1/usage/rows`: rows, the newest first.
async fn rows(State(reader): State<Reader>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let asked = match Asked::heeded(asked, OF_SUMS) {
        Ok(asked) => asked,
        Err(message) => return wrong(message),
    };
    match asked.format.unwrap_or_default() {
        Format::Jsonl | Format::Csv if asked.cursor.is_some() => {
            wrong("`cursor` is for pages: `format` jsonl and csv tell all rows.".to_owned())
        }
        Format::Json => page(reader, asked).await,
        Format::Jsonl => stream(reader, asked, LINES, String::new(), jsonl).await,
        Format::Csv => stream(reader, asked, TABLE, csv_head(), csv).await,
    }
}

/// `GET /admin/v1/usage/rows/{id}`: one row.
async fn row(State(reader): State<Reader>, Path(id): Path<String>) -> Response {
    answer(move || {
        let found = reader.find(&id, None, raw)?;
        Ok(found.map_or_else(
            || problem(StatusCode::NOT_FOUND, "not_found", format!("There is no row {id}."), Vec::new()),
            |row| Json(row).into_response(),
        ))
    })
    .await
}

async fn page(reader: Reader, asked: Asked) -> Response {
    let cursor = match asked.cursor.as_deref().map(str::parse).transpose() {
        Ok(cursor) => cursor,
        Err(()) => return wrong("The cursor is none that was given out.".to_owned()),
    };
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, MOST_PAGE);
    answer(move || {
        let (mut volumes, mut rows) = (reader.all(), Vec::new());
        let next = volumes.rows(&asked.filter(), cursor, limit, |row| rows.extend(raw(row)))?;
        let (next, complete) = (next.map(|next| next.to_string()), volumes.is_complete());
        Ok((missing(complete), Json(Page { rows, next, complete })).into_response())
    })
    .await
}

/// What `work`, which blocks, comes to.
pub(super) async fn answer(work: impl FnOnce() -> Result<Response, StoreFault> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string(), Vec::new()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", error.to_string(), Vec::new()),
    }
}

/// All rows that are asked for, or so many of them as the limit says, written as they are read and as fast as they are taken.
async fn stream(
    reader: Reader,
    asked: Asked,
    kind: &'static str,
    head: String,
    write: impl Fn(&Row<'_>, &mut Vec<u8>) + Send + 'static,
) -> Response {
    answer(move || {
        let volumes = reader.all();
        let complete = volumes.is_complete();
        let (parts, taken) = mpsc::channel(MOST_PARTS);
        tokio::task::spawn_blocking(move || tell_all(volumes, &asked, head.into_bytes(), &parts, write));
        let body = Body::from_stream(ReceiverStream::new(taken));
        Ok((missing(complete), [(header::CONTENT_TYPE, kind)], body).into_response())
    })
    .await
}

/// Reads and tells, until there are no more or nobody takes them.
fn tell_all(
    mut volumes: Volumes,
    asked: &Asked,
    mut part: Vec<u8>,
    parts: &mpsc::Sender<Result<Bytes, StoreFault>>,
    write: impl Fn(&Row<'_>, &mut Vec<u8>),
) {
    let (filter, complete) = (asked.filter(), volumes.is_complete());
    let (mut cursor, mut left) = (None, asked.limit.unwrap_or(usize::MAX));
    loop {
        let wanted = left.min(PART);
        left -= wanted;
        let read = volumes.rows(&filter, cursor, wanted, |row| write(row, &mut part));
        // An answer that has begun cannot become another status, nor say that it is not complete: it breaks off.
        let (ended, sent) = match read {
            Ok(next) if volumes.is_complete() == complete => {
                cursor = next;
                (next.is_none() || left == 0, parts.blocking_send(Ok(Bytes::from(std::mem::take(&mut part)))))
            }
            Ok(_) => (true, parts.blocking_send(Err(StoreFault::Away))),
            Err(error) => (true, parts.blocking_send(Err(error))),
        };
        if ended || sent.is_err() {
            return;
        }
    }
}

/// What an answer says of itself when rows of other gateways are missing.
fn missing(complete: bool) -> Option<[(&'static str, &'static str); 1]> {
    (!complete).then_some([("x-weir-complete", "false")])
}

fn wrong(message: String) -> Response {
    problem(StatusCode::BAD_REQUEST, "invalid_request", message, Vec::new())
}

/// A page of rows.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rows")]
pub(super) struct Page {
    #[schemars(with = "Vec<Row<'static>>")]
    rows: Vec<Box<RawValue>>,
    /// The cursor of the next page.
    next: Option<String>,
    /// Whether rows of all gateways could be read.
    complete: bool,
}

pub(super) fn raw(row: &Row<'_>) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(row).inspect_err(|error| tracing::error!(%error, "a row is no JSON")).ok()
}

fn jsonl(row: &Row<'_>, to: &mut Vec<u8>) {
    if let Some(row) = raw(row) {
        to.extend_from_slice(row.get().as_bytes());
        to.push(b'\n');
    }
}

/// The columns of a spreadsheet; each row is read as JSON and has them by these names.
const COLUMNS: [&str; 22] = [
    "request_id",
    "tenant",
    "key",
    "model",
    "type",
    "status",
    "error",
    "accuracy",
    "provider",
    "upstream_model",
    "credential",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "started_at",
    "first_byte_ms",
    "duration_ms",
    "service_tier",
    "inference_geo",
];

fn csv_head() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

fn csv(row: &Row<'_>, to: &mut Vec<u8>) {
    let text = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let columns = [
        row.request_id.to_string(),
        row.tenant.to_string(),
        row.key.to_string(),
        row.model.to_string(),
        row.kind.to_string(),
        number(row.status.map(u64::from)),
        text(&row.error),
        row.accuracy.name().to_owned(),
        text(&row.provider),
        text(&row.upstream_model),
        text(&row.credential),
        row.usage.input_tokens.to_string(),
        row.usage.cached_input_tokens.to_string(),
        row.usage.cache_write_tokens.to_string(),
        row.usage.output_tokens.to_string(),
        row.usage.reasoning_tokens.to_string(),
        row.cost_usd().unwrap_or_default(),
        row.started_at.to_string(),
        number(row.first_byte_ms),
        row.duration_ms.to_string(),
        text(&row.service_tier),
        text(&row.inference_geo),
    ];
    let mut writer = csv::WriterBuilder::new().buffer_capacity(LINE).terminator(csv::Terminator::CRLF).from_writer(to);
    if let Err(error) = writer.write_record(columns.map(inert)) {
        tracing::error!(%error, "a row is no CSV");
    }
}

/// A spreadsheet takes a text that begins with one of these for a formula, and callers choose ids and names of models. It shows
/// what is behind an apostrophe as it stands.
fn inert(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text }
}

/// Sums as they are told.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sums")]
pub(super) struct Told {
    groups: Vec<Group>,
    total: Sum,
    /// Whether there were more groups than are told.
    cut: bool,
    /// Whether the rows of all gateways could be read.
    complete: bool,
}

/// The rows with the same values of the fields in `by`, which stand beside what these rows come to.
#[derive(Serialize, JsonSchema)]
struct Group {
    #[serde(flatten)]
    by: IndexMap<&'static str, String>,
    #[serde(flatten)]
    sum: Sum,
}

impl Told {
    fn of(by: &[Field], sums: Sums, complete: bool) -> Self {
        let group = |(values, sum): (Vec<String>, Sum)| Group {
            by: by.iter().map(|field| field.name()).zip(values).collect(),
            sum,
        };
        Self { groups: sums.groups.into_iter().map(group).collect(), total: sums.total, cut: sums.cut, complete }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::ledger::{Accuracy, Counts, Ledger, Opened, Settings};
    use crate::store::memory::Memory;

    /// What is answered over a socket: the status line and the body.
    struct Asking(std::net::SocketAddr);

    impl Asking {
        async fn get(&self, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.0).await.unwrap();
            let request = format!("GET {path} HTTP/1.0\r\nhost: weir\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        }

        async fn json(&self, path: &str) -> Value {
            serde_json::from_str(&self.get(path).await.1).unwrap()
        }
    }

    fn row<'a>(id: &'a str, model: &'a str, cost: Option<i64>) -> Row<'a> {
        Row {
            request_id: id.into(),
            tenant: "acme".into(),
            key: "ci".into(),
            model: model.into(),
            kind: "llm".into(),
            status: Some(200),
            error: None,
            accuracy: Accuracy::Exact,
            provider: Some("openai".into()),
            upstream_model: Some("gpt-5.5, the large one".into()),
            credential: Some("oa-1".into()),
            usage: Counts { input_tokens: 10, output_tokens: 2, ..Counts::default() },
            cost,
            attempts: Vec::new(),
            started_at: "2026-11-23T04:00:00Z".parse().unwrap(),
            first_byte_ms: None,
            duration_ms: 7,
            tags: Vec::new(),
            service_tier: None,
            inference_geo: None,
        }
    }

    /// The routes over a ledger of 600 rows: `r0` to `r599`, every other one of the model `b`, which has no price.
    async fn serving() -> Asking {
        let settings = Settings { commit_within: Duration::ZERO, retention: Duration::from_secs(86_400) };
        let ledger = Ledger::open(&Memory::default().disk(), settings, drop).unwrap();
        for number in 0..600 {
            let id = format!("r{number}");
            let (model, cost) = if number % 2 == 0 { ("a", Some(1_500_000_001)) } else { ("b", None) };
            let row = row(&id, model, cost);
            let (request_id, tenant, key, kind) = (id.as_str(), "acme", "ci", "llm");
            let opened = Opened { request_id, tenant, key, model, kind, started_at: row.started_at };
            ledger.admit(opened.intent()).finish(&row, []);
        }
        ledger.close();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = routes::<Reader>().with_state(ledger.reader());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Asking(address)
    }

    #[tokio::test]
    async fn sums_are_told_by_what_is_asked_for_and_to_the_last_digit() {
        let ask = serving().await;
        let (status, body) = ask.get("/admin/v1/usage?by=model,key").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#""cost_usd":450.0000003"#), "{body}");
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told["groups"][0]["model"], "a");
        assert_eq!(told["groups"][0]["key"], "acme/ci");
        assert_eq!(told["groups"][1]["cost_usd"], Value::Null);
        assert_eq!(told["groups"][1]["unpriced"], 300);
        assert_eq!(told["total"]["requests"], 600);
        assert_eq!(ask.json("/admin/v1/usage?to=2026-01-01").await["total"]["requests"], 0);
        assert_eq!(ask.json("/admin/v1/usage?from=2026-01-01&model=a").await["total"]["input_tokens"], 3_000);
    }

    #[tokio::test]
    async fn rows_are_told_page_by_page_and_as_streams() {
        let ask = serving().await;
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = ask.json(&format!("/admin/v1/usage/rows?limit=250{cursor}")).await;
            let rows = page["rows"].as_array().unwrap();
            ids.extend(rows.iter().map(|row| row["request_id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let newest_first: Vec<_> = (0..600).rev().map(|number| format!("r{number}")).collect();
        assert_eq!(ids, newest_first);
        let (_, lines) = ask.get("/admin/v1/usage/rows?format=jsonl&key=ci&model=b").await;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[299]["request_id"]), (300, &"r1".into()));
        let (_, table) = ask.get("/admin/v1/usage/rows?format=csv&model=a").await;
        assert_eq!(table.lines().count(), 301);
        for (limit, lines) in [(0, 1), (1, 2), (257, 258)] {
            let (_, table) = ask.get(&format!("/admin/v1/usage/rows?format=csv&model=a&limit={limit}")).await;
            assert_eq!(table.lines().count(), lines);
        }
        assert_eq!(
            table.lines().last().unwrap(),
            "r0,acme,ci,a,llm,200,,exact,openai,\"gpt-5.5, the large one\",oa-1,10,0,0,2,0,1.500000001,\
             2026-11-23T04:00:00Z,,7,,"
        );
        assert_eq!(ask.json("/admin/v1/usage/rows/r7").await["model"], "b");
    }

    #[test]
    fn a_caller_s_text_is_no_formula_in_a_spreadsheet() {
        let mut table = Vec::new();
        csv(&row("-2-3", "=HYPERLINK(\"http://a\")", None), &mut table);
        let table = String::from_utf8(table).unwrap();
        assert!(table.starts_with("'-2-3,acme,ci,\"'=HYPERLINK(\"\"http://a\"\")\",llm,"), "{table}");
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_named() {
        let ask = serving().await;
        for (path, status) in [
            ("/admin/v1/usage?by=colour", 400),
            ("/admin/v1/usage?from=yesterday", 400),
            ("/admin/v1/usage?from=2026-11-23T23:59:59", 400),
            ("/admin/v1/usage?from=2026-11-23%2023:59:59", 400),
            ("/admin/v1/usage?to=2026-11-23T10:00", 400),
            ("/admin/v1/usage?colour=red", 400),
            ("/admin/v1/usage/rows?cursor=x", 400),
            ("/admin/v1/usage/rows?format=xml", 400),
            ("/admin/v1/usage/rows/none", 404),
        ] {
            let (told, body) = ask.get(path).await;
            assert_eq!(told, status, "{path}: {body}");
            assert!(serde_json::from_str::<Value>(&body).unwrap()["error"]["message"].is_string(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_parameter_that_is_not_heeded_is_refused_by_its_name() {
        let ask = serving().await;
        for (path, name) in [
            ("/admin/v1/usage?colour=red", "colour"),
            ("/admin/v1/usage?by=model&format=csv", "format"),
            ("/admin/v1/usage?limit=1", "limit"),
            ("/admin/v1/usage?cursor=", "cursor"),
            ("/admin/v1/usage/rows?by=model", "by"),
            ("/admin/v1/usage/rows?format=csv&cursor=x", "cursor"),
            ("/admin/v1/usage/rows/r7?format=csv", "format"),
        ] {
            let (status, body) = ask.get(path).await;
            assert_eq!(status, 400, "{path}: {body}");
            assert!(body.contains(&format!("`{name}`")), "{path}: {body}");
        }
    }
}
