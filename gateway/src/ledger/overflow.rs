//! Rows that there is no room for, since the disk refused for too long. Each is added to one row for all of its kind,
//! so that what the rows come to is what the accounts were charged; only the requests' own ids, times and attempts are
//! lost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;

use jiff::Timestamp;

use super::row::{Accuracy, Row};
use super::{frame, id};

/// How many kinds are told apart; what comes behind is one kind.
const MOST_KINDS: usize = 1_000;

/// What sums are asked by, and whether the cost is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    names: Vec<String>,
    priced: bool,
}

/// The rows, added up.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    kinds: BTreeMap<Kind, (u64, Row<'static>)>,
}

impl Overflow {
    /// Adds a framed row. One that cannot be read, which is a mistake in this room, was nothing.
    pub(super) fn add(&mut self, frame: &[u8]) {
        for row in frame::Frames::bare(frame::Form::Row, frame).filter_map(|frame| frame.row().ok()) {
            let mut kind = kind_of(&row);
            if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&kind) {
                kind = Kind { priced: kind.priced, ..Kind::default() };
            }
            let named = !kind.names.is_empty();
            let (requests, sum) = self.kinds.entry(kind).or_insert_with(|| (0, first(&row, named)));
            *requests += 1;
            sum.usage.add(row.usage);
            sum.cost = sum.cost.zip(row.cost).map(|(sum, cost)| sum.saturating_add(cost));
        }
    }

    /// How many rows were added, and the rows that stand for them.
    pub(super) fn take(&mut self) -> (u64, Vec<u8>) {
        let (mut lost, mut frames) = (0, Vec::new());
        for (requests, mut row) in mem::take(&mut self.kinds).into_values() {
            lost += requests;
            row.tags.push(format!("{requests} requests whose rows are lost").into());
            frames.extend(frame::encode(frame::NO_NUMBER, &row));
        }
        (lost, frames)
    }
}

fn kind_of(row: &Row<'_>) -> Kind {
    let plain = [&row.tenant, &row.key, &row.model, &row.kind].map(|name| name.to_string());
    let known = [&row.provider, &row.upstream_model, &row.credential, &row.error];
    let known = known.map(|name| name.as_deref().unwrap_or_default().to_owned());
    Kind { names: plain.into_iter().chain(known).collect(), priced: row.cost.is_some() }
}

/// The row for all like `row`, of none yet.
fn first(row: &Row<'_>, named: bool) -> Row<'static> {
    let own = |name: &str| Cow::Owned(if named { name.to_owned() } else { String::new() });
    let known = |name: &Option<Cow<'_, str>>| name.as_deref().filter(|_| named).map(|name| Cow::Owned(name.to_owned()));
    Row {
        request_id: id::new(Timestamp::now()).into(),
        tenant: own(&row.tenant),
        key: own(&row.key),
        model: own(&row.model),
        kind: own(&row.kind),
        status: None,
        error: known(&row.error),
        accuracy: Accuracy::Estimated,
        provider: known(&row.provider),
        upstream_model: known(&row.upstream_model),
        credential: known(&row.credential),
        usage: super::Counts::default(),
        cost: row.cost.map(|_| 0),
        attempts: Vec::new(),
        started_at: row.started_at,
        first_byte_ms: None,
        duration_ms: 0,
        tags: Vec::new(),
        service_tier: None,
        inference_geo: None,
    }
}
