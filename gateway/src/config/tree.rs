//! The YAML as it stands in the file: scalars, lists and maps, each with the place where it was written.
//! Nothing is interpreted here; `read` gives it types.

/// Where something was written: which file (an index into the list of those read), line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) file: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// One value and its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) value: Value,
}

/// A value, not yet interpreted: `5` and `five` are both scalars.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) mark: Mark,
    pub(super) text: String,
}

impl Default for Value {
    fn default() -> Self {
        Self::Scalar {
            text: String::new(),
            plain: true,
        }
    }
}

impl Node {
    /// The text of a scalar; `None` for a list, a map, and for null.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of a scalar that was not quoted.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain: true } if !self.is_null() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// True for nothing at all, `~` and `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, in the words of a fault.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}
