//! What it costs to pick a target among many: at most 5 µs among a thousand, whatever the policy and however many cool.

#![expect(missing_docs, reason = "criterion's macro writes a function without any")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::balance::{Candidate, Failure, LbModelManager, Moment, Outcome, Policy, Registry, Rules, Tried};
use gateway::error::Cause;

const POLICIES: [(&str, Policy); 6] = [
    ("weighted", Policy::Weighted),
    ("round_robin", Policy::RoundRobin),
    ("least_busy", Policy::LeastBusy),
    ("latency", Policy::Latency),
    ("cost", Policy::Cost),
    ("usage", Policy::Usage),
];

fn manager(policy: Policy, targets: usize) -> LbModelManager {
    let registry = Registry::default();
    let candidate = |place: usize| Candidate {
        tier: 0,
        rank: 0,
        weight: 1 + place as u64 % 7,
        price: Some(place as u64 % 3),
        standing: registry.standing(&registry.credential(&format!("p/{place}"), ""), "m"),
    };
    let span = Duration::from_secs(3_600);
    let rules = Rules {
        min_samples: 5,
        error_rate: 5_000,
        rate_limit: span,
        auth: span,
        connection: span,
        server: span,
        longest: span,
    };
    LbModelManager::new(policy, (0..targets).map(candidate).collect(), Arc::new(rules), Arc::default())
}

/// Cools every target of which the number is no multiple of `kept`.
fn cool(manager: &LbModelManager, targets: usize, kept: usize, now: Moment) {
    let mut tried = Tried::default();
    let mut held = Vec::new();
    for _ in 0..targets {
        held.extend(manager.pick(&mut tried, now, |_| 1.0));
    }
    for (place, held) in held {
        if place % kept != 0 {
            held.record(Outcome::Failure(Failure { cause: Cause::RateLimit, retry_after: None }), now);
        }
    }
}

fn picks(criterion: &mut Criterion) {
    let now = Moment::now();
    for (name, policy) in POLICIES {
        for (targets, kept) in [(3, 1), (1_000, 1), (1_000, 2), (1_000, 100)] {
            let manager = manager(policy, targets);
            cool(&manager, targets, kept, now);
            let left = targets.div_ceil(kept);
            criterion.bench_function(&format!("pick/{name}/{left} of {targets}"), |bencher| {
                bencher.iter(|| manager.pick(black_box(&mut Tried::default()), now, |_| 1.0).is_ok());
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
