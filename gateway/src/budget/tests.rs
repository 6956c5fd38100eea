//! The laws of accounts: never overspent, nothing leaks, a window settles what it admitted, kept over reloads.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;
use crate::config::{Every, OnRedisLoss, Weekday};

/// What comes at once: nothing is shared with other gateways here, so nothing waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(zone: &str) -> Arc<Calendar> {
    Arc::new(Calendar { zone: TimeZone::get(zone).unwrap(), week_start: Weekday::Monday })
}

fn owner() -> Owner {
    Owner::Tenant("acme".into())
}

fn daily(limit: i64) -> Terms {
    Terms { limit, soft: None, instead: None, span: Span::Every(Every::Day, calendar("Europe/Berlin")) }
}

fn deaf() -> Registry {
    Registry::new(Listener::new(|_| {}))
}

fn raised(limit: i64, until: Timestamp) -> Raise {
    Raise { account: String::new(), limit, until, said: 0, ended: false }
}

fn account(registry: &Registry, terms: Terms) -> Arc<Account> {
    registry.account(&"tenant/acme/usd/day".into(), owner(), terms)
}

const NOON: &str = "2026-10-25T12:00:00Z";

#[test]
fn what_is_held_is_replaced_by_what_was_used_or_given_back() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(100));
    let first = ready(account.reserve(60, now)).unwrap();
    assert_eq!((ready(account.reserve(41, now)).is_err(), account.left(now).all), (true, 40));
    drop(ready(account.reserve(40, now)).unwrap());
    let charge = first.settle(25);
    let window = at("2026-10-24T22:00:00Z").as_second();
    assert_eq!(charge, Charge { account: "tenant/acme/usd/day".into(), window, amount: 25 });
    let reading = account.reading(now);
    assert_eq!((reading.used, reading.reserved, reading.left()), (25, 0, 75));
}

#[test]
fn what_is_held_can_shrink_to_what_will_be_used() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(100));
    let mut held = ready(account.reserve(60, now)).unwrap();
    held.shrink(80);
    assert_eq!(account.reading(now).reserved, 60);
    held.shrink(25);
    assert_eq!((account.reading(now).reserved, account.reading(now).left()), (25, 75));
    assert_eq!(held.settle(25).amount, 25);
    let mut given_back = ready(account.reserve(75, now)).unwrap();
    given_back.shrink(0);
    drop(given_back);
    assert_eq!((account.reading(now).used, account.reading(now).reserved), (25, 0));
}

#[test]
fn a_request_settles_in_the_window_that_admitted_it() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(100));
    let late = ready(account.reserve(60, now)).unwrap();
    let lost = ready(account.reserve(40, now)).unwrap();
    let tomorrow = now + 24.hours();
    let today = account.reading(now).window.start;
    let next = ready(account.reserve(100, tomorrow)).unwrap();
    assert_eq!(late.settle(55).window, today);
    drop(lost);
    let reading = account.reading(tomorrow);
    assert_eq!((reading.used, reading.reserved), (0, 100));
    assert!(next.settle(1).window > today);
}

#[test]
fn a_refusal_says_when_there_is_more() {
    let (registry, now) = (deaf(), at(NOON));
    let refused = ready(account(&registry, daily(5)).reserve(6, now)).unwrap_err();
    assert_eq!((refused.worst, refused.resets_at), (6, Some(at("2026-10-25T23:00:00Z"))));
    assert_eq!(
        refused.to_string(),
        "The budget of this tenant for this day has not enough left; it begins anew at 2026-10-25T23:00:00Z."
    );
}

#[test]
fn what_costs_nothing_needs_no_money() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(0));
    assert!(ready(account.reserve(0, now)).is_ok());
    assert!(ready(account.reserve(1, now)).is_err());
}

