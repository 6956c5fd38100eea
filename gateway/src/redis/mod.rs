//! Several gateways with one Redis: limits and budgets that hold over all of them, without a request that waits for it.
//!
//! An account that is shared spends from a *slice* that this node claimed beforehand ([`budget::lease`](crate::budget::lease)
//! has the arithmetic). The [`Link`] claims the next one when less than half is left. Only where a node has no slice at all does
//! an admission wait, together with all others of that account, for 25 ms at the longest. What lies idle for 3 s goes back,
//! and so does all when the process ends; a window's rest is worth nothing when it is over.
//!
//! # While Redis is away
//!
//! An answer that takes more than 100 ms, or an error, cuts off every account of the process at once; Redis is tried again
//! each half second. `on_redis_loss` says what holds until then:
//!
//! * `lease`: each node keeps to what it has in hand and its share: what was left when it last looked, divided by the
//!   nodes that were there. It looks each second at the accounts that it uses.
//! * `local`: each node has the whole limit for itself.
//! * `reject`: whatever has a limit is refused.
//!
//! # How much can be overspent
//!
//! With Redis there: nothing, but what one request uses beyond the worst case that was held for it.
//!
//! With `lease`, when all nodes lose Redis: the shares of N nodes are together what was left when each looked. What
//! the others had claimed since, within one second, can be spent a second time. An account that a node has not used in this
//! window it believes untouched: its share is 1/N of the limit. So all nodes together spend at most the limit and (N − 1)/N
//! of it, and that only where one node spent nearly all before the others used it at all.
//!
//! When k of N nodes are cut off and the others are not, each of the k has its share beside what the others go on to
//! claim: at most the limit and k/N of it.
//!
//! A Redis that comes back without its data learns it from the nodes: each tells what it has claimed, and nobody takes
//! anything new for 3 s.
//!
//! Slots (requests at once) are each node's own. A process that ends by force leaves its claims standing until their
//! windows end, and has them again if it comes back as the same node.

mod connection;
mod link;
mod nodes;

pub use connection::{Settings, SettingsError};
pub use link::{Link, MOST_WISHES, Told};
