//! What must outlive a reload, by a stable id. A shelf owns nothing: a snapshot holds what was taken from it, and what
//! no snapshot holds any more is gone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many ids there are before the ids of what is gone are looked for.
const FIRST_SWEEP: usize = 1024;

/// Things by their ids.
#[derive(Debug)]
pub struct Shelf<T> {
    places: Mutex<Places<T>>,
}

#[derive(Debug)]
struct Places<T> {
    /// The newest last. A configuration that was built and then refused leaves the one before it in its place.
    by_id: HashMap<Arc<str>, Vec<Weak<T>>>,
    next_sweep: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { places: Mutex::new(Places { by_id: HashMap::new(), next_sweep: FIRST_SWEEP }) }
    }
}

impl<T> Shelf<T> {
    /// What `make` makes of the newest thing of that id which still lives. It may give the same one back.
    pub fn renew(&self, id: &Arc<str>, make: impl FnOnce(Option<Arc<T>>) -> Arc<T>) -> Arc<T> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.sweep();
        let kept = places.by_id.entry(Arc::clone(id)).or_default();
        kept.retain(|thing| thing.strong_count() > 0);
        let old = kept.iter().rev().find_map(Weak::upgrade);
        let new = make(old.clone());
        if !old.is_some_and(|old| Arc::ptr_eq(&old, &new)) {
            // Nearly always the only one, of very many ids.
            kept.reserve_exact(1);
            kept.push(Arc::downgrade(&new));
        }
        new
    }

    /// The newest thing of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<T>> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.by_id.get(id)?.iter().rev().find_map(Weak::upgrade)
    }

    /// The newest thing of each id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.by_id.values().filter_map(|kept| kept.iter().rev().find_map(Weak::upgrade)).collect()
    }
}

impl<T> Places<T> {
    /// Forgets the ids of what is gone, each time that there are twice as many as lived at the last time.
    fn sweep(&mut self) {
        if self.by_id.len() < self.next_sweep {
            return;
        }
        self.by_id.retain(|_, kept| kept.iter().any(|thing| thing.strong_count() > 0));
        self.by_id.shrink_to(self.by_id.len().saturating_mul(2));
        self.next_sweep = self.by_id.len().saturating_mul(2).max(FIRST_SWEEP);
    }
}

/// One part of an id, without the slash that stands between parts: ids in a configuration may have it, and `a/b` of `c`
/// is not `b` of `c/a`.
#[must_use]
pub fn part(text: &str) -> Cow<'_, str> {
    if text.contains('/') { text.replace('/', "%2F").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_lives_is_found_and_what_is_gone_is_not() {
        let shelf = Shelf::default();
        let id: Arc<str> = "a".into();
        let first = shelf.renew(&id, |old| old.unwrap_or_else(|| 1.into()));
        assert_eq!(*shelf.renew(&id, |old| old.unwrap_or_else(|| 2.into())), 1);
        drop(first);
        assert_eq!(shelf.get("a"), None);
        assert_eq!(*shelf.renew(&id, |old| old.unwrap_or_else(|| 3.into())), 3);
    }

    #[test]
    fn what_was_made_for_a_configuration_that_was_refused_leaves_the_one_before() {
        let shelf = Shelf::default();
        let id: Arc<str> = "a".into();
        let served = shelf.renew(&id, |_| 1.into());
        drop(shelf.renew(&id, |_| 2.into()));
        assert_eq!(shelf.get("a"), Some(served));
    }

    #[test]
    fn ids_that_nobody_holds_do_not_pile_up() {
        let shelf = Shelf::default();
        for number in 0..100_000 {
            drop(shelf.renew(&number.to_string().into(), |_| number.into()));
        }
        let held = shelf.places.lock().map(|places| places.by_id.capacity()).unwrap_or(usize::MAX);
        assert!(held <= 4 * FIRST_SWEEP, "{held}");
    }
}