#[test]
fn a_reload_keeps_what_was_used_under_new_terms() {
    let (registry, now) = (deaf(), at(NOON));
    let before = account(&registry, daily(100));
    let _kept = ready(before.reserve(30, now)).unwrap().settle(30);
    let held = ready(before.reserve(10, now)).unwrap();
    assert!(Arc::ptr_eq(&before, &account(&registry, daily(100))));
    let after = account(&registry, daily(50));
    assert_eq!(after.reading(now).left(), 10);
    let _charge = held.settle(20);
    assert_eq!(after.reading(now).left(), 0);
    assert_eq!(before.reading(now).left(), 50);
}

#[test]
fn what_the_ledger_holds_is_counted_once() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(100));
    let window = account.reading(now).window.start;
    let before = ("tenant/acme/usd/day", window - 86_400, 9);
    let kept = [before, ("tenant/acme/usd/day", window, 70), ("tenant/gone/usd/day", window, 5)];
    registry.restore(kept, now);
    registry.restore(kept, now);
    assert_eq!(account.reading(now).used, 70);
    assert_eq!((ready(account.reserve(31, now)).is_err(), account.left(now).all), (true, 30));
}

#[test]
fn a_budget_that_is_put_before_another_for_the_same_time_has_used_what_that_one_has() {
    let (registry, now) = (deaf(), at(NOON));
    let id = |number: &str| Arc::<str>::from(format!("tenant/acme/usd/day{number}"));
    let first = registry.account(&id(""), owner(), daily(100));
    let window = first.reading(now).window.start;
    registry.restore([], now);
    let _charge = ready(first.reserve(30, now)).unwrap().settle(30);
    let before = registry.account(&id(""), owner(), daily(50_000));
    let small = registry.account(&id("/2"), owner(), daily(100));
    let kept = [(&*id(""), window, 30), ("tenant/acme/usd/week", window, 99), ("quota/acme/p/paid/times/2", 0, 5)];
    registry.restore(kept, now);
    assert_eq!((before.reading(now).used, small.reading(now).used), (30, 30));
    // From then on each has a counter of its own, which begins later.
    let again = deaf();
    let both = [again.account(&id(""), owner(), daily(100)), again.account(&id("/2"), owner(), daily(50_000))];
    again.restore([(&*id(""), window, 45), (&*id("/2"), window, 15)], now);
    assert_eq!(both.map(|account| account.reading(now).used), [45, 45]);
    let quotas = ["quota/acme/p/paid/times", "quota/acme/p/paid/times/2"];
    let quotas = quotas.map(|id| again.account(&id.into(), owner(), Terms { span: Span::Always, ..daily(9) }));
    again.restore([("quota/acme/p/paid/times", 0, 5)], now);
    assert_eq!(quotas.map(|account| account.reading(now).used), [5, 0], "of quotas each counts its own");
}

#[test]
fn what_was_spent_outlives_a_change_of_the_time_zone() {
    let now = at(NOON);
    let calendar = |zone: &str| Arc::new(Calendar { zone: TimeZone::get(zone).unwrap(), week_start: Weekday::Monday });
    for every in [Every::Day, Every::Week, Every::Month] {
        for (from, to) in [("UTC", "Asia/Tokyo"), ("UTC", "America/New_York"), ("America/New_York", "UTC")] {
            let window = calendar(from).window(every, now).start;
            let newer = calendar(to).window(every, now).start;
            let registry = deaf();
            let terms = Terms { span: Span::Every(every, calendar(to)), ..daily(100) };
            let account = registry.account(&"tenant/acme/usd/x".into(), owner(), terms);
            let long_ago = calendar(from).window(every, now - 1000.hours()).start;
            let kept =
                [(long_ago, 50), (window, 20), (newer, 3)].map(|(start, used)| ("tenant/acme/usd/x", start, used));
            registry.restore(kept, now);
            assert_eq!(account.reading(now).used, 23, "{every} {from} {to}");
        }
    }
}

