//! Who else is there: each node counts up its own number in a shared hash, and is alive as long as others see it move.
//! Nobody's clock is compared with anybody else's.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::lease::{Claims, NodeId};

/// How long a number may stand still before its node is no longer counted.
const SILENT: Duration = Duration::from_secs(10);

/// How long before what a dead one claimed is removed: by then all have seen that it is dead.
const BURIED: Duration = Duration::from_secs(60);

/// Who did not look for so long may not take others for silent that could not be heard.
const MISSED: Duration = Duration::from_secs(3);

/// How long before its number is removed.
const GONE: Duration = Duration::from_secs(600);

/// More nodes are not remembered; nobody runs so many at one Redis.
const MOST: usize = 4096;

/// The nodes that were seen.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    seen: HashMap<NodeId, Beat>,
    own: i64,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Beat {
    number: i64,
    moved: Instant,
}

/// What a look at the beats shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether the store knows less of this node than it was told: it lost data, or is another one.
    pub(super) lost: bool,
    /// How many are alive, this one included.
    pub(super) alive: usize,
    /// Whose numbers are to be removed.
    pub(super) gone: Vec<NodeId>,
}

impl Nodes {
    /// Looks at the `beats` after this node's own was raised to `own`.
    pub(super) fn look(&mut self, node: NodeId, own: i64, beats: &Claims, now: Instant) -> Seen {
        let lost = own <= self.own;
        self.own = own;
        self.excuse(now);
        for (id, number) in beats.iter().filter(|(id, _)| *id != node) {
            if let Some(beat) = self.beat(*id, *number, now).filter(|beat| beat.number != *number) {
                *beat = Beat { number: *number, moved: now };
            }
        }
        let still = |beat: &Beat| beat.still(now);
        let gone: Vec<_> = self.seen.iter().filter(|(_, beat)| still(beat) >= GONE).map(|(id, _)| *id).collect();
        self.seen.retain(|_, beat| still(beat) < GONE);
        let alive = 1 + self.seen.values().filter(|beat| still(beat) < SILENT).count();
        Seen { lost, alive, gone }
    }

    /// What is known of a node, which is this number if it is a new one; `None` where it is one too many.
    fn beat(&mut self, id: NodeId, number: i64, now: Instant) -> Option<&mut Beat> {
        if self.seen.len() >= MOST && !self.seen.contains_key(&id) {
            return None;
        }
        Some(self.seen.entry(id).or_insert(Beat { number, moved: now }))
    }

    /// The time in which nobody looked says nothing.
    fn excuse(&mut self, now: Instant) {
        let unseen = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        if unseen >= MISSED {
            self.seen.values_mut().for_each(|beat| beat.moved += unseen);
        }
    }

    /// Those of whom these claims are, as far as they are dead. One who was never seen has the time to show that it
    /// lives.
    pub(super) fn dead(&mut self, node: NodeId, claims: &Claims, now: Instant) -> Dead {
        for (id, _) in claims.iter().filter(|(id, _)| *id != node) {
            self.beat(*id, i64::MIN, now);
        }
        let silent = |length: Duration| self.seen.iter().filter(move |(_, beat)| beat.still(now) >= length);
        let all = silent(SILENT).map(|(id, _)| *id).collect();
        let claimed = |id: NodeId| claims.iter().any(|(other, _)| *other == id);
        Dead { all, buried: silent(BURIED).map(|(id, _)| *id).filter(|id| claimed(*id)).collect() }
    }
}

impl Beat {
    fn still(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }
}

/// Those who are dead.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    /// All of them.
    pub(super) all: Vec<NodeId>,
    /// Whose claims are to be removed.
    pub(super) buried: Vec<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[tokio::test]
    async fn a_node_is_counted_as_long_as_its_number_moves() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        let mut look = |after: u64, second_ends: u64| {
            let beat = i64::try_from(after).unwrap_or(0) + 1;
            nodes.look(
                1,
                beat,
                &vec![(1, beat), (2, beat.min(i64::try_from(second_ends).unwrap_or(0))), (3, 5)],
                start + second(after),
            )
        };
        let seen: Vec<_> = (0..=620).step_by(2).map(|after| look(after, 11)).collect();
        let alive = |after: usize| seen.get(after / 2).map(|seen| seen.alive);
        assert_eq!(
            (alive(0), alive(8), alive(10), alive(18), alive(22)),
            (Some(3), Some(3), Some(2), Some(2), Some(1))
        );
        let gone: Vec<_> = seen.iter().flat_map(|seen| seen.gone.clone()).take(2).collect();
        assert_eq!(gone, [3, 2]);
    }

    #[tokio::test]
    async fn who_is_silent_is_dead_unless_nobody_looked() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        let claims = vec![(1, 1), (2, 1), (9, 4)];
        nodes.look(1, 1, &vec![(1, 1), (2, 7)], start);
        assert_eq!(nodes.dead(1, &claims, start), Dead::default(), "a stranger may be new");
        for (beat, after) in [(2, 2), (3, 4), (4, 6), (5, 8), (6, 10)] {
            nodes.look(1, beat, &vec![(1, beat), (2, 6 + beat)], start + second(after));
        }
        assert_eq!(nodes.dead(1, &claims, start + second(10)), Dead { all: vec![9], buried: vec![] });
        nodes.look(1, 7, &vec![(1, 7), (2, 12)], start + second(100));
        assert_eq!(nodes.dead(1, &claims, start + second(100)).all, [9], "the other could not be heard");
        nodes.look(1, 8, &vec![(1, 8), (2, 12)], start + second(102));
        assert_eq!(nodes.dead(1, &claims, start + second(170)).buried.len(), 2);
    }

    #[tokio::test]
    async fn no_more_nodes_are_remembered_than_anybody_runs() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        for (beat, first) in [(1, 2), (2, 5_000), (3, 10_000)] {
            let strangers = (first..first + 3_000).map(|id| (id, 1)).collect();
            nodes.look(1, beat, &strangers, start);
            nodes.dead(1, &strangers, start);
        }
        assert_eq!(nodes.seen.len(), MOST);
        assert!(nodes.seen.contains_key(&2), "who was seen before is kept");
    }

    #[tokio::test]
    async fn a_store_that_lost_its_data_is_noticed() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        assert!(!nodes.look(1, 1, &vec![(2, 7)], start).lost);
        assert!(!nodes.look(1, 2, &vec![(2, 8)], start).lost);
        let emptied = nodes.look(1, 1, &vec![], start);
        assert_eq!((emptied.lost, emptied.alive), (true, 2), "the others come back soon");
    }
}
