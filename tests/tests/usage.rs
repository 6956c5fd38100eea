//! Usage: always known to Weir, told to the caller that asked, counted alike however the answer comes.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use weir_tests::ask::{MODELS, chat, chunk, simulator, stream, stream_with_usage, with};
use weir_tests::client::Event;
use weir_tests::provider::{Provider, STREAM};
use weir_tests::weir::{Config, Weir};

/// The chunks that carry usage.
fn usage_chunks(events: &[Event]) -> Vec<Value> {
    let chunks = events.iter().filter(|event| event.data.is_some() && !event.is_done()).map(Event::json);
    chunks.filter(|chunk| chunk.get("usage").is_some_and(|usage| !usage.is_null())).collect()
}

async fn logged_usage(weir: &Weir, request: &Value) -> (Value, Value) {
    let mut answer = weir.chat().json(request).send().await;
    answer.rest().await;
    let line = weir.logged(&answer.id()).await;
    (line["usage"].clone(), line["accuracy"].clone())
}

#[tokio::test]
async fn a_caller_sees_exactly_one_usage_chunk_when_it_asked_and_none_when_it_did_not() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let asked = |options: Value| with(stream(model), "stream_options", options);
        let cases = [
            (stream(model), 0),
            (asked(Value::Null), 0),
            (asked(json!({})), 0),
            (asked(json!({"include_usage": null})), 0),
            (asked(json!({"include_usage": false})), 0),
            (asked(json!({"include_usage": true})), 1),
        ];
        for (request, count) in cases {
            simulator.reset();
            let mut answer = weir.chat().json(&request).send().await;
            assert_eq!(answer.status, 200, "{request}");
            let (events, _) = answer.events().await;
            let chunks = usage_chunks(&events);
            assert_eq!(chunks.len(), count, "{model}: {chunks:?}");
            assert!(events.last().unwrap().is_done());
            let row = simulator.account().rows[0].clone();
            let line = weir.logged(&answer.id()).await;
            assert_eq!(line["usage"]["input_tokens"], row.input_tokens, "{line}");
            assert_eq!(line["usage"]["output_tokens"], row.output_tokens, "{line}");
            assert_eq!(line["accuracy"], "exact");
            for chunk in chunks {
                assert_eq!(chunk["choices"], json!([]));
                assert_eq!(chunk["usage"]["prompt_tokens"], row.input_tokens);
                assert_eq!(chunk["usage"]["completion_tokens"], row.output_tokens);
                assert_eq!(chunk["usage"]["total_tokens"], row.input_tokens + row.output_tokens);
                assert_eq!(chunk["id"], events[0].json()["id"]);
                assert_eq!(
                    (&chunk["weir"]["provider"], &chunk["weir"]["attempts"]),
                    (&json!(model.split('/').next().unwrap()), &json!(1))
                );
            }
        }
    }
}

#[tokio::test]
async fn the_usage_chunk_is_the_last_before_done() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        let mut answer = weir.chat().json(&stream_with_usage(model)).send().await;
        let (events, _) = answer.events().await;
        let [.., last, done] = events.as_slice() else { panic!("{events:?}") };
        assert!(done.is_done());
        assert!(last.json()["usage"].is_object(), "{last:?}");
    }
}

#[tokio::test]
async fn usage_is_estimated_where_the_provider_does_not_count_and_told_once_to_a_caller_that_asked() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for (request, chunks) in [
            (chat(&format!("{model}~usage=none")), None),
            (stream(&format!("{model}~usage=none~events=10")), Some(0)),
            (stream_with_usage(&format!("{model}~usage=none~events=10")), Some(1)),
        ] {
            let mut answer = weir.chat().json(&request).send().await;
            if let Some(chunks) = chunks {
                let (events, _) = answer.events().await;
                let told = usage_chunks(&events);
                assert_eq!(told.len(), chunks, "{model}");
                assert!(told.iter().all(|chunk| chunk["id"] == events[0].json()["id"]), "{told:?}");
            }
            let line = weir.logged(&answer.id()).await;
            assert_eq!(line["accuracy"], "estimated", "{line}");
            assert!(
                line["usage"]["input_tokens"].as_u64() > Some(0) && line["usage"]["output_tokens"].as_u64() > Some(0),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn a_zero_that_the_provider_counted_stays_zero() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for request in [chat(&format!("{model}~usage=zero")), stream(&format!("{model}~usage=zero"))] {
            let (usage, accuracy) = logged_usage(&weir, &request).await;
            assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(0), &json!(0)));
            assert_eq!(accuracy, "exact");
        }
    }
}

#[tokio::test]
async fn a_stream_is_counted_as_the_whole_answer_is() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for directives in ["", "~events=7", "~cached=4", "~cached=3~cache_write=2", "~size=3k"] {
            let model = format!("{model}{directives}");
            let whole = logged_usage(&weir, &chat(&model)).await;
            let streamed = logged_usage(&weir, &stream(&model)).await;
            assert_eq!(whole, streamed, "{model}");
            assert_eq!(whole.1, "exact");
        }
    }
}

