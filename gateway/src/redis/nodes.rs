//! Who else is there: each node counts up its own number in a shared hash, and is alive as long as others see it move.
//! Nobody's clock is compared with anybody else's.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::lease::{Claims, NodeId};

/// How long a number may stand still before its node is no longer counted.
const SILENT: Duration = Duration::from_secs(10);

/// How long before its number is removed.
const GONE: Duration = Duration::from_secs(600);

/// More nodes are not remembered; nobody runs so many at one Redis.
const MOST: usize = 4096;

/// The nodes that were seen.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    seen: HashMap<NodeId, Beat>,
    own: i64,
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
        for (id, number) in beats.iter().filter(|(id, _)| *id != node).take(MOST) {
            let beat = self.seen.entry(*id).or_insert(Beat { number: *number, moved: now });
            if beat.number != *number {
                *beat = Beat { number: *number, moved: now };
            }
        }
        let still = |beat: &Beat| now.saturating_duration_since(beat.moved);
        let gone: Vec<_> = self.seen.iter().filter(|(_, beat)| still(beat) >= GONE).map(|(id, _)| *id).collect();
        self.seen.retain(|_, beat| still(beat) < GONE);
        let alive = 1 + self.seen.values().filter(|beat| still(beat) < SILENT).count();
        Seen { lost, alive, gone }
    }
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
        assert_eq!(nodes.look(1, 1, &vec![(1, 1), (2, 7), (3, 5)], start).alive, 3);
        assert_eq!(nodes.look(1, 2, &vec![(1, 2), (2, 8), (3, 5)], start + second(9)).alive, 3);
        let later = nodes.look(1, 3, &vec![(1, 3), (2, 8), (3, 5)], start + second(11));
        assert_eq!(later, Seen { lost: false, alive: 2, gone: vec![] });
        assert_eq!(nodes.look(1, 4, &vec![(1, 4), (2, 8), (3, 5)], start + second(600)).gone, [3]);
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
