//! The models that may take over when one came to nothing, in their order, and each once.

use std::collections::VecDeque;
use std::sync::Arc;

use adapters::Operation;

use crate::access::Key;
use crate::error::Fault;
use crate::model::{Model, ModelInstance, Snapshot, type_of};
use crate::retry;

/// From so many models on that a request was or will be handed to, none of them hands it on: its caller waits for each.
const MOST: usize = 10;

/// Who may take over: first what a budget names, where the model's answer could not even be cut to what is left; then
/// those that the model names, and those that these name; and, when all came to nothing as well, what a budget names
/// for the first of them that was too dear.
pub struct Succession<'s> {
    snapshot: &'s Snapshot,
    key: &'s Key,
    operation: Operation,
    first: Option<Arc<str>>,
    named: VecDeque<&'s str>,
    last: Option<Arc<str>>,
    /// The names that were asked for, the model's own among them.
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
        let named = retry::takes_over(&model.fallbacks, fault).iter().map(String::as_str).collect();
        Self { snapshot, key, operation, first: fault.instead.clone(), named, last: None, asked: vec![asked] }
    }

    /// The one before, `model`, came to `fault` too.
    pub fn failed(&mut self, model: &'s Model, fault: &Fault) {
        let room = MOST.saturating_sub(self.asked.len() + self.named.len());
        self.named.extend(retry::takes_over(&model.fallbacks, fault).iter().map(String::as_str).take(room));
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
            let name = self.first.take().or_else(|| self.named.pop_front().map(Into::into));
            let name = name.or_else(|| self.last.take())?;
            if let Some(instance) = self.resolve(&name) {
                self.asked.push(instance.asked().to_owned());
                return Some(instance);
            }
        }
    }
}
