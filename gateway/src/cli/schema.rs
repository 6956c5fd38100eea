//! `weir schema`: the JSON Schema of a configuration.

use std::process::ExitCode;

use super::{INTERNAL_FAULT, complain, say};

pub(super) fn run() -> ExitCode {
    match serde_json::to_string_pretty(&crate::config::schema()) {
        Ok(schema) => say(&format!("{schema}\n")),
        Err(error) => {
            complain(&format!("error: {error}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}
