//! The command line: what it looks like, and which room each call goes to.

mod check;
mod explain;
mod healthcheck;
mod key;
mod schema;
mod serve;
mod simulate;
mod store;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::serve::Start;
use clap::{CommandFactory as _, Parser, Subcommand};
use http::{HeaderName, HeaderValue};

/// The user's input is wrong.
pub(crate) const WRONG_INPUT: u8 = 1;

/// Weir is wrong.
pub(crate) const INTERNAL_FAULT: u8 = 70;

/// An OpenAI-compatible gateway to language models.
#[derive(Debug, Parser)]
#[command(name = "weir", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway; `weir` without a command does the same.
    Serve(Serve),
    /// Report every fault of a configuration, with its place and what to write instead.
    Check {
        /// A file, or a folder of files.
        file: PathBuf,
        /// Fetch the `env:` and `file:` secrets too, and open the certificates.
        #[arg(long)]
        strict: bool,
    },
    /// Tell what would become of a request, without sending it: who may call what, each candidate with why it is
    /// chosen or passed over, and the exact request to the provider.
    Explain {
        /// The configuration: a file, or a folder of files.
        file: PathBuf,
        /// The caller's key.
        #[arg(long)]
        key: String,
        /// The file with the request's body.
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// The endpoint: chat, or its path behind /v1/.
        #[arg(long, default_value = "chat")]
        endpoint: String,
        /// A header of the request, such as 'x-weir-credential: oa-1'; may be given several times. The key is --key's.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = explain::header)]
        headers: Vec<(HeaderName, HeaderValue)>,
        /// Tell it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a configuration.
    Schema,
    /// Make a virtual key, or the hash of one.
    #[command(subcommand)]
    Key(Key),
    /// Check, repair, export or import a store that no Weir has open.
    #[command(subcommand)]
    Store(Store),
    /// Run the provider simulator as a server of its own.
    Simulate {
        /// The address to listen on.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
        listen: SocketAddr,
    },
    /// Ask the Weir that a configuration starts whether it is ready; exits 0 or 1.
    #[command(hide = true)]
    Healthcheck {
        /// The configuration: a file, or a folder of files.
        #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
        config: PathBuf,
    },
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The configuration: a file, or a folder of files. Without it ./weir.yaml, else the built-in quickstart.
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    /// Take over the sockets of the Weir that runs with the same store; then send that one SIGQUIT.
    #[arg(long)]
    upgrade: bool,
}

#[derive(Debug, Subcommand)]
enum Store {
    /// Read the whole store, and tell what is in it and what is damaged.
    Check {
        /// The folder that `store.path` names.
        path: PathBuf,
    },
    /// Rebuild the store from all that can be read; the old files are kept beside it.
    Repair {
        /// The folder that `store.path` names.
        path: PathBuf,
    },
    /// Print the store as lines of JSON.
    Export {
        /// The folder that `store.path` names.
        path: PathBuf,
    },
    /// Read the lines that `export` prints from standard input into a new store.
    Import {
        /// The folder that `store.path` names.
        path: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a key, and print it with its hash. Only the hash goes into a configuration.
    New {
        /// The tenant that it is for; then the lines to add to the configuration are printed as well.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Print the hash of the key on standard input.
    Hash,
}

/// Runs the command that was called. A panic is an internal fault and not the user's.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    catch_unwind(AssertUnwindSafe(|| cli.run())).unwrap_or(ExitCode::from(INTERNAL_FAULT))
}

impl Cli {
    fn run(self) -> ExitCode {
        match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(serve) => {
                serve::run(serve.config, if serve.upgrade { Start::Upgrade } else { Start::Fresh })
            }
            Command::Check { file, strict } => {
                check::run(&file, if strict { check::Depth::Strict } else { check::Depth::Text })
            }
            Command::Explain { file, key, request, endpoint, headers, json } => {
                let form = if json { explain::Form::Json } else { explain::Form::Text };
                explain::run(&file, &explain::Asked { key, request, endpoint, headers }, form)
            }
            Command::Schema => schema::run(),
            Command::Key(Key::New { tenant }) => key::new(tenant.as_deref()),
            Command::Key(Key::Hash) => key::hash(),
            Command::Store(Store::Check { path }) => store::check(&path),
            Command::Store(Store::Repair { path }) => store::repair(&path),
            Command::Store(Store::Export { path }) => store::export(&path),
            Command::Store(Store::Import { path }) => store::import(&path),
            Command::Simulate { listen } => simulate::run(listen),
            Command::Healthcheck { config } => healthcheck::run(&config),
            Command::Completions { shell } => completions(shell),
        }
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
    say(&String::from_utf8_lossy(&script))
}

/// Prints a result; a reader that has left early (`| head`) is no fault.
fn say(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: cannot write: {error}\n"));
            ExitCode::from(INTERNAL_FAULT)
        }
    }
}

/// Prints what is not the result. When standard error is gone there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    let _: io::Result<()> = io::stderr().lock().write_all(text.as_bytes());
}
