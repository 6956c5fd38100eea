//! The cooldowns that gateways tell each other: one hash, with a field for each thing that cools. A field's value is a
//! time and a word: until when it cools and why, or since when it is well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redis::Pipeline;
use tokio::sync::mpsc::Receiver;

use crate::balance::{Moment, Note, Registry, Word};
use crate::error::Cause;

/// Where they are.
const KEY: &str = "weir:{cooldowns}";

/// More are neither told nor heard: all of them are read each second.
const MOST: usize = 1024;

/// How many are told together.
const BATCH: usize = 64;

/// A longer id is not told; providers' names for models are shorter by far.
const LONGEST_ID: usize = 512;

/// How long a field stays after its time: until every gateway has heard of it, and for clocks that are not quite the
/// same.
const AFTERWARDS: Duration = Duration::from_secs(60);

const WELL: &str = "well";
const RESET: &str = "reset";

/// What this gateway tells and hears of cooldowns.
#[derive(Debug)]
pub struct Cooldowns {
    registry: Arc<Registry>,
    notes: Receiver<Note>,
    /// What Redis has not taken yet.
    untold: Vec<Note>,
    /// What the hash held at the last look.
    heard: HashMap<String, Heard>,
}

#[derive(Debug)]
struct Heard {
    value: String,
    /// When this gateway first saw that value.
    first: Moment,
}

impl Cooldowns {
    /// The notes of this registry are told, and it hears those of others.
    #[must_use]
    pub fn new(registry: Arc<Registry>, notes: Receiver<Note>) -> Self {
        Self { registry, notes, untold: Vec::with_capacity(BATCH), heard: HashMap::new() }
    }

    /// Waits until there is something to tell.
    pub(super) async fn noted(&mut self) {
        if self.untold.is_empty() {
            self.notes.recv_many(&mut self.untold, BATCH).await;
        }
    }

    /// What tells it.
    pub(super) fn telling(&mut self, clock: Clock) -> Option<Pipeline> {
        let mut pipeline = Pipeline::new();
        // What waited for a Redis that was away may be over.
        let is_past = |word| matches!(word, Word::Cools { until, .. } if until <= clock.moment);
        for note in self.untold.iter().filter(|note| !is_past(note.word)) {
            let (field, value) = (field(note), clock.value(note.word));
            let has_room = self.heard.len() < MOST || self.heard.contains_key(&field);
            if has_room && field.len() <= LONGEST_ID {
                pipeline.hset(KEY, &field, &value).ignore();
                self.heard.insert(field, Heard { value, first: clock.moment });
            }
        }
        if pipeline.is_empty() {
            return None;
        }
        let lasts = self.registry.longest().saturating_add(AFTERWARDS.saturating_mul(2));
        let lasts = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
        pipeline.expire(KEY, lasts).ignore();
        Some(pipeline)
    }

    /// Redis has taken it.
    pub(super) fn told(&mut self) {
        self.untold.clear();
    }

    /// What asks for all that is told.
    pub(super) fn asking() -> Pipeline {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(KEY);
        pipeline
    }

    /// Hears what was told. Gives what takes away that which is over.
    pub(super) fn hear(&mut self, fields: Vec<(String, String)>, clock: Clock) -> Option<Pipeline> {
        let mut before = std::mem::take(&mut self.heard);
        let mut over = Vec::new();
        for (field, value) in fields.into_iter().take(MOST) {
            let known = before.remove(&field).filter(|known| known.value == value);
            let is_new = known.is_none();
            let heard = known.unwrap_or(Heard { value, first: clock.moment });
            if self.is_over(&heard, clock) {
                over.push(field);
                continue;
            }
            if let Some(note) = self.note(&field, &heard, clock).filter(|note| is_new || note.word != Word::Reset) {
                self.registry.hear(&note, clock.moment);
            }
            self.heard.insert(field, heard);
        }
        let mut pipeline = Pipeline::new();
        pipeline.hdel(KEY, &over).ignore();
        (!over.is_empty()).then_some(pipeline)
    }

