//! The provider simulator: one server that speaks each provider's dialect at its native paths.
//!
//! It refuses what the real one refuses, answers deterministically, counts a word as a token, and does wrong what a
//! request asks it to do wrong: see [`Fault`] and this package's `README.md`. It is also the upstream of the load
//! tests, so a plain answer is cheap.
//!
//! | room | for |
//! | --- | --- |
//! | `server` | listener, TLS, the handle [`Simulator`] |
//! | `exchange` | one request from its head to its answer's body: the file to read first |
//! | `fault` | directives |
//! | `script` | a body played step by step |
//! | `dialect` | what a dialect is, and the table of them |
//! | `openai`, `anthropic` | the dialects |
//! | `reply`, `schema`, `text` | what is said and how it is counted |
//! | `account`, `served`, `control` | what was served, in process and under `/_sim/` |

mod account;
mod anthropic;
mod control;
mod dialect;
mod exchange;
mod fault;
mod openai;
mod reply;
mod schema;
mod script;
mod served;
mod server;
mod text;

use std::io;
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

pub use account::{Account, Recorded, Row};
pub use fault::{BadDirective, Encoding, Fault, HEADER, RetryAfter, UsageReport};
pub use served::{End, Served};
pub use server::{Config, Simulator, Tls, start};

/// Serves on `listen` until SIGTERM or SIGINT; when it listens it says so on standard output.
///
/// # Errors
/// The address cannot be bound, or signals cannot be received.
pub async fn run(listen: SocketAddr) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = start(Config { listen, ..Config::default() })?;
    println!("weir: simulator on http://{}", simulator.addr());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    simulator.stop();
    Ok(())
}
