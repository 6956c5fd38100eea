//! What is asked of the ledger: one row by its id, rows by what they are, sums. All of it blocks, and reads page by page, so
//! that memory is bounded. Rows that are damaged are passed over, and the log says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use memchr::memmem::Finder;
use serde::Serialize;

use super::books::{self, PAGE, ROWS};
use super::frame;
use super::row::{Accuracy, Row, dollars};
use crate::store::backend::{Direction, Span};
use crate::store::{Disk, StoreFault};

/// How many groups an answer has at most: there may be many keys, and many hours.
const MOST_GROUPS: usize = 100_000;

/// How many commits are looked through for one page of rows; where a filter finds few, the page is short and has a cursor.
const MOST_COMMITS: usize = 4_096;

/// Reads the ledger.
#[derive(Clone, Debug)]
pub struct Reader {
    disk: Arc<Disk>,
}

/// Which rows. Times are those at which rows were written, so what is told of a time that is over does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Written at this time or later.
    pub from: Option<Timestamp>,
    /// Written before.
    pub to: Option<Timestamp>,
    /// Values that fields must have.
    pub equal: Vec<(Field, String)>,
}

/// What rows are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The tenant's id.
    Tenant,
    /// The key's id behind its tenant's: `acme/ci`.
    Key,
    /// The configured model.
    Model,
    /// The model's type.
    Type,
    /// The provider.
    Provider,
    /// The credential's id behind its provider's: `openai/oa-1`.
    Credential,
    /// The word of the error; `ok` for none.
    Error,
    /// The day that the row was written, in UTC: `2026-11-23`.
    Day,
    /// The hour: `2026-11-23T04Z`.
    Hour,
}

/// A place between rows: what is behind it is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    number: u64,
    /// How many rows of that commit, counted from its newest, are before the cursor.
    passed: usize,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.number, self.passed)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, passed) = text.split_once('-').ok_or(())?;
        let number = u64::from_str_radix(number, 16).map_err(drop)?;
        Ok(Self { number, passed: passed.parse().map_err(drop)? })
    }
}

/// What the rows of one group come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// How many requests.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// All input tokens.
    pub input_tokens: u64,
    /// Those that were read from a cache.
    pub cached_input_tokens: u64,
    /// All output tokens.
    pub output_tokens: u64,
    /// What they cost as far as that is known.
    #[serde(rename = "cost_usd", serialize_with = "dollars::serialize")]
    pub cost: Option<i64>,
    /// Requests whose cost is not known, since their model has no price.
    pub unpriced: u64,
    /// Requests whose tokens are not the provider's count to the end.
    pub inexact: u64,
}

impl Sum {
    fn add(&mut self, row: &Row<'_>) {
        let add = |to: &mut u64, count: u64| *to = to.saturating_add(count);
        add(&mut self.requests, 1);
        add(&mut self.errors, u64::from(row.error.is_some()));
        add(&mut self.input_tokens, row.usage.input_tokens);
        add(&mut self.cached_input_tokens, row.usage.cached_input_tokens);
        add(&mut self.output_tokens, row.usage.output_tokens);
        add(&mut self.unpriced, u64::from(row.cost.is_none()));
        add(&mut self.inexact, u64::from(row.accuracy != Accuracy::Exact));
        if let Some(cost) = row.cost {
            self.cost = Some(self.cost.unwrap_or(0).saturating_add(cost));
        }
    }
}

/// Sums by the values of the fields that were asked for, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Each group.
    pub groups: BTreeMap<Vec<String>, Sum>,
    /// What all came to.
    pub total: Sum,
    /// Whether there were more groups than are told.
    pub cut: bool,
}

impl Reader {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// What `with` makes of the row with this id, of this tenant's or of any; the newest of several.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find<T>(
        &self,
        id: &str,
        tenant: Option<&str>,
        mut with: impl FnMut(&Row<'_>) -> T,
    ) -> Result<Option<T>, StoreFault> {
        let mut found = None;
        let wanted = |row: &Row<'_>| row.request_id == id && tenant.is_none_or(|tenant| row.tenant == tenant);
        let text = Finder::new(id);
        for (number, value) in self.candidates(id, tenant)? {
            for frame in frame::decode(&value)?.filter(|frame| frame.mentions(&text)) {
                let row = frame.row()?;
                if wanted(&row) && found.as_ref().is_none_or(|(newest, _)| *newest <= number) {
                    found = Some((number, with(&row)));
                }
            }
        }
        Ok(found.map(|(_, found)| found))
    }

    /// The commits that may hold it.
    fn candidates(&self, id: &str, tenant: Option<&str>) -> Result<Vec<(u64, Vec<u8>)>, StoreFault> {
        let entries = match tenant {
            Some(tenant) => self.disk.get(&books::id_key(id, tenant))?.into_iter().collect(),
            None => self
                .disk
                .range(&Span::under(&books::id_prefix(id)), Direction::Up, PAGE)?
                .into_iter()
                .map(|(_, value)| value)
                .collect::<Vec<_>>(),
        };
        let mut candidates = Vec::new();
        for entry in entries {
            let key = [ROWS, &entry].concat();
            candidates.extend(self.disk.get(&key)?.map(|value| (books::number_of(&key), value)));
        }
        if candidates.is_empty()
            && let Some(span) = books::near(id)
        {
            let near = self.disk.range(&span, Direction::Up, MOST_COMMITS)?;
            candidates.extend(near.into_iter().map(|(key, value)| (books::number_of(&key), value)));
        }
        Ok(candidates)
    }

