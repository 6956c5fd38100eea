//! The laws of admission: all or nothing, given back however a request ends, kept over reloads, fair.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::*;

/// What comes at once: nothing is shared with other gateways here, so nothing waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn limits(rpm: Option<u64>, tpm: Option<u64>, concurrent: Option<u64>) -> Limits {
    Limits { rpm, tpm, concurrent }
}

fn scopes(registry: &Registry, given: &[Limits], now: Instant) -> Scopes {
    let scope =
        |(number, limits): (usize, &Limits)| registry.scope(ScopeId::key("acme", &number.to_string()), *limits, now);
    given.iter().enumerate().map(scope).collect()
}

fn remaining(scopes: &Scopes, now: Instant) -> Option<i64> {
    scopes.standing(now).requests.map(|left| left.remaining)
}

#[test]
fn a_scope_that_refuses_gives_back_what_the_others_took() {
    let (registry, now) = (Registry::default(), Instant::now());
    let wide = limits(Some(10), Some(1000), Some(10));
    let all = scopes(&registry, &[wide, limits(Some(2), Some(50), None)], now);
    let first = scopes(&registry, &[wide], now);
    let permits: Vec<_> = (0..2).map(|_| ready(all.admit(now)).unwrap()).collect();
    let refused = ready(all.admit(now)).unwrap_err();
    assert_eq!((refused.what, refused.limit, refused.scope), (What::Requests, 2, ScopeId::key("acme", "1")));
    assert_eq!(remaining(&first, now), Some(8));
    assert!((first.load(now) - 0.2).abs() < 1e-9);
    assert_eq!(ready(all.charge(51, now)).map(|charge| charge.settle(51, now)), Ok(()));
    assert_eq!(ready(all.charge(1, now)).unwrap_err().what, What::Tokens);
    assert_eq!(first.standing(now).tokens.map(|left| left.remaining), Some(949));
    drop(permits);
}

#[test]
fn slots_come_back_with_the_permit_and_rates_do_not() {
    let (registry, now) = (Registry::default(), Instant::now());
    let all = scopes(&registry, &[limits(Some(10), None, Some(1))], now);
    let permit = ready(all.admit(now)).unwrap();
    assert_eq!(ready(all.admit(now)).unwrap_err().what, What::Slots);
    assert_eq!(remaining(&all, now), Some(9));
    drop(permit);
    ready(all.admit(now)).unwrap().withdraw(now);
    assert_eq!(remaining(&all, now), Some(9));
}

#[test]
fn a_reload_keeps_what_was_used() {
    let (registry, now) = (Registry::default(), Instant::now());
    let before = scopes(&registry, &[limits(Some(10), Some(100), Some(2))], now);
    let permit = ready(before.admit(now)).unwrap();
    ready(before.charge(60, now)).unwrap().settle(60, now);
    let same = scopes(&registry, &[limits(Some(10), Some(100), Some(2))], now);
    assert_eq!(remaining(&same, now), Some(9));
    let changed = scopes(&registry, &[limits(Some(5), Some(80), Some(1))], now);
    assert_eq!(remaining(&changed, now), Some(4));
    assert_eq!(changed.standing(now).tokens.map(|left| left.remaining), Some(20));
    assert_eq!(ready(changed.admit(now)).unwrap_err().what, What::Slots);
    drop(permit);
    assert!(ready(changed.admit(now)).is_ok());
}

#[tokio::test]
async fn a_refusal_of_the_model_counts_nowhere() {
    let registry = Registry::default();
    let now = Instant::now();
    let all = limits(Some(10), Some(1000), Some(5));
    let tenant = registry.tenant("acme", &written(all, &[("big", limits(Some(1), Some(100), None))]), now);
    let key = registry.key(&tenant, "ci", Some(&written(all, &[])), now);
    let mut first = key.admit(now).await.unwrap();
    first.for_model(["big"], now).await.unwrap();
    first.charge(100, now).await.unwrap();
    assert_eq!(first.standing(now).requests.map(|left| (left.limit, left.remaining)), Some((1, 0)));
    let mut second = key.admit(now).await.unwrap();
    let refused = second.for_model(["big"], now).await.unwrap_err();
    assert_eq!(refused.scope.text().as_ref(), "tenant/acme/model/big");
    drop(second);
    assert_eq!(remaining(&key.base, now), Some(9));
    first.settle(40, now);
    assert_eq!(key.base.standing(now).tokens.map(|left| left.remaining), Some(960));
    let mut third = key.admit(now).await.unwrap();
    third.for_model(["small"], now).await.unwrap();
    assert_eq!(third.charge(2000, now).await.unwrap_err().what, What::Tokens);
    drop(third);
    assert_eq!(remaining(&key.base, now), Some(9));
}

