#!/usr/bin/env bash
# Measures Weir beside nginx and beside no gateway, and writes load-tests/RESULTS.md.
# Needs a Rust toolchain; installs nginx, redis-server and taskset by apt-get where they are missing. Arguments go to `load bench`:
#   load-tests/bench.sh --rounds 5 --seconds 5
#   load-tests/bench.sh --only json
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
say() { printf '==> %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

install_missing() {
    local packages=() sudo=()
    has nginx || [ -x /usr/sbin/nginx ] || packages+=(nginx)
    has redis-server || packages+=(redis-server)
    has taskset || packages+=(util-linux)
    [ ${#packages[@]} -gt 0 ] || return 0
    has apt-get || { say "these are missing, and there is no apt-get to install them with: ${packages[*]}"; exit 1; }
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    say "installing ${packages[*]}"
    "${sudo[@]}" apt-get update
    # The package would start a server of its own; the bench needs the program only.
    local policy=/usr/sbin/policy-rc.d made=''
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod +x "$policy"
        made=yes
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
    [ -z "$made" ] || "${sudo[@]}" rm -f "$policy"
}

install_missing
export PATH=$PATH:/usr/sbin:$HOME/.cargo/bin

say 'building Weir and the load generator in release mode'
cargo build --release --locked --package gateway --bin weir --package load-tests --bin load

# Thousands of streams are held open on both sides of the gateway.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

pin=()
if has taskset && [ "$(nproc)" -gt 1 ]; then pin=(taskset -c 0); fi
say "measuring; the load average now is $(cut -d' ' -f1 /proc/loadavg)"
exec "${pin[@]}" "$target/release/load" bench --weir "$target/release/weir" "$@"
