//! Requests at once over several gateways and the Redis that they share: never more than the limit, all of them for
//! whoever asks, whatever dies in between.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use simulator::Simulator;
use weir_tests::ask::{chat, simulator, stream};
use weir_tests::client::Answer;
use weir_tests::patience::within;
use weir_tests::redis::Redis;
use weir_tests::weir::{Config, KEY_HASH, Weir};

/// Gateways whose tenant may ask so many at once, for answers that last until their caller leaves.
fn config(simulator: &Simulator, redis: &Redis, concurrent: usize) -> Config {
    Config::of(simulator)
        .model("{name: long, targets: [{provider: openai, model: 'gpt-5.5~events=2000~gap=100ms'}]}")
        .model("{name: m, targets: [{provider: openai, model: gpt-5.5}]}")
        .tenant(&format!("{{id: acme, limits: {{concurrent: {concurrent}}}, keys: [{{id: ci, hash: '{KEY_HASH}'}}]}}"))
        .store(&format!("redis: '{}'", redis.url()))
}

/// Asks for answers that last, one after the other, until one is refused; gives those that last.
async fn fill(weir: &Weir) -> Vec<Answer> {
    let mut lasting = Vec::new();
    loop {
        let answer = weir.chat().json(&stream("long")).send().await;
        if answer.status != 200 {
            assert_eq!(answer.status, 429);
            assert!(answer.text().await.contains("requests at once"));
            return lasting;
        }
        lasting.push(answer);
    }
}

/// Asks a gateway again and again until `count` of its answers last.
async fn fills(weir: &Weir, count: usize) -> Vec<Answer> {
    let mut lasting = fill(weir).await;
    let filling = async {
        while lasting.len() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
            lasting.extend(fill(weir).await);
        }
    };
    within("slots", filling).await;
    lasting
}

/// A gateway admits nobody while others have all the slots, unless a machine that is too busy made Redis too slow for
/// it.
async fn refuses(weir: &Weir) {
    let admitted = fill(weir).await.len();
    assert!(admitted == 0 || weir.stderr().contains("redis is away"), "{admitted} were admitted");
}

fn leave(lasting: Vec<Answer>) {
    lasting.into_iter().for_each(Answer::leave);
}

async fn linked(gateways: &[&Weir]) {
    for weir in gateways {
        degraded(weir, 0).await;
    }
    // Each has seen the others.
    tokio::time::sleep(Duration::from_millis(1300)).await;
}

async fn degraded(weir: &Weir, wanted: u8) {
    weir.measures(&[&format!("weir_store_degraded {wanted}")]).await;
}

#[tokio::test]
async fn two_gateways_admit_so_many_at_once_together_and_each_all_of_them_while_the_other_is_idle() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis, 9);
    let (one, two) = (config.start().await, config.start().await);
    linked(&[&one, &two]).await;
    let first = fills(&one, 9).await;
    refuses(&two).await;
    leave(first);
    let second = fills(&two, 9).await;
    refuses(&one).await;
    drop(second);
}

#[tokio::test]
async fn two_slots_serve_four_gateways_in_turn() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis, 2);
    let four = [config.start().await, config.start().await, config.start().await, config.start().await];
    linked(&four.iter().collect::<Vec<_>>()).await;
    let mut lasting = fills(&four[0], 2).await;
    for weir in four.iter().cycle().skip(1).take(4) {
        refuses(weir).await;
        leave(lasting);
        lasting = fills(weir, 2).await;
    }
}

#[tokio::test]
async fn the_slots_of_a_gateway_that_was_killed_are_free_soon() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis, 5);
    let (one, two) = (config.start().await, config.start().await);
    linked(&[&one, &two]).await;
    let first = fills(&one, 5).await;
    let one = one.killed_and_started(&config).await;
    drop(first);
    let second = fills(&two, 5).await;
    // Who comes back has none of those of before.
    refuses(&one).await;
    drop(second);
}

#[tokio::test]
async fn a_redis_that_forgets_everything_is_told_what_is_in_use() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis, 6);
    let (one, two) = (config.start().await, config.start().await);
    linked(&[&one, &two]).await;
    let first = fills(&one, 6).await;
    redis.empty();
    degraded(&one, 1).await;
    degraded(&two, 1).await;
    let mut second = fill(&two).await;
    assert!(second.len() <= 3, "its share, since it never looked at what the other has: {}", second.len());
    degraded(&one, 0).await;
    degraded(&two, 0).await;
    assert_eq!(fill(&two).await.len(), 0);
    leave(first);
    second.extend(fills(&two, 6 - second.len()).await);
    refuses(&one).await;
    drop(second);
}

#[tokio::test]
async fn while_redis_is_frozen_each_has_its_share_and_keeps_no_more_when_it_is_back() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let config = config(&simulator, &redis, 6);
    let (one, two) = (config.start().await, config.start().await);
    linked(&[&one, &two]).await;
    redis.freeze();
    let (first, second) = (fill(&one).await, fill(&two).await);
    assert_eq!((first.len(), second.len()), (3, 3));
    redis.thaw();
    linked(&[&one, &two]).await;
    refuses(&one).await;
    refuses(&two).await;
    leave(first);
    let more = fills(&two, 3).await;
    refuses(&one).await;
    drop((second, more));
}

#[tokio::test]
async fn a_slot_of_a_credential_that_comes_free_at_one_gateway_is_who_waits_at_the_others() {
    let (simulator, redis) = (simulator(), Redis::start(&[]));
    let url = format!("http://{}/v1", simulator.addr());
    let model = |name: &str, model: &str| {
        format!("{{name: {name}, targets: [{{provider: pool, model: '{model}'}}], on_busy: {{queue: 20s, max: 5}}}}")
    };
    let config = Config::new()
        .provider(
            "pool",
            &format!("{{kind: openai, base_url: '{url}', credentials: [{{id: a, api_key: sk-a, concurrent: 1}}]}}"),
        )
        .model(&model("long", "gpt-5.5~events=2000~gap=100ms"))
        .model(&model("m", "gpt-5.5"))
        .store(&format!("redis: '{}'", redis.url()));
    let (one, two) = (config.start().await, config.start().await);
    linked(&[&one, &two]).await;
    let held = one.chat().json(&stream("long")).send().await;
    assert_eq!(held.status, 200);
    let waiting = tokio::spawn(two.chat().json(&chat("m")).send());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!waiting.is_finished());
    held.leave();
    assert_eq!(within("the slot", waiting).await.unwrap().status, 200);
}