#[test]
fn all_of_a_window_counts_that_overlaps_the_one_of_another_time_zone() {
    let of = |every, to: &str, now: Timestamp, starts: &[(&str, i64)]| {
        let registry = deaf();
        let span = Span::Every(every, calendar(to));
        let account = registry.account(&"tenant/acme/usd/x".into(), owner(), Terms { span, ..daily(100) });
        let kept = starts.iter().map(|(start, used)| ("tenant/acme/usd/x", at(start).as_second(), *used));
        registry.restore(kept, now);
        account.reading(now).used
    };
    let days = [("2026-10-24T00:00:00Z", 50), ("2026-10-25T00:00:00Z", 20), ("2026-10-26T00:00:00Z", 3)];
    let [yesterday, today, tomorrow] = days;
    let evening = at("2026-10-25T17:22:00Z");
    assert_eq!(of(Every::Day, "Asia/Tokyo", evening, &[yesterday, today]), 20, "it is tomorrow there already");
    let night = at("2026-10-26T02:00:00Z");
    assert_eq!(of(Every::Day, "America/New_York", night, &days), 23, "it is yesterday there still");
    assert_eq!(of(Every::Day, "UTC", night, &days), 3);
    assert_eq!(of(Every::Day, "Europe/Berlin", night, &[today, tomorrow]), 23);
    let months = [("2026-09-01T00:00:00Z", 50), ("2026-10-01T00:00:00Z", 20)];
    assert_eq!(of(Every::Month, "Asia/Tokyo", evening, &months), 20, "all of September is not for its last hours");
    let weeks = [("2026-10-11T22:00:00Z", 50), ("2026-10-18T22:00:00Z", 20)];
    assert_eq!(of(Every::Week, "UTC", evening, &weeks), 20);
}

/// A registry, and what its accounts have told since they were asked last.
fn heard() -> (Registry, impl Fn() -> Vec<(Threshold, i64, i64)>) {
    let (listener, heard) = listener();
    (Registry::new(listener), heard)
}

/// A listener, and what it was told since it was asked last: threshold, used, limit.
fn listener() -> (Listener, impl Fn() -> Vec<(Threshold, i64, i64)>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Listener::new({
        let heard = Arc::clone(&heard);
        move |alert| heard.lock().unwrap().push((alert.threshold, alert.used, alert.limit))
    });
    (listener, move || std::mem::take(&mut *heard.lock().unwrap()))
}

#[test]
fn an_account_that_a_reload_took_away_comes_back_with_what_it_used_and_counts_its_own_once() {
    let (registry, now) = (deaf(), at(NOON));
    let first = account(&registry, daily(100));
    let window = first.reading(now).window.start;
    registry.restore([], now);
    let _charge = ready(first.reserve(40, now)).unwrap().settle(40);
    let kept = [("tenant/acme/usd/day", window, 40)];
    registry.restore(kept, now);
    assert_eq!(first.reading(now).used, 40, "its own charges are no others'");
    drop(first);
    let again = account(&registry, daily(100));
    for _ in 0..2 {
        registry.restore(kept, now);
        assert_eq!(again.reading(now).used, 40);
    }
}

/// An attempt that may cost so much is refused.
fn refused(account: &Arc<Account>, worst: i64, now: Timestamp) {
    ready(account.reserve(worst, now)).unwrap_err().tell(now);
}

#[test]
fn what_is_only_held_for_requests_under_way_is_not_spent() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let account = account(&registry, Terms { soft: Some(80), ..daily(100) });
    let held = ready(account.reserve(95, now)).unwrap();
    refused(&account, 10, now);
    assert_eq!((heard(), account.is_low(now)), (vec![], false));
    drop(held.settle(90));
    refused(&account, 11, now);
    assert_eq!(heard(), [(Threshold::Soft, 90, 100), (Threshold::Spent, 90, 100)]);
}

