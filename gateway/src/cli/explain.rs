//! `weir explain`: what would become of a request. What its caller would be refused with is told as the caller gets it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::{HeaderName, HeaderValue};

use super::{INTERNAL_FAULT, WRONG_INPUT, check, complain, say};
use crate::config::{self, Faults};
use crate::explain::{self, Call, Explanation, Unexplained};

/// What is to be explained, as it was asked for.
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) request: PathBuf,
    pub(super) endpoint: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// A header as it is written: `name: value`.
pub(super) fn header(written: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = written.split_once(':').ok_or("a header is written `name: value`")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    Ok((name, HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?))
}

/// For whom it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

pub(super) fn run(file: &Path, asked: &Asked, form: Form) -> ExitCode {
    let body = match std::fs::read(&asked.request) {
        Ok(body) => body,
        Err(error) => {
            complain(&format!("error: {} cannot be read: {error}\n", asked.request.display()));
            return ExitCode::from(WRONG_INPUT);
        }
    };
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(faults) => return check::refuse(&faults),
    };
    let headers = asked.headers.iter().cloned().collect();
    let call = Call { key: asked.key.clone(), endpoint: asked.endpoint.clone(), headers, body: body.into() };
    let explained = runtime().and_then(|runtime| Ok(runtime.block_on(explain::explain(loaded, &call))?));
    match explained {
        Ok(explanation) => tell(&explanation, form),
        Err(Failure::Faults(faults)) => check::refuse(&faults),
        Err(Failure::Machine(why)) => {
            complain(&format!("error: {why}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

/// Why nothing is told.
enum Failure {
    Faults(Faults),
    Machine(String),
}

impl From<Unexplained> for Failure {
    fn from(unexplained: Unexplained) -> Self {
        match unexplained {
            Unexplained::Faults(faults) => Self::Faults(faults),
            Unexplained::Machine(why) => Self::Machine(why),
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
    built.map_err(|error: io::Error| Failure::Machine(error.to_string()))
}

fn tell(explanation: &Explanation, form: Form) -> ExitCode {
    let text = match form {
        Form::Text => explanation.to_string(),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(explanation).unwrap_or_default()),
    };
    let said = say(&text);
    let Some(refused) = &explanation.refused else {
        return said;
    };
    if form == Form::Text {
        complain(&format!("refused: {refused}\n"));
    }
    ExitCode::from(WRONG_INPUT)
}
