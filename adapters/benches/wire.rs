//! What a request and a stream cost on the way through: `cargo bench -p adapters`.
//!
//! The index of 208 kB of conversation is to take 30 µs at most and that of 1 kB 0.3 µs; saying 1 kB in Anthropic's
//! words 3 µs.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and has nobody to document for")]

use std::hint::black_box;

use adapters::index::Index;
use adapters::request::Edit;
use adapters::{Adapter, Operation, Options, Request, Target, Translator};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;

const REPLY: &str = r#"{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","model":"claude-opus-4-8","content":[{"type":"text","text":"The quick brown fox jumps over the lazy dog.\nTwice."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":200,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":12,"service_tier":"standard"}}"#;

/// A conversation of about that many bytes, with escapes as texts have them.
fn conversation(bytes: usize) -> Bytes {
    let text = "She read it aloud, twice, and put it back where it had been.\\nThen it rained, as it does there in autumn, for a \
                long while, and nobody came. He said \\\"yes\\\" and went on to the next line.\\nIt was about a house by the sea, and \
                whoever had lived in it. ";
    let mut body = String::from(
        r#"{"model":"chat","temperature":0.7,"stream":true,"messages":[{"role":"system","content":"You are brief."}"#,
    );
    let mut role = "user";
    while body.len() + 2 < bytes {
        let length = (bytes - body.len()).clamp(1, 4_000);
        let said: String = text.repeat(length / text.len() + 1);
        body += &format!(r#",{{"role":"{role}","content":"{said}"}}"#);
        role = if role == "user" { "assistant" } else { "user" };
    }
    (body + "]}").into()
}

/// A body that is numbers for the most part, as the tokens of an embedding request are.
fn numbers(bytes: usize) -> Bytes {
    let mut body = String::from(r#"{"model":"chat","input":[0"#);
    while body.len() < bytes {
        body += ",-0.0213456,17843";
    }
    (body + "]}").into()
}

/// A body that is structure for the most part: schemas of tools.
fn schemas(bytes: usize) -> Bytes {
    let mut body = String::from(r#"{"model":"chat","tools":[{}"#);
    while body.len() < bytes {
        body += r#",{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":["string","null"]},"b":{"type":"integer","minimum":1}},"required":["a","b"]}}}"#;
    }
    (body + "]}").into()
}

fn parse(body: &Bytes) -> Request {
    Request::parse(Operation::Chat, body.clone()).unwrap()
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let bodies = [
        ("1kB", conversation(1_000)),
        ("208kB", conversation(208_000)),
        ("208kB-numbers", numbers(208_000)),
        ("208kB-schemas", schemas(208_000)),
    ];
    for (name, body) in &bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |bencher| bencher.iter(|| parse(black_box(body))));
    }
    group.finish();
    let mut group = criterion.benchmark_group("index");
    for (name, body) in &bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut index = Index::default();
        group.bench_function(*name, |bencher| bencher.iter(|| index.read(black_box(body)).unwrap()));
    }
    group.finish();
    for (name, body) in bodies.iter().take(2) {
        let request = parse(body);
        let edits = [Edit::Set("model", Bytes::from_static(b"\"gpt-5.5\""))];
        criterion
            .bench_function(&format!("rewrite/{name}"), |bencher| bencher.iter(|| request.rewrite(black_box(&edits))));
        for kind in adapters::provider::kinds() {
            let adapter = adapters::provider::of_kind(kind).unwrap();
            with_target(|to| {
                criterion.bench_function(&format!("encode/{kind}/{name}"), |bencher| {
                    bencher.iter(|| adapter.encode(black_box(&request), to).unwrap());
                });
            });
        }
    }
}

fn answers(criterion: &mut Criterion) {
    let request = parse(&conversation(1_000));
    let anthropic = adapters::provider::of_kind("anthropic").unwrap();
    let openai = adapters::provider::of_kind("openai").unwrap();
    with_target(|to| {
        let native = Bytes::from_static(REPLY.as_bytes());
        let said = anthropic.decode(&request, to, native.clone()).unwrap().body.joined();
        for (adapter, body) in [(anthropic, native), (openai, said)] {
            criterion.bench_function(&format!("decode/{}", adapter.name()), |bencher| {
                bencher.iter(|| adapter.decode(&request, to, black_box(body.clone())).unwrap());
            });
        }
    });
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" quick\"}}\n\n";
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    feed(criterion, anthropic, &request, start, delta);
    let chunk = "data: {\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\",\"created\":1790000001,\"model\":\"gpt-5.5\",\"service_tier\":\"default\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" quick\"},\"logprobs\":null,\"finish_reason\":null}],\"obfuscation\":\"aZ3x\"}\n\n";
    feed(criterion, openai, &request, chunk, chunk);
}

/// One event more of a stream that has begun.
fn feed(criterion: &mut Criterion, adapter: &dyn Adapter, request: &Request, start: &str, event: &str) {
    with_target(|to| {
        let mut translator = Translator::new(adapter.framing(), adapter.events(request, to), true);
        translator.feed(start.as_bytes()).unwrap();
        criterion.bench_function(&format!("feed/{}", adapter.name()), |bencher| {
            bencher.iter(|| {
                translator.feed(black_box(event.as_bytes())).unwrap();
                translator.writer_mut().take()
            });
        });
    });
}

/// A target whose model goes by another name, as most do.
fn with_target(run: impl FnOnce(&Target<'_>)) {
    let (options, caller) = (Options::default(), HeaderMap::new());
    run(&Target { model: "claude-opus-4-8", asked: "chat", options: &options, caller: &caller, now: 1_790_000_000 });
}

criterion_group!(benches, requests, answers);
criterion_main!(benches);