#[test]
fn a_refusal_for_what_is_held_is_of_the_moment() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let account = account(&registry, daily(100));
    let held = ready(account.reserve(95, now)).unwrap();
    let refused = ready(account.reserve(10, now)).unwrap_err();
    refused.tell(now);
    assert_eq!((refused.cause, refused.resets_at, heard()), (Cause::Held, None, vec![]));
    assert_eq!(
        refused.to_string(),
        "The budget of this tenant for this day has not enough left while other requests are under way."
    );
    assert_eq!(crate::error::Fault::exhausted(refused).retry_after, Some(std::time::Duration::from_secs(1)));
    drop(held.settle(95));
    let refused = ready(account.reserve(10, now)).unwrap_err();
    assert_eq!((refused.cause, crate::error::Fault::exhausted(refused).retry_after), (Cause::Spent, None));
}

#[test]
fn each_threshold_is_told_once_a_window() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let account = account(&registry, Terms { soft: Some(80), instead: Some("small".into()), ..daily(100) });
    let accounts: Accounts = [Arc::clone(&account)].into_iter().collect();
    let use_up = |amount, now| drop(ready(account.reserve(amount, now)).unwrap().settle(amount));
    use_up(79, now);
    assert_eq!((heard(), accounts.instead(now)), (vec![], None));
    use_up(1, now);
    use_up(1, now);
    assert_eq!((heard(), accounts.instead(now).map(AsRef::as_ref)), (vec![(Threshold::Soft, 80, 100)], Some("small")));
    use_up(19, now);
    refused(&account, 1, now);
    assert_eq!(heard(), [(Threshold::Spent, 100, 100)]);
    let tomorrow = now + 24.hours();
    assert_eq!(accounts.instead(tomorrow), None);
    use_up(90, tomorrow);
    (0..3).for_each(|_| refused(&account, 11, tomorrow));
    assert_eq!(heard(), [(Threshold::Soft, 90, 100), (Threshold::Spent, 90, 100)]);
}

#[test]
fn a_reload_tells_nothing_twice_and_a_higher_limit_is_told_of_anew() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let soft = |limit: i64| Terms { soft: Some(limit / 2), ..daily(limit) };
    let use_up = |account: &Arc<Account>, amount| drop(ready(account.reserve(amount, now)).unwrap().settle(amount));
    let first = account(&registry, soft(100));
    use_up(&first, 100);
    assert_eq!(heard(), [(Threshold::Soft, 100, 100), (Threshold::Spent, 100, 100)]);
    let lower = account(&registry, soft(50));
    refused(&lower, 1, now);
    let same = account(&registry, soft(100));
    refused(&same, 1, now);
    assert_eq!(heard(), []);
    same.raise(&raised(300, now + 1.hour()), now);
    use_up(&same, 49);
    assert_eq!((heard(), same.is_low(now)), (vec![], false));
    use_up(&same, 1);
    assert_eq!((heard(), same.is_low(now)), (vec![(Threshold::Soft, 150, 300)], true));
}

#[test]
fn what_was_told_before_a_restart_is_not_told_after_it() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let account = account(&registry, Terms { soft: Some(80), ..daily(100) });
    let window = account.reading(now).window.start;
    registry.restore([("tenant/acme/usd/day", window, 85)], now);
    drop(ready(account.reserve(1, now)).unwrap().settle(1));
    assert_eq!(heard(), []);
    refused(&account, 15, now);
    assert_eq!(heard(), [(Threshold::Spent, 86, 100)]);
}

#[test]
fn a_process_that_takes_over_tells_nothing_again_of_what_the_one_before_it_used() {
    let now = at(NOON);
    for (before, told) in [(85, vec![]), (79, vec![(Threshold::Soft, 80, 100)])] {
        let (listener, heard) = listener();
        let (desk, _wishes) = desk::Desk::taking_over(1, 2, OnRedisLoss::Local, 10);
        let registry = Registry::shared(listener, desk);
        let account = account(&registry, Terms { soft: Some(80), ..daily(100) });
        let window = account.reading(now).window.start;
        for _ in 0..2 {
            registry.restore([("tenant/acme/usd/day", window, before)], now);
            assert_eq!(account.reading(now).used, 0, "its claims in the shared store hold it");
        }
        drop(ready(account.reserve(80, now)).unwrap().settle(80));
        assert_eq!(heard(), told);
    }
}

