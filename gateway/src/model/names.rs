//! The balancing of a model with a `*`: each name that callers put in its place stands for a model of the provider's
//! with limits and failures of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::balance::{Availability, LbModelManager, Moment, Registry};
use crate::model::snapshot::Target;

/// So many names are told apart; callers make them up, and those after them share one state.
const MOST_NAMES: usize = 1_000;

/// What picks among a model's targets, by what its `*` stands for.
#[derive(Debug)]
pub struct Names {
    registry: Arc<Registry>,
    known: Mutex<Known>,
}

type Known = HashMap<Box<str>, Arc<LbModelManager>>;

impl Names {
    /// None yet.
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, known: Mutex::default() }
    }

    /// Those that `before` knew, with the targets that are now; so that their cooldowns live on.
    pub(super) fn take_over(&self, before: &Self, targets: &[Target], shared: &LbModelManager) {
        before.all().iter().for_each(|(rest, _)| drop(self.manager(rest, targets, shared)));
    }

    /// What picks where the `*` stands for `rest`; `None` where too many names have something to be remembered.
    pub(super) fn manager(
        &self,
        rest: &str,
        targets: &[Target],
        shared: &LbModelManager,
    ) -> Option<Arc<LbModelManager>> {
        let mut known = self.known();
        if let Some(manager) = known.get(rest) {
            return Some(Arc::clone(manager));
        }
        if known.len() >= MOST_NAMES {
            forget_the_well(&mut known);
        }
        if known.len() >= MOST_NAMES {
            return None;
        }
        let manager = Arc::new(shared.with_standings(|place| {
            let target = targets.get(place)?;
            Some(self.registry.standing(&target.credential.health, &target.model.filled(rest)))
        }));
        known.insert(rest.into(), Arc::clone(&manager));
        Some(manager)
    }

    /// Each name with what picks for it.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<LbModelManager>)> {
        self.known().iter().map(|(rest, manager)| (rest.clone(), Arc::clone(manager))).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name with nothing but well targets is like one that was never seen.
fn forget_the_well(known: &mut Known) {
    let now = Moment::now();
    let is_ill = |manager: &LbModelManager| {
        manager.candidates().iter().any(|candidate| candidate.standing.availability(now) != Availability::Ready)
    };
    known.retain(|_, manager| is_ill(manager));
}
