//! The end of a process: what is under way ends first, nothing new begins, and what does not end in time is cut and
//! said.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use weir_tests::client::{Answer, Call, End};
use weir_tests::http2::Http2;
use weir_tests::patience::{until, within};
use weir_tests::process::Process;
use weir_tests::raw::Raw;
use weir_tests::weir::{Config, KEY, Weir};

fn simulator() -> Simulator {
    simulator::start(simulator::Config::default()).unwrap()
}

fn streamed(directives: &str) -> Value {
    json!({"model": format!("openai/gpt-5.5~{directives}"), "stream": true, "messages": [{"role": "user", "content": "x"}]})
}

/// Streams whose first event has come.
async fn streams(weir: &Weir, count: usize, directives: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let mut answer = weir.chat().json(&streamed(directives)).send().await;
        assert!(answer.event().await.is_some());
        answers.push(answer);
    }
    answers
}

async fn is_draining(weir: &Weir) {
    loop {
        let ready = Call::new(weir.admin(), "GET", "/readyz").send().await;
        if ready.status == 503 {
            assert_eq!(ready.json().await, json!({"status": "draining"}));
            return;
        }
    }
}

async fn connects(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

#[tokio::test]
async fn a_hundred_streams_end_whole_while_nothing_new_begins() {
    for signal in ["TERM", "INT"] {
        let simulator = simulator();
        let mut weir = Config::of(&simulator).start().await;
        let answers = streams(&weir, 100, "events=150~gap=10ms").await;
        let ids: Vec<_> = answers.iter().map(Answer::id).collect();
        weir.signal(signal);
        is_draining(&weir).await;
        assert!(weir.metrics().await.contains("weir_in_flight"), "the admin listener tells how far it is");
        while connects(weir.api()).await {}
        let reading: Vec<_> = answers
            .into_iter()
            .map(|mut answer| {
                tokio::spawn(async move {
                    let (events, end) = answer.events().await;
                    (events.last().unwrap().is_done(), end)
                })
            })
            .collect();
        for read in reading {
            assert_eq!(read.await.unwrap(), (true, End::Whole));
        }
        assert_eq!(weir.ended().await.code(), Some(0));
        let log = weir.log();
        for id in ids {
            let line = log.iter().find(|line| line["request_id"] == id).unwrap();
            assert_eq!((&line["status"], &line["incomplete"]), (&json!(200), &json!(false)), "{line}");
        }
        let said = weir.stderr();
        assert!(said.contains("draining") && said.contains("drained") && !said.contains("ERROR"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_and_logged() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).server("drain: 1s").start().await;
    let answers = streams(&weir, 5, "events=50~silence=3").await;
    let waiting = weir.chat().json(&json!({"model": "openai/gpt-5.5~delay=60s", "messages": []})).begin().await;
    simulator.until(|account| account.in_flight == 6).await;
    let began = Instant::now();
    weir.signal("TERM");
    assert_eq!(weir.ended().await.code(), Some(0));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    let log = weir.log();
    for mut answer in answers {
        let id = answer.id();
        let (text, end) = answer.rest().await;
        assert!(end == End::Aborted && !text.contains("[DONE]"), "{text}");
        assert_eq!(text.matches(r#""code":"draining""#).count(), 1, "{text}");
        let line = log.iter().find(|line| line["request_id"] == id).unwrap();
        assert_eq!((&line["error"], &line["code"]), (&json!("gateway_fault"), &json!("draining")), "{line}");
        assert_eq!(line["incomplete"], true, "{line}");
    }
    let refused = waiting.outcome().await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("x-weir-error")), (503, Some("gateway_fault")));
    assert_eq!(log.iter().filter(|line| line["status"] == 503).count(), 1);
    assert_eq!(log.len(), 6);
    assert!(weir.stderr().contains("the time to drain is over"));
    simulator.until(|account| account.in_flight == 0).await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).start().await;
    let get = format!("GET /v1/models HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {KEY}\r\n\r\n");
    let mut used = Raw::connect(weir.api()).await;
    used.send(&get).await;
    assert_eq!(used.answer().await.header("connection"), Some("keep-alive"));
    let mut fresh = Raw::connect(weir.api()).await;
    let mut begun = Raw::connect(weir.api()).await;
    begun.send("GET /v1/mod").await;
    let mut http2 = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    assert_eq!(http2.send("GET", "/v1/models", "").await.status, 200);
    let mut admin = Raw::connect(weir.admin()).await;
    admin.send("GET /readyz HTTP/1.1\r\nhost: w\r\n\r\n").await;
    assert_eq!(admin.answer().await.status, 200);
    let began = Instant::now();
    weir.signal("TERM");
    for raw in [&mut used, &mut fresh, &mut begun] {
        assert!(raw.rest().await.is_empty());
    }
    assert_eq!(weir.ended().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!http2.ready().await);
}

#[tokio::test]
async fn streams_over_http2_and_answers_to_slow_readers_end_whole() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).start().await;
    let http2 = Http2::over(TcpStream::connect(weir.api()).await.unwrap()).await;
    let stream = {
        let http2 = http2.clone();
        tokio::spawn(async move { http2.post("/v1/chat/completions", &streamed("events=100~gap=10ms")).await })
    };
    let mut slow = Raw::connect(weir.api()).await;
    let body = json!({"model": "openai/gpt-5.5~size=10m", "messages": [{"role": "user", "content": "x"}]}).to_string();
    slow.post("/v1/chat/completions", &format!("authorization: Bearer {KEY}\r\nx-request-id: slow\r\n"), body).await;
    let slowly = tokio::spawn(async move { slow.answer_slowly(1 << 20, Duration::from_millis(100)).await });
    simulator.until(|account| account.requests == 2).await;
    weir.signal("TERM");
    let stream = stream.await.unwrap();
    assert!(stream.ended && stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
    let answer = slowly.await.unwrap().unwrap();
    assert_eq!(answer.header("content-length").unwrap().parse(), Ok(answer.body.len()));
    assert_eq!(weir.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).start().await;
    let answers = streams(&weir, 3, "events=50~silence=3").await;
    weir.signal("INT");
    is_draining(&weir).await;
    let began = Instant::now();
    weir.signal("INT");
    assert_eq!(weir.ended().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for mut answer in answers {
        assert_eq!(answer.rest().await.1, End::Aborted);
    }
    assert_eq!(weir.log().len(), 3);
}

#[tokio::test]
async fn a_request_that_comes_as_the_process_ends_is_served_or_refused_by_a_closed_connection() {
    let simulator = simulator();
    for _ in 0..5 {
        let mut weir = Config::of(&simulator).start().await;
        let mut connections = Vec::new();
        let get = format!("GET /v1/models HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {KEY}\r\n\r\n");
        for _ in 0..20 {
            let mut raw = Raw::connect(weir.api()).await;
            raw.send(&get).await;
            assert_eq!(raw.answer().await.status, 200);
            connections.push(raw);
        }
        weir.signal("TERM");
        for raw in &mut connections {
            raw.send(&get).await;
        }
        for raw in &mut connections {
            if let Some(answer) = raw.outcome().await {
                assert_eq!(answer.status, 200);
            }
        }
        assert_eq!(weir.ended().await.code(), Some(0));
    }
}

/// Starts the next process for the sockets of `weir`, and waits until it waits for them.
async fn next(weir: &Weir, config: &Config) -> Process {
    next_at(weir, config, &[weir.api()]).await
}

/// The same with these addresses for the API.
async fn next_at(weir: &Weir, config: &Config, addresses: &[SocketAddr]) -> Process {
    let listen = format!("listen: {:?}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
    let admin = format!("admin: '{}'", weir.admin());
    fs::write(weir.folder().join("weir.yaml"), config.clone().server(&listen).server(&admin).yaml(weir.folder()))
        .unwrap();
    let next = Process::start(weir.folder(), &["serve", "--upgrade", "--config", "weir.yaml"], &[]);
    next.line("weir: waiting for the sockets").await.unwrap();
    next
}

/// Has `weir` send its sockets to this test in the place of a next process.
async fn has_sockets(weir: &Weir) -> UnixStream {
    let path = weir.folder().join("data/upgrade.sock");
    let _none_before = fs::remove_file(&path);
    let next = UnixListener::bind(path).unwrap();
    weir.signal("QUIT");
    let mut stream = within("the next process", next.accept()).await.unwrap().0;
    within("the sockets", stream.read_exact(&mut [0])).await.unwrap();
    stream
}

#[tokio::test]
async fn the_next_process_takes_over_without_one_refused_connection() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let mut weir = config.start().await;
    let mut under_way = streams(&weir, 5, "events=300~gap=10ms").await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = [weir.api(), weir.admin()]
        .into_iter()
        .map(|address| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let mut count = 0;
                while !over.load(Ordering::Acquire) {
                    let answer = Call::new(address, "GET", "/healthz").send().await;
                    assert_eq!(answer.status, 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let next = next(&weir, &config.clone().model("{name: of-the-next, targets: [{provider: openai, model: x}]}")).await;
    weir.signal("QUIT");
    assert_eq!(next.line("weir: api on http://").await.unwrap(), weir.api().to_string());
    assert_eq!(next.line("weir: admin on http://").await.unwrap(), weir.admin().to_string());
    for answer in &mut under_way {
        let (events, end) = answer.events().await;
        assert!(end == End::Whole && events.last().unwrap().is_done());
    }
    assert_eq!(weir.ended().await.code(), Some(0), "{}", weir.stderr());
    let body = json!({"model": "of-the-next", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(weir.chat().json(&body).send().await.status, 200);
    assert!(weir.metrics().await.contains("weir_config_generation 1"));
    over.store(true, Ordering::Release);
    for caller in callers {
        assert!(caller.await.unwrap() > 20);
    }
    let said = next.stderr();
    assert!(!said.contains("panicked") && !weir.stderr().contains("panicked"), "{said}");
    for answer in under_way {
        assert_eq!(weir.logged(&answer.id()).await["incomplete"], false, "the old process's log is complete");
    }
}

#[tokio::test]
async fn a_next_process_that_fails_with_the_sockets_in_hand_ends_nothing() {
    let simulator = simulator();
    let config = Config::of(&simulator);
    let mut weir = config.start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut failing = next_at(&weir, &config, &[weir.api(), taken.local_addr().unwrap()]).await;
    weir.signal("QUIT");
    assert_eq!(failing.ended().await.code(), Some(1));
    assert!(until(|| weir.stderr().contains("does not serve: cannot listen on")).await);
    drop(has_sockets(&weir).await);
    assert!(until(|| weir.stderr().contains("ended before it served. Serving on.")).await);
    let mut serving = has_sockets(&weir).await;
    serving.write_all(b"serving\n").await.unwrap();
    drop(serving);
    assert!(until(|| weir.stderr().contains("ended as soon as it served. Serving on.")).await);
    assert!(!weir.stderr().contains("draining"), "{}", weir.stderr());
    assert_eq!(weir.get("/v1/models").send().await.status, 200);
    assert_eq!(Call::new(weir.admin(), "GET", "/readyz").send().await.status, 200);
    let next = next(&weir, &config).await;
    weir.signal("QUIT");
    assert_eq!(next.line("weir: api on http://").await.unwrap(), weir.api().to_string());
    assert_eq!(weir.ended().await.code(), Some(0), "{}", weir.stderr());
    assert_eq!(weir.get("/v1/models").send().await.status, 200);
}

#[tokio::test]
async fn a_second_sigquit_cuts_nothing_but_a_sigterm_does() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).start().await;
    let mut whole = streams(&weir, 1, "events=300~gap=10ms").await;
    let endless = streams(&weir, 1, "events=50~silence=3").await;
    let mut next = has_sockets(&weir).await;
    weir.signal("QUIT");
    next.write_all(b"serving\n").await.unwrap();
    assert!(until(|| weir.stderr().contains("draining")).await);
    weir.signal("QUIT");
    let (events, end) = whole.remove(0).events().await;
    assert!(end == End::Whole && events.last().unwrap().is_done(), "{}", weir.stderr());
    weir.signal("TERM");
    assert_eq!(weir.ended().await.code(), Some(0));
    assert!(weir.stderr().contains("told again to end: requests are cut in_flight=1"), "{}", weir.stderr());
    for mut answer in endless {
        assert_eq!(answer.rest().await.1, End::Aborted);
    }
}

#[tokio::test]
async fn sigterm_ends_a_process_that_waits_for_the_next_one() {
    let simulator = simulator();
    let mut weir = Config::of(&simulator).start().await;
    let _silent = has_sockets(&weir).await;
    weir.signal("TERM");
    assert_eq!(weir.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_next_process_sigquit_ends_nothing() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    weir.signal("QUIT");
    assert!(until(|| weir.stderr().contains("Serving on")).await);
    let body = json!({"model": "openai/gpt-5.5", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(weir.chat().json(&body).send().await.status, 200);
    assert_eq!(Call::new(weir.admin(), "GET", "/readyz").send().await.status, 200);
}

#[tokio::test]
async fn a_next_process_with_a_bad_configuration_takes_nothing() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    fs::write(weir.folder().join("bad.yaml"), "version: 1\nmodles: []\n").unwrap();
    let mut next = Process::start(weir.folder(), &["serve", "--upgrade", "--config", "bad.yaml"], &[]);
    assert_eq!(next.ended().await.code(), Some(1));
    assert_eq!(weir.get("/v1/models").send().await.status, 200);
}
