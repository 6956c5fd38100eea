//! What is asked of the ledger: one row by its id, and the words for rows by what they are and for sums, which
//! [`Volumes`] finds. All of it blocks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use memchr::memmem::Finder;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::books::{self, PAGE, ROWS};
use super::fleet::Fleet;
use super::row::{Accuracy, Row, dollars};
use super::volumes::Volumes;
use super::{frame, id};
use crate::budget::lease::NodeId;
use crate::store::backend::{Direction, Span};
use crate::store::{Disk, StoreFault};

/// How many groups an answer has at most: there may be many keys, and many hours.
const MOST_GROUPS: usize = 100_000;

/// How many commits are looked through for one page of rows; where a filter finds few, the page is short and has a cursor.
pub(super) const MOST_COMMITS: usize = 4_096;

/// How many may ask the other gateways' ledgers for one row at once: each keeps a thread waiting.
const MOST_ASKING: usize = 16;

/// How long that may take.
const LONGEST_FIND: Duration = Duration::from_secs(2);

/// Reads the ledger, and those of the gateways that share a Redis.
#[derive(Clone, Debug)]
pub struct Reader {
    disk: Arc<Disk>,
    fleet: Option<Arc<dyn Fleet>>,
    asking: Arc<Semaphore>,
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
    pub(super) place: Place,
    /// How many rows of that commit, counted from its newest, are before the cursor.
    pub(super) passed: usize,
}

/// Where a commit is: commits of several gateways are in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) node: NodeId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{}", self.place.number, self.place.node, self.passed)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, rest) = text.split_once('-').ok_or(())?;
        let (node, passed) = rest.split_once('-').ok_or(())?;
        let hex = |text| u64::from_str_radix(text, 16).map_err(drop);
        let place = Place { number: hex(number)?, node: hex(node)? };
        Ok(Self { place, passed: passed.parse().map_err(drop)? })
    }
}

/// What the rows of one group come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
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
    #[schemars(with = "Option<f64>")]
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
        add(&mut self.unpriced, u64::from(row.is_unpriced()));
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
    pub(super) fn new(disk: Arc<Disk>, fleet: Option<Arc<dyn Fleet>>) -> Self {
        let asking = Arc::new(Semaphore::new(MOST_ASKING));
        Self { disk, fleet, asking }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.fleet.is_some()
    }

    /// What `with` makes of the row with this id, of this tenant's or of any; the newest of several.
    ///
    /// # Errors
    /// The store cannot be read; or it has no such row, and not all of the others can be asked.
    pub fn find<T>(
        &self,
        id: &str,
        tenant: Option<&str>,
        mut with: impl FnMut(&Row<'_>) -> T,
    ) -> Result<Option<T>, StoreFault> {
        let mut sought = Sought { id, tenant, text: Finder::new(id), found: None };
        sought.in_one(&self.disk, &mut with)?;
        let elsewhere = match &self.fleet {
            // An id of ours is given once; one of a caller's own may have been used again elsewhere.
            Some(fleet) if sought.found.is_none() || id::micros(id).is_none() => {
                self.find_elsewhere(&**fleet, &mut sought, &mut with)
            }
            _ => Ok(()),
        };
        match sought.found {
            Some((_, found)) => Ok(Some(found)),
            None => elsewhere.map(|()| None),
        }
    }

    fn find_elsewhere<T>(
        &self,
        fleet: &dyn Fleet,
        sought: &mut Sought<'_, T>,
        with: &mut impl FnMut(&Row<'_>) -> T,
    ) -> Result<(), StoreFault> {
        let busy = || StoreFault::Unreached("too many wait for it".to_owned());
        let _asking = self.asking.try_acquire().map_err(|_| busy())?;
        let begun = Instant::now();
        let others = fleet.others()?;
        let mut whole = others.state.whole();
        for member in others.members {
            if begun.elapsed() >= LONGEST_FIND {
                return Err(StoreFault::Unreached("it answers too slowly".to_owned()));
            }
            whole = whole.and(member.state.whole());
            sought.in_one(&member.read()?, with)?;
        }
        whole
    }

    /// The ledgers of all gateways, as far as they can be read.
    #[must_use]
    pub fn all(&self) -> Volumes {
        let mut volumes = Volumes::of(Arc::clone(&self.disk), self.fleet.as_ref().map_or(0, |fleet| fleet.node()));
        if let Some(fleet) = &self.fleet {
            volumes.join(fleet.others());
        }
        volumes
    }
}

/// One row that is looked for.
struct Sought<'a, T> {
    id: &'a str,
    tenant: Option<&'a str>,
    text: Finder<'a>,
    /// The newest so far, with the number of its commit.
    found: Option<(u64, T)>,
}

