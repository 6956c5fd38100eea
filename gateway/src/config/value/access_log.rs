//! Where the access log goes.

use std::fmt;
use std::path::PathBuf;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use crate::config::read::nearest;

scalar!(AccessLog);

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    None,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// This file, to which lines are added.
    File(PathBuf),
}

impl Scalar for AccessLog {
    const WANTED: &'static str = "one of stdout, stderr, none, file:/path";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        match text {
            "none" => Ok(Self::None),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            other => {
                match other.strip_prefix("file:").filter(|path| !path.is_empty()) {
                    Some(path) => Ok(Self::File(path.into())),
                    None => Err(nearest(other, ["stdout", "stderr", "none"].into_iter())
                        .map(|m| format!("did you mean `{m}`?"))),
                }
            }
        }
    }

    fn stand_in() -> Self {
        Self::None
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(stdout|stderr|none|file:.+)$", "description": "`stdout`, `stderr`, `none` or `file:/path`."})
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}
