//! One request against all limits that hold for it: its key's and tenant's before its body is read, those of the model
//! once that is known, and tokens before anything goes to a provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::limit::scope::Rejection;
use crate::limit::scopes::{Charge, Permit, Scopes};
use crate::limit::standing::Standing;

/// The limits of a key, with those of its tenant.
#[derive(Clone, Debug, Default)]
pub struct Limited {
    /// Those of key and tenant.
    pub base: Scopes,
    /// Those of single models, by the names that they are limited under. Shared by the keys of a tenant that have none
    /// of their own.
    pub models: Arc<HashMap<String, Scopes>>,
}

impl Limited {
    /// Counts a request, and takes its slots.
    ///
    /// # Errors
    /// A limit of the key or the tenant is reached.
    pub async fn admit(&self, now: Instant) -> Result<Admission, Rejection> {
        let permit = self.base.admit(now).await?;
        let base = Part::new(self.base.clone(), permit);
        Ok(Admission { models: Arc::clone(&self.models), base, model: None, stage: Stage::New })
    }

    /// All limits of a model that has these names.
    #[must_use]
    pub fn of_model<'n>(models: &HashMap<String, Scopes>, names: impl IntoIterator<Item = &'n str>) -> Option<Scopes> {
        if models.is_empty() {
            return None;
        }
        names.into_iter().filter_map(|name| models.get(name)).cloned().reduce(|all, more| all.and(&more))
    }
}

/// A request that was admitted: part of its record. Slots are given back when it is dropped; and a request that a limit
/// of its only model, or of all of them, has refused counts nowhere then.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    models: Arc<HashMap<String, Scopes>>,
    base: Part,
    model: Option<Part>,
    stage: Stage,
}

/// How far a request has come. Where it counts, it counts under its key and tenant to its end, whichever model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No model was asked for.
    New,
    /// Each model that was asked for had no room.
    Refused,
    /// One of them had.
    Counts,
}

impl Admission {
    /// The limits of a model under all of these names, of which it holds no part from here on; `None` where there are
    /// none.
    pub fn limits_of<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> Option<Scopes> {
        // Another model may have been asked for before this one.
        self.model = None;
        Limited::of_model(&self.models, names)
    }

    /// Counts the request for the model that has these names.
    ///
    /// # Errors
    /// A limit of the model is reached. Then the request does not count there; another model may be asked for.
    pub async fn for_model<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
        now: Instant,
    ) -> Result<(), Rejection> {
        let Some(scopes) = self.limits_of(names) else {
            return Ok(());
        };
        let admitted = scopes.admit(now).await;
        self.admitted(scopes, admitted, now)
    }

    /// As [`Admission::for_model`], where the [limits of the model](Admission::limits_of) were waited for.
    ///
    /// # Errors
    /// The wait was in vain.
    pub fn admitted(
        &mut self,
        scopes: Scopes,
        admitted: Result<Permit, Rejection>,
        now: Instant,
    ) -> Result<(), Rejection> {
        match admitted {
            Ok(permit) => self.model = Some(Part::new(scopes, permit)),
            Err(rejection) => {
                self.model = Some(Part { scopes, permit: None, charge: None });
                return Err(self.refused(rejection, now));
            }
        }
        Ok(())
    }

    /// Charges an estimate of tokens.
    ///
    /// # Errors
    /// A limit of tokens is reached. Then the request does not count for the model; another one may be asked for.
    pub async fn charge(&mut self, tokens: i64, now: Instant) -> Result<(), Rejection> {
        match self.charge_parts(tokens, now).await {
            Ok(()) => {
                self.stage = Stage::Counts;
                Ok(())
            }
            Err(rejection) => Err(self.refused(rejection, now)),
        }
    }

    async fn charge_parts(&mut self, tokens: i64, now: Instant) -> Result<(), Rejection> {
        for part in self.parts() {
            part.charge = Some(part.scopes.charge(tokens, now).await?);
        }
        Ok(())
    }

    /// Replaces the estimate with what was used. Never called, the estimate stays.
    pub fn settle(&mut self, tokens: i64, now: Instant) {
        self.parts().for_each(|part| part.settle(tokens, now));
    }

    /// What is left of the tightest limits.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let base = self.base.scopes.standing(now);
        self.model.as_ref().map_or(base, |model| base.tighter(model.scopes.standing(now)))
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.base).chain(&mut self.model)
    }

    fn refused(&mut self, rejection: Rejection, now: Instant) -> Rejection {
        self.settle(0, now);
        self.model.iter_mut().for_each(|model| model.withdraw(now));
        if self.stage == Stage::New {
            self.stage = Stage::Refused;
        }
        rejection
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.stage == Stage::Refused {
            self.base.withdraw(Instant::now());
        }
    }
}

/// What was taken from some scopes.
#[derive(Debug)]
struct Part {
    scopes: Scopes,
    permit: Option<Permit>,
    charge: Option<Charge>,
}

impl Part {
    fn new(scopes: Scopes, permit: Permit) -> Self {
        Self { scopes, permit: Some(permit), charge: None }
    }

    fn settle(&mut self, tokens: i64, now: Instant) {
        if let Some(charge) = self.charge.take() {
            charge.settle(tokens, now);
        }
    }

    fn withdraw(&mut self, now: Instant) {
        if let Some(permit) = self.permit.take() {
            permit.withdraw(now);
        }
    }
}
