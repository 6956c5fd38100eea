//! What is noted of a request that is open: what becomes of it if nothing more is heard of it.
//!
//! Each request writes such a note before it goes out, and hardly any note is ever read, so it has little more than a
//! row needs that the request's names and times do not give.

use std::borrow::Cow;

use jiff::Timestamp;
use rmp_serde::{Deserializer, Serializer, decode, encode};
use serde::{Deserialize, Serialize};

use super::Opened;
use super::frame::{self, Form, Frame};
use super::row::{Accuracy, Attempt, Charge, Row, Spent};
use crate::error::Kind;
use crate::store::StoreFault;

/// What becomes of a request if nothing more is heard of it.
#[derive(Clone, Debug)]
pub struct Intent<'a, C> {
    /// What was known when it began.
    pub opened: Opened<'a>,
    /// Its row with the attempts that have ended, where there are any.
    pub so_far: Option<Row<'a>>,
    /// Attempts that are under way: two at most, one beside the other.
    pub under_way: [Option<UnderWay<'a>>; 2],
    /// What each account is charged for these attempts and those before: its id, the window, and how much.
    pub charges: C,
}

/// An attempt that is under way. Its provider has very likely been asked, so it has cost its input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay<'a> {
    /// Who is asked.
    pub provider: Cow<'a, str>,
    /// The provider's name for the model.
    pub upstream_model: Cow<'a, str>,
    /// The credential's id.
    pub credential: Option<Cow<'a, str>>,
    /// The estimate of its input.
    pub input_tokens: u64,
    /// What that costs, in nano-dollars; `None` without a price.
    pub cost: Option<i64>,
}

/// What an intent comes to when the process has ended.
#[derive(Debug)]
pub(super) struct Cut<'a> {
    pub(super) row: Row<'a>,
    pub(super) charges: Vec<Charge>,
}

impl<'a> UnderWay<'a> {
    /// What it is when it was cut after so long.
    fn cut(&self, ms: u64) -> Attempt<'a> {
        Attempt {
            target: [&self.provider, "/", &self.upstream_model].concat().into(),
            credential: self.credential.clone(),
            outcome: Kind::GatewayFault.name().into(),
            status: None,
            ms,
            spent: Some(Spent {
                input_tokens: self.input_tokens,
                output_tokens: 0,
                cost: self.cost,
                accuracy: Accuracy::Estimated,
            }),
        }
    }
}

impl<'a> Cut<'a> {
    /// What is noted in `frame`, of a process that ended at about `ended`.
    pub(super) fn read(frame: &Frame<'a>, ended: Timestamp) -> Result<Self, StoreFault> {
        let Intent { opened, so_far, under_way, charges } = match frame.form {
            Form::Note => {
                read(frame.packed).map_err(|error| StoreFault::Damaged(format!("a note of the ledger: {error}")))?
            }
            // Notes were rows, before they told what was sent.
            Form::Row => return Ok(Self { row: lasted(frame.row()?, ended), charges: Vec::new() }),
        };
        let mut row = lasted(so_far.unwrap_or_else(|| opened.row()), ended);
        let before = row.attempts.iter().map(|attempt| attempt.ms).fold(0, u64::saturating_add);
        let ms = row.duration_ms.saturating_sub(before);
        for attempt in under_way.into_iter().flatten() {
            add(&mut row, attempt, ms);
        }
        Ok(Self { row, charges })
    }

    /// Its row, framed.
    pub(super) fn framed(&self, number: u64) -> Vec<u8> {
        frame::encode(number, &self.row)
    }
}

fn lasted(row: Row<'_>, ended: Timestamp) -> Row<'_> {
    Row { duration_ms: u64::try_from(ended.duration_since(row.started_at).as_millis()).unwrap_or(0), ..row }
}

/// An attempt that was cut after so long is part of what the request used.
fn add<'a>(row: &mut Row<'a>, attempt: UnderWay<'a>, ms: u64) {
    row.attempts.push(attempt.cut(ms));
    row.usage.input_tokens = row.usage.input_tokens.saturating_add(attempt.input_tokens);
    row.cost = match (row.cost, attempt.cost) {
        (Some(before), Some(cost)) => Some(before.saturating_add(cost)),
        (before, cost) => before.or(cost),
    };
    row.provider = Some(attempt.provider);
    row.upstream_model = Some(attempt.upstream_model);
    row.credential = attempt.credential;
}

pub(super) fn write<'c, C>(intent: Intent<'_, C>, to: &mut Vec<u8>) -> Result<(), encode::Error>
where
    C: IntoIterator<Item = (&'c str, i64, i64)>,
{
    let mut to = Serializer::new(to);
    intent.opened.serialize(&mut to)?;
    intent.so_far.serialize(&mut to)?;
    intent.under_way.serialize(&mut to)?;
    intent.charges.into_iter().try_for_each(|charge| charge.serialize(&mut to))?;
    // How many they are is not known before.
    None::<Due<'_>>.serialize(&mut to)
}

/// A charge: the account's id, the window, and how much.
type Due<'a> = (&'a str, i64, i64);

fn read(packed: &[u8]) -> Result<Intent<'_, Vec<Charge>>, decode::Error> {
    let mut from = Deserializer::from_read_ref(packed);
    let opened = Opened::deserialize(&mut from)?;
    let so_far = Option::deserialize(&mut from)?;
    let under_way = <[_; 2]>::deserialize(&mut from)?;
    let mut charges = Vec::new();
    while let Some((account, window, amount)) = Option::<Due<'_>>::deserialize(&mut from)? {
        charges.push(Charge { account: account.into(), window, amount });
    }
    Ok(Intent { opened, so_far, under_way, charges })
}