#[tokio::test]
async fn a_request_that_goes_to_another_model_leaves_the_first() {
    let (registry, now) = (Registry::default(), Instant::now());
    let one = limits(Some(10), None, Some(1));
    let tenant = registry.tenant("acme", &written(Limits::default(), &[("big", one)]), now);
    let key = registry.key(&tenant, "ci", Some(&written(Limits::default(), &[])), now);
    let (mut first, mut second) = (key.admit(now).await.unwrap(), key.admit(now).await.unwrap());
    first.for_model(["big"], now).await.unwrap();
    first.for_model(["small"], now).await.unwrap();
    assert_eq!(first.standing(now), Standing::default());
    second.for_model(["big"], now).await.unwrap();
}

#[tokio::test]
async fn a_request_counts_once_under_its_key_whichever_of_its_models_had_room() {
    let (registry, now) = (Registry::default(), Instant::now());
    let tenant = registry.tenant("acme", &written(Limits::default(), &[("full", rpm(0)), ("wide", rpm(9))]), now);
    let key = registry.key(&tenant, "ci", Some(&written(limits(Some(10), None, Some(1)), &[])), now);
    for (models, counts) in [
        (vec!["wide"], true),
        (vec!["full", "wide"], true),
        (vec!["wide", "full"], true),
        (vec!["wide", "full", "other"], true),
        (vec!["full"], false),
        (vec!["full", "full"], false),
        (vec![], true),
    ] {
        let left = remaining(&key.base, now).unwrap();
        let mut admission = key.admit(now).await.unwrap();
        for model in &models {
            if admission.for_model([*model], now).await.is_ok() {
                admission.charge(1, now).await.unwrap();
            }
            assert_eq!(ready(key.base.admit(now)).unwrap_err().what, What::Slots, "{models:?} at {model}");
        }
        drop(admission);
        assert_eq!(remaining(&key.base, now), Some(left - i64::from(counts)), "{models:?}");
        ready(key.base.admit(now)).unwrap().withdraw(now);
    }
}

