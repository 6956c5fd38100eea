//! Several gateways with one Redis: limits and budgets that hold over all of them, without a request that waits for it.
//!
//! An account that is shared spends from a *slice* that this node claimed beforehand
//! ([`budget::lease`](crate::budget::lease) has the arithmetic). The [`Link`] claims the next one when less than half
//! is left, and what is free beyond two goes back at once. Only where a node has no slice at all does an admission
//! wait, together with all others of that account: for one answer of Redis, or until it is held to be away. What lies
//! idle for 3 s goes back, and so does all when the process ends; a window's rest is worth nothing when it is over.
//!
//! # While Redis is away
//!
//! An answer that takes more than 40 ms, or an error, cuts off every account of the process at once; Redis is tried
//! again each half second. `on_redis_loss` says what holds until then:
//!
//! * `lease`: each node keeps to what it has in hand and its share of the rest: what was left when it last looked, less
//!   one slice for each other node, divided by the nodes that were there. It looks each second at the accounts that it
//!   uses.
//! * `local`: each node has the whole limit for itself.
//! * `reject`: whatever has a limit is refused.
//!
//! # How much can be overspent
//!
//! With Redis there: nothing, but what one request uses beyond the worst case that was held for it; and what a process
//! that was killed, or stood still for 10 s and more, had used since it last said so, a second ago at most where it is
//! in use: no more than it had in hand. Others have that 10 s later.
//!
//! With `lease`, when all nodes lose Redis: nothing, unless a node claimed more than one slice of an account since the
//! others last looked at it; a slice is a quarter of what is left for each node. What was claimed beyond that can be
//! spent a second time. Nodes look each second at what they use, and an account that a node has not used for 3 s or
//! more it may believe to be fuller than it is. In the worst case, one node spending nearly all at once while the
//! others look away, that is (N − 1)/N of the limit.
//!
//! A gateway that starts while Redis is away takes as its share an Nth of the limit less what its own ledger says it
//! used, N being how many gateways it saw when it ran before; a new one takes itself for the only one.
//!
//! When k of N nodes are cut off and the others are not, each of the k has its share beside what the others go on to
//! claim: at most the limit and k/N of it. After 10 s the others have what the k had in hand as well, two slices each
//! unless a large request held more; that can be spent twice then.
//!
//! A Redis that comes back without its data learns it from the nodes: each tells what it has claimed, and nobody takes
//! anything new for 3 s. One that is emptied while all are connected is noticed at the next beat: until then, a second
//! at most, a node that claims sees none of the others' claims, and what they spent can be spent again.
//!
//! Of the claims of money, rates and quotas of a process that ends by force the others take what it had in hand, as
//! soon as its beat has not moved for 10 s. What it had used, held and waited for stands until their windows end, and
//! it has that again if it comes back as the same node. One that was only frozen lets go of what it had in hand when it
//! sees that it was not answered for 5 s. Gateways of an older version say nothing of what they spent: theirs stand as
//! they are.
//!
//! # Requests at once
//!
//! Slots are claimed as a *stock* (`limit::stock` has the arithmetic): what is given back stays in hand, a spare for
//! each node beside what is in use, as long as nobody else wants it. A claim says also how many were refused or wait.
//! Others see that within a second, give back what lies unused, and of what is in use all beyond an equal share, as it
//! comes free; who waits asks again each 200 ms. What cannot be shared out evenly, as where there are fewer slots than
//! gateways that want one, goes round: a claim says how many turns its process has had, and what comes free is for who
//! has had the fewest, half a second at most, in case that one stands still.
//!
//! A claim is a process's, not a node's, and holds while its beat is seen to move: 10 s after a `kill -9`, and a second
//! or two until all have looked, its slots are free, whether or not it was started again. Until then that is all that
//! it had claimed, to spare too: of a process that was busy while others were idle, as good as all there are. Time in
//! which this process did not reach Redis is not held against the others.
//!
//! With Redis there no more are in use than the limit, with these exceptions. A process that is stopped for 10 s and
//! more and goes on has its requests still, up to what it had claimed. A Redis that loses its data is noticed at a
//! node's next beat: until then, a second at most, a node that never looked at these slots can claim as if nobody had
//! any; who had looked remembers. Without Redis `lease` is what a node has in hand and an Nth of the rest as it last
//! looked, a second ago at most where it has slots, or of all where it has none: the limit and (N − 1)/N of it at most,
//! and one slot for each node at the least.
//! `local` and `reject` are as above.
//!
//! # Cooldowns
//!
//! [`Cooldowns`] tells the others what cools here, as far as a provider itself said so, and hears the same of them once
//! a second. It is advice: while Redis is away, or when there is too much of it, each gateway finds out by itself.
//!
//! # Raised limits
//!
//! [`Raised`] tells the others at once what was raised here, or ended, and hears the same of them once a second. Each
//! gateway keeps all of it on its own disk, and tells it again to a Redis that lost it. Of two words on one account the
//! later one holds everywhere. While Redis is away each goes on with what it knows.
//!
//! # Ledgers
//!
//! [`Ledgers`] holds a copy of each gateway's ledger, each a backend of the store of its own, by which every gateway
//! answers for the requests of all. [`ledger`](crate::ledger) writes and reads them, on threads that may wait and by a
//! connection of their own: a Redis that is slow at that delays no claim.

mod claiming;
mod connection;
mod cooldowns;
mod ledgers;
mod line;
mod link;
mod map;
mod nodes;
mod raises;

pub use connection::{Settings, SettingsError};
pub use cooldowns::Cooldowns;
pub use ledgers::Ledgers;
pub use link::{Counted, Link, MOST_WISHES, Told};
pub use raises::{Keep, Raised};
