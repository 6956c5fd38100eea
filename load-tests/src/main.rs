//! `load`: measures Weir beside nginx and beside no gateway at all, on this machine, in one run.
//! It starts what it measures itself and ends it by its own process id. `README.md` tells what each row means.

mod bench;
mod beside;
mod client;
mod drive;
mod gateway;
mod machine;
mod process;
mod reload;
mod report;
mod sample;
mod scenario;
mod targets;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The same allocator as the gateway's, which stands where the simulator and the generator are not to be slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The load generator of Weir.
#[derive(Parser)]
#[command(name = "load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure every scenario, or some, and write the results
    Bench(Bench),
    /// The provider simulator as a server of its own
    Simulate {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// What is measured, and how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bench {
    /// The gateway's binary; without it nginx and the simulator are measured alone
    #[arg(long)]
    weir: Option<PathBuf>,
    /// nginx's binary; `none` leaves it out
    #[arg(long, default_value = "nginx")]
    nginx: String,
    /// Redis's binary; `none` leaves out what is shared through it
    #[arg(long, default_value = "redis-server")]
    redis: String,
    /// How often each gateway is measured in each scenario, in turn; medians of the rounds are reported
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of measurement in each round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only the scenarios whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Keys in the large configuration
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Models in the large configuration
    #[arg(long, default_value_t = 10_000)]
    models: usize,
    /// Streams that are held idle
    #[arg(long, default_value_t = 5_000)]
    held: usize,
    /// Where the results are written
    #[arg(long, default_value = "load-tests/RESULTS.md")]
    out: PathBuf,
}

impl Bench {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.1))
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(bench) => runtime().and_then(|runtime| runtime.block_on(measured(&bench))),
        Command::Simulate { listen } => runtime().and_then(|runtime| runtime.block_on(simulator::run(listen))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: the generator has one core, and shares it with the simulator where there are only two.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Dropping the bench on the way out ends what it started, so an interrupt is a normal exit.
async fn measured(bench: &Bench) -> io::Result<()> {
    tokio::select! {
        outcome = bench::run(bench) => outcome,
        interrupted = tokio::signal::ctrl_c() => interrupted.and(Err(io::Error::other("interrupted"))),
    }
}
