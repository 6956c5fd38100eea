//! Which target is next, and which are left out. Pure: what is in, what became of it and the time are handed in; no
//! socket and no clock of its own.
//!
//! [`LbModelManager`] picks; what it hands out is [`Held`] until the attempt ends; [`Health`] is what an attempt's end
//! changes, and [`Registry`] what keeps that over reloads.

mod health;
mod held;
mod load;
mod manager;
mod moment;
mod notes;
mod pins;
mod registry;

pub use health::{Availability, Cooldown, Failure, Health, Rules};
pub use held::{Cooled, Held, Outcome};
pub use load::Load;
pub use manager::{Candidate, How, LbModelManager, Policy, Rotation, Tried, Unpicked};
pub use moment::Moment;
pub use notes::{Note, Outbox, Word};
pub use pins::{Pins, beginning};
pub use registry::{CredentialHealth, Registry, Standing};