#[test]
fn only_money_in_windows_is_told_of() {
    let ((registry, heard), now) = (heard(), at(NOON));
    let always = registry.account(&"quota".into(), owner(), Terms { span: Span::Always, ..daily(1) });
    let rate = registry.account(&"rate".into(), Owner::Limit, daily(1));
    [always, rate].iter().for_each(|account| refused(account, 2, now));
    assert_eq!(heard(), []);
}

#[test]
fn a_raised_limit_holds_until_its_time() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(10));
    account.raise(&raised(50, now + 1.hour()), now);
    assert!(ready(account.reserve(50, now)).is_ok());
    assert_eq!(ready(account.reserve(11, now + 1.hour())).unwrap_err().cause, Cause::Spent);
}

#[tokio::test]
async fn several_accounts_hold_together_or_not_at_all() {
    let (registry, now) = (deaf(), at(NOON));
    let wide = registry.account(&"a".into(), owner(), daily(100));
    let narrow = registry.account(&"b".into(), owner(), daily(10));
    let both: Accounts = [Arc::clone(&wide), Arc::clone(&narrow)].into_iter().collect();
    assert_eq!(both.left(now).all, 10);
    assert_eq!(both.reserve(11, now).await.unwrap_err().account.id().as_ref(), "b");
    assert_eq!(wide.reading(now).reserved, 0);
    let charges = both.reserve(10, now).await.unwrap().settle(4);
    assert_eq!(charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(both.left(now).all, 6);
    assert_eq!(Accounts::default().left(now), Left::UNLIMITED);
}

#[test]
fn budgets_have_the_ids_of_their_owner_and_window() {
    let registry = deaf();
    let loaded = crate::config::parse_str(
        "test",
        "version: 1\nproviders: {p: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}\n\
         models: [{name: m, targets: [{provider: p, model: m}]}]\n\
         tenants: [{id: a/c, budgets: [{usd: 500, every: month}, {usd: 50, every: day, soft: 80%}, {usd: 60, every: day}]}]",
    )
    .unwrap();
    let tenant = loaded.config.tenants.first().unwrap();
    let accounts = registry.budgets(&Owner::Tenant(tenant.id.as_str().into()), &tenant.budgets, &calendar("UTC"));
    let ids: Vec<_> = accounts.iter().map(|account| account.id().to_string()).collect();
    assert_eq!(ids, ["tenant/a%2Fc/usd/month", "tenant/a%2Fc/usd/day", "tenant/a%2Fc/usd/day/2"]);
    let terms: Vec<_> = accounts.iter().map(|account| (account.terms().limit, account.terms().soft)).collect();
    assert_eq!(terms, [(500_000_000_000, None), (50_000_000_000, Some(40_000_000_000)), (60_000_000_000, None)]);
    assert_eq!(registry.tenants(at(NOON)).len(), 3);
}

#[test]
fn many_threads_never_spend_more_than_there_is_and_lose_nothing() {
    let (registry, now) = (deaf(), at(NOON));
    let account = account(&registry, daily(10_000));
    let spent = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (account, spent) = (&account, &spent);
            scope.spawn(move || {
                for number in 0..5_000_i64 {
                    let worst = (number * 7 + thread) % 13;
                    let Ok(reservation) = ready(account.reserve(worst, now)) else {
                        continue;
                    };
                    assert!(account.reading(now).left() >= 0);
                    if number % 3 > 0 {
                        spent.fetch_add(reservation.settle(worst).amount, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let reading = account.reading(now);
    assert_eq!((reading.used, reading.reserved), (spent.load(Ordering::SeqCst), 0));
    assert!(reading.used <= 10_000 && reading.used > 9_980, "{}", reading.used);
}

fn quota_text(quotas: &str) -> Vec<crate::config::Quota> {
    let text = format!(
        "version: 1\nproviders: {{p: {{kind: openai, base_url: 'http://127.0.0.1:1/v1'}}}}\n\
         models: [{{name: m, targets: [{{provider: p, model: m}}]}}]\ntenants: [{{id: acme, quotas: {quotas}}}]"
    );
    crate::config::parse_str("test", &text).unwrap().config.tenants.into_iter().next().unwrap().quotas
}

#[tokio::test]
async fn paid_quotas_are_used_before_free_and_free_before_trial_the_soonest_to_expire_first() {
    let (registry, now) = (deaf(), at(NOON));
    let written = quota_text(
        "[{provider: p, type: trial, unit: times, limit: 1}, {provider: p, type: free, unit: times, limit: 1}, \
         {provider: p, type: paid, unit: times, limit: 1}, \
         {provider: p, type: paid, unit: times, limit: 1, expires: 2028-01-01}, \
         {provider: p, type: paid, unit: times, limit: 1, expires: 2027-01-01}]",
    );
    let quotas = registry.quotas(&"acme".into(), "p", &written);
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(quotas.reserve("m", 9, now).await.unwrap().settle(9).unwrap().account);
    }
    let ids = ["paid/times/3", "paid/times/2", "paid/times", "free/times", "trial/times"];
    assert_eq!(order, ids.map(|id| Arc::from(format!("quota/acme/p/{id}"))));
    assert_eq!(quotas.reserve("m", 9, now).await.unwrap_err(), Cause::Spent);
    assert_eq!(quotas.state("m", now), QuotaState::Exceeded);
}

#[tokio::test]
async fn a_quota_counts_calls_tokens_or_credits_for_its_models_until_it_expires() {
    let (registry, now) = (deaf(), at(NOON));
    let written = quota_text(
        "[{provider: p, type: trial, unit: credits, limit: 10, credits: {big: 4}, restrict_models: [big, 'mid*']}]",
    );
    let quotas = registry.quotas(&"acme".into(), "p", &written);
    assert_eq!(quotas.state("small", now), QuotaState::NotForModel);
    assert_eq!(quotas.reserve("big", 1000, now).await.unwrap().settle(1000).unwrap().amount, 4);
    assert_eq!(quotas.reserve("middle", 1000, now).await.unwrap().settle(1000).unwrap().amount, 1);
    drop(quotas.reserve("big", 1000, now).await.unwrap());
    assert_eq!(quotas.reserve("big", 1000, now).await.unwrap().settle(1000).unwrap().amount, 4);
    assert_eq!(quotas.reserve("big", 1000, now).await.unwrap_err(), Cause::Spent);
    assert_eq!(quotas.state("middle", now), QuotaState::Valid);
    let written = quota_text("[{provider: p, type: free, unit: tokens, limit: 100, expires: 2027-01-01}]");
    let quotas = registry.quotas(&"other".into(), "p", &written);
    assert_eq!(quotas.reserve("m", 80, now).await.unwrap().settle(30).unwrap().amount, 30);
    assert_eq!(quotas.state("m", at("2027-01-01T00:00:00Z")), QuotaState::Exceeded);
    let unlimited =
        registry.quotas(&"x".into(), "p", &quota_text("[{provider: p, type: paid, unit: times, limit: -1}]"));
    for _ in 0..1000 {
        drop(unlimited.reserve("m", 1, now).await.unwrap());
    }
    assert_eq!(registry.quotas(&"x".into(), "q", &written).state("m", now), QuotaState::Unlimited);
}

#[tokio::test]
async fn a_quota_without_the_shared_store_is_not_called_spent() {
    let (desk, _wishes) = Desk::new(1, crate::config::OnRedisLoss::Reject, 1);
    let registry = Registry::shared(Listener::new(|_| {}), desk);
    let written = quota_text("[{provider: p, type: paid, unit: times, limit: 5}]");
    let quotas = registry.quotas(&"acme".into(), "p", &written);
    assert_eq!(quotas.reserve("m", 1, at(NOON)).await.unwrap_err(), Cause::NoStore);
}

/// What a proptest does to an account.
#[derive(Clone, Debug)]
enum Move {
    Reserve(i64),
    Settle(usize, i64),
    Drop(usize),
    Pass(i64),
    Raise(i64, i64),
    Reload(i64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0_i64..60).prop_map(Move::Reserve),
        3 => (0_usize..8, 0_i64..70).prop_map(|(which, used)| Move::Settle(which, used)),
        2 => (0_usize..8).prop_map(Move::Drop),
        1 => (0_i64..40_000).prop_map(Move::Pass),
        1 => (50_i64..300, 0_i64..50_000).prop_map(|(limit, seconds)| Move::Raise(limit, seconds)),
        1 => (50_i64..200).prop_map(Move::Reload),
    ]
}

/// The plainest account that does the same.
#[derive(Default)]
struct Plain {
    used: std::collections::BTreeMap<i64, i64>,
    held: Vec<(i64, i64)>,
}

impl Plain {
    fn taken(&self, window: i64) -> i64 {
        let held = self.held.iter().filter(|(of, _)| *of == window).map(|(_, amount)| amount).sum::<i64>();
        self.used.get(&window).copied().unwrap_or(0) + held
    }
}

proptest! {
    /// Whatever happens in whatever order, an account does what the plainest one would.
    #[test]
    fn an_account_does_what_the_plainest_one_does(moves in prop::collection::vec(moves(), 1..80)) {
        let registry = deaf();
        let mut now = at(NOON);
        let (mut limit, mut raise) = (100, (0, now));
        let mut account = account(&registry, daily(limit));
        let mut plain = Plain::default();
        let mut held: Vec<Reservation> = Vec::new();
        for step in moves {
            let window = calendar("Europe/Berlin").window(Every::Day, now).start;
            match step {
                Move::Reserve(amount) => {
                    let most = if now < raise.1 { raise.0 } else { limit };
                    let fits = amount == 0 || plain.taken(window) + amount <= most;
                    let reserved = ready(account.reserve(amount, now));
                    prop_assert_eq!(reserved.is_ok(), fits);
                    if let Ok(reservation) = reserved {
                        held.push(reservation);
                        plain.held.push((window, amount));
                    }
                }
                Move::Settle(which, used) if which < held.len() => {
                    let charge = held.remove(which).settle(used);
                    let (window, _) = plain.held.remove(which);
                    *plain.used.entry(window).or_default() += used;
                    prop_assert_eq!((charge.window, charge.amount), (window, used));
                }
                Move::Drop(which) if which < held.len() => {
                    drop(held.remove(which));
                    plain.held.remove(which);
                }
                Move::Settle(..) | Move::Drop(_) => {}
                Move::Pass(seconds) => now += seconds.seconds(),
                Move::Raise(to, seconds) => {
                    raise = (to, now + seconds.seconds());
                    account.raise(&raised(to, raise.1), Timestamp::MIN);
                }
                Move::Reload(to) => {
                    limit = to;
                    account = registry.account(account.id(), owner(), daily(limit));
                }
            }
            let window = calendar("Europe/Berlin").window(Every::Day, now).start;
            let reading = account.reading(now);
            prop_assert_eq!(reading.used, plain.used.get(&window).copied().unwrap_or(0));
            prop_assert_eq!(reading.used + reading.reserved, plain.taken(window));
        }
        drop(held);
        prop_assert_eq!(account.reading(now).reserved, 0);
    }
}
