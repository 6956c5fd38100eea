//! `weir serve`: finds the configuration, says what it is, and serves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{check, complain};
use crate::config::{self, Faults, Loaded, Origin};
use crate::serve::Start;
use crate::store;

/// What is served when no configuration is named.
const DEFAULT: &str = "weir.yaml";

pub(super) fn run(config: Option<PathBuf>, start: Start) -> ExitCode {
    store::prepare();
    let loaded = match find(config) {
        Ok(loaded) => loaded,
        Err(faults) => return check::refuse(&faults),
    };
    check::warn(&loaded.warnings);
    if loaded.origin != Origin::Quickstart {
        check::warn(&loaded.pending);
    }
    if loaded.origin == Origin::Quickstart {
        complain(&introduction(&loaded));
    }
    crate::serve::serve(loaded, start)
}

/// The file that was named, else `./weir.yaml`, else the quickstart.
fn find(config: Option<PathBuf>) -> Result<Loaded, Faults> {
    let default = Path::new(DEFAULT);
    match config {
        Some(path) => config::load(&path),
        // A link that leads nowhere is a fault, not a reason to serve something else.
        None if default.symlink_metadata().is_ok() => config::load(default),
        None => config::quickstart(),
    }
}

fn introduction(loaded: &Loaded) -> String {
    let of = |simulated: bool| {
        let names = loaded.config.providers.iter().filter(|(_, provider)| provider.simulated == simulated);
        names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let server = &loaded.config.server;
    let address = server.listen.0.first().map(|listener| listener.address.to_string()).unwrap_or_default();
    let real = of(false);
    let real = if real.is_empty() { real } else { format!("  real providers       {real}\n") };
    format!(
        r#"weir: no --config and no ./{DEFAULT}, so this is the built-in quickstart
{real}  simulated providers  {}
  tenant, key          demo, sk-weir-demo (known to everybody: keep it on this machine)
  store                {}

try it:
  curl http://{address}/v1/chat/completions -H 'authorization: Bearer sk-weir-demo' -H 'content-type: application/json' -d '{{"model":"gpt-main","messages":[{{"role":"user","content":"Hello"}}]}}'

"#,
        of(true),
        loaded.config.store.path.display(),
    )
}
