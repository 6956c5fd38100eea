//! What clients may speak, over which listeners, and how a process that cannot listen says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Simulator;
use tokio::net::TcpStream;
use weir_tests::client::Call;
use weir_tests::http2::Http2;
use weir_tests::patience::until;
use weir_tests::process::{Folder, Process};
use weir_tests::provider::port_that_nobody_listens_at;
use weir_tests::raw::Raw;
use weir_tests::tls::Certificate;
use weir_tests::weir::{Config, KEY, Weir, binary};

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "one two three"}]})
}

fn streamed(model: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "one two three"}]})
}

fn with_key(headers: &str) -> String {
    format!("authorization: Bearer {KEY}\r\n{headers}")
}

const EMPTY: &str = "providers: {}\nmodels: []\ntenants: []\n";

const PLAIN: &str = "openai/gpt-5.5~events=5";

#[tokio::test]
async fn http2_with_prior_knowledge_serves_whole_answers_streams_and_errors() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let whole = client.post("/v1/chat/completions", &chat(PLAIN)).await;
    assert_eq!((whole.status.as_u16(), whole.ended), (200, true), "{whole:?}");
    assert!(whole.json()["choices"][0]["message"]["content"].is_string());
    let stream = client.post("/v1/chat/completions", &streamed(PLAIN)).await;
    assert!(stream.ended && stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let refused = client.send("POST", "/v1/chat/completions", "{").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (400, &json!("invalid_request")));
    let unknown = client.send("GET", "/v1/nowhere", "").await;
    assert_eq!((unknown.status.as_u16(), unknown.ended), (404, true));
    let head = client.send("HEAD", "/healthz", "").await;
    assert_eq!((head.status.as_u16(), head.ended, head.body.as_str()), (200, true, ""));
}

#[tokio::test]
async fn a_stream_that_breaks_off_over_http2_ends_with_its_error_and_a_reset() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    for _ in 0..20 {
        let cut = client.post("/v1/chat/completions", &streamed("openai/gpt-5.5~events=9~cut=3")).await;
        assert_eq!((cut.status.as_u16(), cut.ended), (200, false), "{cut:?}");
        assert!(cut.body.contains(r#"data: {"error":"#) && !cut.body.contains("[DONE]"), "{cut:?}");
    }
    let next = client.post("/v1/chat/completions", &chat(PLAIN)).await;
    assert_eq!(next.status, 200, "the connection serves on");
}

#[tokio::test]
async fn a_hundred_streams_run_side_by_side_over_one_http2_connection() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client.post("/v1/chat/completions", &streamed("openai/gpt-5.5~events=20~gap=5ms")).await
            })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert!(answer.ended && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_large_body_that_is_refused_before_it_was_read_gets_its_answer_over_http2() {
    let simulator = simulator();
    let weir = Config::of(&simulator).server("max_body: 1MiB").start().await;
    let client = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let refused = client.send("POST", "/v1/chat/completions", vec![b' '; 8 << 20]).await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.json()["error"]["code"], "request_too_large");
    assert_eq!(client.post("/v1/chat/completions", &chat(PLAIN)).await.status, 200, "the connection serves on");
}