    /// Gives `each` at most `limit` rows, the newest first, from `cursor` on; returns where to go on if there may be more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rows(
        &self,
        filter: &Filter,
        cursor: Option<Cursor>,
        limit: usize,
        mut each: impl FnMut(&Row<'_>),
    ) -> Result<Option<Cursor>, StoreFault> {
        let mut span = filter.span();
        if let Some(cursor) = cursor {
            let behind = books::key(ROWS, cursor.number.saturating_add(1));
            span.to = span.to.min(behind);
        }
        let (mut left, mut commits) = (limit, MOST_COMMITS);
        self.commits(span, Direction::Down, |number, value| {
            let Some(rest) = commits.checked_sub(1) else {
                return Ok(ControlFlow::Break(Cursor { number, passed: 0 }));
            };
            commits = rest;
            let skip = cursor.filter(|cursor| cursor.number == number).map_or(0, |cursor| cursor.passed);
            let frames: Vec<_> = frame::decode(value)?.collect();
            for (passed, frame) in frames.iter().rev().enumerate().skip(skip) {
                let row = frame.row()?;
                if !filter.takes(&row, number) {
                    continue;
                }
                let Some(rest) = left.checked_sub(1) else { return Ok(ControlFlow::Break(Cursor { number, passed })) };
                left = rest;
                each(&row);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Sums of the rows by these fields.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sums(&self, filter: &Filter, by: &[Field]) -> Result<Sums, StoreFault> {
        let mut sums = Sums::default();
        self.commits(filter.span(), Direction::Up, |number, value| {
            for frame in frame::decode(value)? {
                let row = frame.row()?;
                if filter.takes(&row, number) {
                    sums.add(&row, by.iter().map(|field| field.of(&row, number).into_owned()).collect());
                }
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(sums)
    }

    /// Gives `visit` each commit of `span` until it breaks off. What is damaged is passed over.
    pub(super) fn commits<B>(
        &self,
        mut span: Span,
        direction: Direction,
        mut visit: impl FnMut(u64, &[u8]) -> Result<ControlFlow<B>, StoreFault>,
    ) -> Result<Option<B>, StoreFault> {
        loop {
            let page = self.disk.readable(&span, direction, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(None) };
            span = match direction {
                Direction::Up => span.after(last),
                Direction::Down => span.before(last),
            };
            for (key, value) in page {
                match value.and_then(|value| visit(books::number_of(&key), &value)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(with)) => return Ok(Some(with)),
                    Err(error) => tracing::error!(%error, "rows of the ledger cannot be read and are passed over"),
                }
            }
        }
    }
}

impl Sums {
    fn add(&mut self, row: &Row<'_>, group: Vec<String>) {
        self.total.add(row);
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&group) {
            self.cut = true;
            return;
        }
        self.groups.entry(group).or_default().add(row);
    }
}

impl Filter {
    fn span(&self) -> Span {
        let mut span = Span::under(ROWS);
        if let Some(from) = self.from {
            span.from = books::key(ROWS, books::micros(from));
        }
        if let Some(to) = self.to {
            span.to = books::key(ROWS, books::micros(to));
        }
        span
    }

    fn takes(&self, row: &Row<'_>, number: u64) -> bool {
        self.equal.iter().all(|(field, wanted)| field.matches(row, number, wanted))
    }
}

impl Field {
    /// All of them, with their names.
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Tenant, "tenant"),
        (Self::Key, "key"),
        (Self::Model, "model"),
        (Self::Type, "type"),
        (Self::Provider, "provider"),
        (Self::Credential, "credential"),
        (Self::Error, "error"),
        (Self::Day, "day"),
        (Self::Hour, "hour"),
    ];

    /// The field of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(field, _)| field)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(field, _)| *field == self).map_or("", |(_, name)| name)
    }

    /// Whether a row has this value; a key's and a credential's id may stand without what is before it.
    fn matches(self, row: &Row<'_>, number: u64, wanted: &str) -> bool {
        let plain = match self {
            Self::Key => row.key == wanted,
            Self::Credential => row.credential.as_deref() == Some(wanted),
            _ => false,
        };
        plain || self.of(row, number) == wanted
    }

    /// The field's value in a row of the commit with this number; empty for none.
    fn of<'r>(self, row: &'r Row<'_>, number: u64) -> Cow<'r, str> {
        let of = |value: &'r Option<Cow<'_, str>>| Cow::Borrowed(value.as_deref().unwrap_or_default());
        match self {
            Self::Tenant => Cow::Borrowed(&row.tenant),
            Self::Key => format!("{}/{}", row.tenant, row.key).into(),
            Self::Model => Cow::Borrowed(&row.model),
            Self::Type => Cow::Borrowed(&row.kind),
            Self::Provider => of(&row.provider),
            Self::Credential => format!("{}/{}", of(&row.provider), of(&row.credential)).into(),
            Self::Error => row.error.as_deref().map_or("ok".into(), Cow::Borrowed),
            Self::Day => moment(number, "%Y-%m-%d"),
            Self::Hour => moment(number, "%Y-%m-%dT%HZ"),
        }
    }
}

fn moment(number: u64, format: &str) -> Cow<'static, str> {
    books::moment(number).map(|at| at.strftime(format).to_string()).unwrap_or_default().into()
}
