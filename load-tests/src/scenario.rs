//! What is measured: each scenario with its request, its load and what is looked at.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::Watch;
use crate::gateway::KEY;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many connections, each sending its next request when the last has ended.
    Closed(usize),
    /// So many requests a second, whatever becomes of them; latency counts from the intended time.
    Open(u32),
    /// So many streams that are open and silent, and then probes of readiness.
    Held(usize),
}

/// Who answers behind the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    OpenAi,
    /// Weir is asked in OpenAI's words and translates; nginx and the simulator are asked in Anthropic's own.
    Anthropic,
}

/// Whole or streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole,
    Streamed,
}

/// What is reported of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    CpuPerRequest,
    CpuPerEvent,
    Rate,
    LatencyMiddle,
    LatencyHigh,
    FirstMiddle,
    FirstHigh,
    DelayMiddle,
    DelayHigh,
    IdleMemory,
    MemoryPerStream,
    ReadinessHigh,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) upstream: Upstream,
    /// The model at the provider, with its directives.
    pub(crate) model: &'static str,
    pub(crate) answer: Answer,
    /// Bytes of the prompt.
    pub(crate) size: usize,
    pub(crate) load: Load,
    pub(crate) watch: Watch,
    pub(crate) measures: &'static [Measure],
}

use Measure::{
    CpuPerEvent, CpuPerRequest, DelayHigh, DelayMiddle, FirstHigh, FirstMiddle, IdleMemory, LatencyHigh, LatencyMiddle,
    MemoryPerStream, Rate, ReadinessHigh,
};

/// The model that plain requests ask for.
const PLAIN: &str = "gpt-5.5";

/// Every scenario, in the order of the report.
pub(crate) fn all(held: usize) -> Vec<Scenario> {
    let plain = Scenario {
        name: "json-1k-c64",
        title: "1 kB JSON chat, 64 connections",
        upstream: Upstream::OpenAi,
        model: PLAIN,
        answer: Answer::Whole,
        size: 1_000,
        load: Load::Closed(64),
        watch: Watch::End,
        measures: &[CpuPerRequest, Rate, LatencyMiddle, LatencyHigh],
    };
    let stream = Scenario { answer: Answer::Streamed, watch: Watch::Events, ..plain.clone() };
    vec![
        Scenario { name: "json-1k-c1", title: "1 kB JSON chat, 1 connection", load: Load::Closed(1), ..plain.clone() },
        Scenario {
            name: "json-1k-c32",
            title: "1 kB JSON chat, 32 connections",
            load: Load::Closed(32),
            ..plain.clone()
        },
        plain.clone(),
        Scenario {
            name: "json-1k-c256",
            title: "1 kB JSON chat, 256 connections",
            load: Load::Closed(256),
            ..plain.clone()
        },
        Scenario {
            name: "body-200k",
            title: "200 kB request body, 16 connections",
            size: 200_000,
            load: Load::Closed(16),
            measures: &[CpuPerRequest, Rate],
            ..plain.clone()
        },
        Scenario {
            name: "body-2m",
            title: "2 MB request body, 8 connections",
            size: 2_000_000,
            load: Load::Closed(8),
            measures: &[CpuPerRequest, Rate],
            ..plain.clone()
        },
        Scenario {
            name: "sse-64",
            title: "64 streams of 100 events, 2 ms apart",
            model: "gpt-5.5~events=100~gap=2ms",
            measures: &[CpuPerEvent, FirstMiddle, FirstHigh],
            ..stream.clone()
        },
        Scenario {
            name: "anthropic-json",
            title: "OpenAI in, Anthropic behind, whole, 64 connections",
            upstream: Upstream::Anthropic,
            model: "claude-sonnet-4-6",
            measures: &[CpuPerRequest, Rate, LatencyMiddle],
            ..plain.clone()
        },
        Scenario {
            name: "anthropic-sse",
            title: "OpenAI in, Anthropic behind, 64 streams of 100 events, 2 ms apart",
            upstream: Upstream::Anthropic,
            model: "claude-sonnet-4-6~events=100~gap=2ms",
            measures: &[CpuPerEvent, FirstMiddle],
            ..stream.clone()
        },
        Scenario {
            name: "held",
            title: "idle streams held",
            model: "gpt-5.5~silence=1",
            load: Load::Held(held),
            measures: &[IdleMemory, MemoryPerStream, ReadinessHigh],
            ..stream.clone()
        },
        Scenario {
            name: "open-1000",
            title: "1,000 requests a second, open loop",
            load: Load::Open(1_000),
            measures: &[LatencyMiddle, LatencyHigh, CpuPerRequest],
            ..plain
        },
        Scenario {
            name: "first-token",
            title: "first token of a stream, 200 streams a second, open loop",
            model: "gpt-5.5~events=5",
            load: Load::Open(200),
            measures: &[FirstMiddle, FirstHigh],
            ..stream.clone()
        },
        Scenario {
            name: "event-delay",
            title: "an event's way from provider to caller, 16 streams of 100 events, 2 ms apart",
            model: "gpt-5.5~stamp~events=100~gap=2ms",
            load: Load::Closed(16),
            watch: Watch::Stamps,
            measures: &[DelayMiddle, DelayHigh],
            ..stream
        },
    ]
}

impl Scenario {
    /// The name under which Weir's configuration has the model.
    pub(crate) fn alias(&self) -> String {
        format!("load-{}", self.name)
    }

    /// What Weir is asked: OpenAI's words, and the alias.
    pub(crate) fn to_weir(&self) -> Template {
        Template::new("/v1/chat/completions", self.body(&self.alias()))
    }

    /// What the provider is asked, directly or through nginx, whose streams have a path without buffering.
    pub(crate) fn to_provider(&self, prefix: &str) -> Template {
        let path = match self.upstream {
            Upstream::OpenAi => "/v1/chat/completions",
            Upstream::Anthropic => "/v1/messages",
        };
        Template::new(&format!("{prefix}{path}"), self.body(self.model))
    }

    fn body(&self, model: &str) -> Value {
        let mut body = json!({
            "model": model,
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": prompt(self.size)}],
        });
        if self.answer == Answer::Streamed {
            body["stream"] = true.into();
        }
        body
    }

    /// How long a round lasts: streams are slow, and need some.
    pub(crate) fn window(&self, time: Duration) -> Duration {
        match self.answer {
            Answer::Whole => time,
            Answer::Streamed => time.max(Duration::from_millis(800)),
        }
    }
}

/// Words up to so many bytes.
fn prompt(size: usize) -> String {
    let mut text = "Please tell me about the weather in the mountains and by the sea. ".repeat(size / 66 + 1);
    text.truncate(size);
    text
}

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Template {
    fn new(path: &str, body: Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("gateway"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("anthropic-version", HeaderValue::from_static("2026-10-21"));
        headers.extend(HeaderValue::from_str(&format!("Bearer {KEY}")).ok().map(|key| (AUTHORIZATION, key)));
        Self { path: path.to_owned(), headers, body: body.to_string().into() }
    }

    /// A `GET` of `path`.
    pub(crate) fn get(path: &str) -> Self {
        Self { body: Bytes::new(), ..Self::new(path, Value::Null) }
    }

    /// The request, once more.
    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        if !self.body.is_empty() {
            *request.method_mut() = http::Method::POST;
        }
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
