//! Providers that Weir knows by name: where they are, what they speak, how they take a key. Each is a manifest, a YAML
//! file in `config/providers/`; these are in the binary, and a folder `providers` beside a configuration adds to them.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::file::ModelType;
use super::read::{Read, Reader, section};
use super::tree::{Node, parse};
use super::value::BaseUrl;

section! {
    /// A provider that is known by name.
    pub struct Manifest {
        /// Its name for people.
        label: String;
        /// The dialect that it speaks.
        kind: String;
        /// Where it is; absent when every customer has an address of its own.
        base_url: Option<BaseUrl> = None;
        /// How it takes a key; by default as its dialect does.
        auth: Option<Auth> = None;
        /// What it offers.
        types: Vec<ModelType> = vec![ModelType::Llm];
        /// Where its documentation is.
        help: Option<String> = None;
    }
}

/// How a provider takes a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `Authorization: SCHEME KEY`.
    Scheme(String),
    /// The key alone in this header.
    Header(http::HeaderName),
    /// The key in this parameter of the query.
    Query(String),
    /// A signature (AWS SigV4).
    Aws,
    /// A token for a service account (Google).
    Google,
    /// None is needed; one that is configured goes as a bearer token.
    None,
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Scheme(scheme) => write!(f, "scheme:{scheme}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Aws => f.write_str("aws"),
            Self::Google => f.write_str("google"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Auth {
    fn parse(text: &str) -> Option<Self> {
        let word =
            |rest: &str| (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic())).then(|| rest.to_owned());
        match text.split_once(':') {
            Some(("scheme", scheme)) => word(scheme).map(Self::Scheme),
            Some(("query", name)) => word(name).map(Self::Query),
            Some(("header", name)) => http::HeaderName::try_from(name).ok().map(Self::Header),
            Some(_) => None,
            None => match text {
                "bearer" => Some(Self::Bearer),
                "aws" => Some(Self::Aws),
                "google" => Some(Self::Google),
                "none" => Some(Self::None),
                _ => None,
            },
        }
    }
}

impl Serialize for Auth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Read for Auth {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        match node.text().and_then(Self::parse) {
            Some(auth) => auth,
            None => reader.wrong(node, "one of bearer, scheme:WORD, header:NAME, query:NAME, aws, google, none", None),
        }
    }

    fn placeholder() -> Self {
        Self::Bearer
    }
}

impl JsonSchema for Auth {
    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^(bearer|aws|google|none|(scheme|header|query):.+)$";
        Schema::try_from(json!({"type": "string", "pattern": pattern})).unwrap_or_default()
    }
}

/// The manifests by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests(IndexMap<String, Manifest>);

impl Manifests {
    /// Those in the binary.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static BUILT_IN: OnceLock<Manifests> = OnceLock::new();
        BUILT_IN
            .get_or_init(|| Self(FILES.iter().map(|(name, text)| ((*name).to_owned(), read_built_in(text))).collect()))
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Manifest> {
        self.0.get(name)
    }

    /// All names, the built-in first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The dialects that a provider can speak.
    pub fn is_dialect(kind: &str) -> bool {
        DIALECTS.contains(&kind)
    }

    /// Adds one, over one of the same name.
    pub(super) fn add(&mut self, name: String, manifest: Manifest) {
        self.0.insert(name, manifest);
    }
}

/// The tests read every file without a fault.
fn read_built_in(text: &str) -> Manifest {
    let root = parse(0, text).root.unwrap_or_default();
    Manifest::read(&root, &mut Reader::default())
}

/// What a provider may be said to speak; `weir check` names those that this version's adapters do not.
pub(super) const DIALECTS: &[&str] = &[
    "openai",
    "azure",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "cohere",
    "ollama",
    "jina",
    "voyage",
    "tei",
    "deepgram",
    "elevenlabs",
];

/// Takes files of `config/providers/` into the binary.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] = &[$( ($name, include_str!(concat!("../../../config/providers/", $name, ".yaml"))) ),*];
    };
}
files![
    "openai",
    "anthropic",
    "azure",
    "bedrock",
    "gemini",
    "vertex",
    "cohere",
    "ollama",
    "jina",
    "voyage",
    "tei",
    "deepgram",
    "elevenlabs",
    "groq",
    "mistral",
    "codestral",
    "deepseek",
    "together",
    "fireworks",
    "openrouter",
    "xai",
    "perplexity",
    "deepinfra",
    "cerebras",
    "nvidia",
    "sambanova",
    "nebius",
    "moonshot",
    "dashscope",
    "zai",
    "minimax",
    "hyperbolic",
    "novita",
    "nscale",
    "friendli",
    "baseten",
    "featherless",
    "huggingface",
    "vercel",
    "volcengine",
    "vllm",
    "sglang",
    "llamacpp",
    "lmstudio"
];
