//! One claim: written in one exchange that also reads what all others have, and settled by what the account makes of
//! that.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use redis::{Pipeline, RedisError};
use tokio::time::Instant;

use crate::budget::Window;
use crate::budget::desk::Claimant;
use crate::budget::lease::{Amount, Answer, Beside, Claim, Claims, NodeId};
use crate::redis::connection::Connection;
use crate::redis::nodes::{Dead, Nodes};

/// An answer that takes longer is as good as none: Redis in the same building answers in a tenth of a millisecond. So
/// long at most those wait who have no slice in hand when it stops.
const SLOW: Duration = Duration::from_millis(40);

/// An answer that is read so late came before this process was stopped, and is old.
const STOPPED: Duration = Duration::from_secs(1);

/// What holds for as long as it is renewed is forgotten when nobody has claimed any of it for so many seconds.
const UNCLAIMED: i64 = 3600;

/// How many rounds a claim has at most: what takes back claims nothing, but may learn that others want more of it.
const ROUNDS: usize = 4;

/// What follows a node's id in the name of the field that stands beside its claim.
const BESIDE: &str = ":beside";

/// What stands there if the node wants what others have in hand.
const WANTS: &str = "wants";

/// Claims outlive their window by its own length within these bounds, in seconds, for clocks that are not quite the
/// same.
const AFTERWARDS: (i64, i64) = (60, 3600);

/// The fields of a hash, as Redis tells them.
pub(super) type Fields = Vec<(String, String)>;

/// Why Redis is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it did not answer within {} ms", SLOW.as_millis())]
    Slow,
    #[error("it has lost what it held, and is told anew")]
    Lossy,
    #[error("{0}")]
    Redis(#[from] RedisError),
}

/// What makes one claim.
pub(super) struct Claiming {
    pub(super) connection: Connection,
    pub(super) node: NodeId,
    pub(super) process: NodeId,
    pub(super) processes: Arc<Mutex<Nodes>>,
}

impl Claiming {
    pub(super) async fn settle(mut self, claimant: Arc<dyn Claimant>, claim: Claim) -> Result<(), Trouble> {
        let mut next = Some(claim);
        for _ in 0..ROUNDS {
            let Some(claim) = next else { break };
            let answer = self.write(&claim).await.inspect_err(|_| claimant.unanswered())?;
            next = claimant.answered(&claim, &answer, Timestamp::now());
        }
        Ok(())
    }

    /// Writes a claim as the node's, or as the process's where it holds only while that lives.
    async fn write(&mut self, claim: &Claim) -> Result<Answer, Trouble> {
        let by = if claim.window.is_some() { self.node } else { self.process };
        let pipeline = pipeline((by, self.process), claim);
        let (before, after): (Fields, Fields) = in_time(self.connection.run(&pipeline)).await?;
        let (before, noted, after) = (numbers(&before), noted(&after), numbers(&after));
        if claim.window.is_some() {
            return self.without_hands(&claim.key, Answer { before, after, ..Answer::default() }, noted).await;
        }
        let Dead { all, buried } = self.dead(&after);
        remove(&mut self.connection, &claim.key, &buried).await?;
        Ok(Answer { before, after, dead: all, ..Answer::default() })
    }

    fn dead(&self, processes: &Claims) -> Dead {
        locked(&self.processes).dead(self.process, processes, Instant::now())
    }

    /// Leaves out what dead processes had in hand, and in the end writes that down: who comes later cannot know that
    /// they died.
    async fn without_hands(&mut self, key: &str, mut answer: Answer, noted: Vec<Noted>) -> Result<Answer, Trouble> {
        let processes = noted.iter().map(|noted| (noted.process, 0)).collect();
        let Dead { all, buried } = self.dead(&processes);
        let mut cuts = Pipeline::new();
        for Noted { node, process, mut beside } in noted {
            let is_dead = all.contains(&process);
            let claim = answer.after.iter_mut().find(|(id, claim)| *id == node && *claim > beside.spent);
            if let Some((_, claim)) = claim.filter(|_| is_dead) {
                *claim = beside.spent;
                if buried.contains(&process) {
                    cuts.hset(key, node, beside.spent).ignore();
                }
            }
            beside.wants &= !is_dead;
            answer.beside.push((node, beside));
        }
        if !cuts.is_empty() {
            let () = in_time(self.connection.run(&cuts)).await?;
        }
        Ok(answer)
    }
}