    /// Also what no gateway wrote, and what one wrote whose clock is far ahead.
    fn is_over(&self, heard: &Heard, clock: Clock) -> bool {
        let is_past = |(at, _)| clock.time.saturating_sub(at) > millis(AFTERWARDS);
        parts(&heard.value).is_none_or(is_past) || clock.moment > self.last(heard).plus(AFTERWARDS)
    }

    /// Whatever its clock says, no gateway can cool anything for longer than this.
    fn last(&self, heard: &Heard) -> Moment {
        heard.first.plus(self.registry.longest())
    }

    fn note(&self, field: &str, heard: &Heard, clock: Clock) -> Option<Note> {
        let (tag, id) = field.split_once(' ')?;
        let (at, word) = parts(&heard.value)?;
        let word = match word {
            WELL => Word::Well,
            RESET => Word::Reset,
            cause => {
                let cause = Cause::ALL.into_iter().find(|known| known.name() == cause)?;
                Word::Cools { until: clock.moment_of(at).min(self.last(heard)), cause }
            }
        };
        Some(Note { id: id.into(), tag: u16::from_str_radix(tag, 16).ok()?, word })
    }
}

/// Two gateways with different secrets by the same id do not speak of the same thing.
fn field(note: &Note) -> String {
    format!("{:04x} {}", note.tag, note.id)
}

