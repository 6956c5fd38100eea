//! How targets stand, by stable names, so that health and averages live on over reloads.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::health::Claim;
use super::{Availability, Cooldown, Failure, Health, Load, Moment, Note, Outbox, Rules, Word};
use crate::shelf::Shelf;

/// Hands out what is known of credentials and targets. What no snapshot and no request holds any more is forgotten.
#[derive(Debug, Default)]
pub struct Registry {
    /// With a key of its own, so that no fingerprint says anything of a secret.
    fingerprints: RandomState,
    credentials: Shelf<CredentialHealth>,
    standings: Shelf<Standing>,
    /// The longest cooldown in microseconds.
    longest: AtomicU64,
    outbox: Outbox,
}

/// What holds for a credential whatever the model.
#[derive(Debug)]
pub struct CredentialHealth {
    id: Arc<str>,
    fingerprint: u64,
    tag: u16,
    outbox: Outbox,
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
    /// One that tells other gateways what cools.
    #[must_use]
    pub fn shared(outbox: Outbox) -> Self {
        Self { outbox, ..Self::default() }
    }

    /// No other gateway can cool anything here for longer than this.
    pub fn cool_at_most(&self, longest: Duration) {
        self.longest.store(u64::try_from(longest.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The longest cooldown.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    /// Another gateway's note. What this one does not know, or knows with another secret, is passed over.
    pub fn hear(&self, note: &Note, now: Moment) {
        let most = now.plus(self.longest());
        let word = match note.word {
            Word::Cools { until, cause } => Word::Cools { until: until.min(most), cause },
            word @ (Word::Well | Word::Reset) => word,
        };
        if let Some(credential) = self.credentials.get(&note.id).filter(|credential| credential.tag == note.tag) {
            credential.health.hear(word, now);
        } else if let Some(standing) = self.standings.get(&note.id).filter(|it| it.credential.tag == note.tag) {
            standing.health.hear(word, now);
        }
    }

    /// The health of the credential `id`; a fresh one where `secret`, all that it is called with, is another than
    /// before.
    #[must_use]
    pub fn credential(&self, id: &str, secret: impl Hash) -> Arc<CredentialHealth> {
        let (id, fingerprint): (Arc<str>, _) = (id.into(), self.fingerprints.hash_one(&secret));
        self.credentials.renew(&id, |kept| {
            let (id, outbox) = (Arc::clone(&id), self.outbox.clone());
            let health = Health::default();
            let fresh = || Arc::new(CredentialHealth { id, fingerprint, tag: tag(&secret), outbox, health });
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

    /// Tells it from the one that had its id before, in every process.
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.tag
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

    /// The credential's part of it, and its own.
    pub(super) fn parts(&self) -> [Part<'_>; 2] {
        let credential = &*self.credential;
        [
            Part { id: &credential.id, health: &credential.health, credential },
            Part { id: &self.id, health: &self.health, credential },
        ]
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
        for part in self.parts() {
            if part.health.reset() {
                part.tell(Word::Reset);
            }
        }
    }
}

/// What has a cooldown of its own, and tells the other gateways of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    id: &'a Arc<str>,
    health: &'a Health,
    credential: &'a CredentialHealth,
}

impl Part<'_> {
    pub(super) fn answered(self, begun: Moment, now: Moment) {
        if self.health.answered(begun, now) {
            self.tell(Word::Well);
        }
    }

    pub(super) fn failed(self, failure: Failure, begun: Moment, now: Moment, rules: &Rules) -> Option<Duration> {
        let before = self.health.until();
        let length = self.health.failed(failure, begun, now, rules);
        let until = self.health.until();
        if failure.is_said() && until > before {
            self.tell(Word::Cools { until, cause: failure.cause });
        }
        length
    }

    fn tell(self, word: Word) {
        self.credential.outbox.tell(self.id, self.credential.tag, word);
    }
}

/// The same for the same secret in every process: enough to tell a new key from the one before it, and too little to
/// say anything of either.
fn tag(secret: impl Hash) -> u16 {
    let mut hasher = Stable(Sha256::new());
    secret.hash(&mut hasher);
    let [first, second, ..]: [u8; 32] = hasher.0.finalize().into();
    u16::from_be_bytes([first, second])
}

/// A hasher that gives the same in every process.
struct Stable(Sha256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What is hashed is taken from the digest itself.
    fn finish(&self) -> u64 {
        0
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
    use crate::error::Cause;

    fn cool(health: &Health, now: Moment) {
        let span = Duration::from_secs(60);
        let failure = Failure { cause: Cause::RateLimit, retry_after: None };
        assert_eq!(health.failed(failure, now, now, &rules(span)), Some(span));
    }

    fn rules(span: Duration) -> Rules {
        Rules {
            min_samples: 1,
            error_rate: 1,
            rate_limit: span,
            auth: span,
            connection: span,
            server: span,
            longest: span,
        }
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

    /// What one standing of a registry that is shared told in the course of this.
    fn told(course: impl FnOnce(&Standing)) -> Vec<(String, Word)> {
        let (outbox, mut notes) = Outbox::new();
        let registry = Registry::shared(outbox);
        let credential = registry.credential("p/a", "sk");
        course(&registry.standing(&credential, "m"));
        std::iter::from_fn(|| notes.try_recv().ok()).map(|note| (note.id.to_string(), note.word)).collect()
    }

    fn fail(standing: &Standing, failure: Failure, now: Moment) {
        let [_, own] = standing.parts();
        own.failed(failure, now, now, &rules(Duration::from_secs(60)));
    }

    #[test]
    fn what_a_provider_says_is_told_and_what_only_this_gateway_saw_is_not() {
        let (now, asked) = (Moment::now(), Some(Duration::from_secs(9)));
        for (cause, retry_after, is_told) in [
            (Cause::RateLimit, None, true),
            (Cause::Credit, None, true),
            (Cause::Auth, None, true),
            (Cause::Connection, None, false),
            (Cause::Server, None, false),
            (Cause::Server, asked, true),
        ] {
            let told = told(|standing| {
                fail(standing, Failure { cause, retry_after }, now);
                assert!(standing.cooldown().is_some());
            });
            let until = now.plus(retry_after.unwrap_or(Duration::from_secs(60)));
            let note = ("p/a/m".to_owned(), Word::Cools { until, cause });
            assert_eq!(told, if is_told { vec![note] } else { vec![] }, "{cause:?}");
        }
    }

    #[test]
    fn a_longer_cooldown_an_answer_before_its_end_and_a_reset_are_told_and_nothing_else() {
        let (now, cause) = (Moment::now(), Cause::RateLimit);
        let after = |seconds| now.plus(Duration::from_secs(seconds));
        let told = told(|standing| {
            for seconds in [20, 10, 30] {
                fail(standing, Failure { cause, retry_after: Some(Duration::from_secs(seconds)) }, now);
            }
            for begun in [now, after(1), after(2)] {
                standing.parts().iter().for_each(|part| part.answered(begun, after(3)));
            }
            cool(&standing.credential.health, after(4));
            standing.reset();
            standing.reset();
        });
        let words = [
            ("p/a/m", Word::Cools { until: after(20), cause }),
            ("p/a/m", Word::Cools { until: after(30), cause }),
            ("p/a/m", Word::Well),
            ("p/a", Word::Reset),
        ];
        assert_eq!(told, words.map(|(id, word)| (id.to_owned(), word)));
    }

    #[test]
    fn a_note_cools_what_it_names_for_no_longer_than_the_longest() {
        let (registry, now) = (Registry::default(), Moment::now());
        registry.cool_at_most(Duration::from_secs(30));
        let credential = registry.credential("p/a", "sk");
        let [one, other] = ["m", "other/m"].map(|model| registry.standing(&credential, model));
        let note = |id: &str| {
            let word = Word::Cools { until: now.plus(Duration::from_secs(999)), cause: Cause::Auth };
            Note { id: id.into(), tag: credential.tag(), word }
        };
        registry.hear(&Note { tag: !credential.tag(), ..note("p/a") }, now);
        registry.hear(&note("p/b"), now);
        assert_eq!((is_ready(&one, now), is_ready(&other, now)), (true, true));
        registry.hear(&note("p/a/other/m"), now);
        assert_eq!((is_ready(&one, now), is_ready(&other, now)), (true, false));
        registry.hear(&note("p/a"), now);
        assert_eq!(one.availability(now), Availability::Cooling(now.plus(Duration::from_secs(30))));
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
