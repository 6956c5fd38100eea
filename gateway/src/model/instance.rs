//! `ModelInstance`: one model as one request asked for it, and the picking of its targets.

use std::borrow::Cow;

use crate::balance;
use crate::model::snapshot::{Model, Target};

/// Which targets a request has tried: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u128);

/// How many targets with their credentials one request looks at; those after it are never reached.
const MOST_CANDIDATES: usize = 128;

impl Tried {
    fn has(self, place: usize) -> bool {
        place >= MOST_CANDIDATES || self.0 >> place & 1 == 1
    }

    fn add(&mut self, place: usize) {
        if place < MOST_CANDIDATES {
            self.0 |= 1 << place;
        }
    }
}

/// A model that one request asked for.
#[derive(Clone, Debug)]
pub struct ModelInstance<'s> {
    model: &'s Model,
    asked: Cow<'s, str>,
    rest: Option<(usize, usize)>,
    turn: u64,
}

impl<'s> ModelInstance<'s> {
    /// `model` as it was asked for under the name `asked`, in which its `*` stands for `rest`.
    #[must_use]
    pub fn new(model: &'s Model, asked: Cow<'s, str>, rest: Option<(usize, usize)>) -> Self {
        Self { turn: model.rotation.turn(), model, asked, rest }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'s Model {
        self.model
    }

    /// The name that the caller used.
    #[must_use]
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The next target to try, marked as tried; `None` when all were.
    pub fn pick(&self, tried: &mut Tried) -> Option<Picked<'s>> {
        let place = balance::pick(self.model.policy, &self.model.shares, self.turn, |place| !tried.has(place))?;
        tried.add(place);
        let target = self.model.targets.get(place)?;
        Some(Picked { upstream_model: target.model.filled(self.rest()), target })
    }

    fn rest(&self) -> &str {
        self.rest.and_then(|(start, end)| self.asked.get(start..end)).unwrap_or_default()
    }
}

/// A target that was picked.
#[derive(Clone, Debug)]
pub struct Picked<'s> {
    /// The target.
    pub target: &'s Target,
    /// The provider's name for the model.
    pub upstream_model: Cow<'s, str>,
}