#[tokio::test]
async fn cached_tokens_are_part_of_the_input_and_counted_once() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let plain = logged_usage(&weir, &chat(MODELS[0])).await.0;
    for model in MODELS {
        let row =
            |usage: &Value| (usage["input_tokens"].as_u64().unwrap(), usage["cached_input_tokens"].as_u64().unwrap());
        let uncached = row(&logged_usage(&weir, &chat(model)).await.0);
        let cached = row(&logged_usage(&weir, &chat(&format!("{model}~cached=4~cache_write=2"))).await.0);
        assert_eq!(cached, (uncached.0, 4), "{model}");
        let mut answer = weir.chat().json(&stream_with_usage(&format!("{model}~cached=4~cache_write=2"))).send().await;
        let chunk = usage_chunks(&answer.events().await.0).remove(0);
        assert_eq!(chunk["usage"]["prompt_tokens"], uncached.0);
        assert_eq!(chunk["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
        assert_eq!(chunk["usage"]["prompt_tokens_details"]["cache_write_tokens"], 2);
    }
    assert_eq!(plain["cached_input_tokens"], 0);
}

#[tokio::test]
async fn usage_in_the_last_chunk_of_content_is_found_and_told_in_a_chunk_of_its_own() {
    let content = chunk("m", &json!({"content": "hello"}));
    let last = r#"{"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"prompt_tokens_details":{"audio_tokens":2},"cost":0.1}}"#;
    let provider = Provider::answering(format!("{STREAM}data: {content}\n\ndata: {last}\n\ndata: [DONE]\n\n")).await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    for (request, count) in [(stream("p/m"), 0), (stream_with_usage("p/m"), 1)] {
        let mut answer = weir.chat().json(&request).send().await;
        let (events, _) = answer.events().await;
        let chunks = usage_chunks(&events);
        assert_eq!(chunks.len(), count, "{events:#?}");
        for chunk in chunks {
            assert_eq!(
                (&chunk["choices"], &chunk["id"], &chunk["usage"]["total_tokens"]),
                (&json!([]), &json!("c-1"), &json!(4))
            );
            let counted = json!({"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "prompt_tokens_details": {"audio_tokens": 2}, "cost": 0.1});
            assert_eq!(chunk["usage"], counted);
        }
        let line = weir.logged(&answer.id()).await;
        assert_eq!((&line["usage"]["input_tokens"], &line["accuracy"]), (&json!(3), &json!("exact")));
    }
}

#[tokio::test]
async fn running_usage_in_every_chunk_is_told_once_and_the_last_word_counts() {
    let counted = |content: &str, tokens: u64| {
        let mut chunk: Value = serde_json::from_str(&chunk("m", &json!({"content": content}))).unwrap();
        chunk["usage"] = json!({"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens});
        format!("data: {chunk}\n\n")
    };
    let finish = weir_tests::ask::finish("m");
    let body =
        format!("{STREAM}{}{}{}data: {finish}\n\ndata: [DONE]\n\n", counted("a", 1), counted("b", 2), counted("c", 3));
    let provider = Provider::answering(body).await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    let mut answer = weir.chat().json(&stream_with_usage("p/m")).send().await;
    let (events, _) = answer.events().await;
    let chunks = usage_chunks(&events);
    assert_eq!(chunks.len(), 1, "{events:#?}");
    assert_eq!(chunks[0]["usage"]["completion_tokens"], 3);
    assert_eq!(weir.logged(&answer.id()).await["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn a_stream_that_broke_off_is_counted_as_far_as_is_known_and_marked_so() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for (model, accuracy) in [(MODELS[0], "estimated"), (MODELS[1], "partial")] {
        let (usage, marked) = logged_usage(&weir, &stream(&format!("{model}~events=20~gap=2ms~cut=10"))).await;
        assert_eq!(marked, accuracy, "{model}");
        assert!(usage["input_tokens"].as_u64() > Some(0) && usage["output_tokens"].as_u64() > Some(0), "{usage}");
    }
}

#[tokio::test]
async fn a_stream_that_its_caller_left_is_counted_as_far_as_is_known_and_marked_so() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for (model, accuracy) in [(MODELS[0], "estimated"), (MODELS[1], "partial")] {
        let mut answer = weir.chat().json(&stream(&format!("{model}~events=900~gap=20ms"))).send().await;
        let id = answer.id();
        for _ in 0..4 {
            assert!(answer.event().await.is_some());
        }
        answer.leave();
        let line = weir.logged(&id).await;
        assert_eq!((&line["accuracy"], &line["error"]), (&json!(accuracy), &json!("caller_gone")));
        let output = line["usage"]["output_tokens"].as_u64().unwrap();
        assert!((1..100).contains(&output), "{line}");
    }
}

#[tokio::test]
async fn a_request_that_was_refused_has_no_usage() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    for model in MODELS {
        for directives in ["status=400", "status=500"] {
            let call = weir.chat().json(&chat(&format!("{model}~{directives}")));
            let line = weir.logged(&call.send().await.id()).await;
            assert!(line.get("usage").is_none() && line.get("accuracy").is_none(), "{line}");
        }
        // A clock of the caller's own that runs out is as if it had left: the provider works on it, and counts.
        let call = weir.chat().json(&chat(&format!("{model}~delay=5s"))).header("x-weir-timeout-ms", "300");
        let line = weir.logged(&call.send().await.id()).await;
        assert_eq!((&line["accuracy"], &line["usage"]["output_tokens"]), (&json!("estimated"), &json!(0)), "{line}");
    }
}

#[tokio::test]
async fn every_endpoint_is_counted() {
    let simulator = simulator();
    let weir = Config::of(&simulator).start().await;
    let prompt = json!({"model": MODELS[0], "prompt": "one two three"});
    let cases = [
        ("/v1/completions", prompt.clone(), 3),
        ("/v1/completions", with(prompt, "stream", json!(true)), 3),
        ("/v1/embeddings", json!({"model": "openai/text-embedding-3-small", "input": ["one two", "three"]}), 3),
    ];
    for (path, request, input) in cases {
        let mut answer = weir.post(path).json(&request).send().await;
        let (status, (body, _)) = (answer.status, answer.rest().await);
        assert_eq!(status, 200, "{path}: {body}");
        let line = weir.logged(&answer.id()).await;
        assert_eq!((&line["usage"]["input_tokens"], &line["accuracy"]), (&json!(input), &json!("exact")), "{path}");
    }
}
