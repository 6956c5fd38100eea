//! Secrets: where they are kept, and how they are fetched from there.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::config::read::{Read, Reader};
use crate::config::tree::Node;
use crate::files;

/// A secret as it is written: `env:NAME`, `file:/path`, or the text itself (which earns a warning).
/// Its text is in no debug output and no serialised form, and is wiped from memory when it goes.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In this variable of the environment.
    Env(String),
    /// In this file.
    File(PathBuf),
    /// Here, in plain text.
    Literal(Zeroizing<String>),
}

/// Why a secret could not be had. It names the place, never the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("the file {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// The file holds nothing.
    #[error("the file {} is empty", .0.display())]
    Empty(PathBuf),
}

impl Secret {
    /// The secret as it is written.
    #[must_use]
    pub fn written(text: &str) -> Self {
        if let Some(name) = text.strip_prefix("env:") {
            return Self::Env(name.trim().to_owned());
        }
        match text.strip_prefix("file:") {
            Some(path) => Self::File(path.trim().into()),
            None => Self::Literal(Zeroizing::new(text.to_owned())),
        }
    }

    /// The secret itself, fetched from where it is kept: from a variable or a file without what stands around it.
    ///
    /// # Errors
    /// The variable is not set, or the file is not there, no regular file, not text, over 64 KiB or empty.
    pub fn resolve(&self) -> Result<Zeroizing<String>, SecretError> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Env(name) => {
                let text = std::env::var(name).map(Zeroizing::new).unwrap_or_default();
                some(&text).ok_or_else(|| SecretError::Unset(name.clone()))
            }
            Self::File(path) => from_file(path),
        }
    }

    /// True when it is written in the file in plain text.
    #[must_use]
    pub const fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

/// No key is longer; a service account's JSON has about 2.5 KiB.
const LONGEST_SECRET: u64 = 64 << 10;

fn from_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    use std::io::Read as _;
    let unreadable = |why: String| SecretError::Unreadable { path: path.to_owned(), why };
    let file = files::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = Zeroizing::new(String::new());
    let size = file.take(LONGEST_SECRET + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if u64::try_from(size).unwrap_or(u64::MAX) > LONGEST_SECRET {
        return Err(unreadable("it is over 64 KiB".to_owned()));
    }
    some(&text).ok_or_else(|| SecretError::Empty(path.to_owned()))
}

/// What is left without its surroundings, if that is anything.
fn some(text: &str) -> Option<Zeroizing<String>> {
    let bare = bare(text);
    (!bare.is_empty()).then(|| Zeroizing::new(bare.to_owned()))
}

/// A secret without what editors and shells leave around it: white space, the lines' ends, a byte order mark.
#[must_use]
pub fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Literal(_) => f.write_str("[__HIDDEN__]"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Read for Secret {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        // A wrong secret is never quoted in the fault.
        let Some(text) = node.text().filter(|text| !text.is_empty()) else {
            reader.fault(
                node.mark,
                format!("expected a secret, found {}", node.kind()),
                Some("write `env:NAME` or `file:/path`".to_owned()),
            );
            return Self::placeholder();
        };
        let secret = Self::written(text);
        match &secret {
            Self::Env(name) if !is_variable(name) => {
                reader.fault(
                    node.mark,
                    "`env:` needs the name of a variable",
                    Some("such as `env:OPENAI_API_KEY`".to_owned()),
                );
            }
            Self::File(path) if path.as_os_str().is_empty() => {
                reader.fault(node.mark, "`file:` needs a path", Some("such as `file:/run/secrets/openai`".to_owned()));
            }
            Self::Env(_) | Self::File(_) => reader.secret(node.mark, &secret),
            Self::Literal(_) => {}
        }
        secret
    }

    fn placeholder() -> Self {
        Self::Literal(Zeroizing::default())
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.starts_with(|c: char| !c.is_ascii_digit())
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let schema = json!({"type": "string", "minLength": 1, "description": "`env:NAME`, `file:/path`, or the text itself (with a warning)."});
        Schema::try_from(schema).unwrap_or_default()
    }
}

impl Zeroize for Secret {
    fn zeroize(&mut self) {
        if let Self::Literal(text) = self {
            text.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;
    use crate::config::tests::Folder;

    #[test]
    fn a_secret_is_fetched_from_where_it_is_kept() {
        let folder = Folder::new("secret");
        folder.write("key", "sk-1\n");
        folder.write("windows", "\u{feff} sk-1 \r\n\r\n");
        folder.write("lines", "\u{feff}{\r\n  \"key\": 1\r\n}\r\n");
        folder.write("empty", "\u{feff}\r\n");
        let file = |name: &str| Secret::written(&format!("file:{}", folder.path().join(name).display())).resolve();
        assert_eq!(*file("key").unwrap(), "sk-1");
        assert_eq!(*file("windows").unwrap(), "sk-1");
        assert_eq!(*file("lines").unwrap(), "{\r\n  \"key\": 1\r\n}");
        assert!(matches!(file("empty"), Err(SecretError::Empty(_))));
        assert!(matches!(file("none"), Err(SecretError::Unreadable { .. })));
        assert!(matches!(Secret::written("env:WEIR_TEST_NOT_SET").resolve(), Err(SecretError::Unset(_))));
        assert!(!Secret::written("env:PATH").resolve().unwrap().is_empty());
        assert_eq!(*Secret::written("sk-2").resolve().unwrap(), "sk-2");
    }
}
