//! How targets stand, by stable names, so that health and averages live on over reloads.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use super::health::Claim;
use super::{Availability, Cooldown, Health, Load, Moment};
use crate::shelf::Shelf;

/// Hands out what is known of credentials and targets. What no snapshot and no request holds any more is forgotten.
#[derive(Debug, Default)]
pub struct Registry {
    /// With a key of its own, so that no fingerprint says anything of a secret.
    fingerprints: RandomState,
    credentials: Shelf<CredentialHealth>,
    standings: Shelf<Standing>,
}

/// What holds for a credential whatever the model.
#[derive(Debug)]
pub struct CredentialHealth {
    id: Arc<str>,
    fingerprint: u64,
    /// Its cooldown.
    pub health: Health,
}

/// How a credential stands with one of its provider's models; shared by all models of Weir that go there.
#[derive(Debug)]
pub struct Standing {
    id: Arc<str>,
    mark: u64,
    /// The cooldown of this model with this credential.
    pub health: Health,
    /// How busy and how fast it is.
    pub load: Load,
    credential: Arc<CredentialHealth>,
}

impl Registry {
    /// The health of the credential `id`; a fresh one where `secret`, all that it is called with, is another than before.
    #[must_use]
    pub fn credential(&self, id: &str, secret: impl Hash) -> Arc<CredentialHealth> {
        let (id, fingerprint): (Arc<str>, _) = (id.into(), self.fingerprints.hash_one(secret));
        self.credentials.renew(&id, |kept| {
            let fresh = || Arc::new(CredentialHealth { id: Arc::clone(&id), fingerprint, health: Health::default() });
            kept.filter(|kept| kept.fingerprint == fingerprint).unwrap_or_else(fresh)
        })
    }

    /// How `credential` stands with `model`; a fresh standing where the credential is.
    #[must_use]
    pub fn standing(&self, credential: &Arc<CredentialHealth>, model: &str) -> Arc<Standing> {
        let id: Arc<str> = format!("{}/{model}", credential.id).into();
        self.standings.renew(&id, |kept| {
            let fresh = || Standing::new(Arc::clone(&id), self.fingerprints.hash_one(&id), Arc::clone(credential));
            kept.filter(|kept| Arc::ptr_eq(&kept.credential, credential)).unwrap_or_else(fresh)
        })
    }
}

impl CredentialHealth {
    /// Its stable name, such as `openai/oa-1`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Standing {
    fn new(id: Arc<str>, mark: u64, credential: Arc<CredentialHealth>) -> Arc<Self> {
        Arc::new(Self { id, mark, health: Health::default(), load: Load::default(), credential })
    }

    /// Its stable name, such as `openai/oa-1/gpt-5.5`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same, to be kept after it is gone.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// A number for its name, the same as long as the process lives.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// The credential's part of it.
    #[must_use]
    pub fn credential(&self) -> &CredentialHealth {
        &self.credential
    }

    /// Whether one more attempt may go there: where the two differ, the worse counts.
    #[must_use]
    pub fn availability(&self, now: Moment) -> Availability {
        use Availability::{Cooling, Probe, Probing, Ready};
        match (self.credential.health.availability(now), self.health.availability(now)) {
            (Cooling(a), Cooling(b)) => Cooling(a.max(b)),
            (Cooling(until), _) | (_, Cooling(until)) => Cooling(until),
            (Probing, _) | (_, Probing) => Probing,
            (Probe, _) | (_, Probe) => Probe,
            (Ready, Ready) => Ready,
        }
    }

    /// The cooldown that ends the later, its own or its credential's.
    #[must_use]
    pub fn cooldown(&self) -> Option<Cooldown> {
        let cooldowns = [self.health.cooldown(), self.credential.health.cooldown()];
        cooldowns.into_iter().flatten().max_by_key(|cooldown| cooldown.until)
    }

    pub(super) fn claim(&self, now: Moment) -> Option<Claims> {
        let credential = self.credential.health.claim(now)?;
        let Some(own) = self.health.claim(now) else {
            self.credential.health.give_up(credential);
            return None;
        };
        Some(Claims { credential, own })
    }

    pub(super) fn give_up(&self, claims: Claims) {
        self.credential.health.give_up(claims.credential);
        self.health.give_up(claims.own);
    }

    /// Forgets the cooldowns, the credential's too.
    pub fn reset(&self) {
        self.health.reset();
        self.credential.health.reset();
    }
}

/// The claims of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims {
    credential: Claim,
    own: Claim,
}

impl Claims {
    /// Of an attempt that goes there like any other.
    pub(super) const SHARED: Self = Self { credential: Claim::Shared, own: Claim::Shared };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Failure, Rules};
    use crate::error::Cause;
    use std::time::Duration;

    fn cool(health: &Health, now: Moment) {
        let span = Duration::from_secs(60);
        let rules = Rules {
            min_samples: 1,
            error_rate: 1,
            rate_limit: span,
            auth: span,
            connection: span,
            server: span,
            longest: span,
        };
        let failure = Failure { cause: Cause::RateLimit, retry_after: None };
        assert_eq!(health.failed(failure, now, now, &rules), Some(span));
    }

    fn is_ready(standing: &Standing, now: Moment) -> bool {
        standing.availability(now) == Availability::Ready
    }

    #[test]
    fn the_same_credential_is_the_same_state_as_long_as_its_secret_is() {
        let (registry, now) = (Registry::default(), Moment::now());
        let credential = registry.credential("openai/oa-1", "sk-1");
        let standing = registry.standing(&credential, "gpt-5.5");
        cool(&standing.health, now);
        let again = registry.credential("openai/oa-1", "sk-1");
        assert!(Arc::ptr_eq(&credential, &again) && Arc::ptr_eq(&standing, &registry.standing(&again, "gpt-5.5")));
        let edited = registry.credential("openai/oa-1", "sk-2");
        assert!(is_ready(&registry.standing(&edited, "gpt-5.5"), now));
        assert!(!is_ready(&standing, now));
    }

    #[test]
    fn a_credentials_cooldown_is_that_of_all_its_models_and_a_models_is_its_own() {
        let (registry, now) = (Registry::default(), Moment::now());
        let credential = registry.credential("openai/oa-1", "sk-1");
        let [one, other] = ["a", "b"].map(|model| registry.standing(&credential, model));
        cool(&one.health, now);
        assert_eq!((is_ready(&one, now), is_ready(&other, now)), (false, true));
        cool(&credential.health, now);
        assert_eq!((is_ready(&one, now), is_ready(&other, now)), (false, false));
        one.reset();
        assert_eq!((is_ready(&one, now), is_ready(&other, now)), (true, true));
    }

    #[test]
    fn a_configuration_that_is_refused_leaves_the_state_of_the_one_that_is_served() {
        let (registry, now) = (Registry::default(), Moment::now());
        let served = registry.credential("openai/oa-1", "sk-1");
        cool(&served.health, now);
        drop(registry.credential("openai/oa-1", "sk-2"));
        assert!(Arc::ptr_eq(&served, &registry.credential("openai/oa-1", "sk-1")));
    }
}
