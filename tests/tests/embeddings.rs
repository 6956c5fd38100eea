//! Embeddings: vectors come in the form that the caller asked for, whatever the provider gives.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use simulator::Simulator;
use weir_tests::ask::{simulator, with};
use weir_tests::provider::Provider;
use weir_tests::weir::{Config, Weir};

/// Three models: as OpenAI, with floats only, with base64 only.
async fn start(simulator: &Simulator) -> Weir {
    let model = |name: &str, directive: &str| {
        format!(
            "{{name: {name}, type: text-embedding, targets: [{{provider: openai, model: 'text-embedding-3-small{directive}'}}]}}"
        )
    };
    Config::of(simulator)
        .model(&model("both", ""))
        .model(&model("floats", "~embedding=float"))
        .model(&model("base64", "~embedding=base64"))
        .start()
        .await
}

async fn embed(weir: &Weir, request: &Value) -> Value {
    let mut answer = weir.post("/v1/embeddings").json(request).send().await;
    let (status, (body, _)) = (answer.status, answer.rest().await);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn asking(model: &str, encoding: Option<Value>) -> Value {
    let request = json!({"model": model, "input": ["one two", "three", "four five six"], "dimensions": 64});
    match encoding {
        Some(encoding) => with(request, "encoding_format", encoding),
        None => request,
    }
}

/// The vectors as bits, from either form.
fn bits(reply: &Value) -> Vec<Vec<u32>> {
    let vector = |item: &Value| match &item["embedding"] {
        Value::String(text) => from_base64(text),
        Value::Array(numbers) => numbers.iter().map(|number| (number.as_f64().unwrap() as f32).to_bits()).collect(),
        other => panic!("no vector: {other}"),
    };
    reply["data"].as_array().unwrap().iter().map(vector).collect()
}

fn from_base64(text: &str) -> Vec<u32> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut pool, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        pool = pool << 6 | u32::try_from(LETTERS.iter().position(|known| *known == letter).unwrap()).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((pool >> held & 0xFF) as u8);
        }
    }
    assert_eq!(bytes.len() % 4, 0);
    bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[tokio::test]
async fn vectors_come_in_the_form_that_was_asked_for_whatever_the_provider_gives() {
    let simulator = simulator();
    let weir = start(&simulator).await;
    let wanted = bits(&embed(&weir, &asking("both", None)).await);
    assert_eq!(wanted.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64]);
    for model in ["both", "floats", "base64"] {
        for (encoding, is_text) in
            [(None, false), (Some(Value::Null), false), (Some(json!("float")), false), (Some(json!("base64")), true)]
        {
            let reply = embed(&weir, &asking(model, encoding.clone())).await;
            assert!(
                reply["data"].as_array().unwrap().iter().all(|item| item["embedding"].is_string() == is_text),
                "{model} {encoding:?}"
            );
            assert_eq!(bits(&reply), wanted, "{model} {encoding:?}");
        }
    }
}

#[tokio::test]
async fn items_keep_their_order_and_the_answer_its_other_fields() {
    let simulator = simulator();
    let weir = start(&simulator).await;
    for model in ["both", "floats", "base64"] {
        for encoding in ["float", "base64"] {
            let mut answer = weir.post("/v1/embeddings").json(&asking(model, Some(json!(encoding)))).send().await;
            let id = answer.id();
            let reply: Value = serde_json::from_str(&answer.rest().await.0).unwrap();
            let indices: Vec<&Value> = reply["data"].as_array().unwrap().iter().map(|item| &item["index"]).collect();
            assert_eq!(indices, [0, 1, 2]);
            assert_eq!((&reply["object"], &reply["model"]), (&json!("list"), &json!(model)));
            assert_eq!(reply["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));
            assert_eq!(weir.logged(&id).await["usage"]["input_tokens"], 6);
        }
    }
}

#[tokio::test]
async fn an_encoding_that_is_null_is_not_passed_on() {
    let simulator = simulator();
    let weir = start(&simulator).await;
    embed(&weir, &asking("both", Some(Value::Null))).await;
    assert!(simulator.requests()[0].json().get("encoding_format").is_none());
}

#[tokio::test]
async fn every_kind_of_input_is_passed_on() {
    let simulator = simulator();
    let weir = start(&simulator).await;
    for (input, count) in
        [(json!("one"), 1), (json!(["one", "two"]), 2), (json!([1, 2, 3]), 1), (json!([[1], [2, 3]]), 2)]
    {
        let reply = embed(&weir, &json!({"model": "both", "input": input, "encoding_format": "base64"})).await;
        assert_eq!(reply["data"].as_array().unwrap().len(), count);
    }
}

#[tokio::test]
async fn a_vector_that_is_broken_is_the_providers_fault() {
    let broken = |embedding: &str| {
        format!(
            r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{embedding}}}],"model":"m","usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
        )
    };
    for (embedding, asked) in
        [(r#""@@@@""#, "float"), (r#""AAA=""#, "float"), (r#"["x"]"#, "base64"), ("null", "base64")]
    {
        let provider = Provider::json(&broken(embedding)).await;
        let weir = Config::new().openai("p", &provider.url()).start().await;
        let request = json!({"model": "p/m", "input": "x", "encoding_format": asked});
        let answer = weir.post("/v1/embeddings").json(&request).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-weir-error")),
            (502, Some("provider_error")),
            "{embedding} as {asked}"
        );
    }
}

#[tokio::test]
async fn an_answer_with_another_number_of_vectors_than_inputs_is_the_providers_fault() {
    let vector = r#"{"object":"embedding","index":0,"embedding":[0.5]}"#;
    let two = format!(r#"{{"object":"list","data":[{vector},{vector}],"model":"m"}}"#);
    let provider = Provider::json(&two).await;
    let weir = Config::new().openai("p", &provider.url()).start().await;
    for (input, status) in [
        (json!(["a", "b"]), 200),
        (json!([[1, 2, 3], [4]]), 200),
        (json!(["a", "b", "c"]), 502),
        (json!(["a"]), 502),
        (json!("a"), 502),
        (json!([1, 2]), 502),
        (json!([{"image": "a"}]), 200),
    ] {
        let request = json!({"model": "p/m", "input": input});
        let answer = weir.post("/v1/embeddings").json(&request).send().await;
        assert_eq!(answer.status.as_u16(), status, "{input}");
        assert_eq!(answer.header("x-weir-error"), (status == 502).then_some("provider_error"), "{input}");
    }
}

#[tokio::test]
async fn what_the_provider_refuses_is_refused_with_its_words() {
    let simulator = simulator();
    let weir = start(&simulator).await;
    for (name, value, param) in [
        ("input", json!(""), "input"),
        ("dimensions", json!(0), "dimensions"),
        ("encoding_format", json!("hex"), "encoding_format"),
    ] {
        let request = with(asking("both", None), name, value);
        let answer = weir.post("/v1/embeddings").json(&request).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-weir-error")), (400, Some("provider_error")));
        assert_eq!(answer.json().await["error"]["param"], param);
    }
}
