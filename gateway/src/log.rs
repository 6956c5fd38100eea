//! The diagnostics: which lines are told, and where. They go to standard error; standard output is the access log's.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// What is said of Pingora's own lines, unless the operator says otherwise: what goes wrong with handing sockets over
/// is said by those who asked for it.
const PINGORA: &str = "pingora=warn,pingora_core=warn,pingora_core::server::transfer_fd=off";

/// Tells the lines that `directives` let through, from now on.
pub(crate) fn start(directives: &str) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(wants_colours());
    // Told of a line that cannot be written, it would print to standard error, and panic where that cannot be written.
    let lines = lines.log_internal_errors(false);
    let filter = filter(directives).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    tracing_subscriber::registry().with(filter).with(lines).try_init()
}

/// Why `directives` are no filter.
///
/// A word that is no level would be read as the name of a part of Weir, of which nothing is known, and all else be
/// silent.
pub(crate) fn fault(directives: &str) -> Option<String> {
    if let Err(error) = filter(directives) {
        return Some(error.to_string());
    }
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut plain = directives.split(',').map(str::trim).filter(|word| !word.contains(['=', ':']));
    plain.find(|word| !is_level(word)).map(|word| format!("`{word}` is not a level"))
}

fn filter(directives: &str) -> Result<Targets, ParseError> {
    let directives: Vec<&str> = PINGORA.split(',').chain(directives.split(',')).map(str::trim).collect();
    directives.join(",").parse()
}

/// Whether somebody sees the lines as they come: a file or a collector would keep the colours' codes.
fn wants_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tracing::Level;

    use super::{fault, filter};

    #[test]
    fn what_the_operator_says_goes_before_what_is_said_of_pingora() {
        let quiet = filter("info, gateway::net=debug").unwrap();
        assert!(quiet.would_enable("gateway::net::door", &Level::DEBUG));
        assert!(!quiet.would_enable("gateway::bill", &Level::DEBUG));
        assert!(quiet.would_enable("gateway::bill", &Level::INFO));
        assert!(!quiet.would_enable("pingora_core::server", &Level::INFO));
        assert!(filter("info,pingora_core=debug").unwrap().would_enable("pingora_core::server", &Level::DEBUG));
    }

    #[test]
    fn a_filter_that_would_silence_all_is_a_fault() {
        assert_eq!(fault("info,gateway::net=debug"), None);
        assert_eq!(fault("inof"), Some("`inof` is not a level".to_owned()));
        assert!(fault("gateway=loud").is_some());
        assert!(fault("gateway=a=b").is_some());
    }
}