#[tokio::test]
async fn a_key_and_its_tenant_may_both_limit_a_model() {
    let (registry, now) = (Registry::default(), Instant::now());
    let tenant = registry.tenant("acme", &written(Limits::default(), &[("big", rpm(3)), ("odd", rpm(1))]), now);
    let key = registry.key(&tenant, "ci", Some(&written(Limits::default(), &[("big", rpm(2))])), now);
    let other = registry.key(&tenant, "web", Some(&written(Limits::default(), &[])), now);
    let ask = async |key: &Limited, model: &str| {
        let mut admission = key.admit(now).await.unwrap();
        admission.for_model([model], now).await.map_err(|refused| refused.scope.text().to_string())
    };
    assert_eq!(ask(&key, "big").await, Ok(()));
    assert_eq!(ask(&key, "big").await, Ok(()));
    assert_eq!(ask(&key, "big").await, Err("key/acme/ci/model/big".to_owned()));
    assert_eq!(ask(&other, "big").await, Ok(()));
    assert_eq!(ask(&other, "big").await, Err("tenant/acme/model/big".to_owned()));
    assert_eq!(ask(&other, "odd").await, Ok(()));
    assert_eq!(ask(&key, "odd").await, Err("tenant/acme/model/odd".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_slot_get_it_in_the_order_of_coming() {
    let registry = Registry::default();
    let all = scopes(&registry, &[limits(None, None, Some(1)), limits(None, None, Some(1))], Instant::now());
    let queue = Queue { patience: Duration::from_secs(3600), most: 2 };
    let held = ready(all.admit(Instant::now())).unwrap();
    let (order, mut came) = tokio::sync::mpsc::channel(4);
    for number in 0..2 {
        let (all, order) = (all.clone(), order.clone());
        tokio::spawn(async move {
            let permit = all.admit_in_turn(queue).await.unwrap();
            order.send(number).await.unwrap();
            tokio::task::yield_now().await;
            drop(permit);
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(all.admit_in_turn(queue).await.unwrap_err().what, What::Slots, "the queue holds two");
    drop(held);
    assert!(ready(all.admit(Instant::now())).is_err(), "nobody goes ahead of those who wait");
    assert_eq!((came.recv().await, came.recv().await), (Some(0), Some(1)));
    tokio::task::yield_now().await;
    assert!(ready(all.admit(Instant::now())).is_ok());
}

/// Two credentials with so many slots, and those who wait for either.
fn pair(first: u64, second: u64) -> [Scopes; 2] {
    [first, second].map(|most| scopes(&Registry::default(), &[limits(None, None, Some(most))], Instant::now()))
}

fn patient(seconds: u64) -> Queue {
    Queue { patience: Duration::from_secs(seconds), most: 1000 }
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_several_gets_the_slot_that_comes_free_first_and_all_in_the_order_of_coming() {
    let pair = pair(1, 1);
    let slow = ready(pair[0].admit(Instant::now())).unwrap();
    let fast = ready(pair[1].admit(Instant::now())).unwrap();
    let (order, mut came) = tokio::sync::mpsc::channel(4);
    let began = tokio::time::Instant::now();
    for number in 0..3 {
        let (pair, order) = (pair.clone(), order.clone());
        tokio::spawn(async move {
            let all = [(&pair[0], Duration::ZERO), (&pair[1], Duration::ZERO)];
            let (scopes, permit) = Scopes::admit_at_first(&all, patient(60)).await.unwrap();
            order.send((number, scopes.is_same(&pair[1]), began.elapsed().as_secs())).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(permit);
        });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(fast);
    assert!(ready(pair[1].admit(Instant::now())).is_err(), "nobody goes ahead of those who wait");
    assert_eq!(came.recv().await, Some((0, true, 1)));
    assert_eq!(came.recv().await, Some((1, true, 2)));
    assert_eq!(came.recv().await, Some((2, true, 3)));
    drop(slow);
    assert!(ready(pair[0].admit(Instant::now())).is_ok(), "nobody is left in the queue of the other");
}

#[tokio::test(start_paused = true)]
async fn two_slots_that_come_free_in_one_moment_go_to_two_who_wait() {
    let pair = pair(1, 1);
    let held = pair.clone().map(|scopes| ready(scopes.admit(Instant::now())).unwrap());
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let pair = pair.clone();
            tokio::spawn(async move {
                let all = [(&pair[0], Duration::ZERO), (&pair[1], Duration::ZERO)];
                let got = Scopes::admit_at_first(&all, patient(5)).await.map(|(_, permit)| permit);
                got.map(std::mem::forget).is_some()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(held);
    for one in waiting {
        assert!(one.await.unwrap(), "the first of them is told of both, and passes one on");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_well_is_waited_for_too_but_not_asked_before_it_is() {
    let pair = pair(1, 1);
    let _busy = ready(pair[0].admit(Instant::now())).unwrap();
    let began = tokio::time::Instant::now();
    let all = [(&pair[0], Duration::ZERO), (&pair[1], Duration::from_secs(3))];
    assert!(Scopes::admit_at_first(&all, patient(2)).await.is_none());
    assert_eq!(began.elapsed().as_secs(), 2);
    let (scopes, _permit) = Scopes::admit_at_first(&all, patient(10)).await.unwrap();
    assert!(scopes.is_same(&pair[1]));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_lost_or_given_twice_among_many_who_wait_at_several() {
    let pair = pair(2, 1);
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let askers = (0..200).map(|number| {
        let (pair, inside) = (pair.clone(), Arc::clone(&inside));
        tokio::spawn(async move {
            let is_hasty = number % 5 == 0;
            let queue = if is_hasty { Queue { patience: Duration::from_micros(50), most: 1000 } } else { patient(60) };
            let all = [(&pair[number % 2], Duration::ZERO), (&pair[1 - number % 2], Duration::ZERO)];
            let Some((_, permit)) = Scopes::admit_at_first(&all, queue).await else {
                return (is_hasty, 0);
            };
            (true, held_beside(permit, &inside).await)
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        let (is_right, together) = asker.await.unwrap();
        assert!(is_right, "who has patience gets a slot");
        assert!(together <= 3, "{together} at once");
    }
    assert!(pair.iter().all(|scopes| ready(scopes.admit(Instant::now())).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_in_vain_or_leaves_takes_nothing_along() {
    let registry = Registry::default();
    let all = scopes(&registry, &[limits(Some(5), None, Some(1))], Instant::now());
    let held = ready(all.admit(Instant::now())).unwrap();
    let queue = |seconds| Queue { patience: Duration::from_secs(seconds), most: 5 };
    {
        let leaving = std::pin::pin!(all.admit_in_turn(queue(60)));
        assert!(tokio::time::timeout(Duration::from_secs(1), leaving).await.is_err());
    }
    assert_eq!(all.admit_in_turn(queue(0)).await.unwrap_err().what, What::Slots);
    drop(held);
    assert!(ready(all.admit(Instant::now())).is_ok());
    assert_eq!(remaining(&all, Instant::now()), Some(3));
}

/// Holds it for a moment; how many are held then.
async fn held_beside<P>(permit: P, inside: &std::sync::atomic::AtomicUsize) -> usize {
    let together = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
    tokio::task::yield_now().await;
    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    drop(permit);
    together
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_lost_or_given_twice_under_many_askers() {
    let registry = Registry::default();
    let all = scopes(&registry, &[limits(None, None, Some(3)), limits(None, None, Some(2))], Instant::now());
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let askers = (0..200).map(|number| {
        let (all, inside) = (all.clone(), Arc::clone(&inside));
        tokio::spawn(async move {
            // Some have no patience, and leave the queue while slots move.
            let patience = if number % 5 == 0 { Duration::from_micros(50) } else { Duration::from_secs(60) };
            let Ok(permit) = all.admit_in_turn(Queue { patience, most: 1000 }).await else {
                return (number % 5 == 0, 0);
            };
            (true, held_beside(permit, &inside).await)
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        let (served, together) = asker.await.unwrap();
        assert!(served && together <= 2, "{served} {together}");
    }
    assert!(all.load(Instant::now()).abs() < 1e-9);
}

/// Limits as a configuration holds them.
fn written(of_all: Limits, per_model: &[(&str, Limits)]) -> config::Limits {
    let count = |count: Option<u64>| count.map(config::Count::of);
    let rates = |limits: &Limits| config::RateLimits {
        rpm: count(limits.rpm),
        tpm: count(limits.tpm),
        concurrent: count(limits.concurrent),
    };
    let config::RateLimits { rpm, tpm, concurrent } = rates(&of_all);
    let per_model = per_model.iter().map(|(name, limits)| ((*name).to_owned(), rates(limits))).collect();
    config::Limits { rpm, tpm, concurrent, per_model }
}

fn rpm(rpm: u64) -> Limits {
    limits(Some(rpm), None, None)
}

/// What the process holds, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// With nextest each test is a process, so that nobody else's memory is counted.
#[cfg(target_os = "linux")]
#[test]
fn a_key_with_limits_and_a_budget_is_a_kibibyte_at_most() {
    use crate::budget::{self, Accounts, Listener, Owner, Span, Terms};
    const KEYS: usize = 100_000;
    let (registry, budgets, now) = (Registry::default(), budget::Registry::new(Listener::new(|_| {})), Instant::now());
    let tenant = registry.tenant("acme", &written(rpm(600), &[("gpt-main", rpm(60))]), now);
    let own = written(rpm(60), &[]);
    let before = resident();
    let keys: Vec<_> = (0..KEYS)
        .map(|number| {
            let name = format!("key-number-{number}");
            let owner = Owner::Key("acme".into(), name.as_str().into());
            let terms = Terms { limit: 5, soft: None, instead: None, span: Span::Always };
            let account = budgets.account(&format!("key/acme/{name}/usd/day").into(), owner, terms);
            (registry.key(&tenant, &name, Some(&own), now), Accounts::from_iter([account]))
        })
        .collect();
    let each = (resident() - before) / keys.len();
    assert!((200..=1024).contains(&each), "{each} bytes a key");
}
