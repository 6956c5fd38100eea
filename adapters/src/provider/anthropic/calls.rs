//! The calls that an assistant made: their ids as Anthropic is told them, and which of them wait for a result. A caller
//! may send very many of them, so everything here is found by a hash.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

/// A call that waits for its result.
pub(super) struct Call<'a> {
    /// The message that it stands in.
    pub(super) message: usize,
    /// Its id as the caller knows it.
    pub(super) asked: Cow<'a, str>,
    /// The tool's name.
    pub(super) name: Cow<'a, str>,
    /// Its id as Anthropic is told.
    pub(super) told: String,
    /// The toolset that it is from, raw.
    pub(super) toolset_name: Option<&'a RawValue>,
}

/// The calls of the last assistant message. Some may be alike; then the first of them is answered first.
#[derive(Default)]
pub(super) struct Open<'a> {
    /// Nothing where a call was answered.
    calls: Vec<Option<Call<'a>>>,
    by_id: HashMap<Cow<'a, str>, VecDeque<usize>>,
    by_name: HashMap<Cow<'a, str>, VecDeque<usize>>,
}

impl<'a> Open<'a> {
    /// How many calls the message made, answered or not.
    pub(super) fn made(&self) -> usize {
        self.calls.len()
    }

    /// One more.
    pub(super) fn push(&mut self, call: Call<'a>) {
        let place = self.calls.len();
        self.by_id.entry(call.asked.clone()).or_default().push_back(place);
        self.by_name.entry(call.name.clone()).or_default().push_back(place);
        self.calls.push(Some(call));
    }

    /// Answers the call of that id.
    pub(super) fn answer(&mut self, id: &str) -> Option<Call<'a>> {
        take_first(&mut self.calls, self.by_id.get_mut(id)?)
    }

    /// Answers the call of the function of that name.
    pub(super) fn answer_function(&mut self, name: &str) -> Option<Call<'a>> {
        take_first(&mut self.calls, self.by_name.get_mut(name)?)
    }

    /// The first call that has no answer.
    pub(super) fn unanswered(&self) -> Option<&Call<'a>> {
        self.calls.iter().flatten().next()
    }
}

/// The first call at one of these places that nothing answered; no place is looked at twice.
fn take_first<'a>(calls: &mut [Option<Call<'a>>], places: &mut VecDeque<usize>) -> Option<Call<'a>> {
    std::iter::from_fn(|| places.pop_front()).find_map(|place| calls.get_mut(place)?.take())
}

/// The ids that Anthropic was told, each with the number that is to make the next one alike another.
#[derive(Default)]
pub(super) struct Ids(HashMap<String, usize>);

impl Ids {
    /// An id in the characters that Anthropic takes, and one that was not there before: some providers count their
    /// calls anew in each answer.
    pub(super) fn told(&mut self, asked: &str) -> String {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }
        };
        let base: String = asked.chars().map(plain).collect();
        let told = match self.0.get(&base) {
            None => base,
            Some(&next) => self.numbered(base, next),
        };
        self.0.insert(told.clone(), 2);
        told
    }

    fn numbered(&mut self, base: String, next: usize) -> String {
        let mut number = next;
        let mut told = format!("{base}_{number}");
        while self.0.contains_key(&told) {
            number += 1;
            told = format!("{base}_{number}");
        }
        self.0.insert(base, number + 1);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that to look at each of them for each other would take minutes.
    const MANY: usize = 60_000;

    fn call<'a>(id: &'a str, name: &'a str) -> Call<'a> {
        Call { message: 0, asked: id.into(), name: name.into(), told: id.to_owned(), toolset_name: None }
    }

    #[test]
    fn ids_that_are_alike_or_mended_alike_are_told_apart() {
        let mut ids = Ids::default();
        let told = ["a", "a_2", "a", "a", "a_2", "é", "ü", "_"].map(|id| ids.told(id));
        assert_eq!(told, ["a", "a_2", "a_3", "a_4", "a_2_2", "_", "__2", "__3"]);
    }

    #[test]
    fn many_ids_that_are_alike_are_told_apart_at_once() {
        let mut ids = Ids::default();
        (2..MANY).for_each(|number| drop(ids.told(&format!("same_{number}"))));
        assert_eq!(ids.told("same"), "same");
        assert_eq!(ids.told("same"), format!("same_{MANY}"));
        let last = (0..MANY).map(|_| ids.told("same")).last();
        assert_eq!(last, Some(format!("same_{}", 2 * MANY)));
    }

    #[test]
    fn the_first_of_the_calls_that_are_alike_is_answered_first_and_each_once() {
        let mut open = Open::default();
        [("1", "f"), ("1", "g"), ("2", "g")].into_iter().for_each(|(id, name)| open.push(call(id, name)));
        assert_eq!(open.answer("1").map(|call| call.name), Some("f".into()));
        assert_eq!(open.answer_function("g").map(|call| call.asked), Some("1".into()));
        assert!(open.answer("1").is_none() && open.answer_function("f").is_none() && open.answer("3").is_none());
        assert_eq!(open.unanswered().map(|call| &*call.asked), Some("2"));
        assert!(open.answer("2").is_some() && open.unanswered().is_none());
        assert_eq!(open.made(), 3);
    }

    #[test]
    fn many_calls_are_answered_at_once_whether_their_ids_are_alike_or_not() {
        let mut open = Open::default();
        let ids: Vec<String> = (0..MANY).map(|id| id.to_string()).collect();
        for id in &ids {
            open.push(call(id, "f"));
            open.push(call("same", "f"));
        }
        assert!(ids.iter().rev().all(|id| open.answer(id).is_some()));
        assert!(ids.iter().all(|_| open.answer_function("f").is_some()));
        assert!(open.answer("same").is_none() && open.unanswered().is_none());
    }
}
