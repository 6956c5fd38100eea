//! The stream contract, over real sockets: what goes out when, and how a stream ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use weir_tests::client::End;
use weir_tests::weir::Config;

#[tokio::test]
async fn a_whole_stream_ends_with_done() {
    let simulator = simulator::start(simulator::Config::default()).unwrap();
    let weir = Config::of(&simulator).start().await;
    for model in ["openai/gpt-5.5~events=5", "claude/claude-sonnet-4-6~events=5"] {
        let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "one two three"}]});
        let mut answer = weir.chat().json(&body).send().await;
        assert_eq!(answer.status, 200);
        let (events, end) = answer.events().await;
        assert!(events.last().unwrap().is_done(), "{events:?}");
        assert_eq!(end, End::Whole);
        let line = weir.logged(&answer.id()).await;
        assert_eq!((&line["status"], &line["incomplete"]), (&json!(200), &json!(false)));
    }
}