fn parts(value: &str) -> Option<(i64, &str)> {
    let (at, word) = value.split_once(' ')?;
    Some((at.parse().ok()?, word))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// One time on this process's clock and on everybody's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    moment: Moment,
    /// Milliseconds since 1970.
    time: i64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { moment: Moment::now(), time: Timestamp::now().as_millisecond() }
    }

    fn value(self, word: Word) -> String {
        match word {
            Word::Cools { until, cause } => format!("{} {}", self.time_of(until), cause.name()),
            Word::Well => format!("{} {WELL}", self.time),
            Word::Reset => format!("{} {RESET}", self.time),
        }
    }

    fn time_of(self, moment: Moment) -> i64 {
        let later = self.time.saturating_add(millis(moment.since(self.moment)));
        later.saturating_sub(millis(self.moment.since(moment)))
    }

    /// What is past is now.
    fn moment_of(self, time: i64) -> Moment {
        let ahead = u64::try_from(time.saturating_sub(self.time)).unwrap_or(0);
        self.moment.plus(Duration::from_millis(ahead))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::balance::{Availability, CredentialHealth, Outbox, Standing};

    const LONGEST: Duration = Duration::from_secs(600);

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// So many seconds after the test began; this gateway's clock is right.
    fn at(seconds: u64) -> Clock {
        let time = 1_700_000_000_000 + i64::try_from(seconds * 1000).unwrap();
        Clock { moment: Moment::NEVER.plus(secs(1000 + seconds)), time }
    }

    /// A gateway with one credential for one model.
    struct Node {
        cooldowns: Cooldowns,
        credential: Arc<CredentialHealth>,
        standing: Arc<Standing>,
    }

    impl Node {
        fn new(secret: &str) -> Self {
            let (outbox, notes) = Outbox::new();
            let registry = Arc::new(Registry::shared(outbox));
            registry.cool_at_most(LONGEST);
            let credential = registry.credential("p/a", secret);
            let standing = registry.standing(&credential, "m");
            Self { cooldowns: Cooldowns::new(registry, notes), credential, standing }
        }

        /// As the hash is told of a cooldown of this node's credential.
        fn field(&self) -> String {
            let note = Note { id: "p/a".into(), tag: self.credential.tag(), word: Word::Well };
            field(&note)
        }

        /// Sees this value; gives whether it is taken away.
        fn hears(&mut self, value: &str, clock: Clock) -> bool {
            let field = self.field();
            self.cooldowns.hear(vec![(field, value.to_owned())], clock).is_some()
        }

        fn cools(&self, seconds: u64) -> Option<Duration> {
            match self.standing.availability(at(seconds).moment) {
                Availability::Cooling(until) => Some(until.since(at(seconds).moment)),
                Availability::Ready | Availability::Probe | Availability::Probing => None,
            }
        }
    }

    fn cools_until(clock: Clock) -> String {
        let word = Word::Cools { until: clock.moment, cause: Cause::RateLimit };
        clock.value(word)
    }

    #[test]
    fn what_another_gateway_tells_holds_here_until_the_same_time() {
        let mut node = Node::new("sk");
        assert!(!node.hears(&cools_until(at(60)), at(0)));
        assert_eq!(node.cools(1), Some(secs(59)));
        assert!(node.standing.cooldown().unwrap().elsewhere);
        assert_eq!(node.standing.availability(at(60).moment), Availability::Probe);
        assert!(!node.hears(&cools_until(at(60)), at(61)));
        assert_eq!(node.standing.availability(at(61).moment), Availability::Probe);
        assert!(node.hears(&cools_until(at(60)), at(121)), "what is long over is taken away");
    }

    #[test]
    fn a_clock_that_is_wrong_elsewhere_cools_for_the_longest_once() {
        let mut node = Node::new("sk");
        let wrong = cools_until(at(1_000_000));
        for second in 0..=600 {
            assert!(!node.hears(&wrong, at(second)));
        }
        assert_eq!((node.cools(599), node.cools(600)), (Some(secs(1)), None));
        assert!(node.hears(&wrong, at(661)));
        assert_eq!(node.cools(661), None);
    }

    #[test]
    fn another_secret_and_what_no_gateway_wrote_are_passed_over() {
        let (mut node, field) = (Node::new("sk-new"), Node::new("sk-old").field());
        assert_ne!(node.field(), field);
        assert!(node.cooldowns.hear(vec![(field, cools_until(at(60)))], at(0)).is_none());
        assert_eq!(node.cools(0), None);
        for nonsense in ["", "60", "x rate_limit", "99999999999999999999 rate_limit"] {
            assert!(node.hears(nonsense, at(0)), "{nonsense}");
        }
        assert!(!node.hears("1700000060000 a-word-of-tomorrow", at(0)));
        let strange = ["p/a", "zzzz p/a", "0000", ""].map(|field| (field.to_owned(), cools_until(at(60))));
        node.cooldowns.hear(strange.into(), at(0));
        assert_eq!(node.cools(0), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut node = Node::new("sk");
        let many = (0..3 * MOST).map(|number| (format!("0000 p/{number}"), cools_until(at(60)))).collect();
        node.cooldowns.hear(many, at(0));
        assert_eq!(node.cooldowns.heard.len(), MOST);
        let note = |id: String| Note { id: id.into(), tag: 0, word: Word::Well };
        node.cooldowns.untold.push(note("p/new".to_owned()));
        assert!(node.cooldowns.telling(at(0)).is_none());
        node.cooldowns.untold.push(note("p/0".to_owned()));
        assert!(node.cooldowns.telling(at(0)).is_some(), "what is there already may be told anew");
        node.cooldowns.told();
        node.cooldowns.heard.clear();
        let over = Word::Cools { until: at(5).moment, cause: Cause::Auth };
        node.cooldowns.untold = vec![note("p".repeat(LONGEST_ID)), Note { word: over, ..note("p/a".to_owned()) }];
        assert!(node.cooldowns.telling(at(5)).is_none(), "one is too long, the other is over");
        assert!(node.cooldowns.telling(at(4)).is_some());
    }

    #[tokio::test]
    async fn a_reset_is_heard_once_and_its_own_never() {
        let (mut one, mut two) = (Node::new("sk"), Node::new("sk"));
        for node in [&mut one, &mut two] {
            node.hears(&cools_until(at(60)), at(0));
        }
        one.standing.reset();
        one.cooldowns.noted().await;
        assert!(one.cooldowns.telling(at(1)).is_some());
        one.cooldowns.told();
        let reset = at(1).value(Word::Reset);
        assert!(!two.hears(&reset, at(2)));
        assert_eq!((one.cools(2), two.cools(2)), (None, None));
        for node in [&mut one, &mut two] {
            let again = Word::Cools { until: at(60).moment, cause: Cause::Auth };
            let note = Note { id: "p/a".into(), tag: node.credential.tag(), word: again };
            node.cooldowns.registry.hear(&note, at(3).moment);
            node.hears(&reset, at(4));
            assert_eq!(node.cools(4), Some(secs(56)));
        }
    }
}
