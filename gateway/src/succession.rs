//! The models that may take over when one came to nothing, in their order, and each once.

use std::slice;
use std::sync::Arc;

use adapters::Operation;

use crate::access::Key;
use crate::error::Fault;
use crate::model::{Model, ModelInstance, Snapshot, type_of};
use crate::retry;

/// Who may take over: first what a budget names, where the model's answer could not even be cut to what is left; then those
/// that the model names; and, when these came to nothing as well, what a budget names for the first of them that was too dear.
pub struct Succession<'s> {
    snapshot: &'s Snapshot,
    key: &'s Key,
    operation: Operation,
    first: Option<Arc<str>>,
    named: slice::Iter<'s, String>,
    last: Option<Arc<str>>,
    /// The names that were asked for: no more than are named above, and the model's own.
    asked: Vec<String>,
}

impl<'s> Succession<'s> {
    /// Who may take over after `model`, that was asked for under a name and came to `fault`.
    #[must_use]
    pub fn after(
        (snapshot, key): (&'s Snapshot, &'s Key),
        operation: Operation,
        (model, asked): (&'s Model, String),
        fault: &Fault,
    ) -> Self {
        let named = retry::takes_over(&model.fallbacks, fault).iter();
        Self { snapshot, key, operation, first: fault.instead.clone(), named, last: None, asked: vec![asked] }
    }

    /// The one before came to `fault` too.
    pub fn failed(&mut self, fault: &Fault) {
        if self.last.is_none() {
            self.last.clone_from(&fault.instead);
        }
    }

    fn resolve(&self, name: &str) -> Option<ModelInstance<'s>> {
        let is_new = |instance: &ModelInstance<'_>| self.asked.iter().all(|asked| asked != instance.asked());
        self.snapshot.resolve(self.key, type_of(self.operation), Some(name)).ok().filter(is_new)
    }
}

impl<'s> Iterator for Succession<'s> {
    type Item = ModelInstance<'s>;

    fn next(&mut self) -> Option<ModelInstance<'s>> {
        loop {
            let name = self.first.take().or_else(|| self.named.next().map(|name| name.as_str().into()));
            let name = name.or_else(|| self.last.take())?;
            if let Some(instance) = self.resolve(&name) {
                self.asked.push(instance.asked().to_owned());
                return Some(instance);
            }
        }
    }
}
