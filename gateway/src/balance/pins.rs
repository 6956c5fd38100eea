//! Where related requests went last. What makes requests related is said elsewhere; here they are numbers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Moment;

/// So many pins are kept for sure, and at most twice as many: 4 MiB for one model.
const MOST_PINS: usize = 65_536;

/// Which target the requests of each kind go to. The newer half is looked at first; when it is full, the older half is
/// forgotten whole, so that nothing is sorted and nothing grows.
#[derive(Debug, Default)]
pub struct Pins(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<u64, Pin>,
    older: HashMap<u64, Pin>,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    target: u64,
    used: Moment,
}

impl Pins {
    /// The target of the requests `related`, if one was used within `ttl`.
    #[must_use]
    pub fn get(&self, related: u64, ttl: Duration, now: Moment) -> Option<u64> {
        let halves = self.halves();
        let pin = halves.newer.get(&related).or_else(|| halves.older.get(&related))?;
        (now.since(pin.used) <= ttl).then_some(pin.target)
    }

    /// A request of the kind `related` went well at `target`.
    pub fn set(&self, related: u64, target: u64, now: Moment) {
        let mut halves = self.halves();
        if halves.newer.len() >= MOST_PINS && !halves.newer.contains_key(&related) {
            halves.older = std::mem::take(&mut halves.newer);
        }
        halves.newer.insert(related, Pin { target, used: now });
    }

    fn halves(&self) -> MutexGuard<'_, Halves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the first message of a user is looked for.
const MOST_LOOKED_AT: usize = 256 * 1024;

/// What of a prompt's beginning is compared: its first and its last bytes. The first are those of the system's message,
/// the last those of the user's.
const FIRST: usize = 2 * 1024;
const LAST: usize = 4 * 1024;

/// What the prompts of one conversation have in common, turn after turn, of a JSON array of messages: the length, the
/// first and the last bytes of all up to the end of the first message of a user.
#[must_use]
pub fn beginning(messages: &[u8]) -> (usize, &[u8], &[u8]) {
    let seen = messages.get(..MOST_LOOKED_AT).unwrap_or(messages);
    let beginning = seen.get(..end_of_first_user(seen)).unwrap_or(seen);
    let first = beginning.get(..FIRST).unwrap_or(beginning);
    let last = beginning.get(beginning.len().saturating_sub(LAST)..).unwrap_or(beginning);
    (beginning.len(), first, last)
}

/// Where the first message of a user ends; the whole length where there is none.
fn end_of_first_user(messages: &[u8]) -> usize {
    let (mut depth, mut begun, mut at) = (0_u32, 0, 0);
    while let Some(&byte) = messages.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_string(messages, at),
            b'{' | b'[' => {
                depth += 1;
                begun = if depth == 2 { at } else { begun };
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 1 && messages.get(begun..at).is_some_and(is_users) {
                    return at;
                }
            }
            _ => {}
        }
    }
    messages.len()
}

/// Where the string ends whose first character is at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(rest) = text.get(at..) {
        match memchr::memchr2(b'"', b'\\', rest) {
            Some(found) if rest.get(found) == Some(&b'"') => return at + found + 1,
            Some(found) => at += found + 2,
            None => break,
        }
    }
    text.len()
}

/// Whether a message is a user's. Quotes inside strings are escaped, so what looks like a key is one.
fn is_users(message: &[u8]) -> bool {
    const ROLE: &[u8] = br#""role""#;
    let Some(at) = memchr::memmem::find(message, ROLE) else {
        return false;
    };
    let value = message.get(at + ROLE.len()..).unwrap_or_default().trim_ascii_start();
    value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(br#""user""#))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_pin_is_kept_for_its_time_after_the_last_use_and_moves_with_success() {
        let (pins, now) = (Pins::default(), Moment::now());
        assert_eq!(pins.get(7, HOUR, now), None);
        pins.set(7, 1, now);
        assert_eq!(pins.get(7, HOUR, now.plus(HOUR)), Some(1));
        assert_eq!(pins.get(7, HOUR, now.plus(HOUR * 2)), None);
        pins.set(7, 2, now.plus(HOUR * 2));
        assert_eq!(pins.get(7, HOUR, now.plus(HOUR * 3)), Some(2));
        assert_eq!(pins.get(8, HOUR, now), None);
    }

    #[test]
    fn pins_are_bounded_and_the_newest_are_kept() {
        let (pins, now) = (Pins::default(), Moment::now());
        let many = 5 * MOST_PINS as u64;
        (0..many).for_each(|related| pins.set(related, related, now));
        assert!((many - MOST_PINS as u64..many).all(|related| pins.get(related, HOUR, now) == Some(related)));
        let halves = pins.halves();
        assert!(halves.newer.len() + halves.older.len() <= 2 * MOST_PINS);
    }

    const SYSTEM: &str = r#"{"role":"system","content":"Say \"role\": \"user\" [{"}"#;

    fn turns(user: &str, turns: usize) -> String {
        let more = r#", {"role":"assistant","content":"x"}, {"role":"user","content":"more"}"#.repeat(turns);
        format!(
            r#"[{SYSTEM}, {{"content": [{{"text": {}, "type": "text"}}], "role" : "user"}}{more}]"#,
            serde_json::json!(user)
        )
    }

    #[test]
    fn a_conversation_begins_alike_turn_after_turn_and_another_one_does_not() {
        let first = turns("hello", 0);
        for later in 1..20 {
            assert_eq!(beginning(first.as_bytes()), beginning(turns("hello", later).as_bytes()));
        }
        assert_ne!(beginning(first.as_bytes()), beginning(turns("hallo", 0).as_bytes()));
        let long = "x".repeat(100_000);
        assert_eq!(beginning(turns(&long, 0).as_bytes()), beginning(turns(&long, 3).as_bytes()));
        assert!(beginning(turns(&long, 0).as_bytes()).0 > 100_000);
    }

    proptest! {
        #[test]
        fn whatever_a_user_says_the_beginning_ends_with_it(user in ".*", later in 1_usize..5) {
            let (one, other) = (turns(&user, 0), turns(&user, later));
            let (length, _, last) = beginning(one.as_bytes());
            prop_assert_eq!((length, last), (beginning(other.as_bytes()).0, beginning(other.as_bytes()).2));
            prop_assert_eq!(length, one.len() - 1);
        }

        #[test]
        fn any_bytes_have_a_beginning(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert!(beginning(&bytes).0 <= bytes.len());
        }
    }
}