impl<T> Sought<'_, T> {
    /// Looks for it in one ledger.
    fn in_one(&mut self, disk: &Disk, with: &mut impl FnMut(&Row<'_>) -> T) -> Result<(), StoreFault> {
        for (number, value) in self.candidates(disk)? {
            for frame in frame::decode(&value)?.filter(|frame| frame.mentions(&self.text)) {
                let row = frame.row()?;
                if self.is(&row) && self.found.as_ref().is_none_or(|(newest, _)| *newest <= number) {
                    self.found = Some((number, with(&row)));
                }
            }
        }
        Ok(())
    }

    fn is(&self, row: &Row<'_>) -> bool {
        row.request_id == self.id && self.tenant.is_none_or(|tenant| row.tenant == tenant)
    }

    /// The commits that may hold it.
    fn candidates(&self, disk: &Disk) -> Result<Vec<(u64, Vec<u8>)>, StoreFault> {
        let entries = match self.tenant {
            Some(tenant) => disk.get(&books::id_key(self.id, tenant))?.into_iter().collect(),
            None => disk
                .range(&Span::under(&books::id_prefix(self.id)), Direction::Up, PAGE)?
                .into_iter()
                .map(|(_, value)| value)
                .collect::<Vec<_>>(),
        };
        let mut candidates = Vec::new();
        for entry in entries {
            let key = [ROWS, &entry].concat();
            candidates.extend(disk.get(&key)?.map(|value| (books::number_of(&key), value)));
        }
        if candidates.is_empty()
            && let Some(span) = books::near(self.id)
        {
            let near = disk.range(&span, Direction::Up, MOST_COMMITS)?;
            candidates.extend(near.into_iter().map(|(key, value)| (books::number_of(&key), value)));
        }
        Ok(candidates)
    }
}

impl Sums {
    pub(super) fn add(&mut self, row: &Row<'_>, group: Vec<String>) {
        self.total.add(row);
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&group) {
            self.cut = true;
            return;
        }
        self.groups.entry(group).or_default().add(row);
    }
}

impl Filter {
    pub(super) fn span(&self) -> Span {
        let mut span = Span::under(ROWS);
        if let Some(from) = self.from {
            span.from = books::key(ROWS, books::micros(from));
        }
        if let Some(to) = self.to {
            span.to = books::key(ROWS, books::micros(to));
        }
        span
    }

    pub(super) fn takes(&self, row: &Row<'_>, number: u64) -> bool {
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
    pub(super) fn of<'r>(self, row: &'r Row<'_>, number: u64) -> Cow<'r, str> {
        let of = |value: &'r Option<Cow<'_, str>>| Cow::Borrowed(value.as_deref().unwrap_or_default());
        match self {
            Self::Tenant => Cow::Borrowed(&row.tenant),
            Self::Key => format!("{}/{}", row.tenant, row.key).into(),
            Self::Model => Cow::Borrowed(&row.model),
            Self::Type => Cow::Borrowed(&row.kind),
            Self::Provider => of(&row.provider),
            Self::Credential if row.credential.is_none() => Cow::Borrowed(""),
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