#[tokio::test]
async fn tls_clients_get_http2_by_alpn_and_http1_without() {
    let simulator = simulator();
    let (folder, certificate) = (Folder::new(), Certificate::new());
    let cert = folder.write("cert.pem", &certificate.certificate);
    let key = folder.write("key.pem", &certificate.key);
    let tls = format!("tls: {{cert: '{}', key: '{}'}}", cert.display(), key.display());
    let weir = Config::of(&simulator).server(&tls).start().await;
    let stream = certificate.connect(weir.api(), &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let http2 = Http2::over(stream).await;
    assert!(http2.post("/v1/chat/completions", &streamed(PLAIN)).await.body.ends_with("data: [DONE]\n\n"));
    for protocols in [&["http/1.1"][..], &[]] {
        let mut http1 = Raw::over(certificate.connect(weir.api(), protocols).await.unwrap());
        for _ in 0..2 {
            http1.post("/v1/chat/completions", &with_key(""), chat(PLAIN).to_string()).await;
            assert_eq!(http1.answer().await.status, 200);
        }
    }
    let mut admin = Raw::over(certificate.connect(weir.admin(), &["h2", "http/1.1"]).await.unwrap());
    admin.send("GET /readyz HTTP/1.1\r\nhost: weir\r\n\r\n").await;
    assert_eq!(admin.answer().await.status, 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_a_reload_and_a_broken_one_is_not() {
    let simulator = simulator();
    let (folder, old, new) = (Folder::new(), Certificate::new(), Certificate::new());
    let cert = folder.write("cert.pem", &old.certificate);
    let key = folder.write("key.pem", &old.key);
    let tls =
        format!("listen: {{address: '127.0.0.1:0', tls: {{cert: '{}', key: '{}'}}}}", cert.display(), key.display());
    let weir = Config::of(&simulator).server(&tls).start().await;
    let reload = || Call::new(weir.admin(), "POST", "/admin/v1/config/reload").send();
    folder.write("cert.pem", &new.certificate);
    let refused = reload().await;
    assert_eq!(refused.status, 422, "the key is still the old one's");
    assert!(refused.text().await.contains("does not fit"));
    assert!(old.connect(weir.api(), &[]).await.is_ok());
    folder.write("key.pem", &new.key);
    assert_eq!(reload().await.status, 200);
    assert!(new.connect(weir.api(), &[]).await.is_ok());
    assert!(old.connect(weir.api(), &[]).await.is_err());
}

#[tokio::test]
async fn every_listener_of_a_list_serves() {
    let simulator = simulator();
    let (folder, certificate) = (Folder::new(), Certificate::new());
    let cert = folder.write("cert.pem", &certificate.certificate);
    let key = folder.write("key.pem", &certificate.key);
    let yaml = format!(
        "version: 1\nserver: {{admin: null, listen: ['127.0.0.1:0', '127.0.0.1:0', {{address: '127.0.0.1:0', tls: {{cert: '{}', key: \
         '{}'}}}}]}}\nproviders: {{openai: {{base_url: 'http://{}/v1', credentials: [{{id: a, api_key: k}}]}}}}\nmodels: []\ntenants: []\n",
        cert.display(),
        key.display(),
        simulator.addr()
    );
    folder.write("weir.yaml", &yaml);
    let process = Process::start(folder.path(), &["serve", "--config", "weir.yaml"], &[]);
    process.line("weir: api on https://").await.unwrap();
    let addresses = process.lines("weir: api on http");
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        let (scheme, address) = address.split_once("://").unwrap();
        let request = "GET /readyz HTTP/1.1\r\nhost: weir\r\n\r\n";
        let answer = if scheme == "s" {
            let mut raw = Raw::over(certificate.connect(address.parse().unwrap(), &[]).await.unwrap());
            raw.send(request).await;
            raw.answer().await
        } else {
            let mut raw = Raw::connect(address.parse().unwrap()).await;
            raw.send(request).await;
            raw.answer().await
        };
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other_also_after_a_refusal() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut raw = Raw::connect(weir.api()).await;
    let body = chat(PLAIN).to_string();
    for _ in 0..3 {
        raw.post("/v1/chat/completions", &with_key(""), &body).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
        raw.post("/v1/chat/completions", &with_key(""), streamed(PLAIN).to_string()).await;
        assert!(raw.answer().await.body.ends_with(b"data: [DONE]\n\n"));
        raw.post("/v1/chat/completions", "", &body).await;
        assert_eq!(raw.answer().await.status, 401);
        raw.post("/v1/nowhere", &with_key(""), &body).await;
        assert_eq!(raw.answer().await.status, 404);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let mut raw = Raw::connect(weir.api()).await;
    let mut wire = String::new();
    for number in 0..5 {
        let body = if number % 2 == 0 { chat(PLAIN) } else { streamed("openai/gpt-5.5~events=3~first=50ms") };
        let (body, headers) = (body.to_string(), with_key(&format!("x-request-id: pipelined-{number}\r\n")));
        wire += &format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    raw.send(wire).await;
    for number in 0..5 {
        let answer = raw.answer().await;
        let id = format!("pipelined-{number}");
        assert_eq!((answer.status, answer.header("x-request-id")), (200, Some(id.as_str())));
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks_and_a_closed_connection() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for body in [chat(PLAIN), streamed(PLAIN)] {
        let (is_stream, body) = (body["stream"].as_bool().is_some(), body.to_string());
        let mut raw = Raw::connect(weir.api()).await;
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.0\r\n{}content-length: {}\r\n\r\n{body}",
            with_key(""),
            body.len()
        ))
        .await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None), "{}", answer.head);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.body.ends_with(b"data: [DONE]\n\n"), is_stream);
        assert!(raw.rest().await.is_empty());
    }
}

#[tokio::test]
async fn health_is_told_on_both_listeners_without_a_key() {
    let weir = Config::new().start().await;
    for address in [weir.api(), weir.admin()] {
        for path in ["/healthz", "/readyz"] {
            let answer = Call::new(address, "GET", path).send().await;
            assert_eq!(answer.status, 200, "{address} {path}");
            assert!(answer.json().await["status"].is_string());
        }
    }
}

/// Starts with this file, waits for the end, and gives the exit code and what was said.
async fn refused(yaml: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = Folder::new();
    folder.write("weir.yaml", yaml);
    let began = Instant::now();
    let mut process = Process::start(folder.path(), &["serve", "--config", "weir.yaml"], environment);
    let status = process.ended().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    (status.code(), process.stderr())
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error_at_once() {
    for listener in ["listen", "admin"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let other = if listener == "listen" { "admin" } else { "listen" };
        let yaml = format!("version: 1\nserver: {{{listener}: '{address}', {other}: '127.0.0.1:0'}}\n{EMPTY}");
        let (code, said) = refused(&yaml, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("cannot listen on {address}: another process does")), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn nobody_who_reads_what_it_prints_is_needed() {
    let folder = Folder::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    folder.write("weir.yaml", &format!("version: 1\nserver: {{listen: '{free}', admin: '127.0.0.1:0'}}\n{EMPTY}"));
    let process = Process::deaf(folder.path(), &["serve", "--config", "weir.yaml"]);
    assert!(until(|| std::net::TcpStream::connect(free).is_ok()).await, "{}", process.stderr());
    for _ in 0..20 {
        assert_eq!(Call::new(free, "GET", "/healthz").send().await.status, 200);
    }
    assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_a_clear_error_at_start() {
    let (folder, one, other) = (Folder::new(), Certificate::new(), Certificate::new());
    let cert = folder.write("cert.pem", &one.certificate);
    let key = folder.write("key.pem", &one.key);
    let other_key = folder.write("other.pem", &other.key);
    let empty = folder.write("empty.pem", "");
    let missing = folder.path().join("missing.pem");
    for (cert, key, wanted) in [
        (&missing, &key, "missing.pem"),
        (&cert, &missing, "missing.pem"),
        (&empty, &key, "there is none"),
        (&cert, &empty, "cannot read a key"),
        (&cert, &cert, "cannot read a key"),
        (&cert, &other_key, "does not fit"),
    ] {
        let tls = format!("{{cert: '{}', key: '{}'}}", cert.display(), key.display());
        let yaml = format!("version: 1\nserver: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0', tls: {tls}}}\n{EMPTY}");
        let (code, said) = refused(&yaml, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(wanted) && !said.contains("panicked"), "{wanted}: {said}");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_set_is_named() {
    let yaml = |provider: &str, server: &str| {
        format!(
            "version: 1\nserver: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0'{server}}}\nproviders: {{openai: \
             {{credentials: [{{id: a, api_key: {provider}}}]}}}}\nmodels: []\ntenants: []\n"
        )
    };
    for (yaml, wanted) in [
        (yaml("env:NOT_SET_AT_ALL", ""), "NOT_SET_AT_ALL"),
        (yaml("file:/nowhere/at-all", ""), "/nowhere/at-all"),
        (yaml("literal", ", admin_token: env:NO_TOKEN_EITHER"), "NO_TOKEN_EITHER"),
    ] {
        let (code, said) = refused(&yaml, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(wanted) && !said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn the_quickstart_serves_in_an_empty_folder_and_its_curl_line_works() {
    let folder = Folder::new();
    // The quickstart listens where its curl line says: on the ports of the documentation.
    let process = Process::start(folder.path(), &[], &[]);
    let Some(_) = process.line("weir: admin on ").await else {
        let said = process.stderr();
        assert!(said.contains("another process does"), "{said}");
        return;
    };
    let said = process.stderr();
    let line = said.lines().find_map(|line| line.trim().strip_prefix("curl ")).unwrap();
    let output = tokio::process::Command::new("sh").arg("-c").arg(format!("curl -sS {line}")).output().await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
}

/// How `weir healthcheck` ends for a Weir with this section `server`.
fn healthcheck(weir: &Weir, server: &str) -> Option<i32> {
    let file = weir.folder().join("healthcheck.yaml");
    std::fs::write(&file, format!("server: {server}\n{EMPTY}")).unwrap();
    Command::new(binary()).arg("healthcheck").arg("--config").arg(file).status().unwrap().code()
}

#[tokio::test]
async fn its_own_healthcheck_tells_whether_it_is_ready_whatever_its_listeners_speak() {
    let weir = Config::new().start().await;
    let (api, admin) = (weir.api(), weir.admin());
    let (_kept, nobody) = port_that_nobody_listens_at();
    assert_eq!(healthcheck(&weir, &format!("{{listen: '{api}', admin: '{admin}'}}")), Some(0));
    assert_eq!(healthcheck(&weir, &format!("{{listen: '{api}', admin: null}}")), Some(0));
    assert_eq!(healthcheck(&weir, &format!("{{listen: '{api}', admin: '{nobody}'}}")), Some(1));
    // Of what only speaks TLS it is known whether it takes connections.
    let tls = "tls: {cert: c.pem, key: k.pem}";
    assert_eq!(healthcheck(&weir, &format!("{{listen: '{api}', admin: null, {tls}}}")), Some(0));
    assert_eq!(healthcheck(&weir, &format!("{{listen: '{nobody}', admin: null, {tls}}}")), Some(1));
}