/// What stands beside a node's claim, and which process wrote it.
struct Noted {
    node: NodeId,
    process: NodeId,
    beside: Beside,
}

impl Noted {
    fn read(field: &str, text: &str) -> Option<Self> {
        let node = field.strip_suffix(BESIDE)?.parse().ok()?;
        let mut words = text.split(' ');
        let process = words.next()?.parse().ok()?;
        let (used, spent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { node, process, beside: Beside { used, spent, wants: words.next() == Some(WANTS) } })
    }

    fn text(&self) -> String {
        let Self { process, beside: Beside { used, spent, wants }, .. } = self;
        let wants = if *wants { format!(" {WANTS}") } else { String::new() };
        format!("{process} {used} {spent}{wants}")
    }
}

/// The field beside a node's claim.
fn beside(node: NodeId) -> String {
    format!("{node}{BESIDE}")
}

/// What no gateway wrote is passed over.
fn noted(fields: &[(String, String)]) -> Vec<Noted> {
    fields.iter().filter_map(|(field, text)| Noted::read(field, text)).collect()
}

/// Makes what one node used another's. What is written twice, since this ends in between, is freed with its window.
pub(super) async fn bequeath(
    connection: &mut Connection,
    (from, to): (NodeId, NodeId),
    legacies: impl Iterator<Item = Claim>,
) -> Result<(), Trouble> {
    for legacy in legacies {
        let mut next = pipeline((to, 0), &legacy);
        // What was told beside the two claims is true of them no more.
        next.hset(&legacy.key, from, 0).ignore().hdel(&legacy.key, vec![beside(from), beside(to)]).ignore();
        let _known: (Fields, Fields) = in_time(connection.run(&next)).await?;
    }
    Ok(())
}

fn pipeline((node, process): (NodeId, NodeId), claim: &Claim) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.hgetall(&claim.key);
    match claim.amount {
        Amount::More(more) => pipeline.hincr(&claim.key, node, more).ignore(),
        Amount::Total(total) => pipeline.hset(&claim.key, node, total).ignore(),
    };
    if let Some(told) = claim.beside {
        pipeline.hset(&claim.key, beside(node), Noted { node, process, beside: told }.text()).ignore();
    }
    match claim.window {
        None => pipeline.expire(&claim.key, UNCLAIMED).ignore(),
        Some(Window { end: i64::MAX, .. }) => &mut pipeline,
        Some(Window { start, end }) => {
            let afterwards = end.saturating_sub(start).clamp(AFTERWARDS.0, AFTERWARDS.1);
            pipeline.expire_at(&claim.key, end.saturating_add(afterwards)).ignore()
        }
    };
    pipeline.hgetall(&claim.key);
    pipeline
}

/// Takes fields out of a hash.
pub(super) async fn remove(connection: &mut Connection, hash: &str, ids: &[NodeId]) -> Result<(), Trouble> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut pipeline = Pipeline::new();
    pipeline.hdel(hash, ids).ignore();
    in_time(connection.run(&pipeline)).await
}

/// The nodes, whoever panicked while it held them.
pub(super) fn locked(nodes: &Mutex<Nodes>) -> std::sync::MutexGuard<'_, Nodes> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that comes in time, by whichever clock.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Trouble> {
    let asked = Instant::now();
    let answer = tokio::time::timeout(SLOW, answer).await.map_err(|_| Trouble::Slow)??;
    if asked.elapsed() < STOPPED { Ok(answer) } else { Err(Trouble::Slow) }
}

/// What no gateway wrote is passed over.
pub(super) fn numbers(fields: &[(String, String)]) -> Claims {
    fields.iter().filter_map(|(node, number)| Some((node.parse().ok()?, number.parse().ok()?))).collect()
}
