//! What makes requests belong together.

use std::fmt;

use serde_json::json;

use super::scalar::{Scalar, scalar};
use crate::config::read::nearest;

scalar!(AffinityBy);

/// What makes two requests belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AffinityBy {
    /// The same value of this request header.
    Header(http::HeaderName),
    /// The same beginning of the prompt.
    PromptPrefix,
    /// The same `user` in the request.
    User,
    /// The same virtual key.
    Key,
}

impl Scalar for AffinityBy {
    const WANTED: &'static str = "one of header:NAME, prompt_prefix, user, key";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Some(name) = text.strip_prefix("header:") {
            let name = name.trim().to_ascii_lowercase();
            return http::HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| Some("that is no name of a header".to_owned()));
        }
        match text {
            "prompt_prefix" => Ok(Self::PromptPrefix),
            "user" => Ok(Self::User),
            "key" => Ok(Self::Key),
            other => {
                Err(nearest(other, ["prompt_prefix", "user", "key"].into_iter())
                    .map(|m| format!("did you mean `{m}`?")))
            }
        }
    }

    fn stand_in() -> Self {
        Self::Key
    }

    fn schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^(header:.+|prompt_prefix|user|key)$", "description": "`header:NAME`, `prompt_prefix`, `user` or `key`."})
    }
}

impl fmt::Display for AffinityBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::PromptPrefix => f.write_str("prompt_prefix"),
            Self::User => f.write_str("user"),
            Self::Key => f.write_str("key"),
        }
    }
}
