//! The fixtures: a folder for each provider, in it a folder for each case.
//!
//! A case holds what it is about and against which SDK it was checked (`about.txt`), the caller's request
//! (`request.json`), whom it goes to (`target.json`), and any of the provider's own words: a whole answer
//! (`reply.native`), a stream (`stream.native`), an error (`refused.native`: status, headers, an empty line, the body).
//! The other files are what Weir is expected to make of them; `BLESS=1` writes them anew.

#![expect(clippy::panic, reason = "a fixture that can not be read fails the test")]

use std::path::{Path, PathBuf};

use adapters::{Adapter, Operation, Options, Request, StreamFault, Target, Translator};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

/// The time at which all fixtures happen.
pub const NOW: u64 = 1_790_000_000;

/// One case.
pub struct Case {
    /// Its folder.
    pub folder: PathBuf,
    /// Its provider's dialect.
    pub adapter: &'static dyn Adapter,
    /// What the caller asks.
    pub request: Request,
    /// The provider's name for the model.
    pub model: String,
    /// The caller's name for it.
    pub asked: String,
    /// The provider's settings.
    pub options: Options,
    /// The caller's headers.
    pub headers: HeaderMap,
}

impl Case {
    /// Whom the request goes to.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target { model: &self.model, asked: &self.asked, options: &self.options, caller: &self.headers, now: NOW }
    }

    /// A file of the case, if it is there.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(name)).ok()
    }

    /// A translator for the case's stream.
    #[must_use]
    pub fn translator(&self) -> Translator {
        let decoder = self.adapter.events(&self.request, &self.target());
        Translator::new(self.adapter.framing(), decoder, self.request.wants_usage())
    }

    /// What the caller reads of a stream that comes in these pieces, and how it ended.
    pub fn streamed<'p>(&self, pieces: impl IntoIterator<Item = &'p [u8]>) -> Streamed {
        let mut translator = self.translator();
        let mut bytes = Vec::new();
        let mut fault = None;
        for piece in pieces {
            let fed = translator.feed(piece);
            bytes.extend(translator.writer_mut().take());
            if let Err(error) = fed {
                fault = Some(error);
                break;
            }
        }
        if fault.is_none() {
            fault = translator.end().err();
        }
        if fault.is_none() {
            translator.writer_mut().close(None);
        }
        bytes.extend(translator.writer_mut().take());
        Streamed { bytes, fault, has_content: translator.writer().has_content(), usage: translator.writer().counted() }
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Streamed {
    /// What the caller read.
    pub bytes: Vec<u8>,
    /// Why it could not go on.
    pub fault: Option<StreamFault>,
    /// Whether content had begun.
    pub has_content: bool,
    /// What was counted.
    pub usage: Option<adapters::Usage>,
}

/// Where the fixtures are.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// All cases of a provider, by name.
///
/// # Panics
/// A fixture that can't be read.
#[must_use]
pub fn of(adapter: &'static dyn Adapter) -> Vec<Case> {
    let folder = root().join(adapter.name());
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.into_iter().map(|folder| read(folder, adapter)).collect()
}

/// All cases of all providers.
#[must_use]
pub fn all() -> Vec<Case> {
    adapters::provider::kinds().filter_map(adapters::provider::of_kind).flat_map(of).collect()
}

/// The error that a `refused.native` tells: status, headers and body.
///
/// # Panics
/// A fixture of another form.
#[must_use]
pub fn refused(native: &[u8]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let text = String::from_utf8_lossy(native);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().trim();
    let status = StatusCode::from_bytes(status.as_bytes()).unwrap_or_else(|_| panic!("`{status}` is no status"));
    (status, headers(lines.filter_map(|line| line.split_once(": "))), body.trim_end().as_bytes().to_vec())
}

fn headers<'t>(pairs: impl Iterator<Item = (&'t str, &'t str)>) -> HeaderMap {
    pairs
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?)))
        .collect()
}

fn read(folder: PathBuf, adapter: &'static dyn Adapter) -> Case {
    let name = folder.display().to_string();
    let file = |file: &str| std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
    let target: Value = serde_json::from_slice(&file("target.json")).unwrap_or_else(|e| panic!("{name}: {e}"));
    let text = |key: &str| target.get(key).and_then(Value::as_str).map(str::to_owned);
    let operation = match text("operation").as_deref() {
        None | Some("chat") => Operation::Chat,
        Some("completions") => Operation::Completions,
        Some("embeddings") => Operation::Embeddings,
        Some(other) => panic!("{name}: `{other}` is no operation"),
    };
    let request = file("request.json");
    let request =
        Request::parse(operation, request.trim_ascii_end().to_vec().into()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let given: Vec<(String, String)> = target
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let model = text("model").unwrap_or_else(|| panic!("{name}: no model"));
    Case {
        adapter,
        request,
        asked: text("asked").unwrap_or_else(|| model.clone()),
        model,
        options: Options {
            api_version: text("api_version"),
            default_max_tokens: target.get("default_max_tokens").and_then(Value::as_u64),
        },
        headers: headers(given.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
        folder,
    }
}
