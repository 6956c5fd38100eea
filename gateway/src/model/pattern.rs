//! Names with at most one `*` that stands for any text.

use std::collections::HashSet;

/// A name with a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    prefix: String,
    suffix: String,
}

impl Pattern {
    /// Reads a name; `None` where it has no `*`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (prefix, suffix) = name.split_once('*')?;
        Some(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    /// What stands before the `*`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the `*` stands for in `name`, where it fits and is not empty.
    #[must_use]
    pub fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str()).filter(|rest| !rest.is_empty())
    }

    /// The name with `rest` in the place of the `*`.
    #[must_use]
    pub fn filled(&self, rest: &str) -> String {
        [&self.prefix, rest, &self.suffix].concat()
    }
}

/// A set of names, some with a `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    exact: HashSet<String>,
    wild: Vec<Pattern>,
}

impl Patterns {
    /// Whether `name` is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.exact.contains(name)
            || self.wild.iter().any(|pattern| pattern.rest(name).is_some() || pattern.filled("*") == name)
    }
}

impl<'a> FromIterator<&'a String> for Patterns {
    fn from_iter<I: IntoIterator<Item = &'a String>>(names: I) -> Self {
        let mut patterns = Self::default();
        for name in names {
            match Pattern::of(name) {
                Some(pattern) => patterns.wild.push(pattern),
                None => drop(patterns.exact.insert(name.clone())),
            }
        }
        patterns
    }
}
