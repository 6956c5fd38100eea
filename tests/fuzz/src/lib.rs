//! What the fuzz targets call: one function each, that takes any bytes and panics where a law is broken.
//! All dialects read the same bytes, so the fixtures are seeds for every one of them.

use adapters::adapter::{Options, Target};
use adapters::frame::sse::Framer;
use adapters::index::Index;
use adapters::provider;
use adapters::request::{Edit, Operation, Request};
use adapters::{Adapter, Translator};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

#[path = "../../../gateway/src/config/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the gateway uses the rest")]
mod config;

#[path = "../../../gateway/src/address.rs"]
#[allow(dead_code, unused_imports, reason = "the gateway uses the rest")]
mod address;

#[path = "../../../gateway/src/files.rs"]
#[allow(dead_code, unused_imports, reason = "the gateway uses the rest")]
mod files;

#[path = "../../../gateway/src/headers.rs"]
#[allow(dead_code, unused_imports, reason = "the gateway uses the rest")]
mod headers;

#[path = "../../../gateway/src/log.rs"]
#[allow(dead_code, unused_imports, reason = "the gateway uses the rest")]
mod log;

/// In the place of the gateway's: no target watches a file.
#[expect(dead_code, reason = "as above")]
mod vital {
    pub fn tireless(_name: &str, _work: impl FnMut() + Send + 'static) -> std::io::Result<()> {
        Ok(())
    }
}

const OPERATIONS: &[Operation] = &[Operation::Chat, Operation::Completions, Operation::Embeddings];

/// Any text is a configuration or faults, and a configuration that is written out reads back the same.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let loaded = match config::parse_str("fuzz.yaml", &text) {
        Ok(loaded) => loaded,
        Err(faults) => return assert!(!faults.to_string().is_empty()),
    };
    let written = serde_json::to_string(&loaded.config).expect("a configuration is JSON");
    match config::parse_str("written.yaml", &written) {
        Ok(again) => assert_eq!(serde_json::to_string(&again.config).ok(), Some(written)),
        Err(faults) => panic!("{written}\nhas faults:\n{faults}"),
    }
}

/// An object that JSON takes is indexed field by field, and a rewrite changes the named field alone.
pub fn index(data: &[u8]) {
    let truth = serde_json::from_slice::<Map<String, Value>>(data);
    let Ok(index) = Index::of(data) else { return };
    for field in index.fields() {
        assert!(field.value().end <= data.len() && field.start() < field.value().start);
    }
    let body = Bytes::copy_from_slice(data);
    let Ok(request) = Request::parse(Operation::Chat, body.clone()) else { return };
    assert_eq!(request.rewrite(&[]).joined(), body);
    let rewritten = request.rewrite(&[Edit::Set("model", Bytes::from_static(b"\"m\""))]).joined();
    let Ok(mut truth) = truth else { return };
    assert_eq!(truth.len(), index.fields().len());
    truth.insert("model".to_owned(), "m".into());
    assert_eq!(serde_json::from_slice::<Map<String, Value>>(&rewritten).ok(), Some(truth));
}

/// Where the network cuts does not matter.
pub fn frame(data: &[u8]) {
    let whole = sse_events(&[data]);
    for (head, tail) in cuts(data) {
        assert_eq!(sse_events(&[head, tail]), whole);
    }
    assert_eq!(sse_events(&data.chunks(1).collect::<Vec<_>>()), whole);
}

/// A stream's chunks and its end do not depend on the cuts.
pub fn stream(data: &[u8]) {
    for adapter in dialects() {
        let whole = translated(adapter, &[data]);
        for (head, tail) in cuts(data) {
            assert_eq!(translated(adapter, &[head, tail]), whole, "{}", adapter.name());
        }
    }
}

/// Any body is an answer or an error.
pub fn reply(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    each_request(b"{\"model\":\"m\"}", |adapter, request, target| {
        let decoded = adapter.decode(request, target, body.clone());
        if let Ok(reply) = decoded {
            assert!(!reply.body.is_empty(), "{} made nothing of it", adapter.name());
        }
    });
}

/// Any request is encoded or refused, the same way each time, and JSON stays JSON.
pub fn encode(data: &[u8]) {
    let is_json = serde_json::from_slice::<Value>(data).is_ok();
    each_request(data, |adapter, request, target| {
        let encoded = adapter.encode(request, target);
        assert_eq!(encoded, adapter.encode(request, target), "{}", adapter.name());
        if let (true, Ok(native)) = (is_json, encoded) {
            let body = native.body.joined();
            assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{} wrote {body:?}", adapter.name());
        }
    });
}

/// Any body of any error status is a refusal of an error status.
pub fn refusal(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let status = StatusCode::from_u16(400 + u16::from(*first % 200)).unwrap_or(StatusCode::BAD_GATEWAY);
    for adapter in dialects() {
        let refusal = adapter.refusal(status, &HeaderMap::new(), body);
        assert!(refusal.status.as_u16() >= 400, "{}: {refusal:?}", adapter.name());
    }
}

fn dialects() -> impl Iterator<Item = &'static dyn Adapter> {
    provider::kinds().filter_map(provider::of_kind)
}

/// A few places to cut at, the same for the same bytes.
fn cuts(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let step = (data.len() / 4).max(1);
    (1..data.len()).step_by(step).map(|at| data.split_at(at))
}

fn sse_events(pieces: &[&[u8]]) -> (Vec<(Vec<u8>, Vec<u8>)>, bool) {
    let mut framer = Framer::default();
    let mut events = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        while let Ok(Some(event)) = framer.next_event() {
            events.push((event.name.to_vec(), event.data.to_vec()));
        }
    }
    let has_rest = framer.has_rest();
    (events, has_rest)
}

fn translated(adapter: &dyn Adapter, pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let body = Bytes::from_static(b"{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    let Ok(request) = Request::parse(Operation::Chat, body) else { return Default::default() };
    with_target(|target| {
        let decoder = adapter.events(&request, target);
        let mut translator = Translator::new(adapter.framing(), decoder, true);
        let fed = pieces.iter().try_for_each(|piece| translator.feed(piece));
        let ended = fed.and_then(|()| translator.end());
        if ended.is_ok() {
            translator.writer_mut().close(None);
        }
        (translator.writer_mut().take(), format!("{ended:?}"))
    })
}

fn each_request(body: &[u8], mut visit: impl FnMut(&dyn Adapter, &Request, &Target<'_>)) {
    for operation in OPERATIONS {
        let Ok(request) = Request::parse(*operation, Bytes::copy_from_slice(body)) else { continue };
        for adapter in dialects().filter(|adapter| adapter.serves(*operation)) {
            with_target(|target| visit(adapter, &request, target));
        }
    }
}

fn with_target<T>(call: impl FnOnce(&Target<'_>) -> T) -> T {
    let (options, caller) = (Options::default(), HeaderMap::new());
    call(&Target { model: "real", asked: "m", options: &options, caller: &caller, now: 1_800_000_000 })
}
